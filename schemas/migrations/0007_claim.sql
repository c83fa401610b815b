-- Claims in flight: what schedulers have picked and the hosts' own figures do not show yet.
-- Grain: one row a consumer. Written by vacancy.claim() and vacancy.release() alone, and settled by the trigger below.
-- A claim counts against its host from its commit until it is settled, released (its row goes) or expired.
CREATE TABLE vacancy.claim (
  claimed_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  settled_at timestamptz,
  vcpus integer NOT NULL CHECK (vcpus >= 0),
  memory_mb integer NOT NULL CHECK (memory_mb >= 0),
  disk_gb integer NOT NULL CHECK (disk_gb >= 0),
  consumer uuid PRIMARY KEY,
  host_id text NOT NULL
) WITH (
  -- Rows live for a minute or two, so dead ones soon outnumber the living: clean up early, and finish at once.
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_insert_scale_factor = 0.5,
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);

-- What counts against a host, without reading what no longer does.
CREATE INDEX claim_in_flight ON vacancy.claim (host_id) WHERE settled_at IS NULL;
-- What is due to be swept, oldest first.
CREATE INDEX claim_expiry ON vacancy.claim (expires_at);

COMMENT ON TABLE vacancy.claim IS 'What schedulers picked and hosts do not show yet. Written by claim() and release() alone.';
COMMENT ON COLUMN vacancy.claim.expires_at IS 'From then on it no longer counts, whatever has become of it.';
COMMENT ON COLUMN vacancy.claim.settled_at IS 'When the host''s row listed the consumer; from then on the row''s own figures hold it.';
COMMENT ON COLUMN vacancy.claim.memory_mb IS 'MiB claimed.';
COMMENT ON COLUMN vacancy.claim.disk_gb IS 'GiB claimed.';

-- A claim is settled in the very transaction that makes its consumer part of the host's figures: never counted twice, not
-- even for a moment, and not again when the host no longer lists the consumer. A consumer that leaves the list is settled
-- as well, for the claim that committed while it was listed.
-- SKIP LOCKED: the sink never waits for a scheduler. What it skips is being released.
CREATE FUNCTION vacancy.settle_claims() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown uuid[] := NEW.recent_consumers;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    shown := shown || OLD.recent_consumers;
  END IF;
  UPDATE vacancy.claim SET settled_at = clock_timestamp()
  WHERE consumer = ANY (ARRAY(
    SELECT consumer FROM vacancy.claim
    WHERE consumer = ANY (shown)
      AND host_id = NEW.host_id
      AND settled_at IS NULL
      AND expires_at > statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ));
  RETURN NULL;
END
$$;

CREATE TRIGGER settle_claims AFTER UPDATE ON vacancy.host
FOR EACH ROW WHEN (NEW.recent_consumers IS DISTINCT FROM OLD.recent_consumers) EXECUTE FUNCTION vacancy.settle_claims();

CREATE TRIGGER settle_claims_of_new AFTER INSERT ON vacancy.host
FOR EACH ROW WHEN (NEW.recent_consumers <> '{}') EXECUTE FUNCTION vacancy.settle_claims();

REVOKE ALL ON FUNCTION vacancy.settle_claims() FROM PUBLIC;

-- Where a claim starts to look: a host's place in a random order, so that a run of neighbours is a random sample.
-- The unit columns are what a claim checks of the inventories, taken out of the JSON once a write, not once a look.
-- None of them changes but with the inventory itself, so usage updates know nothing of them.
ALTER TABLE vacancy.host_inventory
  ADD COLUMN sample_key double precision NOT NULL DEFAULT random(),
  ADD COLUMN vcpus_min_unit bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'min_unit')::bigint) STORED,
  ADD COLUMN vcpus_max_unit bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'max_unit')::bigint) STORED,
  ADD COLUMN vcpus_step_size bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'step_size')::bigint) STORED,
  ADD COLUMN memory_mb_min_unit bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'min_unit')::bigint) STORED,
  ADD COLUMN memory_mb_max_unit bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'max_unit')::bigint) STORED,
  ADD COLUMN memory_mb_step_size bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'step_size')::bigint) STORED,
  ADD COLUMN disk_gb_min_unit bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'min_unit')::bigint) STORED,
  ADD COLUMN disk_gb_max_unit bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'max_unit')::bigint) STORED,
  ADD COLUMN disk_gb_step_size bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'step_size')::bigint) STORED;

CREATE INDEX host_inventory_sample ON vacancy.host_inventory (sample_key) INCLUDE (host_id)
WHERE NOT retired AND status = 'ENABLED';

COMMENT ON COLUMN vacancy.host_inventory.sample_key IS 'Place in a random order, 0 to 1; fixed when the row is made.';

