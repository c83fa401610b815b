-- Everything that holds state: roles, tables, their indexes and types. The functions of their stored generated columns are in
-- 0001, all others and the views in ../functions and ../views (../README.md).

-- Roles without a login: an operator grants them to login roles (docs/tables.md).
-- Roles belong to the whole cluster, so the migration of another database may be making them at this moment.
DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['vacancy_job', 'vacancy_scheduler', 'vacancy_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA vacancy TO vacancy_job, vacancy_scheduler, vacancy_reader;
GRANT SELECT ON vacancy.schema_migration, vacancy.schema_source TO vacancy_reader;

-- What every host has free and how busy it is.
-- Grain: one row a host, rewritten by the job alone for as long as the host reports. Key: host_id.
-- Every update is HOT: the primary key is the only index, and a page keeps room for a second version of its rows
-- (docs/tables.md has the measurement). An index on a column that changes would end that.
CREATE TABLE vacancy.host (
  -- 8-byte columns first, never-null before nullable, text last: no byte of alignment padding.
  observed_at timestamptz NOT NULL,
  window_start timestamptz NOT NULL,
  window_end timestamptz NOT NULL,
  samples bigint NOT NULL,
  vcpus_capacity bigint NOT NULL,
  vcpus_free bigint NOT NULL,
  vcpus_free_min bigint NOT NULL,
  memory_mb_capacity bigint NOT NULL,
  memory_mb_free bigint NOT NULL,
  memory_mb_free_min bigint NOT NULL,
  memory_mb_available bigint NOT NULL,
  disk_gb_capacity bigint NOT NULL,
  disk_gb_free bigint NOT NULL,
  disk_gb_free_min bigint NOT NULL,
  disk_gb_available bigint NOT NULL,
  cpu_utilization double precision,
  cpu_iowait double precision,
  cpu_steal double precision,
  disk_read_bytes_per_s double precision,
  disk_write_bytes_per_s double precision,
  net_rx_bytes_per_s double precision,
  net_tx_bytes_per_s double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision,
  instances integer NOT NULL,
  host_id text PRIMARY KEY,
  recent_consumers uuid[] NOT NULL,
  anomalies integer NOT NULL DEFAULT 0
) WITH (
  fillfactor = 48,
  -- Page pruning cleans up after the updates, so vacuum finds next to nothing: let it finish quickly, and never let it
  -- ask for the exclusive lock that giving pages back takes.
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off,
  -- ANALYZE holds a snapshot, and while it does no page is pruned: once in a hundred updates of each row is enough.
  autovacuum_analyze_scale_factor = 100
);

COMMENT ON TABLE vacancy.host IS 'One row a host: free, least free, rates. Written by the job alone.';
COMMENT ON COLUMN vacancy.host.observed_at IS 'Append time of the newest event in the row; never goes back.';
COMMENT ON COLUMN vacancy.host.window_start IS 'Start of the window that samples, *_free_min and the rates cover.';
COMMENT ON COLUMN vacancy.host.window_end IS 'End of that window.';
COMMENT ON COLUMN vacancy.host.samples IS 'Usage events in the window.';
COMMENT ON COLUMN vacancy.host.vcpus_capacity IS '(total - reserved) * allocation ratio; memory_mb (MiB) and disk_gb (GiB) alike.';
COMMENT ON COLUMN vacancy.host.vcpus_free IS 'Capacity less what instances hold, at observed_at; memory_mb and disk_gb alike.';
COMMENT ON COLUMN vacancy.host.vcpus_free_min IS 'Least free in the window; memory_mb and disk_gb alike.';
COMMENT ON COLUMN vacancy.host.memory_mb_available IS 'MiB that the kernel says can be had without swapping.';
COMMENT ON COLUMN vacancy.host.disk_gb_available IS 'GiB free on the file system that holds the instances'' disks.';
COMMENT ON COLUMN vacancy.host.cpu_utilization IS 'Fraction of all CPUs busy in the window, 0 to 1. Null: not known yet.';
COMMENT ON COLUMN vacancy.host.cpu_iowait IS 'Fraction of all CPUs idle for I/O, 0 to 1. Null: not known.';
COMMENT ON COLUMN vacancy.host.cpu_steal IS 'Fraction of all CPUs taken by the hypervisor below, 0 to 1. Null: not known.';
COMMENT ON COLUMN vacancy.host.cpu_pressure IS 'Fraction of time that some task waited for a CPU; memory and io alike. Null: not known.';
COMMENT ON COLUMN vacancy.host.instances IS 'Instances on the host at observed_at.';
COMMENT ON COLUMN vacancy.host.recent_consumers IS 'Instances that the host began to count in the last minutes.';
COMMENT ON COLUMN vacancy.host.anomalies IS 'Bits: 1 several nodes report under this id, 2 the node''s clock went back, 4 a fraction was above 1.';

REVOKE ALL ON FUNCTION vacancy.pci_kinds(jsonb), vacancy.resource_classes(jsonb), vacancy.numa_free(jsonb) FROM PUBLIC;
-- Whoever writes a row calls the functions of its generated columns.
GRANT EXECUTE ON FUNCTION vacancy.pci_kinds(jsonb), vacancy.resource_classes(jsonb), vacancy.numa_free(jsonb)
TO vacancy_job;

-- What every host is: names, status, resource classes, traits, topology.
-- Grain: one row a host, rewritten by the job alone on start, on change and every few minutes. Key: host_id.
-- A retired host keeps a row, its tombstone, in which everything but host_id, observed_at and retired is null.
-- The generated columns are what claims look for, taken out of the JSON once a write and not once a look.
CREATE TABLE vacancy.host_inventory (
  observed_at timestamptz NOT NULL,
  -- A column of its own and not an expression over observed_at, since an index on that would end HOT updates.
  retired_at timestamptz GENERATED ALWAYS AS (CASE WHEN retired THEN observed_at END) STORED,
  reporting_interval_ms bigint,
  retired boolean NOT NULL DEFAULT false,
  host_id text PRIMARY KEY,
  boot_id text,
  name text,
  zone text,
  status text CHECK (status IN ('ENABLED', 'DISABLED')),
  status_reason text,
  agent_version text,
  inventories jsonb,
  traits text[],
  aggregates text[],
  numa_cells jsonb,
  pci_pools jsonb,
  sample_key double precision NOT NULL DEFAULT random(),
  vcpus_min_unit bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'min_unit')::bigint) STORED,
  vcpus_max_unit bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'max_unit')::bigint) STORED,
  vcpus_step_size bigint GENERATED ALWAYS AS ((inventories->'VCPU'->>'step_size')::bigint) STORED,
  memory_mb_min_unit bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'min_unit')::bigint) STORED,
  memory_mb_max_unit bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'max_unit')::bigint) STORED,
  memory_mb_step_size bigint GENERATED ALWAYS AS ((inventories->'MEMORY_MB'->>'step_size')::bigint) STORED,
  disk_gb_min_unit bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'min_unit')::bigint) STORED,
  disk_gb_max_unit bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'max_unit')::bigint) STORED,
  disk_gb_step_size bigint GENERATED ALWAYS AS ((inventories->'DISK_GB'->>'step_size')::bigint) STORED,
  allocated jsonb,
  resource_classes text[] GENERATED ALWAYS AS (vacancy.resource_classes(inventories)) STORED,
  pci_kinds jsonb GENERATED ALWAYS AS (vacancy.pci_kinds(pci_pools)) STORED,
  numa_free jsonb GENERATED ALWAYS AS (vacancy.numa_free(numa_cells)) STORED,
  source text DEFAULT 'unknown',
  shares boolean NOT NULL
    GENERATED ALWAYS AS (coalesce('MISC_SHARES_VIA_AGGREGATE' = ANY (traits), false)) STORED,
  CONSTRAINT present_unless_retired CHECK (retired OR (name IS NOT NULL AND status IS NOT NULL))
) WITH (
  fillfactor = 70
);

