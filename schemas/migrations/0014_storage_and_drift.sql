-- Affinity to storage, and drift.

-- Storage pools are providers that share by aggregate, as Placement calls them: rows like those of hosts, but nothing is ever
-- claimed of them.
ALTER TABLE vacancy.host_inventory
  ADD COLUMN shares boolean NOT NULL
    GENERATED ALWAYS AS (coalesce('MISC_SHARES_VIA_AGGREGATE' = ANY (traits), false)) STORED;

COMMENT ON COLUMN vacancy.host_inventory.shares IS 'No host but a pool of storage, shared by the hosts of its aggregates.';

CREATE INDEX host_inventory_pools ON vacancy.host_inventory (name) WHERE shares AND NOT retired;
-- Who is near a pool. Neither changes with what a host has free, so such updates stay HOT.
CREATE INDEX host_inventory_aggregates ON vacancy.host_inventory USING gin (aggregates) WHERE NOT retired;

-- As in 0013, and says of a pool what it is, unless it is silent.
CREATE OR REPLACE VIEW vacancy.schedulable_host AS
SELECT
  i.host_id,
  i.name,
  i.zone,
  i.status,
  CASE
    WHEN i.status = 'DISABLED' AND NOT i.shares THEN concat_ws(': ', 'disabled', nullif(i.status_reason, ''))
    WHEN f.host_id IS NULL THEN 'no usage yet'
    WHEN f.age > (SELECT vacancy.max_age()) THEN 'stale'
    WHEN i.shares THEN coalesce(nullif(i.status_reason, ''), 'pool')
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
  f.disk_gb_claimed,
  coalesce(i.source, 'unknown') AS source,
  i.shares
FROM vacancy.host_inventory AS i
LEFT JOIN vacancy.host_free AS f ON f.host_id = i.host_id
WHERE NOT i.retired;

COMMENT ON COLUMN vacancy.schedulable_host.shares IS 'A pool of storage, which is never picked.';