-- The one place where free capacity is computed: what the host says less the claims in flight.
-- Grain: one row a host that has a usage row.
-- statement_timestamp() and not now(), which stands still in a transaction and would let silent hosts look fresh.
CREATE VIEW vacancy.host_free AS
SELECT
  h.host_id,
  statement_timestamp() - h.observed_at AS age,
  h.observed_at,
  h.window_start,
  h.window_end,
  h.samples,
  h.vcpus_capacity,
  h.vcpus_free - claimed.vcpus AS vcpus_free,
  least(h.vcpus_free_min, h.vcpus_free - claimed.vcpus) AS vcpus_free_min,
  h.memory_mb_capacity,
  h.memory_mb_free - claimed.memory_mb AS memory_mb_free,
  least(h.memory_mb_free_min, h.memory_mb_free - claimed.memory_mb) AS memory_mb_free_min,
  h.memory_mb_available - claimed.memory_mb AS memory_mb_available,
  h.disk_gb_capacity,
  h.disk_gb_free - claimed.disk_gb AS disk_gb_free,
  least(h.disk_gb_free_min, h.disk_gb_free - claimed.disk_gb) AS disk_gb_free_min,
  h.disk_gb_available - claimed.disk_gb AS disk_gb_available,
  h.cpu_utilization,
  h.cpu_iowait,
  h.cpu_steal,
  h.disk_read_bytes_per_s,
  h.disk_write_bytes_per_s,
  h.net_rx_bytes_per_s,
  h.net_tx_bytes_per_s,
  h.cpu_pressure,
  h.memory_pressure,
  h.io_pressure,
  h.instances,
  h.recent_consumers,
  claimed.claims,
  claimed.vcpus AS vcpus_claimed,
  claimed.memory_mb AS memory_mb_claimed,
  claimed.disk_gb AS disk_gb_claimed
FROM vacancy.host AS h
CROSS JOIN LATERAL (
  SELECT
    count(*) AS claims,
    coalesce(sum(c.vcpus), 0) AS vcpus,
    coalesce(sum(c.memory_mb), 0) AS memory_mb,
    coalesce(sum(c.disk_gb), 0) AS disk_gb
  FROM vacancy.claim AS c
  WHERE c.host_id = h.host_id
    AND c.settled_at IS NULL
    -- IS TRUE keeps this from the sweep's index, which a plan made while the table was empty would take.
    AND (c.expires_at > statement_timestamp()) IS TRUE
    -- Listed already when the claim was made: the host's figures hold it.
    AND NOT (c.consumer = ANY (h.recent_consumers))
) AS claimed;

-- What people and schedulers read: what each host is, what it has free, and why it is out if it is.
CREATE OR REPLACE VIEW vacancy.schedulable_host AS
SELECT
  i.host_id,
  i.name,
  i.zone,
  i.status,
  CASE
    WHEN i.status = 'DISABLED' THEN concat_ws(': ', 'disabled', nullif(i.status_reason, ''))
    WHEN f.host_id IS NULL THEN 'no usage yet'
    WHEN f.age > (SELECT vacancy.max_age()) THEN 'stale'
  END AS reason,
  f.age,
  f.observed_at,
  f.window_start,
  f.window_end,
  f.samples,
  f.vcpus_capacity,
  f.vcpus_free,
  f.vcpus_free_min,
  f.memory_mb_capacity,
  f.memory_mb_free,
  f.memory_mb_free_min,
  f.memory_mb_available,
  f.disk_gb_capacity,
  f.disk_gb_free,
  f.disk_gb_free_min,
  f.disk_gb_available,
  f.cpu_utilization,
  f.cpu_iowait,
  f.cpu_steal,
  f.disk_read_bytes_per_s,
  f.disk_write_bytes_per_s,
  f.net_rx_bytes_per_s,
  f.net_tx_bytes_per_s,
  f.cpu_pressure,
  f.memory_pressure,
  f.io_pressure,
  f.instances,
  f.recent_consumers,
  i.boot_id,
  i.inventories,
  i.traits,
  i.aggregates,
  i.numa_cells,
  i.pci_pools,
  i.reporting_interval_ms,
  i.agent_version,
  i.observed_at AS inventory_observed_at,
  coalesce(f.claims, 0) AS claims,
  f.vcpus_claimed,
  f.memory_mb_claimed,
  f.disk_gb_claimed
FROM vacancy.host_inventory AS i
LEFT JOIN vacancy.host_free AS f ON f.host_id = i.host_id
WHERE NOT i.retired;

COMMENT ON VIEW vacancy.schedulable_host IS 'Hosts that are not retired, less the claims in flight; reason is null where one may be picked.';
COMMENT ON COLUMN vacancy.schedulable_host.vcpus_free IS 'Capacity less what instances hold and claims in flight; memory_mb and disk_gb alike.';
COMMENT ON COLUMN vacancy.schedulable_host.memory_mb_available IS 'MiB that the kernel says can be had, less claims in flight.';
COMMENT ON COLUMN vacancy.schedulable_host.disk_gb_available IS 'GiB free on the instances'' file system, less claims in flight.';
COMMENT ON COLUMN vacancy.schedulable_host.claims IS 'Claims in flight on the host.';

-- Group roles' rights on what is new. The job needs none: the trigger settles with the owner's.
GRANT SELECT ON vacancy.claim TO vacancy_reader;
