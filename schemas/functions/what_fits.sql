-- How a request fares on all hosts, and on a few of them, for people who look. Nothing is claimed, and readers may call both.

-- Every host, and the first that rules it out. Grain: one row a host that is not retired, without storage pools.
-- ruled_out_by: as in why(); null where the request fits. dimensions: how many of them rule it out. score: null where it
-- is out. available: how much the host has of the first dimension, null where that has no amount.
-- Planned for each request anew: what it does not ask for costs nothing then.
CREATE OR REPLACE FUNCTION vacancy.what_fits(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, ruled_out_by text, dimensions integer, score double precision, available double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET work_mem = '64MB' SET jit = off AS $$
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  pools vacancy.pools := vacancy.pools_of(prepared, NULL, NULL, false);
  classes text[] := coalesce(vacancy.resource_classes(prepared.resources), '{}');
  kinds jsonb := vacancy.requested_pci_kinds(prepared.pci);
BEGIN
  IF NOT vacancy.is_complex(prepared) THEN
    RETURN QUERY
      SELECT
        f.host_id,
        f.ruled_out_by[1],
        cardinality(f.ruled_out_by),
        CASE WHEN f.ruled_out_by = '{}' THEN f.score END,
        f.available
      FROM vacancy.simple_fit(prepared, pools) AS f;
    RETURN;
  END IF;
  RETURN QUERY
    WITH simple AS MATERIALIZED (
      SELECT f.host_id, f.ruled_out_by[1] AS first, cardinality(f.ruled_out_by) AS dimensions, f.score, f.available
      FROM vacancy.simple_fit(prepared, pools) AS f
    )
    -- One dimension more or less makes no difference to a host that two rule out.
    SELECT s.host_id, s.first, s.dimensions, NULL::double precision, s.available FROM simple AS s WHERE s.dimensions >= 2
    UNION ALL
    SELECT
      s.host_id,
      coalesce(s.first, tried.ruled_out_by[1]),
      s.dimensions + cardinality(tried.ruled_out_by),
      CASE WHEN s.dimensions = 0 AND tried.ruled_out_by = '{}' THEN s.score END,
      CASE WHEN s.dimensions = 0 THEN tried.available ELSE s.available END
    FROM simple AS s
    JOIN vacancy.host_inventory AS i ON i.host_id = s.host_id
    CROSS JOIN LATERAL vacancy.not_offered(
      classes, prepared.numa, prepared.pci, kinds, i.resource_classes, i.pci_kinds, i.numa_free
    ) AS lacks
    LEFT JOIN LATERAL (
      SELECT c.ruled_out_by, c.available
      FROM vacancy.complex_fit(s.host_id, prepared.resources, prepared.numa, prepared.pci) AS c
      WHERE lacks.names = '{}'
      OFFSET 0
    ) AS searched ON true
    CROSS JOIN LATERAL (
      SELECT coalesce(searched.ruled_out_by, lacks.names) AS ruled_out_by, CASE WHEN lacks.names = '{}' THEN searched.available ELSE 0 END AS available
      OFFSET 0
    ) AS tried
    WHERE s.dimensions < 2;
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