-- None of the indexes holds what changes when instances come and go, so that such updates stay HOT.
-- The tombstones that are due.
CREATE INDEX host_inventory_tombstones ON vacancy.host_inventory (retired_at) WHERE retired_at IS NOT NULL;
-- A random sample: a run of neighbours in a random order.
CREATE INDEX host_inventory_sample ON vacancy.host_inventory (sample_key) INCLUDE (host_id)
WHERE NOT retired AND status = 'ENABLED';
-- Hosts that have a kind of device or a resource class at all, free or not.
CREATE INDEX host_inventory_offers ON vacancy.host_inventory USING gin (pci_kinds jsonb_path_ops, resource_classes)
WHERE NOT retired;
-- Storage pools by name.
CREATE INDEX host_inventory_pools ON vacancy.host_inventory (name) WHERE shares AND NOT retired;
-- Hosts near a storage pool.
CREATE INDEX host_inventory_aggregates ON vacancy.host_inventory USING gin (aggregates) WHERE NOT retired;

COMMENT ON TABLE vacancy.host_inventory IS 'One row a host: what it is. Written by the job alone.';
COMMENT ON COLUMN vacancy.host_inventory.observed_at IS 'Append time of the newest inventory event; never goes back.';
COMMENT ON COLUMN vacancy.host_inventory.retired IS 'True: a tombstone. It keeps late usage out and goes after 7 days.';
COMMENT ON COLUMN vacancy.host_inventory.status_reason IS 'Why the host is disabled, in the operator''s words.';
COMMENT ON COLUMN vacancy.host_inventory.inventories IS 'By resource class: total, reserved, min_unit, max_unit, step_size, allocation_ratio.';
COMMENT ON COLUMN vacancy.host_inventory.reporting_interval_ms IS 'ms between two usage events, as the agent is configured.';
COMMENT ON COLUMN vacancy.host_inventory.sample_key IS 'Place in a random order, 0 to 1; fixed when the row is made.';
COMMENT ON COLUMN vacancy.host_inventory.allocated IS 'By resource class: what instances hold. Null: the host does not say.';
COMMENT ON COLUMN vacancy.host_inventory.resource_classes IS 'The keys of inventories.';
COMMENT ON COLUMN vacancy.host_inventory.pci_kinds IS 'pci_pools without total and free, for the index: pci_kinds @> ''[{"vendor_id": "10de"}]''.';
COMMENT ON COLUMN vacancy.host_inventory.numa_free IS 'By cell: how many CPUs are free, and huge pages by size in KiB.';
COMMENT ON COLUMN vacancy.host_inventory.source IS 'host, libvirt, cinder, notifications, ceilometer, simulator or what a collector of one''s own calls itself; unknown: its agent is too old to say.';
COMMENT ON COLUMN vacancy.host_inventory.shares IS 'True: no host but a storage pool, which the hosts of its aggregates share.';

