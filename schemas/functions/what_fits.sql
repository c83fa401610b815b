-- How a request fares on all hosts, and on a few of them, for people who look. Nothing is claimed, and readers may call both.

-- Every host, and the first that rules it out. Grain: one row a host that is not retired, without storage pools.
-- ruled_out_by: as in why(); null where the request fits. dimensions: how many of them rule it out. score: null where it
-- is out. available: how much the host has of the first dimension, null where that has no amount.
CREATE OR REPLACE FUNCTION vacancy.what_fits(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, ruled_out_by text, dimensions integer, score double precision, available double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  complex boolean := vacancy.is_complex(prepared);
  pools vacancy.pools := vacancy.pools_of(prepared, NULL, NULL, false);
  classes text[] := coalesce(vacancy.resource_classes(prepared.resources), '{}');
  kinds jsonb := vacancy.requested_pci_kinds(prepared.pci);
  -- What one look at a host's cells or pools answers, without a try to place everything together.
  cell_alone boolean := prepared.numa IS NOT NULL AND prepared.resources IS NULL AND prepared.pci IS NULL;
  demand_alone boolean := prepared.numa IS NULL AND prepared.resources IS NULL
    AND jsonb_array_length(prepared.pci) = 1 AND NOT prepared.pci @> '[{"same_cell": true}]';
BEGIN
  RETURN QUERY
    -- MATERIALIZED: what rules a host out is computed once and not for each place that reads it.
    WITH simple_fit AS MATERIALIZED (
      SELECT * FROM vacancy.host_fit(prepared, pools)
    ), looked_at AS MATERIALIZED (
      -- One dimension more or less makes no difference to a host that two rule out.
      SELECT
        f.host_id,
        lacks.ruled_out_by,
        -- What claims hold may be any of it; few hosts have such claims.
        lacks.ruled_out_by = '{}'
          AND NOT EXISTS (SELECT FROM vacancy.claim AS c WHERE c.host_id = f.host_id AND c.held IS NOT NULL)
          AND CASE
            WHEN cell_alone THEN EXISTS (
              SELECT FROM vacancy.cells_that_do(prepared.numa, i.numa_free, i.numa_cells, NULL)
            )
            WHEN demand_alone THEN (
              SELECT sum(greatest(p.free, 0)) FROM vacancy.pci_free(i.pci_pools, NULL) AS p
              WHERE p.pool @> (prepared.pci->0->'pool')
            ) >= (prepared.pci->0->>'count')::bigint
            ELSE false
          END IS TRUE AS fits
      FROM simple_fit AS f
      JOIN vacancy.host_inventory AS i ON i.host_id = f.host_id
      CROSS JOIN LATERAL (
        -- As best_of_all() does it: a host without such classes and devices at all is not searched for free ones.
        SELECT CASE
          WHEN (i.pci_kinds @> kinds AND i.resource_classes @> classes) IS NOT TRUE THEN
            ARRAY(SELECT class FROM jsonb_object_keys(prepared.resources) AS class WHERE NOT i.inventories ? class ORDER BY 1)
            || ARRAY(
              SELECT demand->>'name' FROM jsonb_array_elements(prepared.pci) AS demand
              WHERE NOT i.pci_kinds @> jsonb_build_array(demand->'pool')
            )
          -- Nor is one without cells for its free CPUs and pages.
          WHEN cell_alone AND i.numa_free = '[]' THEN
            array_remove(ARRAY[CASE WHEN prepared.numa->>'cpus' <> '0' THEN 'numa_cpus' END], NULL)
            || ARRAY(SELECT 'numa_pages_' || size FROM jsonb_object_keys(prepared.numa->'pages') AS size ORDER BY 1)
            || CASE WHEN prepared.numa->>'memory_mb' <> '0' THEN ARRAY['numa_memory_mb'] ELSE '{}' END
          ELSE '{}'
        END AS ruled_out_by
        OFFSET 0
      ) AS lacks
      WHERE complex AND cardinality(f.ruled_out_by) < 2
    ), tried AS MATERIALIZED (
      SELECT l.host_id, c.ruled_out_by, c.available
      FROM looked_at AS l
      CROSS JOIN LATERAL vacancy.complex_fit(l.host_id, prepared.resources, prepared.numa, prepared.pci) AS c
      WHERE l.ruled_out_by = '{}' AND NOT l.fits
    )
    SELECT
      f.host_id,
      coalesce(f.ruled_out_by[1], l.ruled_out_by[1], t.ruled_out_by[1]),
      cardinality(f.ruled_out_by) + coalesce(cardinality(l.ruled_out_by), 0) + coalesce(cardinality(t.ruled_out_by), 0),
      CASE WHEN f.ruled_out_by = '{}' THEN f.score END,
      CASE WHEN f.ruled_out_by = '{}' THEN CASE WHEN l.ruled_out_by <> '{}' THEN 0 ELSE t.available END
      ELSE CASE split_part(f.ruled_out_by[1], ' ', 1)  -- of a storage pool's without its name
        WHEN 'stale' THEN date_part('epoch', f.age)
        WHEN 'vcpus_free' THEN f.vcpus_free
        WHEN 'memory_mb_free' THEN f.memory_mb_free
        WHEN 'disk_gb_free' THEN f.disk_gb_free
        WHEN 'memory_mb_available' THEN f.memory_mb_available
        WHEN 'disk_gb_available' THEN f.disk_gb_available
        WHEN 'cpu_utilization' THEN f.cpu_utilization
        WHEN 'cpu_steal' THEN f.cpu_steal
        WHEN 'cpu_pressure' THEN f.cpu_pressure
        WHEN 'memory_pressure' THEN f.memory_pressure
        WHEN 'io_pressure' THEN f.io_pressure
        WHEN 'disk_pool_free' THEN f.disk_gb_free
        WHEN 'disk_pool_available' THEN f.disk_gb_available
      END END::double precision
    FROM simple_fit AS f
    LEFT JOIN looked_at AS l ON l.host_id = f.host_id
    LEFT JOIN tried AS t ON t.host_id = f.host_id;
END
$$;

-- The same of a few hosts, with all that rules them out and with what their scores are made of. By index: it takes
-- milliseconds, however many hosts there are.
CREATE OR REPLACE FUNCTION vacancy.fit_of(hosts text[], request jsonb DEFAULT '{}')
RETURNS TABLE (
  host_id text,
  host_name text,
  ruled_out_by text[],
  score double precision,
  age_seconds double precision,
  vcpus_capacity bigint,
  vcpus_free bigint,
  memory_mb_capacity bigint,
  memory_mb_free bigint,
  memory_mb_available bigint,
  disk_gb_capacity bigint,
  disk_gb_free bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  complex boolean := vacancy.is_complex(prepared);
  pools vacancy.pools := vacancy.pools_of(prepared, hosts, NULL, false);
BEGIN
  RETURN QUERY
    SELECT
      h.host_id,
      h.name,
      h.ruled_out_by || coalesce(c.ruled_out_by, '{}'),
      h.score,
      date_part('epoch', h.age),
      u.vcpus_capacity,
      h.vcpus_free,
      u.memory_mb_capacity,
      h.memory_mb_free,
      h.memory_mb_available,
      u.disk_gb_capacity,
      h.disk_gb_free,
      h.disk_gb_available,
      h.cpu_utilization,
      h.cpu_pressure,
      h.memory_pressure,
      h.io_pressure
    FROM vacancy.host_fit(prepared, pools) AS h
    LEFT JOIN vacancy.host AS u ON u.host_id = h.host_id
    LEFT JOIN LATERAL vacancy.complex_fit(h.host_id, prepared.resources, prepared.numa, prepared.pci) AS c ON complex
    WHERE h.host_id = ANY (hosts);
END
$$;

REVOKE ALL ON FUNCTION vacancy.what_fits(jsonb), vacancy.fit_of(text[], jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vacancy.what_fits(jsonb), vacancy.fit_of(text[], jsonb) TO vacancy_reader;
