-- Which hosts a request would get, best first, and why it gets none.

-- The ids of the best of so many random hosts, best first, of which 8 at most; empty where none of them fits. And what the storage
-- pools of the sample have, roughly; null without any. A request with complex parts gets all that fit but for these: to place them
-- on a host costs as much as to look at several hosts' usage, and is left to who tries one host after the other.
-- any_hosts: the sample is of any hosts, and of these only such count as have the devices and classes that are asked for. Without it
-- the sample is of hosts that offer what is asked for, are near the storage pool or in one of the aggregates. A zone's hosts are the
-- sample always. Of a request that names its hosts (include) these are the sample.
-- by_usage: ranks by usage alone where the request says nothing of what hosts are, which is a third cheaper; units of a host's
-- inventories may still rule it out when it is claimed.
CREATE OR REPLACE FUNCTION vacancy.best_of_sample(
  request vacancy.request, sample_size integer, any_hosts boolean, by_usage boolean, OUT best text[], OUT pools vacancy.pools
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  complex boolean := vacancy.is_complex(request);
  max_ranked integer := CASE WHEN complex THEN sample_size ELSE 8 END;
  sampled text[];
  disk_pools text[];
  drawn record;
  asked_kinds jsonb;
  asked_classes text[];
  weights vacancy.weights;
  measured_mb bigint := coalesce((request.numa->>'memory_mb')::bigint, request.memory_mb);
  pools_used double precision[];
  oldest timestamptz;
  age_weight_per_s double precision;
BEGIN
  IF request.include <> '{}' THEN
    drawn := vacancy.hosts_named(request.include);
  ELSIF request.zone <> '' AND any_hosts THEN
    drawn := vacancy.hosts_in_zone(request.zone, sample_size);
  ELSIF any_hosts THEN
    drawn := vacancy.random_hosts(sample_size);
  ELSIF request.near IS NOT NULL THEN
    drawn := vacancy.hosts_near(request.near_aggregates, sample_size);
  ELSIF request.pci IS NOT NULL OR request.resources IS NOT NULL THEN
    drawn := vacancy.hosts_that_offer(request, sample_size);
  ELSIF request.aggregates <> '{}' THEN
    drawn := vacancy.hosts_near(request.aggregates, sample_size);
  ELSIF request.zone <> '' THEN
    drawn := vacancy.hosts_in_zone(request.zone, sample_size);
  ELSE
    drawn := vacancy.random_hosts(sample_size);
  END IF;
  sampled := drawn.hosts;
  disk_pools := drawn.disk_pools;
  IF complex AND any_hosts AND (request.pci IS NOT NULL OR request.resources IS NOT NULL) THEN
    -- Few or none, where few hosts have such devices at all: then there is nothing to rank.
    asked_kinds := vacancy.requested_pci_kinds(request.pci);
    asked_classes := coalesce(vacancy.resource_classes(request.resources), '{}');
    SELECT array_agg(i.host_id), array_agg(i.disk_pool) INTO sampled, disk_pools
    FROM vacancy.host_inventory AS i
    WHERE i.host_id = ANY (sampled) AND i.pci_kinds @> asked_kinds AND i.resource_classes @> asked_classes;
    IF sampled IS NULL THEN
      best := '{}';
      RETURN;
    END IF;
  END IF;
  IF request.disk_gb > 0 AND array_remove(disk_pools, NULL) <> '{}' THEN
    pools := vacancy.pools_of(request, sampled, disk_pools, true);
  END IF;
  weights := request.weights;
  IF by_usage AND request.strategy = 'spread' AND weights.vcpus = 1 AND weights.memory_mb = 1 AND weights.disk_gb = 1
    AND vacancy.is_plain(request) THEN
    -- The same hosts in the same order as below.
    IF pools.names IS NOT NULL THEN
      -- Of each host's pool the share that would be in use; -Infinity: it has a disk of its own.
      pools_used := ARRAY(
        SELECT CASE
          WHEN told.name IS NULL THEN '-Infinity'
          WHEN pools.outs[told.place] IS NOT NULL THEN 'Infinity'
          ELSE 1 - (least(pools.free[told.place], pools.available[told.place]) - request.disk_gb)::double precision
            / pools.capacities[told.place]
        END
        FROM (
          SELECT member.number, member.name, array_position(pools.names, member.name) AS place
          FROM unnest(disk_pools) WITH ORDINALITY AS member (name, number)
          OFFSET 0
        ) AS told
        ORDER BY told.number
      );
    END IF;
    oldest := statement_timestamp() - vacancy.max_age();
    age_weight_per_s := weights.age / date_part('epoch', vacancy.max_age());
    best := ARRAY(
      SELECT r.host_id
      FROM vacancy.plain_ranking(
        sampled, pools_used, oldest, request.vcpus, request.memory_mb, measured_mb, request.disk_gb
      ) AS r
      ORDER BY r.fullest + weights.load * r.busiest + age_weight_per_s * r.age_s, random()
      LIMIT max_ranked
    );
  ELSIF by_usage AND vacancy.takes_any_host(request) THEN
    best := ARRAY(
      SELECT u.host_id FROM vacancy.usage_fit(request, pools) AS u
      WHERE u.host_id = ANY (sampled) AND u.ruled_out_by = '{}'
      ORDER BY u.score DESC, random()
      LIMIT max_ranked
    );
  ELSE
    best := ARRAY(
      SELECT h.host_id FROM vacancy.host_fit(request, pools) AS h
      WHERE h.host_id = ANY (sampled) AND h.ruled_out_by = '{}'
      ORDER BY h.score DESC, random()
      LIMIT max_ranked
    );
  END IF;
END
$$;

-- The same of all hosts, looked at once: the ids of the best, best first, or why none fits, as JSON: how many hosts there
-- are, how many each dimension ruled out (a host counts for the first that does), the dimension that ran out (it ruled out
-- the last ones that were left), and the host that came nearest to it.
CREATE OR REPLACE FUNCTION vacancy.best_of_all(request vacancy.request, pools vacancy.pools, OUT best text[], OUT refusal jsonb)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = on AS $$
WITH simple AS MATERIALIZED (
  -- By all but the complex parts.
  SELECT * FROM vacancy.simple_fit(request, pools)
), fit AS MATERIALIZED (
  SELECT * FROM simple WHERE NOT vacancy.is_complex(request) OR ruled_out_by <> '{}'
  UNION ALL
  SELECT s.host_id, s.name, tried.ruled_out_by, s.score, tried.available
  FROM simple AS s
  JOIN vacancy.host_inventory AS i ON i.host_id = s.host_id
  CROSS JOIN LATERAL vacancy.not_offered(
    coalesce(vacancy.resource_classes(request.resources), '{}'), request.numa, request.pci,
    vacancy.requested_pci_kinds(request.pci), i.resource_classes, i.pci_kinds, i.numa_free
  ) AS lacks
  LEFT JOIN LATERAL (
    SELECT c.ruled_out_by, c.available
    FROM vacancy.complex_fit(s.host_id, request.resources, request.numa, request.pci) AS c
    WHERE lacks.names = '{}'
    OFFSET 0
  ) AS searched ON true
  CROSS JOIN LATERAL (
    SELECT coalesce(searched.ruled_out_by, lacks.names) AS ruled_out_by, CASE WHEN lacks.names = '{}' THEN searched.available ELSE 0 END AS available
    OFFSET 0
  ) AS tried
  WHERE vacancy.is_complex(request) AND s.ruled_out_by = '{}'
), dimension (position, name, requested) AS (
  -- In the order of host_fit(), usage_fit() and complex_parts_fit().
  VALUES
    (1, 'disabled', NULL::double precision), (2, 'include', NULL), (3, 'avoid', NULL), (4, 'zone', NULL),
    (5, 'aggregates', NULL), (5.5, 'near ' || request.near, NULL), (6, 'required', NULL), (7, 'any_of', NULL),
    (8, 'forbidden', NULL), (9, 'vcpus_unit', NULL), (10, 'memory_mb_unit', NULL), (11, 'disk_gb_unit', NULL),
    (12, 'no usage yet', NULL), (12.5, 'clock ahead', NULL), (13, 'stale', extract(epoch FROM vacancy.max_age())), (13.5, 'duplicate id', NULL),
    (14, 'vcpus_free', request.vcpus),
    (15, 'memory_mb_free', request.memory_mb), (16, 'disk_gb_free', request.disk_gb),
    (
      17, 'memory_mb_available',
      coalesce((request.numa->>'memory_mb')::bigint, request.memory_mb) + request.min_memory_mb_available
    ),
    (18, 'disk_gb_available', request.disk_gb),
    (19, 'cpu_utilization', request.max_cpu_utilization), (20, 'cpu_steal', request.max_cpu_steal),
    (21, 'cpu_pressure', request.max_cpu_pressure), (22, 'memory_pressure', request.max_memory_pressure),
    (23, 'io_pressure', request.max_io_pressure), (19.5, 'cpu_utilization_unknown', NULL), (20.5, 'cpu_steal_unknown', NULL),
    (21.5, 'cpu_pressure_unknown', NULL), (22.5, 'memory_pressure_unknown', NULL), (23.5, 'io_pressure_unknown', NULL), (27, 'numa', NULL), (29, 'pci', NULL)
  UNION ALL
  SELECT 24, asked.key || suffix.suffix, CASE suffix.suffix WHEN '' THEN asked.value::double precision END
  FROM jsonb_each_text(request.resources) AS asked, (VALUES (''), ('_allocated'), ('_unit')) AS suffix (suffix)
  UNION ALL
  -- The storage pools of hosts.
  SELECT
    CASE WHEN pool.out LIKE 'disk\_pool\_own\_disk %' THEN 11.5 ELSE 16 END,
    pool.out,
    CASE WHEN pool.out ~ '^disk_pool_(free|available) ' THEN request.disk_gb END
  FROM (SELECT DISTINCT s.ruled_out_by[1] AS out FROM simple AS s WHERE s.ruled_out_by[1] LIKE 'disk\_pool\_%') AS pool
  UNION ALL
  SELECT 25, 'numa_cpus', (request.numa->>'cpus')::double precision
  UNION ALL
  SELECT 26.5, 'numa_memory_mb', (request.numa->>'memory_mb')::double precision
  UNION ALL
  SELECT 26, 'numa_pages_' || size.key, size.value::double precision FROM jsonb_each_text(request.numa->'pages') AS size
  UNION ALL
  SELECT 28, demand->>'name', max((demand->>'count')::double precision)
  FROM jsonb_array_elements(request.pci) AS demand GROUP BY demand->>'name'
), ruled_out AS (
  SELECT d.position, d.name, d.requested, count(*) AS hosts
  FROM fit AS f JOIN dimension AS d ON d.name = f.ruled_out_by[1]
  GROUP BY d.position, d.name, d.requested
), ran_out AS (
  SELECT * FROM ruled_out ORDER BY position DESC, hosts DESC, name LIMIT 1
), nearest AS (
  SELECT f.host_id, f.name, f.available, f.ruled_out_by
  FROM ran_out
  JOIN fit AS f ON f.ruled_out_by[1] = ran_out.name
  ORDER BY cardinality(f.ruled_out_by), abs(f.available - ran_out.requested), f.host_id
  LIMIT 1
)
SELECT
  ARRAY(SELECT host_id FROM fit WHERE ruled_out_by = '{}' ORDER BY score DESC, random() LIMIT 8),
  CASE WHEN NOT EXISTS (SELECT FROM fit WHERE ruled_out_by = '{}') THEN
    jsonb_build_object(
      'hosts', (SELECT count(*) FROM fit),
      'ruled_out', (SELECT coalesce(jsonb_object_agg(name, hosts), '{}') FROM ruled_out),
      'dimension', coalesce((SELECT name FROM ran_out), 'hosts'),
      'requested', (SELECT requested FROM ran_out),
      'nearest', (
        SELECT jsonb_build_object(
          'host_id', host_id,
          'name', name,
          'had', CASE WHEN abs(available) < 'Infinity' THEN available END,  -- JSON has no other numbers
          'ruled_out_by', ruled_out_by
        )
        FROM nearest
      )
    )
  END
$$;

-- The best hosts for a request, best first, and claims none: of a random sample, or of all hosts where none of it fits.
CREATE OR REPLACE FUNCTION vacancy.candidates(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, score double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  best text[];
  pools vacancy.pools;
BEGIN
  IF prepared.include = '{}' THEN
    best := (vacancy.best_of_sample(prepared, prepared.sample, false, false)).best;
    IF vacancy.is_complex(prepared) THEN
      best := ARRAY(
        SELECT ranked.host_id FROM unnest(best) WITH ORDINALITY AS ranked (host_id, place)
        CROSS JOIN LATERAL vacancy.complex_fit(ranked.host_id, prepared.resources, prepared.numa, prepared.pci) AS c
        WHERE c.ruled_out_by = '{}'
        ORDER BY ranked.place LIMIT 8
      );
    END IF;
  END IF;
  IF coalesce(best, '{}') = '{}' THEN
    pools := vacancy.pools_of(prepared, NULL, NULL, false);
    SELECT a.best INTO best FROM vacancy.best_of_all(prepared, pools) AS a;
  END IF;
  pools := vacancy.pools_of(prepared, best, NULL, false);
  RETURN QUERY
    SELECT h.host_id, h.name, h.score FROM vacancy.host_fit(prepared, pools) AS h
    WHERE h.host_id = ANY (best) ORDER BY h.score DESC, array_position(best, h.host_id);
END
$$;

-- Every host and what rules it out for a request; empty where it fits.
CREATE OR REPLACE FUNCTION vacancy.why(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, ruled_out_by text[])
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET work_mem = '64MB' SET jit = off AS $$
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  pools vacancy.pools := vacancy.pools_of(prepared, NULL, NULL, false);
BEGIN
  IF vacancy.is_complex(prepared) THEN
    RETURN QUERY
      SELECT h.host_id, h.name, h.ruled_out_by || c.ruled_out_by
      FROM vacancy.host_fit(prepared, pools) AS h
      CROSS JOIN LATERAL vacancy.complex_fit(h.host_id, prepared.resources, prepared.numa, prepared.pci) AS c;
  ELSE
    RETURN QUERY SELECT h.host_id, h.name, h.ruled_out_by FROM vacancy.host_fit(prepared, pools) AS h;
  END IF;
END
$$;

REVOKE ALL ON FUNCTION
  vacancy.best_of_sample(vacancy.request, integer, boolean, boolean), vacancy.best_of_all(vacancy.request, vacancy.pools),
  vacancy.candidates(jsonb), vacancy.why(jsonb)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vacancy.candidates(jsonb), vacancy.why(jsonb) TO vacancy_scheduler;
GRANT EXECUTE ON FUNCTION vacancy.why(jsonb) TO vacancy_reader;
