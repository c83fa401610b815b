-- Whether hosts fit a request, and how well: usage_fit() by what they have, host_fit() by what they are as well.
-- Both become part of the query that calls them. They take attributes straight from the request and the pools: out of a variable of
-- PL/pgSQL, which their callers give, that costs next to nothing, and each join less is one less to set up at each execution.

-- The median of each figure of load among 24 random hosts, null where none knows it: cpu_utilization, cpu_pressure,
-- memory_pressure, io_pressure.
-- PostgreSQL calls it at most once a query, and only if a host in it does not know a figure. STABLE, though it
-- draws anew each time: a volatile function in usage_fit() would have all hosts read where a claim looks at a sample.
-- PARALLEL RESTRICTED, so that all of a query's processes compare with the same ones.
CREATE OR REPLACE FUNCTION vacancy.typical_loads() RETURNS double precision[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
DECLARE
  drawn text[] := (vacancy.random_hosts(24)).hosts;
BEGIN
  RETURN (
    SELECT ARRAY[
      percentile_cont(0.5) WITHIN GROUP (ORDER BY h.cpu_utilization),
      percentile_cont(0.5) WITHIN GROUP (ORDER BY h.cpu_pressure),
      percentile_cont(0.5) WITHIN GROUP (ORDER BY h.memory_pressure),
      percentile_cont(0.5) WITHIN GROUP (ORDER BY h.io_pressure)
    ]
    FROM vacancy.host AS h
    WHERE h.host_id = ANY (drawn)
  );
END
$$;

-- The highest of a host's figures of load, with the typical one where it does not know one; null where nobody does.
CREATE OR REPLACE FUNCTION vacancy.load_of(figures double precision[], typical double precision[]) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN greatest(
    coalesce(figures[1], typical[1]), coalesce(figures[2], typical[2]), coalesce(figures[3], typical[3]),
    coalesce(figures[4], typical[4])
  );
END
$$;

-- What the storage pools of some hosts have for a request; null: the hosts have none, or no disk is asked for.
-- hosts, disk_pools: the hosts and what each names as its pool, null for a disk of its own; null: all hosts.
-- roughly: claims that count no more may be counted still, so that a pool has at least what it says; it is quicker.
-- In plpgsql, so that its plans are made once a session; each pool is read once, however many of its hosts are there.
CREATE OR REPLACE FUNCTION vacancy.pools_of(request vacancy.request, hosts text[], disk_pools text[], roughly boolean)
RETURNS vacancy.pools
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  asked_gb bigint := request.disk_gb;
  oldest interval := vacancy.max_age();
  pools vacancy.pools;
  in_aggregates boolean;
BEGIN
  IF asked_gb = 0 THEN
    RETURN NULL;
  END IF;
  IF hosts IS NULL THEN
    SELECT array_agg(i.host_id), array_agg(i.disk_pool) INTO hosts, disk_pools
    FROM vacancy.host_inventory AS i WHERE i.disk_pool IS NOT NULL AND NOT i.retired;
  ELSIF disk_pools IS NULL THEN
    SELECT array_agg(i.host_id), array_agg(i.disk_pool) INTO hosts, disk_pools
    FROM vacancy.host_inventory AS i WHERE i.host_id = ANY (hosts) AND i.disk_pool IS NOT NULL AND NOT i.retired;
  END IF;
  IF coalesce(array_remove(disk_pools, NULL), '{}') = '{}' THEN
    RETURN NULL;
  END IF;
  SELECT
    array_agg(named.name),
    array_agg(p.host_id),
    array_agg(CASE
      WHEN p.host_id IS NULL THEN 'missing'
      WHEN p.status = 'DISABLED' THEN 'disabled'
      -- Before the first sum nobody knows what its hosts hold.
      WHEN room.capacity IS NULL OR room.allocated IS NULL THEN 'no_usage'
      WHEN room.is_ahead OR p.clock_ahead THEN 'clock_ahead'
      WHEN room.age > oldest THEN 'stale'
      WHEN room.is_cloned THEN 'duplicate_id'
      WHEN NOT (
        asked_gb BETWEEN p.disk_gb_min_unit AND p.disk_gb_max_unit AND asked_gb % nullif(p.disk_gb_step_size, 0) = 0
      ) THEN 'unit'
      WHEN asked_gb > greatest(room.free, 0) THEN 'free'
      WHEN asked_gb > greatest(room.available, 0) THEN 'available'
    END),
    array_agg(room.capacity),
    array_agg(room.free),
    array_agg(room.available),
    bool_or(p.aggregates <> '{}' AND p.status <> 'DISABLED')
  INTO pools.names, pools.ids, pools.outs, pools.capacities, pools.free, pools.available, in_aggregates
  FROM (SELECT DISTINCT told.name FROM unnest(disk_pools) AS told (name) WHERE told.name IS NOT NULL) AS named
  LEFT JOIN vacancy.host_inventory AS p ON p.host_id = (SELECT found.pool_id FROM vacancy.pool_of(named.name) AS found)
  LEFT JOIN LATERAL vacancy.pool_room(p.host_id, roughly) AS room ON true;
  pools.hosts := hosts;
  pools.disk_pools := disk_pools;
  IF in_aggregates THEN
    pools.elsewhere := ARRAY(
      SELECT coalesce(cardinality(p.aggregates) > 0 AND p.status <> 'DISABLED' AND (p.aggregates && i.aggregates) IS NOT TRUE, false)
      FROM unnest(hosts, disk_pools) WITH ORDINALITY AS member (host_id, disk_pool, place)
      LEFT JOIN vacancy.host_inventory AS i ON i.host_id = member.host_id
      LEFT JOIN vacancy.host_inventory AS p ON p.host_id = pools.ids[array_position(pools.names, member.disk_pool)]
      ORDER BY member.place
    );
  END IF;
  RETURN pools;
END
$$;

-- What rules each host out by its usage, in the order in which it is looked at, and how good it is.
-- Grain: one row a host that has usage. ruled_out_by is empty where the request fits.
-- `*_free` is Placement's rule, used + n <= (total - reserved) * ratio, and `*_available` what the kernel measured.
-- A measured figure that is not known rules a host out where the request limits it, and is named `…_unknown`. In the score it
-- counts as the median of a random sample, so that a host does not look idle because it cannot tell.
-- A host with a storage pool has no disk of its own (disk_gb_capacity is 0), and its figures of disk here are the pool's;
-- what rules the pool out is named disk_pool_… and ends with the pool's name. Who asks for no disk is not asked for the pool.
-- pools: of the hosts that the caller looks at, by pools_of().
CREATE OR REPLACE FUNCTION vacancy.usage_fit(request vacancy.request, pools vacancy.pools DEFAULT NULL)
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
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  f.host_id,
  array_remove(ARRAY[
    CASE WHEN f.is_ahead THEN 'clock ahead' END,
    CASE WHEN f.age > (SELECT vacancy.max_age()) THEN 'stale' END,
    CASE WHEN f.is_cloned THEN 'duplicate id' END,
    CASE WHEN (request).vcpus > greatest(f.vcpus_free, 0) THEN 'vcpus_free' END,
    CASE WHEN (request).memory_mb > greatest(f.memory_mb_free, 0) THEN 'memory_mb_free' END,
    CASE WHEN pool.place IS NULL THEN CASE WHEN (request).disk_gb > greatest(f.disk_gb_free, 0) THEN 'disk_gb_free' END
      ELSE 'disk_pool_' || CASE WHEN member.elsewhere THEN 'elsewhere' ELSE (pools).outs[pool.place] END
        || ' ' || (pools).names[pool.place] END,
    CASE WHEN coalesce(((request).numa->>'memory_mb')::bigint, (request).memory_mb) + (request).min_memory_mb_available > greatest(f.memory_mb_available, 0)
      THEN 'memory_mb_available' END,
    CASE WHEN pool.place IS NULL AND (request).disk_gb > greatest(f.disk_gb_available, 0) THEN 'disk_gb_available' END,
    CASE WHEN (request).max_cpu_utilization IS NOT NULL THEN
      CASE WHEN f.cpu_utilization IS NULL THEN 'cpu_utilization_unknown' WHEN f.cpu_utilization > (request).max_cpu_utilization THEN 'cpu_utilization' END
    END,
    CASE WHEN (request).max_cpu_steal IS NOT NULL THEN
      CASE WHEN f.cpu_steal IS NULL THEN 'cpu_steal_unknown' WHEN f.cpu_steal > (request).max_cpu_steal THEN 'cpu_steal' END
    END,
    CASE WHEN (request).max_cpu_pressure IS NOT NULL THEN
      CASE WHEN f.cpu_pressure IS NULL THEN 'cpu_pressure_unknown' WHEN f.cpu_pressure > (request).max_cpu_pressure THEN 'cpu_pressure' END
    END,
    CASE WHEN (request).max_memory_pressure IS NOT NULL THEN
      CASE WHEN f.memory_pressure IS NULL THEN 'memory_pressure_unknown' WHEN f.memory_pressure > (request).max_memory_pressure THEN 'memory_pressure' END
    END,
    CASE WHEN (request).max_io_pressure IS NOT NULL THEN
      CASE WHEN f.io_pressure IS NULL THEN 'io_pressure_unknown' WHEN f.io_pressure > (request).max_io_pressure THEN 'io_pressure' END
    END
  ], NULL),
  -- Shares, so that a big host does not win by its size. Of the classes the one that runs out first decides, and for
  -- `pack` the one that would be left over: what else is left of a host is of no use without it.
  coalesce(CASE (request).strategy
    WHEN 'spread' THEN -greatest(
      ((request).weights).vcpus * used.vcpus, ((request).weights).memory_mb * used.memory_mb, ((request).weights).disk_gb * used.disk_gb
    )
    WHEN 'pack' THEN least(
      nullif(((request).weights).vcpus, 0) * used.vcpus,
      nullif(((request).weights).memory_mb, 0) * used.memory_mb,
      nullif(((request).weights).disk_gb, 0) * used.disk_gb
    )
  END, 0)
  - CASE (request).strategy WHEN 'random' THEN 0 ELSE
    -- Within 0 to 1, since PostgreSQL has NaN above all numbers.
    ((request).weights).load * least(greatest(
      CASE num_nulls(f.cpu_utilization, f.cpu_pressure, f.memory_pressure, f.io_pressure)
        WHEN 0 THEN greatest(f.cpu_utilization, f.cpu_pressure, f.memory_pressure, f.io_pressure)
        ELSE vacancy.load_of(
          ARRAY[f.cpu_utilization, f.cpu_pressure, f.memory_pressure, f.io_pressure], (SELECT vacancy.typical_loads())
        )
      END,
      0
    ), 1)
    -- date_part() and not extract(), which gives the slower numeric.
    + ((request).weights).age * greatest(coalesce(date_part('epoch', f.age), 0) / date_part('epoch', (SELECT vacancy.max_age())), 0)
  END,
  f.age,
  f.vcpus_free,
  f.memory_mb_free,
  CASE WHEN pool.place IS NULL THEN f.disk_gb_capacity ELSE (pools).capacities[pool.place] END,
  CASE WHEN pool.place IS NULL THEN f.disk_gb_free ELSE (pools).free[pool.place] END,
  f.memory_mb_available,
  CASE WHEN pool.place IS NULL THEN f.disk_gb_available ELSE (pools).available[pool.place] END,
  f.cpu_utilization,
  f.cpu_steal,
  f.cpu_pressure,
  f.memory_pressure,
  f.io_pressure,
  (pools).names[pool.place],
  (pools).ids[pool.place]
FROM vacancy.host_free AS f
LEFT JOIN (
  -- OFFSET 0: the place of a host's pool among the pools is looked up once.
  SELECT m.host_id, m.elsewhere, array_position((pools).names, m.disk_pool) AS place
  FROM unnest((pools).hosts, (pools).disk_pools, (pools).elsewhere) AS m (host_id, disk_pool, elsewhere)
  WHERE m.disk_pool IS NOT NULL
  OFFSET 0
) AS member ON member.host_id = f.host_id
CROSS JOIN LATERAL (
  -- Null: it has a disk of its own.
  SELECT CASE WHEN f.disk_gb_capacity = 0 THEN member.place END AS place
) AS pool
CROSS JOIN LATERAL (
  -- Of each class the share that would be in use with the claim: by promise or by measure, whichever is more.
  SELECT
    1 - (f.vcpus_free::double precision - (request).vcpus) / nullif(f.vcpus_capacity, 0) AS vcpus,
    1 - least(f.memory_mb_free::double precision - (request).memory_mb, f.memory_mb_available::double precision - coalesce(((request).numa->>'memory_mb')::bigint, (request).memory_mb))
      / nullif(f.memory_mb_capacity, 0) AS memory_mb,
    CASE WHEN pool.place IS NULL
      THEN 1 - (least(f.disk_gb_free, f.disk_gb_available)::double precision - (request).disk_gb) / nullif(f.disk_gb_capacity, 0)
      ELSE 1 - (least((pools).free[pool.place], (pools).available[pool.place])::double precision - (request).disk_gb)
        / nullif((pools).capacities[pool.place], 0)
    END AS disk_gb
) AS used
$$;

-- What rules each host out for a request, first by what the host is, then by its usage; without its complex parts.
-- Grain: one row a host that is not retired, without storage pools. ruled_out_by is empty where the request fits.
CREATE OR REPLACE FUNCTION vacancy.host_fit(request vacancy.request, pools vacancy.pools DEFAULT NULL)
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
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  i.host_id,
  i.name,
  array_remove(ARRAY[
    CASE WHEN i.status = 'DISABLED' THEN 'disabled' END,
    CASE WHEN (request).include <> '{}' AND NOT (i.host_id = ANY ((request).include) OR i.name = ANY ((request).include)) THEN 'include' END,
    CASE WHEN i.host_id = ANY ((request).avoid) OR i.name = ANY ((request).avoid) THEN 'avoid' END,
    CASE WHEN (request).zone <> coalesce(i.zone, '') THEN 'zone' END,
    CASE WHEN (request).aggregates <> '{}' AND NOT (i.aggregates && (request).aggregates) THEN 'aggregates' END,
    CASE WHEN (request).near IS NOT NULL AND (i.aggregates && (request).near_aggregates) IS NOT TRUE THEN 'near ' || (request).near END,
    CASE WHEN NOT (i.traits @> (request).required) THEN 'required' END,
    CASE WHEN (request).any_of <> '[]' AND EXISTS (
      SELECT FROM jsonb_array_elements((request).any_of) AS alternatives
      WHERE NOT alternatives ?| i.traits
    ) THEN 'any_of' END,
    CASE WHEN i.traits && (request).forbidden THEN 'forbidden' END,
    CASE WHEN (request).vcpus > 0 AND NOT (
      (request).vcpus BETWEEN i.vcpus_min_unit AND i.vcpus_max_unit AND (request).vcpus % nullif(i.vcpus_step_size, 0) = 0
    ) THEN 'vcpus_unit' END,
    CASE WHEN (request).memory_mb > 0 AND NOT (
      (request).memory_mb BETWEEN i.memory_mb_min_unit AND i.memory_mb_max_unit
      AND (request).memory_mb % nullif(i.memory_mb_step_size, 0) = 0
    ) THEN 'memory_mb_unit' END,
    CASE WHEN (request).disk_gb > 0 AND i.disk_pool IS NULL AND NOT (
      (request).disk_gb BETWEEN i.disk_gb_min_unit AND i.disk_gb_max_unit AND (request).disk_gb % nullif(i.disk_gb_step_size, 0) = 0
    ) THEN 'disk_gb_unit' END,
    -- Its last usage is of before it was told of the pool, or of an agent that does not know of pools.
    CASE WHEN (request).disk_gb > 0 AND i.disk_pool <> coalesce(u.disk_pool, '') AND u.host_id IS NOT NULL
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
LEFT JOIN vacancy.usage_fit(request, pools) AS u ON u.host_id = i.host_id
WHERE NOT i.retired AND NOT i.shares
$$;

-- The same for people who look at all hosts: what rules each out is computed once, however often it is read.
-- available: how much the host has of the first dimension that rules it out, null where that has no amount.
CREATE OR REPLACE FUNCTION vacancy.simple_fit(request vacancy.request, pools vacancy.pools)
RETURNS TABLE (host_id text, name text, ruled_out_by text[], score double precision, available double precision)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  h.host_id,
  h.name,
  h.ruled_out_by,
  h.score,
  CASE WHEN h.ruled_out_by <> '{}' THEN
    CASE split_part(h.ruled_out_by[1], ' ', 1)  -- of a storage pool's without its name
      WHEN 'stale' THEN date_part('epoch', h.age)
      WHEN 'vcpus_free' THEN h.vcpus_free
      WHEN 'memory_mb_free' THEN h.memory_mb_free
      WHEN 'disk_gb_free' THEN h.disk_gb_free
      WHEN 'memory_mb_available' THEN h.memory_mb_available
      WHEN 'disk_gb_available' THEN h.disk_gb_available
      WHEN 'cpu_utilization' THEN h.cpu_utilization
      WHEN 'cpu_steal' THEN h.cpu_steal
      WHEN 'cpu_pressure' THEN h.cpu_pressure
      WHEN 'memory_pressure' THEN h.memory_pressure
      WHEN 'io_pressure' THEN h.io_pressure
      WHEN 'disk_pool_free' THEN h.disk_gb_free
      WHEN 'disk_pool_available' THEN h.disk_gb_available
    END::double precision
  END
FROM (SELECT * FROM vacancy.host_fit(request, pools) OFFSET 0) AS h
$$;

REVOKE ALL ON FUNCTION
  vacancy.typical_loads(), vacancy.load_of(double precision[], double precision[]),
  vacancy.pools_of(vacancy.request, text[], text[], boolean), vacancy.usage_fit(vacancy.request, vacancy.pools),
  vacancy.host_fit(vacancy.request, vacancy.pools), vacancy.simple_fit(vacancy.request, vacancy.pools)
FROM PUBLIC;