-- As in 0009, without pools.
CREATE OR REPLACE VIEW vacancy.freshness AS
SELECT
  count(*) AS hosts,
  count(*) FILTER (WHERE s.reason IS NULL) AS hosts_schedulable,
  count(*) FILTER (WHERE s.status = 'DISABLED') AS hosts_disabled,
  count(*) FILTER (WHERE s.reason = 'no usage yet') AS hosts_silent,
  count(*) FILTER (WHERE s.reason = 'stale') AS hosts_stale,
  (
    SELECT count(*) FROM vacancy.host AS h
    WHERE NOT EXISTS (SELECT FROM vacancy.host_inventory AS i WHERE i.host_id = h.host_id)
  ) AS hosts_without_inventory,
  extract(epoch FROM min(s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision AS age_min_seconds,
  extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision
    AS age_p50_seconds,
  extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision
    AS age_p99_seconds,
  extract(epoch FROM max(s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision AS age_max_seconds,
  coalesce(sum(s.claims), 0)::bigint AS claims_in_flight
FROM vacancy.schedulable_host AS s
WHERE NOT s.shares;

-- near: a pool, by id or name, with which the host must share an aggregate; near_aggregates: those of the pool.
ALTER TYPE vacancy.request ADD ATTRIBUTE near text, ADD ATTRIBUTE near_aggregates text[];

-- As in 0012, and near.
CREATE OR REPLACE FUNCTION vacancy.parse_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r vacancy.request := (0, 0, 0, false, '{}', '[]', '{}', '{}', NULL, '{}', '{}', NULL, NULL, NULL, NULL, NULL, 0,
    'spread', (1, 1, 1, 1, 0.1)::vacancy.weights, 24, NULL, '2 min', NULL, NULL, NULL, NULL, NULL);
  strangers jsonb := (document || coalesce(document->'weights', '{}')) - ARRAY[
    'vcpus', 'memory_mb', 'disk_gb', 'distinct_hosts', 'required', 'any_of', 'forbidden', 'aggregates', 'zone', 'include',
    'avoid', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure', 'max_memory_pressure', 'max_io_pressure',
    'min_memory_mb_available', 'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'load', 'age',
    'resources', 'numa', 'pci', 'near'
  ];
BEGIN
  IF strangers <> '{}' THEN
    RAISE EXCEPTION 'no such part of a request: %', (SELECT min(key) FROM jsonb_object_keys(strangers) AS key)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  r := jsonb_populate_record(r, jsonb_strip_nulls(document));
  IF least(r.vcpus, r.memory_mb, r.disk_gb) < 0 OR r.sample < 1 OR r.claim_ttl <= interval '0'
    OR r.max_age <= interval '0' THEN
    RAISE EXCEPTION 'amounts must not be negative, sample, claim_ttl and max_age must be positive'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF r.strategy NOT IN ('spread', 'pack', 'random') THEN
    RAISE EXCEPTION 'no such strategy: %; spread, pack or random', r.strategy USING ERRCODE = 'invalid_parameter_value';
  END IF;
  r.resources := nullif(r.resources, '{}');
  IF r.resources IS NOT NULL AND (r.resources ?| ARRAY['VCPU', 'MEMORY_MB', 'DISK_GB'] OR NOT vacancy.are_amounts(r.resources, 1)) THEN
    RAISE EXCEPTION 'resources must be whole amounts above 0 by class; VCPU, MEMORY_MB and DISK_GB are vcpus, memory_mb, disk_gb'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF r.numa IS NOT NULL THEN
    r.numa := CASE WHEN jsonb_typeof(r.numa) = 'object' THEN '{"cpus": 0, "pages": {}}' || r.numa END;
    IF (
      r.numa - ARRAY['cpus', 'pages'] = '{}'
      AND vacancy.are_amounts(r.numa - 'pages', 0)
      AND (r.numa->'pages' = '{}' OR vacancy.are_amounts(r.numa->'pages', 1))
    ) IS NOT TRUE THEN
      RAISE EXCEPTION 'numa has cpus and pages: whole amounts, of pages by size in KiB' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    r.numa := nullif(r.numa, '{"cpus": 0, "pages": {}}');
  END IF;
  IF r.pci IS NOT NULL THEN
    r.pci := vacancy.parse_pci(r.pci);
  END IF;
  RETURN r;
END
$$;

-- As in 0008, and looks up the pool that the host is to be near.
CREATE OR REPLACE FUNCTION vacancy.take_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r vacancy.request := vacancy.parse_request(document);
  setting text;
BEGIN
  IF r.max_age IS NOT NULL THEN
    setting := set_config('vacancy.max_age', r.max_age::text, true);
  END IF;
  IF r.near IS NOT NULL THEN
    SELECT i.aggregates INTO r.near_aggregates
    FROM vacancy.host_inventory AS i
    WHERE i.shares AND NOT i.retired AND r.near IN (i.name, i.host_id)
    ORDER BY i.observed_at DESC LIMIT 1;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'near: no such storage pool: %', r.near USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  RETURN r;
END
$$;

-- As in 0008, without pools, and with near.
CREATE OR REPLACE FUNCTION vacancy.judged(r vacancy.request)
RETURNS TABLE (
  host_id text,
  name text,
  ruled_out_by text[],
  score double precision,
  age interval,
  vcpus_free bigint,
  memory_mb_free bigint,
  disk_gb_free bigint,
  memory_mb_available bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_steal double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision
)
LANGUAGE sql STABLE AS $$
SELECT
  i.host_id,
  i.name,
  array_remove(ARRAY[
    CASE WHEN i.status = 'DISABLED' THEN 'disabled' END,
    CASE WHEN q.include <> '{}' AND NOT (i.host_id = ANY (q.include) OR i.name = ANY (q.include)) THEN 'include' END,
    CASE WHEN i.host_id = ANY (q.avoid) OR i.name = ANY (q.avoid) THEN 'avoid' END,
    CASE WHEN q.zone <> coalesce(i.zone, '') THEN 'zone' END,
    CASE WHEN q.aggregates <> '{}' AND NOT (i.aggregates && q.aggregates) THEN 'aggregates' END,
    CASE WHEN q.near IS NOT NULL AND (i.aggregates && q.near_aggregates) IS NOT TRUE THEN 'near ' || q.near END,
    CASE WHEN NOT (i.traits @> q.required) THEN 'required' END,
    CASE WHEN q.any_of <> '[]' AND EXISTS (
      SELECT FROM jsonb_array_elements(q.any_of) AS alternatives
      WHERE NOT alternatives ?| i.traits
    ) THEN 'any_of' END,
    CASE WHEN i.traits && q.forbidden THEN 'forbidden' END,
    CASE WHEN q.vcpus > 0 AND NOT (
      q.vcpus BETWEEN i.vcpus_min_unit AND i.vcpus_max_unit AND q.vcpus % nullif(i.vcpus_step_size, 0) = 0
    ) THEN 'vcpus_unit' END,
    CASE WHEN q.memory_mb > 0 AND NOT (
      q.memory_mb BETWEEN i.memory_mb_min_unit AND i.memory_mb_max_unit AND q.memory_mb % nullif(i.memory_mb_step_size, 0) = 0
    ) THEN 'memory_mb_unit' END,
    CASE WHEN q.disk_gb > 0 AND NOT (
      q.disk_gb BETWEEN i.disk_gb_min_unit AND i.disk_gb_max_unit AND q.disk_gb % nullif(i.disk_gb_step_size, 0) = 0
    ) THEN 'disk_gb_unit' END
  ], NULL) || coalesce(m.ruled_out_by, ARRAY['no usage yet']),
  m.score,
  m.age,
  m.vcpus_free,
  m.memory_mb_free,
  m.disk_gb_free,
  m.memory_mb_available,
  m.disk_gb_available,
  m.cpu_utilization,
  m.cpu_steal,
  m.cpu_pressure,
  m.memory_pressure,
  m.io_pressure
FROM vacancy.host_inventory AS i
CROSS JOIN (SELECT (r).* OFFSET 0) AS q  -- once, as in room()
LEFT JOIN vacancy.room(r) AS m ON m.host_id = i.host_id
WHERE NOT i.retired AND NOT i.shares
$$;

-- The ids of so many random hosts in any of these aggregates that are not disabled; found by index.
CREATE FUNCTION vacancy.hosts_near(of_pool text[], hosts integer) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET enable_bitmapscan = on AS $$
BEGIN
  RETURN ARRAY(
    SELECT i.host_id FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND i.aggregates && of_pool
    ORDER BY random() LIMIT hosts
  );
END
$$;

-- As in 0012, and of hosts near the pool where a glance at any has found none.
CREATE OR REPLACE FUNCTION vacancy.best_of_sample(r vacancy.request, hosts integer, glance boolean, at_most integer DEFAULT 8)
RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  complex boolean := vacancy.is_complex(r);
  look_at integer := CASE WHEN NOT complex THEN at_most WHEN glance THEN 8 ELSE hosts END;
  sampled text[];
  ranked text[];
  best text[] := '{}';
  candidate text;
BEGIN
  IF NOT glance AND r.near IS NOT NULL THEN
    sampled := vacancy.hosts_near(r.near_aggregates, hosts);
  ELSIF NOT glance AND complex THEN
    sampled := vacancy.hosts_that_offer(r, hosts);
  END IF;
  sampled := coalesce(sampled, vacancy.random_hosts(hosts));
  IF glance AND r.near IS NULL AND r.zone IS NULL AND r.any_of = '[]'
    AND r.required || r.forbidden || r.aggregates || r.include || r.avoid = '{}' THEN
    ranked := ARRAY(
      SELECT m.host_id FROM vacancy.room(r) AS m
      WHERE m.host_id = ANY (sampled) AND m.ruled_out_by = '{}'
      ORDER BY m.score DESC, random()
      LIMIT look_at
    );
  ELSE
    ranked := ARRAY(
      SELECT j.host_id FROM vacancy.judged(r) AS j
      WHERE j.host_id = ANY (sampled) AND j.ruled_out_by = '{}'
      ORDER BY j.score DESC, random()
      LIMIT look_at
    );
  END IF;
  IF NOT complex THEN
    RETURN ranked;
  END IF;
  FOREACH candidate IN ARRAY ranked LOOP
    IF (SELECT c.held IS NOT NULL FROM vacancy.complex_room(candidate, r.resources, r.numa, r.pci) AS c) THEN
      best := best || candidate;
      EXIT WHEN cardinality(best) = at_most;
    END IF;
  END LOOP;
  RETURN best;
END
$$;

-- As in 0012, and near.
CREATE OR REPLACE FUNCTION vacancy.look_at_all(r vacancy.request, OUT best text[], OUT refusal jsonb)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = on AS $$
WITH plain AS MATERIALIZED (
  SELECT
    j.host_id,
    j.name,
    j.score,
    j.ruled_out_by,
    CASE j.ruled_out_by[1]
      WHEN 'stale' THEN extract(epoch FROM j.age)
      WHEN 'vcpus_free' THEN j.vcpus_free
      WHEN 'memory_mb_free' THEN j.memory_mb_free
      WHEN 'disk_gb_free' THEN j.disk_gb_free
      WHEN 'memory_mb_available' THEN j.memory_mb_available
      WHEN 'disk_gb_available' THEN j.disk_gb_available
      WHEN 'cpu_utilization' THEN j.cpu_utilization
      WHEN 'cpu_steal' THEN j.cpu_steal
      WHEN 'cpu_pressure' THEN j.cpu_pressure
      WHEN 'memory_pressure' THEN j.memory_pressure
      WHEN 'io_pressure' THEN j.io_pressure
    END::double precision AS had
  FROM vacancy.judged(r) AS j
), offering AS MATERIALIZED (
  SELECT i.host_id FROM vacancy.host_inventory AS i
  WHERE vacancy.is_complex(r) AND NOT i.retired AND i.pci_kinds @> vacancy.kinds(r.pci)
    AND i.resource_classes @> coalesce(vacancy.resource_classes(r.resources), '{}')
), judged AS MATERIALIZED (
  SELECT * FROM plain WHERE NOT vacancy.is_complex(r) OR ruled_out_by <> '{}'
  UNION ALL
  SELECT p.host_id, p.name, p.score, c.missing, c.had
  FROM plain AS p
  JOIN offering AS o ON o.host_id = p.host_id
  CROSS JOIN LATERAL vacancy.complex_judged(p.host_id, r.resources, r.numa, r.pci) AS c
  WHERE vacancy.is_complex(r) AND p.ruled_out_by = '{}'
  UNION ALL
  -- Hosts without such devices and classes are not searched for free ones.
  SELECT
    p.host_id,
    p.name,
    p.score,
    ARRAY(SELECT class FROM jsonb_object_keys(r.resources) AS class WHERE NOT i.inventories ? class ORDER BY 1)
      || ARRAY(
        SELECT demand->>'name' FROM jsonb_array_elements(r.pci) AS demand
        WHERE NOT i.pci_kinds @> jsonb_build_array(demand->'pool')
      ),
    0
  FROM plain AS p
  JOIN vacancy.host_inventory AS i ON i.host_id = p.host_id
  WHERE vacancy.is_complex(r) AND p.ruled_out_by = '{}' AND NOT EXISTS (SELECT FROM offering AS o WHERE o.host_id = p.host_id)
), dimension (position, name, requested) AS (
  -- In the order of judged(), room() and complex_missing().
  VALUES
    (1, 'disabled', NULL::double precision), (2, 'include', NULL), (3, 'avoid', NULL), (4, 'zone', NULL),
    (5, 'aggregates', NULL), (5.5, 'near ' || r.near, NULL), (6, 'required', NULL), (7, 'any_of', NULL), (8, 'forbidden', NULL),
    (9, 'vcpus_unit', NULL), (10, 'memory_mb_unit', NULL), (11, 'disk_gb_unit', NULL), (12, 'no usage yet', NULL),
    (13, 'stale', extract(epoch FROM vacancy.max_age())), (14, 'vcpus_free', r.vcpus),
    (15, 'memory_mb_free', r.memory_mb), (16, 'disk_gb_free', r.disk_gb),
    (17, 'memory_mb_available', r.memory_mb + r.min_memory_mb_available), (18, 'disk_gb_available', r.disk_gb),
    (19, 'cpu_utilization', r.max_cpu_utilization), (20, 'cpu_steal', r.max_cpu_steal),
    (21, 'cpu_pressure', r.max_cpu_pressure), (22, 'memory_pressure', r.max_memory_pressure),
    (23, 'io_pressure', r.max_io_pressure), (27, 'numa', NULL), (29, 'pci', NULL)
  UNION ALL
  SELECT 24, asked.key || suffix.suffix, CASE suffix.suffix WHEN '' THEN asked.value::double precision END
  FROM jsonb_each_text(r.resources) AS asked, (VALUES (''), ('_allocated'), ('_unit')) AS suffix (suffix)
  UNION ALL
  SELECT 25, 'numa_cpus', (r.numa->>'cpus')::double precision
  UNION ALL
  SELECT 26, 'numa_pages_' || size.key, size.value::double precision FROM jsonb_each_text(r.numa->'pages') AS size
  UNION ALL
  SELECT 28, demand->>'name', max((demand->>'count')::double precision)
  FROM jsonb_array_elements(r.pci) AS demand GROUP BY demand->>'name'
), counted AS (
  SELECT d.position, d.name, d.requested, count(*) AS hosts
  FROM judged AS j JOIN dimension AS d ON d.name = j.ruled_out_by[1]
  GROUP BY d.position, d.name, d.requested
), last AS (
  SELECT * FROM counted ORDER BY position DESC, hosts DESC, name LIMIT 1
), nearest AS (
  SELECT j.host_id, j.name, j.had, j.ruled_out_by
  FROM last
  JOIN judged AS j ON j.ruled_out_by[1] = last.name
  ORDER BY cardinality(j.ruled_out_by), abs(j.had - last.requested), j.host_id
  LIMIT 1
)
SELECT
  ARRAY(SELECT host_id FROM judged WHERE ruled_out_by = '{}' ORDER BY score DESC, random() LIMIT 8),
  CASE WHEN NOT EXISTS (SELECT FROM judged WHERE ruled_out_by = '{}') THEN
    jsonb_build_object(
      'hosts', (SELECT count(*) FROM judged),
      'ruled_out', (SELECT coalesce(jsonb_object_agg(name, hosts), '{}') FROM counted),
      'dimension', coalesce((SELECT name FROM last), 'hosts'),
      'requested', (SELECT requested FROM last),
      'nearest', (
        SELECT jsonb_build_object('host_id', host_id, 'name', name, 'had', had, 'ruled_out_by', ruled_out_by)
        FROM nearest
      )
    )
  END
$$;

REVOKE ALL ON FUNCTION vacancy.hosts_near(text[], integer) FROM PUBLIC;

-- Where what a host has promised and what is measured there do not go together.
-- Grain: one row a host and kind, of hosts that report. Pools of storage have neither instances nor memory.
-- allocations_without_instances: it holds VCPUs or memory for instances and counts none (disk it holds for those shut off, too).
-- instances_without_allocations: it counts instances and holds neither VCPUs nor memory for them.
-- memory_missing: less memory is there than it may still promise (where a MiB may be promised twice, than half of that), by
-- more than a tolerance: this fraction of its memory: ALTER DATABASE … SET vacancy.drift_tolerance = '0.2' (without: 0.1).
CREATE VIEW vacancy.drifting AS
SELECT i.host_id, i.name, i.source, h.observed_at, d.kind, d.promised, d.measured
FROM vacancy.host_inventory AS i
JOIN vacancy.host AS h ON h.host_id = i.host_id
CROSS JOIN LATERAL (
  SELECT
    h.vcpus_capacity - h.vcpus_free AS vcpus_allocated,
    h.memory_mb_capacity - h.memory_mb_free AS memory_mb_allocated,
    floor(h.memory_mb_free / ratio.ratio)::bigint AS memory_mb_promised,
    h.memory_mb_capacity / ratio.ratio * coalesce(nullif(current_setting('vacancy.drift_tolerance', true), '')::double precision, 0.1)
      AS memory_mb_tolerance
  FROM (SELECT coalesce((i.inventories->'MEMORY_MB'->>'allocation_ratio')::double precision, 1) AS ratio) AS ratio
) AS f
CROSS JOIN LATERAL (
  VALUES
    (
      'allocations_without_instances', f.vcpus_allocated, h.instances::bigint,
      h.instances = 0 AND (f.vcpus_allocated > 0 OR f.memory_mb_allocated > 0)
    ),
    (
      'instances_without_allocations', f.vcpus_allocated, h.instances::bigint,
      h.instances > 0 AND f.vcpus_allocated <= 0 AND f.memory_mb_allocated <= 0
    ),
    (
      'memory_missing', f.memory_mb_promised, h.memory_mb_available,
      f.memory_mb_promised - h.memory_mb_available > f.memory_mb_tolerance
    )
) AS d (kind, promised, measured, drifts)
WHERE NOT i.retired AND NOT i.shares AND d.drifts AND statement_timestamp() - h.observed_at <= (SELECT vacancy.max_age());

-- Since when it is so, as far as somebody looked: record_drift() alone writes it. The job knows nothing of it.
-- Grain: one row a host and kind.
CREATE TABLE vacancy.drift (
  host_id text NOT NULL,
  kind text NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (host_id, kind)
);

CREATE VIEW vacancy.host_drift AS
SELECT
  n.host_id,
  n.name,
  n.source,
  n.kind,
  n.promised,
  n.measured,
  r.since,
  statement_timestamp() - r.since AS lasted
FROM vacancy.drifting AS n
LEFT JOIN vacancy.drift AS r ON r.host_id = n.host_id AND r.kind = n.kind;

COMMENT ON TABLE vacancy.drift IS 'Since when hosts drift; written by record_drift() alone.';
COMMENT ON COLUMN vacancy.drift.since IS 'Append time of the row in which it was first seen: it is so since then, or for longer.';
COMMENT ON VIEW vacancy.host_drift IS 'Hosts whose promises and measurements do not go together, and for how long.';
COMMENT ON COLUMN vacancy.host_drift.kind IS 'allocations_without_instances, instances_without_allocations or memory_missing.';
COMMENT ON COLUMN vacancy.host_drift.promised IS 'VCPUs that it holds for instances; of memory_missing: MiB that it may still promise.';
COMMENT ON COLUMN vacancy.host_drift.measured IS 'Instances that it counts; of memory_missing: MiB that the kernel says can be had.';
COMMENT ON COLUMN vacancy.host_drift.lasted IS 'At least so long. Null: record_drift() has not seen it.';

-- Notes what drifts now and was not noted, and forgets what is over; how many of each.
-- A host that is silent, of which nobody knows, keeps what is noted.
CREATE FUNCTION vacancy.record_drift(OUT begun bigint, OUT ended bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH present AS MATERIALIZED (
  SELECT host_id, kind, observed_at FROM vacancy.drifting
), gone AS (
  DELETE FROM vacancy.drift AS d
  WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.host_id = d.host_id AND p.kind = d.kind)
    AND NOT EXISTS (
      SELECT FROM vacancy.host AS h
      WHERE h.host_id = d.host_id AND statement_timestamp() - h.observed_at > vacancy.max_age()
    )
  RETURNING 1
), come AS (
  INSERT INTO vacancy.drift (host_id, kind, since) SELECT host_id, kind, observed_at FROM present
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*) FROM come), (SELECT count(*) FROM gone)
$$;

REVOKE ALL ON FUNCTION vacancy.record_drift() FROM PUBLIC;

-- It writes nothing but what may be read.
GRANT EXECUTE ON FUNCTION vacancy.record_drift() TO vacancy_reader;
GRANT SELECT ON vacancy.drifting, vacancy.drift, vacancy.host_drift TO vacancy_reader;