-- Claims in flight: what schedulers have picked and the hosts' own figures do not show yet.
-- Grain: one row a consumer. Written by claim(), note_claim() and release() alone, and settled by settle_claims().
-- A claim counts against its host from its commit until it is settled, released (its row goes) or expired.
CREATE TABLE vacancy.claim (
  claimed_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  settled_at timestamptz,
  vcpus integer NOT NULL CHECK (vcpus >= 0),
  memory_mb integer NOT NULL CHECK (memory_mb >= 0),
  disk_gb integer NOT NULL CHECK (disk_gb >= 0),
  consumer uuid PRIMARY KEY,
  host_id text NOT NULL,
  -- Both are null for a claim of VCPUs, memory and disk alone.
  held jsonb,
  shown_at timestamptz
) WITH (
  -- Rows live for a minute or two, so dead ones soon outnumber the living: clean up early, and finish at once.
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_insert_scale_factor = 0.5,
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);

-- What counts against a host, without reading what no longer does.
CREATE INDEX claim_in_flight ON vacancy.claim (host_id) WHERE settled_at IS NULL;
-- What has expired, oldest first.
CREATE INDEX claim_expiry ON vacancy.claim (expires_at);
-- What claims hold of a host's devices, cells and classes.
CREATE INDEX claim_held ON vacancy.claim (host_id) WHERE held IS NOT NULL;

COMMENT ON TABLE vacancy.claim IS 'What schedulers picked and hosts do not show yet. Written by claim(), note_claim() and release() alone.';
COMMENT ON COLUMN vacancy.claim.expires_at IS 'From then on it no longer counts, whatever has become of it.';
COMMENT ON COLUMN vacancy.claim.settled_at IS 'When the host''s row listed the consumer; from then on the row''s own figures hold it.';
COMMENT ON COLUMN vacancy.claim.memory_mb IS 'MiB claimed.';
COMMENT ON COLUMN vacancy.claim.disk_gb IS 'GiB claimed.';
COMMENT ON COLUMN vacancy.claim.held IS 'How much of what on the host: "numa 0 cpus", "numa 0 pages 2048", "pci {…}" (a pool), "CUSTOM_…" (a class).';
COMMENT ON COLUMN vacancy.claim.shown_at IS 'observed_at of the host row that settled it, where it holds anything; the next inventory holds that.';

-- Since when a host's promises and measurements have not agreed, as far as somebody looked.
-- Grain: one row a host and kind. Written by record_drift() alone.
CREATE TABLE vacancy.drift (
  host_id text NOT NULL,
  kind text NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (host_id, kind)
);

COMMENT ON TABLE vacancy.drift IS 'Since when hosts drift; written by record_drift() alone.';
COMMENT ON COLUMN vacancy.drift.since IS 'Append time of the row in which it was first seen: it is so since then, or for longer.';

-- A request for a host, as parse_request() takes it from JSON. Null: no constraint.
CREATE TYPE vacancy.weights AS (
  vcpus double precision,
  memory_mb double precision,
  disk_gb double precision,
  load double precision,
  age double precision
);

CREATE TYPE vacancy.request AS (
  vcpus bigint,
  memory_mb bigint,
  disk_gb bigint,
  distinct_hosts boolean,
  required text[],
  any_of jsonb,
  forbidden text[],
  aggregates text[],
  zone text,
  include text[],
  avoid text[],
  max_cpu_utilization double precision,
  max_cpu_steal double precision,
  max_cpu_pressure double precision,
  max_memory_pressure double precision,
  max_io_pressure double precision,
  min_memory_mb_available bigint,
  strategy text,
  weights vacancy.weights,
  sample integer,
  max_age interval,
  claim_ttl interval,
  resources jsonb,  -- by resource class
  numa jsonb,  -- cpus and pages (by size in KiB) that one cell must have
  pci jsonb,  -- as parse_pci() gives it
  near text,  -- a storage pool, by id or name, with which the host must share an aggregate
  near_aggregates text[]  -- the aggregates of that pool
);

-- What INSERT ... ON CONFLICT DO UPDATE needs: SELECT, because it reads EXCLUDED's columns.
GRANT SELECT, INSERT, UPDATE ON vacancy.host, vacancy.host_inventory TO vacancy_job;
GRANT SELECT ON vacancy.host, vacancy.host_inventory, vacancy.claim, vacancy.drift TO vacancy_reader;
