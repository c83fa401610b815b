-- Whether hosts fit a request, and how well: usage_fit() by what they have, host_fit() by what they are as well.
-- Both take the request apart once and not once a host: to take an attribute out of a record is to walk it. OFFSET 0 keeps
-- the planner from putting the record back.

-- The median of each figure of load among 24 random hosts, without those that do not know it; null where none does.
-- PostgreSQL calls it at most once a query, and only if a host in it does not know the figure. STABLE, though it
-- draws anew each time: a volatile function in usage_fit() would have all hosts read where a claim looks at a sample.
CREATE OR REPLACE FUNCTION vacancy.typical_load(
  OUT cpu_utilization double precision,
  OUT cpu_pressure double precision,
  OUT memory_pressure double precision,
  OUT io_pressure double precision
)
LANGUAGE sql STABLE AS $$
SELECT
  percentile_cont(0.5) WITHIN GROUP (ORDER BY h.cpu_utilization),
  percentile_cont(0.5) WITHIN GROUP (ORDER BY h.cpu_pressure),
  percentile_cont(0.5) WITHIN GROUP (ORDER BY h.memory_pressure),
  percentile_cont(0.5) WITHIN GROUP (ORDER BY h.io_pressure)
FROM vacancy.host AS h
-- A subquery, so that the sample is drawn once and not once a row.
WHERE h.host_id = ANY ((SELECT vacancy.random_hosts(24))::text[])
$$;

-- What the storage pools of some hosts have, by host_id; of all hosts where of_hosts is null. Hosts without a pool are left
-- out. out: what rules the pool out for a request.
-- It is called once a query, and only if a host in it may have a pool; each pool is read once.
-- plpgsql, so that its plan is made once a session; OFFSET 0 has each pool read by itself, by index.
CREATE OR REPLACE FUNCTION vacancy.pool_states(request vacancy.request, of_hosts text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  asked_gb bigint := request.disk_gb;
  oldest interval := vacancy.max_age();
BEGIN
  IF of_hosts IS NULL THEN
    of_hosts := ARRAY(SELECT i.host_id FROM vacancy.host_inventory AS i WHERE i.disk_pool IS NOT NULL AND NOT i.retired);
  END IF;
  RETURN (
    WITH member AS MATERIALIZED (
      SELECT i.host_id, i.disk_pool, i.aggregates FROM vacancy.host_inventory AS i
      WHERE i.host_id = ANY (of_hosts) AND i.disk_pool IS NOT NULL
    ), pools AS MATERIALIZED (
      SELECT jsonb_object_agg(named.name, pool.state) AS states
      FROM (SELECT DISTINCT m.disk_pool AS name FROM member AS m) AS named
      CROSS JOIN LATERAL (
        SELECT jsonb_build_object(
          'name', named.name,
          'id', p.host_id,
          'aggregates', nullif(p.aggregates, '{}'),
          'out', CASE
            WHEN p.status = 'DISABLED' THEN 'disabled'
            WHEN u.host_id IS NULL OR a.pool_id IS NULL THEN 'no_usage'
            WHEN u.is_ahead OR p.clock_ahead THEN 'clock_ahead'
            WHEN u.age > oldest THEN 'stale'
            WHEN u.is_cloned THEN 'duplicate_id'
            WHEN NOT (
              asked_gb BETWEEN p.disk_gb_min_unit AND p.disk_gb_max_unit AND asked_gb % nullif(p.disk_gb_step_size, 0) = 0
            ) THEN 'unit'
            WHEN asked_gb > greatest(u.disk_gb_free, 0) THEN 'free'
            WHEN asked_gb > greatest(u.disk_gb_available, 0) THEN 'available'
          END,
          'capacity', u.disk_gb_capacity,
          'free', u.disk_gb_free,
          'available', u.disk_gb_available
        ) AS state
        FROM vacancy.pool_of(named.name) AS found
        JOIN vacancy.host_inventory AS p ON p.host_id = found.pool_id
        -- Before the first sum nobody knows what its hosts hold.
        LEFT JOIN vacancy.pool_allocated AS a ON a.pool_id = p.host_id
        LEFT JOIN vacancy.host_free AS u ON u.host_id = p.host_id AND u.vcpus_capacity = 0
        OFFSET 0
      ) AS pool
    )
    SELECT coalesce(jsonb_object_agg(m.host_id, CASE
      WHEN told.state IS NULL THEN jsonb_build_object('name', m.disk_pool, 'out', 'missing')
      WHEN told.state->>'out' IS DISTINCT FROM 'disabled' AND told.state->'aggregates' <> 'null'
        AND (told.state->'aggregates' ?| m.aggregates) IS NOT TRUE THEN told.state || '{"out": "elsewhere"}'
      ELSE told.state
    END), '{}')
    FROM member AS m
    CROSS JOIN LATERAL (SELECT (SELECT p.states FROM pools AS p)->m.disk_pool AS state OFFSET 0) AS told
  );
END
$$;

-- What rules each host out by its usage, in the order in which it is looked at, and how good it is.
-- Grain: one row a host that has usage. ruled_out_by is empty where the request fits.
-- `*_free` is Placement's rule, used + n <= (total - reserved) * ratio, and `*_available` what the kernel measured.
-- A measured figure that is not known rules a host out where the request limits it, and is named `…_unknown`. In the score it
-- counts as the median of a random sample, so that a host does not look idle because it cannot tell.
-- A host with a storage pool has no disk of its own (disk_gb_capacity is 0), and its figures of disk here are the pool's;
-- what rules the pool out is named disk_pool_… and ends with the pool's name. Who asks for no disk is not asked for the pool.
-- of_hosts: the hosts that the caller looks at, whose pools are read; null: all.
CREATE OR REPLACE FUNCTION vacancy.usage_fit(request vacancy.request, of_hosts text[] DEFAULT NULL)
RETURNS TABLE (
  host_id text,
  ruled_out_by text[],
  score double precision,
  age interval,
  vcpus_free bigint,
  memory_mb_free bigint,
  disk_gb_capacity bigint,
  disk_gb_free bigint,
  memory_mb_available bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_steal double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision,
  disk_pool text,
  pool_id text
)
LANGUAGE sql STABLE AS $$
SELECT
  f.host_id,
  array_remove(ARRAY[
    CASE WHEN f.is_ahead THEN 'clock ahead' END,
    CASE WHEN f.age > asked.default_max_age THEN 'stale' END,
    CASE WHEN f.is_cloned THEN 'duplicate id' END,
    CASE WHEN asked.vcpus > greatest(f.vcpus_free, 0) THEN 'vcpus_free' END,
    CASE WHEN asked.memory_mb > greatest(f.memory_mb_free, 0) THEN 'memory_mb_free' END,
    CASE WHEN pool.state IS NULL THEN CASE WHEN asked.disk_gb > greatest(f.disk_gb_free, 0) THEN 'disk_gb_free' END
      ELSE 'disk_pool_' || (pool.state->>'out') || ' ' || (pool.state->>'name') END,
    CASE WHEN asked.memory_mb_not_in_pages + asked.min_memory_mb_available > greatest(f.memory_mb_available, 0)
      THEN 'memory_mb_available' END,
    CASE WHEN pool.state IS NULL AND asked.disk_gb > greatest(f.disk_gb_available, 0) THEN 'disk_gb_available' END,
    CASE WHEN asked.max_cpu_utilization IS NOT NULL THEN
      CASE WHEN f.cpu_utilization IS NULL THEN 'cpu_utilization_unknown' WHEN f.cpu_utilization > asked.max_cpu_utilization THEN 'cpu_utilization' END
    END,
    CASE WHEN asked.max_cpu_steal IS NOT NULL THEN
      CASE WHEN f.cpu_steal IS NULL THEN 'cpu_steal_unknown' WHEN f.cpu_steal > asked.max_cpu_steal THEN 'cpu_steal' END
    END,
    CASE WHEN asked.max_cpu_pressure IS NOT NULL THEN
      CASE WHEN f.cpu_pressure IS NULL THEN 'cpu_pressure_unknown' WHEN f.cpu_pressure > asked.max_cpu_pressure THEN 'cpu_pressure' END
    END,
    CASE WHEN asked.max_memory_pressure IS NOT NULL THEN
      CASE WHEN f.memory_pressure IS NULL THEN 'memory_pressure_unknown' WHEN f.memory_pressure > asked.max_memory_pressure THEN 'memory_pressure' END
    END,
    CASE WHEN asked.max_io_pressure IS NOT NULL THEN
      CASE WHEN f.io_pressure IS NULL THEN 'io_pressure_unknown' WHEN f.io_pressure > asked.max_io_pressure THEN 'io_pressure' END
    END
  ], NULL),
  -- Shares, so that a big host does not win by its size. Of the classes the one that runs out first decides, and for
  -- `pack` the one that would be left over: what else is left of a host is of no use without it.
  coalesce(CASE asked.strategy
    WHEN 'spread' THEN -greatest(
      asked.vcpus_weight * used.vcpus, asked.memory_mb_weight * used.memory_mb, asked.disk_gb_weight * used.disk_gb
    )
    WHEN 'pack' THEN least(
      nullif(asked.vcpus_weight, 0) * used.vcpus,
      nullif(asked.memory_mb_weight, 0) * used.memory_mb,
      nullif(asked.disk_gb_weight, 0) * used.disk_gb
    )
  END, 0)
  - CASE asked.strategy WHEN 'random' THEN 0 ELSE
    -- Within 0 to 1, since PostgreSQL has NaN above all numbers.
    asked.load_weight * least(greatest(
      coalesce(f.cpu_utilization, typical.load[1]),
      coalesce(f.cpu_pressure, typical.load[2]),
      coalesce(f.memory_pressure, typical.load[3]),
      coalesce(f.io_pressure, typical.load[4]),
      0
    ), 1)
    -- date_part() and not extract(), which gives the slower numeric.
    + asked.age_weight * greatest(coalesce(date_part('epoch', f.age), 0) / date_part('epoch', asked.default_max_age), 0)
  END,
  f.age,
  f.vcpus_free,
  f.memory_mb_free,
  CASE WHEN pool.state IS NULL THEN f.disk_gb_capacity ELSE (pool.state->>'capacity')::bigint END,
  CASE WHEN pool.state IS NULL THEN f.disk_gb_free ELSE (pool.state->>'free')::bigint END,
  f.memory_mb_available,
  CASE WHEN pool.state IS NULL THEN f.disk_gb_available ELSE (pool.state->>'available')::bigint END,
  f.cpu_utilization,
  f.cpu_steal,
  f.cpu_pressure,
  f.memory_pressure,
  f.io_pressure,
  pool.state->>'name',
  pool.state->>'id'
FROM vacancy.host_free AS f
CROSS JOIN (
  SELECT
    (request).*,
    (request.weights).vcpus AS vcpus_weight,
    (request.weights).memory_mb AS memory_mb_weight,
    (request.weights).disk_gb AS disk_gb_weight,
    (request.weights).load AS load_weight,
    (request.weights).age AS age_weight,
    coalesce(((request.numa)->>'memory_mb')::bigint, request.memory_mb) AS memory_mb_not_in_pages,
    vacancy.max_age() AS default_max_age
  OFFSET 0
) AS asked
CROSS JOIN LATERAL (
  -- Null: it has a disk of its own. The inner subquery knows nothing of the host, so that PostgreSQL runs it once a query.
  SELECT CASE WHEN f.disk_gb_capacity = 0 AND asked.disk_gb > 0 THEN
    (SELECT vacancy.pool_states(request, of_hosts))->f.host_id
  END AS state
  OFFSET 0
) AS pool
CROSS JOIN LATERAL (
  -- Of each class the share that would be in use with the claim: by promise or by measure, whichever is more.
  SELECT
    1 - (f.vcpus_free::double precision - asked.vcpus) / nullif(f.vcpus_capacity, 0) AS vcpus,
    1 - least(f.memory_mb_free::double precision - asked.memory_mb, f.memory_mb_available::double precision - asked.memory_mb_not_in_pages)
      / nullif(f.memory_mb_capacity, 0) AS memory_mb,
    CASE WHEN pool.state IS NULL
      THEN 1 - (least(f.disk_gb_free, f.disk_gb_available)::double precision - asked.disk_gb) / nullif(f.disk_gb_capacity, 0)
      ELSE 1 - (least((pool.state->>'free')::bigint, (pool.state->>'available')::bigint)::double precision - asked.disk_gb) / nullif((pool.state->>'capacity')::bigint, 0)
    END AS disk_gb
) AS used
CROSS JOIN LATERAL (
  -- In a subquery of its own, which OFFSET 0 keeps, so that one call does for all hosts and figures.
  SELECT CASE WHEN num_nulls(f.cpu_utilization, f.cpu_pressure, f.memory_pressure, f.io_pressure) > 0 THEN (
    SELECT ARRAY[t.cpu_utilization, t.cpu_pressure, t.memory_pressure, t.io_pressure] FROM vacancy.typical_load() AS t
  ) END AS load
  OFFSET 0
) AS typical
$$;

-- What rules each host out for a request, first by what the host is, then by its usage; without its complex parts.
-- Grain: one row a host that is not retired, without storage pools. ruled_out_by is empty where the request fits.
CREATE OR REPLACE FUNCTION vacancy.host_fit(request vacancy.request, of_hosts text[] DEFAULT NULL)
RETURNS TABLE (
  host_id text,
  name text,
  ruled_out_by text[],
  score double precision,
  age interval,
  vcpus_free bigint,
  memory_mb_free bigint,
  disk_gb_capacity bigint,
  disk_gb_free bigint,
  memory_mb_available bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_steal double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision,
  pool_id text
)
LANGUAGE sql STABLE AS $$
SELECT
  i.host_id,
  i.name,
  array_remove(ARRAY[
    CASE WHEN i.status = 'DISABLED' THEN 'disabled' END,
    CASE WHEN asked.include <> '{}' AND NOT (i.host_id = ANY (asked.include) OR i.name = ANY (asked.include)) THEN 'include' END,
    CASE WHEN i.host_id = ANY (asked.avoid) OR i.name = ANY (asked.avoid) THEN 'avoid' END,
    CASE WHEN asked.zone <> coalesce(i.zone, '') THEN 'zone' END,
    CASE WHEN asked.aggregates <> '{}' AND NOT (i.aggregates && asked.aggregates) THEN 'aggregates' END,
    CASE WHEN asked.near IS NOT NULL AND (i.aggregates && asked.near_aggregates) IS NOT TRUE THEN 'near ' || asked.near END,
    CASE WHEN NOT (i.traits @> asked.required) THEN 'required' END,
    CASE WHEN asked.any_of <> '[]' AND EXISTS (
      SELECT FROM jsonb_array_elements(asked.any_of) AS alternatives
      WHERE NOT alternatives ?| i.traits
    ) THEN 'any_of' END,
    CASE WHEN i.traits && asked.forbidden THEN 'forbidden' END,
    CASE WHEN asked.vcpus > 0 AND NOT (
      asked.vcpus BETWEEN i.vcpus_min_unit AND i.vcpus_max_unit AND asked.vcpus % nullif(i.vcpus_step_size, 0) = 0
    ) THEN 'vcpus_unit' END,
    CASE WHEN asked.memory_mb > 0 AND NOT (
      asked.memory_mb BETWEEN i.memory_mb_min_unit AND i.memory_mb_max_unit
      AND asked.memory_mb % nullif(i.memory_mb_step_size, 0) = 0
    ) THEN 'memory_mb_unit' END,
    CASE WHEN asked.disk_gb > 0 AND i.disk_pool IS NULL AND NOT (
      asked.disk_gb BETWEEN i.disk_gb_min_unit AND i.disk_gb_max_unit AND asked.disk_gb % nullif(i.disk_gb_step_size, 0) = 0
    ) THEN 'disk_gb_unit' END,
    -- Its last usage is of before it was told of the pool, or of an agent that does not know of pools.
    CASE WHEN asked.disk_gb > 0 AND i.disk_pool IS NOT NULL AND u.disk_pool IS NULL AND u.host_id IS NOT NULL
      THEN 'disk_pool_own_disk ' || i.disk_pool END
  ], NULL) || coalesce(u.ruled_out_by, ARRAY['no usage yet'])
    || CASE WHEN i.clock_ahead AND NOT 'clock ahead' = ANY (coalesce(u.ruled_out_by, '{}')) THEN ARRAY['clock ahead'] ELSE '{}' END,
  u.score,
  u.age,
  u.vcpus_free,
  u.memory_mb_free,
  u.disk_gb_capacity,
  u.disk_gb_free,
  u.memory_mb_available,
  u.disk_gb_available,
  u.cpu_utilization,
  u.cpu_steal,
  u.cpu_pressure,
  u.memory_pressure,
  u.io_pressure,
  u.pool_id
FROM vacancy.host_inventory AS i
CROSS JOIN (SELECT (request).* OFFSET 0) AS asked
LEFT JOIN vacancy.usage_fit(request, of_hosts) AS u ON u.host_id = i.host_id
WHERE NOT i.retired AND NOT i.shares
$$;

REVOKE ALL ON FUNCTION
  vacancy.typical_load(), vacancy.pool_states(vacancy.request, text[]), vacancy.usage_fit(vacancy.request, text[]),
  vacancy.host_fit(vacancy.request, text[])
FROM PUBLIC;
