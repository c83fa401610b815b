-- Complex resources: PCI devices by pool, pinned CPUs and huge pages by NUMA cell, resource classes beyond the three.
-- The hosts' own figures of them are in host_inventory, which is written on change. What claims take of them is in
-- claim.held, and counts against the same pool and cell until the host's inventory holds it.
-- Which device and which CPU an instance gets is the hypervisor's choice: here they are counted.

-- What claims and people look for, taken out of the JSON once a write and not once a look. pci_kinds and resource_classes
-- do not change when devices are taken, so that updates stay HOT beside the index on them.
CREATE FUNCTION vacancy.pci_kinds(pools jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_agg(DISTINCT pool - 'free' - 'total'), '[]') FROM jsonb_array_elements(pools) AS pool);

CREATE FUNCTION vacancy.resource_classes(inventories jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT jsonb_object_keys(inventories) ORDER BY 1);

CREATE FUNCTION vacancy.numa_free(cells jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'id', cell->'id',
    'cpus', coalesce(jsonb_array_length(cell->'free_cpus'), 0),
    'pages', (
      SELECT coalesce(jsonb_object_agg(size->>'size_kb', size->'free'), '{}') FROM jsonb_array_elements(cell->'pages') AS size
    )
  )), '[]')
  FROM jsonb_array_elements(cells) AS cell
);

ALTER TABLE vacancy.host_inventory
  ADD COLUMN allocated jsonb,
  ADD COLUMN resource_classes text[] GENERATED ALWAYS AS (vacancy.resource_classes(inventories)) STORED,
  ADD COLUMN pci_kinds jsonb GENERATED ALWAYS AS (vacancy.pci_kinds(pci_pools)) STORED,
  ADD COLUMN numa_free jsonb GENERATED ALWAYS AS (vacancy.numa_free(numa_cells)) STORED;

-- Who offers a device or a class at all, free or not.
CREATE INDEX host_inventory_offers ON vacancy.host_inventory USING gin (pci_kinds jsonb_path_ops, resource_classes)
WHERE NOT retired;

COMMENT ON COLUMN vacancy.host_inventory.allocated IS 'By resource class: what instances hold. Null: the host does not say.';
COMMENT ON COLUMN vacancy.host_inventory.resource_classes IS 'The keys of inventories.';
COMMENT ON COLUMN vacancy.host_inventory.pci_kinds IS 'pci_pools without total and free, for the index: pci_kinds @> ''[{"vendor_id": "10de"}]''.';
COMMENT ON COLUMN vacancy.host_inventory.numa_free IS 'By cell: how many CPUs are free, and huge pages by size in KiB.';

-- Null for a claim without such demands, which so knows nothing of all this.
ALTER TABLE vacancy.claim ADD COLUMN held jsonb, ADD COLUMN shown_at timestamptz;

CREATE INDEX claim_held ON vacancy.claim (host_id) WHERE held IS NOT NULL;

COMMENT ON COLUMN vacancy.claim.held IS 'How much of what on the host: "numa 0 cpus", "numa 0 pages 2048", "pci {…}" (a pool), "CUSTOM_…" (a class).';
COMMENT ON COLUMN vacancy.claim.shown_at IS 'observed_at of the host row that settled it, where it holds anything; the next inventory holds that.';

-- What claims take of a host that its inventory does not hold yet, by what it is; null: nothing.
-- The one place that says how long: in flight until it expires; settled until an inventory newer than the usage that showed
-- the instance. An inventory may be older than a settlement, and then does not hold the instance's devices; between the
-- two they would have two owners.
CREATE FUNCTION vacancy.taken(on_host text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
SELECT jsonb_object_agg(held.key, held.amount)
FROM (
  SELECT part.key, sum(part.value::bigint)::bigint AS amount
  FROM vacancy.claim AS c
  LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  CROSS JOIN LATERAL jsonb_each_text(c.held) AS part
  WHERE c.host_id = on_host
    AND c.held IS NOT NULL
    AND CASE WHEN c.settled_at IS NULL THEN c.expires_at > statement_timestamp() ELSE i.observed_at <= c.shown_at END
  GROUP BY part.key
) AS held
$$;

-- The pools of a host less what claims take of them. A pool's key is what it is, without its amounts.
-- What was claimed of a pool that is no longer there (somebody changed its tags) counts against all of the same product.
CREATE FUNCTION vacancy.pci_free(pools jsonb, taken jsonb) RETURNS TABLE (key text, pool jsonb, free bigint)
LANGUAGE sql STABLE AS $$
WITH keyed AS (
  SELECT 'pci ' || (pool - 'free' - 'total')::text AS key, pool FROM jsonb_array_elements(pools) AS pool
)
SELECT
  k.key,
  k.pool,
  (k.pool->>'free')::bigint - coalesce((taken->>k.key)::bigint, 0) - coalesce((
    SELECT sum(lost.value::bigint) FROM jsonb_each_text(taken) AS lost
    WHERE lost.key LIKE 'pci %'
      AND NOT EXISTS (SELECT FROM keyed WHERE keyed.key = lost.key)
      AND k.pool @> (substr(lost.key, 5)::jsonb - 'numa_node' - 'tags')
  ), 0)::bigint
FROM keyed AS k
$$;

-- The cells of a host less what claims take of them: free CPUs, and free huge pages by size in KiB.
CREATE FUNCTION vacancy.cells_free(cells jsonb, taken jsonb) RETURNS TABLE (id integer, cpus bigint, pages jsonb)
LANGUAGE sql STABLE AS $$
SELECT
  (cell->>'id')::integer,
  (cell->>'cpus')::bigint - coalesce((taken->>('numa ' || (cell->>'id') || ' cpus'))::bigint, 0),
  CASE WHEN taken IS NULL THEN cell->'pages' ELSE (
    SELECT coalesce(jsonb_object_agg(
      size.key, size.value::bigint - coalesce((taken->>('numa ' || (cell->>'id') || ' pages ' || size.key))::bigint, 0)
    ), '{}')
    FROM jsonb_each_text(cell->'pages') AS size
  ) END
FROM jsonb_array_elements(cells) AS cell
$$;

-- How much of a resource class a host has free, by Placement's rule; null: it has no such class, or does not say what its
-- instances hold of it. Rounded down, as Placement and the agents do.
CREATE FUNCTION vacancy.class_free(class text, inventory jsonb, allocated jsonb, taken jsonb) RETURNS bigint
LANGUAGE sql STABLE AS $$
SELECT floor(
  ((inventory->>'total')::bigint - coalesce((inventory->>'reserved')::bigint, 0))
  * coalesce((inventory->>'allocation_ratio')::double precision, 1)
)::bigint
  - CASE WHEN allocated IS NOT NULL THEN coalesce((allocated->>class)::bigint, 0) END
  - coalesce((taken->>class)::bigint, 0)
$$;

-- A request's complex parts; null: none of that kind. pci as parse_pci() gives it.
ALTER TYPE vacancy.request
  ADD ATTRIBUTE resources jsonb,
  ADD ATTRIBUTE numa jsonb,
  ADD ATTRIBUTE pci jsonb;

-- Whether each value of an object is a whole number from at_least on, and there is one at all.
CREATE FUNCTION vacancy.are_amounts(document jsonb, at_least bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
SELECT jsonb_typeof(document) = 'object' AND coalesce((
  SELECT bool_and(CASE WHEN value::text ~ '^[0-9]{1,10}$' THEN value::bigint BETWEEN at_least AND 2147483647 ELSE false END)
  FROM jsonb_each(document)
), false)
$$;

-- Demands for PCI devices from JSON: of each what a pool must contain, how many, and the name that a refusal gives it.
CREATE FUNCTION vacancy.parse_pci(document jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  demand jsonb;
  pool jsonb;
  demands jsonb := '[]';
BEGIN
  IF jsonb_typeof(document) <> 'array' THEN
    RAISE EXCEPTION 'pci must be a list of demands' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF jsonb_array_length(document) > 8 THEN
    RAISE EXCEPTION 'pci must be 8 demands at most' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR demand IN SELECT * FROM jsonb_array_elements(document) LOOP
    IF jsonb_typeof(demand) <> 'object' THEN
      RAISE EXCEPTION 'a pci demand must be an object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    demand := '{"count": 1, "same_cell": false, "tags": {}}' || demand;
    pool := demand - 'count' - 'same_cell';
    IF pool - ARRAY['vendor_id', 'product_id', 'tags', 'numa_node'] <> '{}'
      OR jsonb_typeof(pool->'tags') <> 'object'
      OR jsonb_typeof(demand->'same_cell') <> 'boolean'
      OR jsonb_typeof(coalesce(pool->'numa_node', '0')) <> 'number'
      OR NOT vacancy.are_amounts(jsonb_build_object('count', demand->'count'), 1)
      OR NOT coalesce(pool->>'vendor_id', pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT coalesce(pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT (pool ? 'vendor_id' OR pool ? 'product_id' OR pool->'tags' <> '{}') THEN
      RAISE EXCEPTION 'a pci demand has vendor_id and product_id (four hex digits), tags, numa_node, same_cell and count; '
        'one of the first three at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pool->'tags' = '{}' THEN
      pool := pool - 'tags';
    END IF;
    pool := pool || jsonb_strip_nulls(jsonb_build_object(
      'vendor_id', lower(pool->>'vendor_id'), 'product_id', lower(pool->>'product_id')
    ));
    demands := demands || jsonb_build_object(
      'pool', pool,
      'same_cell', demand->'same_cell',
      'count', demand->'count',
      'name', concat_ws(' ',
        format('pci %s:%s', coalesce(pool->>'vendor_id', '*'), coalesce(pool->>'product_id', '*')),
        (SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM jsonb_each_text(pool->'tags')),
        'node ' || (pool->>'numa_node')
      )
    );
  END LOOP;
  RETURN nullif(demands, '[]');
END
$$;

-- As in 0008, and the complex parts.
CREATE OR REPLACE FUNCTION vacancy.parse_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r vacancy.request := (0, 0, 0, false, '{}', '[]', '{}', '{}', NULL, '{}', '{}', NULL, NULL, NULL, NULL, NULL, 0,
    'spread', (1, 1, 1, 1, 0.1)::vacancy.weights, 24, NULL, '2 min', NULL, NULL, NULL);
  strangers jsonb := (document || coalesce(document->'weights', '{}')) - ARRAY[
    'vcpus', 'memory_mb', 'disk_gb', 'distinct_hosts', 'required', 'any_of', 'forbidden', 'aggregates', 'zone', 'include',
    'avoid', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure', 'max_memory_pressure', 'max_io_pressure',
    'min_memory_mb_available', 'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'load', 'age',
    'resources', 'numa', 'pci'
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

-- What rules a host out for the complex parts of a request, part by part, as dimensions, and how much it has of the first.
-- Grain: one row. missing is empty where it has enough of each part; whether of all together, complex_room() says.
CREATE FUNCTION vacancy.complex_missing(
  resources jsonb, numa jsonb, pci jsonb, inventories jsonb, allocated jsonb, numa_free jsonb, pci_pools jsonb, taken jsonb
) RETURNS TABLE (missing text[], had double precision)
LANGUAGE sql STABLE AS $$
SELECT
  coalesce(array_agg(j.dimension ORDER BY j.position, j.dimension), '{}'),
  (array_agg(j.had ORDER BY j.position, j.dimension))[1]
FROM (
  SELECT
    0 AS position,
    CASE
      WHEN inventories->asked.key IS NULL OR asked.value::bigint > free.free THEN asked.key
      WHEN free.free IS NULL THEN asked.key || '_allocated'
      WHEN asked.value::bigint NOT BETWEEN coalesce((inventories->asked.key->>'min_unit')::bigint, 1)
          AND coalesce((inventories->asked.key->>'max_unit')::bigint, asked.value::bigint)
        OR asked.value::bigint % coalesce(nullif((inventories->asked.key->>'step_size')::bigint, 0), 1) <> 0
        THEN asked.key || '_unit'
    END AS dimension,
    CASE WHEN inventories->asked.key IS NULL OR asked.value::bigint > free.free THEN greatest(free.free, 0) END AS had
  FROM jsonb_each_text(resources) AS asked
  CROSS JOIN LATERAL (
    SELECT vacancy.class_free(asked.key, inventories->asked.key, allocated, taken) AS free
  ) AS free
  UNION ALL
  -- The most that one cell has.
  SELECT 1, CASE WHEN most.cpus < (numa->>'cpus')::bigint THEN 'numa_cpus' END, most.cpus
  FROM (SELECT coalesce(max(greatest(c.cpus, 0)), 0) AS cpus FROM vacancy.cells_free(numa_free, taken) AS c) AS most
  WHERE numa IS NOT NULL
  UNION ALL
  SELECT 1, CASE WHEN most.pages < size.value::bigint THEN 'numa_pages_' || size.key END, most.pages
  FROM jsonb_each_text(numa->'pages') AS size
  CROSS JOIN LATERAL (
    SELECT coalesce(max((c.pages->>size.key)::bigint), 0) AS pages FROM vacancy.cells_free(numa_free, taken) AS c
  ) AS most
  UNION ALL
  -- Of the pools that do for a demand, in one cell where it has to be one.
  SELECT
    1 + demand.position,
    CASE WHEN most.devices < (demand.value->>'count')::bigint THEN demand.value->>'name' END,
    most.devices
  FROM jsonb_array_elements(pci) WITH ORDINALITY AS demand (value, position)
  CROSS JOIN LATERAL (
    SELECT coalesce(max(f.devices), 0) AS devices
    FROM (
      SELECT sum(greatest(p.free, 0)) AS devices
      FROM vacancy.pci_free(pci_pools, taken) AS p
      WHERE p.pool @> (demand.value->'pool')
        AND NOT ((demand.value->'same_cell')::boolean AND p.pool->>'numa_node' IS NULL)
      GROUP BY CASE WHEN (demand.value->'same_cell')::boolean THEN p.pool->'numa_node' END
    ) AS f
  ) AS most
) AS j
WHERE j.dimension IS NOT NULL
$$;

-- Devices for demands from the pools that fit each, with a cell for those that are to be in the same; as claim.held has
-- them. Null: there are not enough. In the order of the demands with the fewest pools, from the pools that the fewest
-- demands could use. That serves two demands right always, and more where the pools of one lie within those of another, or
-- apart; where three or more overlap crosswise it may miss a way, and never takes what is not there.
CREATE FUNCTION vacancy.place_pci(pci jsonb, same_cell integer, keys text[], pools jsonb[], free bigint[]) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  demands integer := jsonb_array_length(pci);
  fits boolean[] := '{}';  -- of demand d and pool p at (d - 1) * cardinality(pools) + p
  pools_for integer[] := array_fill(0, ARRAY[demands]);
  demands_for integer[] := array_fill(0, ARRAY[cardinality(pools)]);
  demand jsonb;
  fit boolean;
  want bigint;
  take bigint;
  held jsonb := '{}';
BEGIN
  FOR d IN 1..demands LOOP
    demand := pci->(d - 1);
    FOR p IN 1..cardinality(pools) LOOP
      fit := free[p] > 0 AND pools[p] @> (demand->'pool')
        AND (NOT (demand->'same_cell')::boolean OR coalesce((pools[p]->>'numa_node')::integer = same_cell, false));
      fits := fits || fit;
      IF fit THEN
        pools_for[d] := pools_for[d] + 1;
        demands_for[p] := demands_for[p] + 1;
      END IF;
    END LOOP;
  END LOOP;
  FOR few_pools IN 0..cardinality(pools) LOOP
    FOR d IN 1..demands LOOP
      CONTINUE WHEN pools_for[d] <> few_pools;
      want := (pci->(d - 1)->>'count')::bigint;
      FOR few_demands IN 1..demands LOOP
        FOR p IN 1..cardinality(pools) LOOP
          CONTINUE WHEN demands_for[p] <> few_demands OR NOT fits[(d - 1) * cardinality(pools) + p];
          take := least(want, free[p]);
          CONTINUE WHEN take <= 0;
          want := want - take;
          free[p] := free[p] - take;
          held := held || jsonb_build_object(keys[p], coalesce((held->>keys[p])::bigint, 0) + take);
        END LOOP;
      END LOOP;
      IF want > 0 THEN
        RETURN NULL;
      END IF;
    END LOOP;
  END LOOP;
  RETURN held;
END
$$;

-- Where a host has room for a request's complex parts: what a claim would take of it, as claim.held has it. Where it has
-- none held is null, missing says of what, and had how much there is of the first; "numa": no cell has all that is to be in
-- one; "pci": there are not enough devices for all demands together, or not in a cell that has the rest.
-- Of the cells that do, the one with the fewest free CPUs is taken, so that room for big ones is left.
CREATE FUNCTION vacancy.complex_room(
  on_host text, resources jsonb, numa jsonb, pci jsonb, OUT held jsonb, OUT missing text[], OUT had double precision
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  i record;
  cell record;
  taken jsonb;
  keys text[];
  pools jsonb[];
  free bigint[];
  devices jsonb := '{}';
BEGIN
  SELECT h.inventories, h.allocated, h.numa_free, h.pci_pools INTO i
  FROM vacancy.host_inventory AS h
  WHERE h.host_id = on_host AND (pci IS NULL OR h.pci_kinds @> vacancy.kinds(pci));
  IF NOT FOUND THEN
    missing := '{pci}';  -- it has no such devices at all
    RETURN;
  END IF;
  taken := vacancy.taken(on_host);
  IF resources IS NOT NULL THEN
    SELECT m.missing, m.had INTO missing, had
    FROM vacancy.complex_missing(resources, NULL, NULL, i.inventories, i.allocated, NULL, NULL, taken) AS m;
    IF missing <> '{}' THEN
      RETURN;
    END IF;
  END IF;
  IF pci IS NOT NULL THEN
    SELECT coalesce(array_agg(p.key), '{}'), coalesce(array_agg(p.pool), '{}'), coalesce(array_agg(p.free), '{}')
    INTO keys, pools, free
    FROM vacancy.pci_free(i.pci_pools, taken) AS p;
  END IF;
  held := coalesce(resources, '{}');
  missing := '{}';
  IF numa IS NOT NULL OR pci @> '[{"same_cell": true}]' THEN
    devices := NULL;
    missing := CASE WHEN numa IS NULL THEN '{pci}' ELSE '{numa}' END;
    FOR cell IN
      SELECT c.id FROM vacancy.cells_free(i.numa_free, taken) AS c
      -- Below 0 while an inventory shows what a claim still holds; none is enough for none.
      WHERE numa IS NULL OR greatest(c.cpus, 0) >= (numa->>'cpus')::bigint AND NOT EXISTS (
        SELECT FROM jsonb_each_text(numa->'pages') AS size
        WHERE coalesce((c.pages->>size.key)::bigint, 0) < size.value::bigint
      )
      ORDER BY c.cpus, c.id
    LOOP
      missing := '{pci}';
      devices := CASE WHEN pci IS NULL THEN '{}' ELSE vacancy.place_pci(pci, cell.id, keys, pools, free) END;
      EXIT WHEN devices IS NOT NULL;
    END LOOP;
    IF devices IS NOT NULL AND numa IS NOT NULL THEN
      held := held || (
        SELECT jsonb_object_agg(format('numa %s %s', cell.id, part.name), part.amount)
        FROM (
          SELECT 'cpus' AS name, numa->'cpus' AS amount WHERE numa->'cpus' <> '0'
          UNION ALL
          SELECT 'pages ' || size.key, size.value FROM jsonb_each(numa->'pages') AS size
        ) AS part
      );
    END IF;
  ELSIF pci IS NOT NULL THEN
    devices := vacancy.place_pci(pci, NULL, keys, pools, free);
    missing := '{pci}';
  END IF;
  IF devices IS NULL THEN
    held := NULL;
  ELSE
    held := held || devices;
    missing := '{}';
  END IF;
END
$$;

-- What rules a host out for the complex parts of a request, and how much it has of the first; empty where it has room.
-- Part by part first, which is quickly told; only a host that has enough of each is asked whether it has room for all.
CREATE FUNCTION vacancy.complex_judged(on_host text, resources jsonb, numa jsonb, pci jsonb)
RETURNS TABLE (missing text[], had double precision)
LANGUAGE sql STABLE AS $$
SELECT
  CASE WHEN m.missing <> '{}' THEN m.missing ELSE (
    SELECT c.missing FROM vacancy.complex_room(on_host, resources, numa, pci) AS c
  ) END,
  m.had
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL (SELECT vacancy.taken(i.host_id) AS taken OFFSET 0) AS t
CROSS JOIN LATERAL vacancy.complex_missing(
  resources, numa, pci, i.inventories, i.allocated, i.numa_free, i.pci_pools, t.taken
) AS m
WHERE i.host_id = on_host
$$;

-- Whether a request has complex parts.
CREATE FUNCTION vacancy.is_complex(r vacancy.request) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (r).resources IS NOT NULL OR (r).numa IS NOT NULL OR (r).pci IS NOT NULL;

-- What pci_kinds contains of a host that offers the devices of a request.
CREATE FUNCTION vacancy.kinds(pci jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN (SELECT coalesce(jsonb_agg(demand->'pool'), '[]') FROM jsonb_array_elements(pci) AS demand);

-- The ids of so many random hosts that offer the devices and classes of a request, free or not, and are not disabled; null
-- where it names none. Found by index: the rare are found as quickly as the common.
CREATE FUNCTION vacancy.hosts_that_offer(r vacancy.request, hosts integer) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET enable_bitmapscan = on AS $$
DECLARE
  kinds jsonb := vacancy.kinds(r.pci);
  classes text[] := coalesce(vacancy.resource_classes(r.resources), '{}');
BEGIN
  IF r.pci IS NULL AND r.resources IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN ARRAY(
    SELECT i.host_id FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND i.pci_kinds @> kinds AND i.resource_classes @> classes
    ORDER BY random() LIMIT hosts
  );
END
$$;

-- As in 0008, at_most of them; and for complex parts: the best ones that have room for them, too. A claim asks for one or two
-- then, since each look into cells and pools costs as much as several into usage. At a glance it gives up after a few.
DROP FUNCTION vacancy.best_of_sample(vacancy.request, integer, boolean);

CREATE FUNCTION vacancy.best_of_sample(r vacancy.request, hosts integer, glance boolean, at_most integer DEFAULT 8)
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
  IF complex AND NOT glance THEN
    sampled := vacancy.hosts_that_offer(r, hosts);
  END IF;
  sampled := coalesce(sampled, vacancy.random_hosts(hosts));
  IF glance AND r.zone IS NULL AND r.any_of = '[]'
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

-- As in 0008; hosts that fit in all else are then looked at for the complex parts.
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
    (5, 'aggregates', NULL), (6, 'required', NULL), (7, 'any_of', NULL), (8, 'forbidden', NULL),
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

-- As in 0008; the very statement that looks again under the lock says what of the host is taken.
CREATE OR REPLACE FUNCTION vacancy.claim_host(
  r vacancy.request, for_consumer uuid, holding boolean, OUT host text, OUT contended integer, OUT refusal jsonb
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  candidates text[];
  candidate text;
  key bigint;
  complex boolean := vacancy.is_complex(r);
BEGIN
  contended := 0;
  FOR round IN 1..6 LOOP
    IF round <= 2 AND r.include = '{}' THEN
      -- When the fleet is nearly full a bigger sample still costs a fraction of a look at all hosts.
      candidates := vacancy.best_of_sample(
        r, CASE round WHEN 1 THEN r.sample ELSE 16 * r.sample END, round = 1, CASE WHEN complex THEN round ELSE 8 END
      );
      CONTINUE WHEN candidates = '{}';
    ELSE
      SELECT a.best, a.refusal INTO candidates, refusal FROM vacancy.look_at_all(r) AS a;
      IF refusal IS NOT NULL THEN
        RETURN;
      END IF;
    END IF;
    FOREACH candidate IN ARRAY candidates LOOP
      key := hashtextextended(candidate, 1);
      IF NOT pg_try_advisory_xact_lock(key) THEN
        contended := contended + 1;
        CONTINUE WHEN holding OR round < 4;
        PERFORM pg_advisory_xact_lock(key);
      END IF;
      holding := true;
      -- A statement of its own, whose snapshot is newer than the lock: it sees every claim on the host.
      IF complex THEN
        INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, held)
        SELECT for_consumer, j.host_id, r.vcpus, r.memory_mb, r.disk_gb, at, at + r.claim_ttl, c.held
        FROM vacancy.judged(r) AS j
        CROSS JOIN LATERAL vacancy.complex_room(j.host_id, r.resources, r.numa, r.pci) AS c
        CROSS JOIN clock_timestamp() AS at
        WHERE j.host_id = candidate AND j.ruled_out_by = '{}' AND c.held IS NOT NULL;
      ELSE
        INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at)
        SELECT for_consumer, j.host_id, r.vcpus, r.memory_mb, r.disk_gb, at, at + r.claim_ttl
        FROM vacancy.judged(r) AS j, clock_timestamp() AS at
        WHERE j.host_id = candidate AND j.ruled_out_by = '{}';
      END IF;
      IF FOUND THEN
        host := candidate;
        RETURN;
      END IF;
    END LOOP;
  END LOOP;
  RAISE EXCEPTION 'every host that fits was being claimed from by others'
    USING ERRCODE = 'serialization_failure', HINT = 'Claim again with the same consumers.';
END
$$;

-- As in 0007, and notes by which usage a claim that holds anything was shown.
CREATE OR REPLACE FUNCTION vacancy.settle_claims() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown uuid[] := NEW.recent_consumers;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    shown := shown || OLD.recent_consumers;
  END IF;
  UPDATE vacancy.claim
  SET settled_at = clock_timestamp(), shown_at = CASE WHEN held IS NOT NULL THEN NEW.observed_at END
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

-- Of claims about to be deleted: what a settled one holds that its host's inventory does not show yet stays behind, under
-- an id of its own, until it does.
CREATE FUNCTION vacancy.leave_behind(consumers uuid[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
  INSERT INTO vacancy.claim
    (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, settled_at, shown_at, held)
  SELECT gen_random_uuid(), c.host_id, 0, 0, 0, c.claimed_at, statement_timestamp(), c.settled_at, c.shown_at, c.held
  FROM vacancy.claim AS c
  JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  WHERE c.consumer = ANY (consumers) AND c.held IS NOT NULL AND i.observed_at <= c.shown_at
$$;

-- As in 0008, but leaves those whose hold goes on after they have expired, which are those of the last moments.
CREATE OR REPLACE FUNCTION vacancy.sweep_claims() RETURNS void
LANGUAGE sql VOLATILE AS $$
  DELETE FROM vacancy.claim WHERE consumer = ANY (ARRAY(
    SELECT c.consumer FROM vacancy.claim AS c
    WHERE c.expires_at <= statement_timestamp()
      AND (c.shown_at IS NULL OR NOT EXISTS (
        SELECT FROM vacancy.host_inventory AS i WHERE i.host_id = c.host_id AND i.observed_at <= c.shown_at
      ))
    ORDER BY c.expires_at LIMIT 64 FOR UPDATE OF c SKIP LOCKED
  ))
$$;

-- Claims hosts for consumers: all of them or none.
-- Rows: one a consumer, in their order; or a single one whose refusal says why (all else null).
-- A consumer that has a claim which has not expired keeps it, settled or not, and `already` says so.
-- held: what it takes of pools, cells and classes, as claim.held has it; null: nothing of them.
-- contended: hosts passed over because others were claiming from them at that moment.
-- Raises serialization_failure: try again with the same consumers; invalid_parameter_value: the request makes no sense.
-- As in 0008, with a column more.
DROP FUNCTION vacancy.claim(uuid[], jsonb);

CREATE FUNCTION vacancy.claim(consumers uuid[], request jsonb DEFAULT '{}')
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb,
  held jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  former uuid[];
  taken text[];
  expired uuid[];
  made uuid[] := '{}';
  asked uuid;
  claimed record;
  passed_over integer := 0;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was claimed meanwhile.
    RAISE EXCEPTION 'claim() needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF coalesce(cardinality(consumers), 0) NOT BETWEEN 1 AND 1000 OR array_position(consumers, NULL) IS NOT NULL
    OR vacancy.lock_consumers(consumers) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'consumers must be 1 to 1000 different ids' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
    coalesce(array_agg(c.host_id) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at <= statement_timestamp()), '{}')
  INTO former, taken, expired
  FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  IF expired <> '{}' THEN
    PERFORM vacancy.leave_behind(expired);
    DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (expired);
  END IF;

  FOREACH asked IN ARRAY consumers LOOP
    CONTINUE WHEN asked = ANY (former);
    IF r.distinct_hosts THEN
      r.avoid := r.avoid || taken;
    END IF;
    claimed := vacancy.claim_host(r, asked, made <> '{}');
    passed_over := passed_over + claimed.contended;
    IF claimed.host IS NULL THEN
      -- All or none.
      DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (made);
      contended := passed_over;
      refusal := claimed.refusal || jsonb_build_object('claimable', cardinality(made), 'count', cardinality(consumers));
      RETURN NEXT;
      RETURN;
    END IF;
    made := made || asked;
    taken := ARRAY[claimed.host];
  END LOOP;

  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
  RETURN QUERY
    SELECT c.consumer, c.host_id, i.name, c.claimed_at, c.expires_at, c.consumer = ANY (former), passed_over, NULL::jsonb, c.held
    FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
    WHERE c.consumer = ANY (consumers)
    ORDER BY array_position(consumers, c.consumer);
END
$$;

-- Gives claims back; the consumers that had one which still counted or was settled. Again is harmless.
CREATE OR REPLACE FUNCTION vacancy.release(consumers uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  PERFORM vacancy.leave_behind(consumers);
  RETURN QUERY
    WITH gone AS (DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) RETURNING c.consumer, c.expires_at)
    SELECT gone.consumer FROM gone WHERE gone.expires_at > statement_timestamp();
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

-- Every host and what rules it out for a request; empty where it fits.
CREATE OR REPLACE FUNCTION vacancy.why(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, ruled_out_by text[])
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  r vacancy.request := vacancy.take_request(request);
BEGIN
  IF vacancy.is_complex(r) THEN
    RETURN QUERY
      SELECT j.host_id, j.name, j.ruled_out_by || c.missing
      FROM vacancy.judged(r) AS j CROSS JOIN LATERAL vacancy.complex_judged(j.host_id, r.resources, r.numa, r.pci) AS c;
  ELSE
    RETURN QUERY SELECT j.host_id, j.name, j.ruled_out_by FROM vacancy.judged(r) AS j;
  END IF;
END
$$;

-- Notes that a scheduler has claimed a host elsewhere: it counts here as a claim in flight, until the host shows its
-- consumer or the time is over. It refuses nothing, since the other claim stands already. A consumer that had a claim,
-- here or on another host, has this one from now on: it moved. Of pools and cells
-- it notes nothing: whoever claims elsewhere counts them there.
CREATE OR REPLACE FUNCTION vacancy.note_claim(
  for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
  INSERT INTO vacancy.claim AS c (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at)
  SELECT for_consumer, on_host, vcpus, memory_mb, disk_gb, at, at + claim_ttl FROM clock_timestamp() AS at
  ON CONFLICT (consumer) DO UPDATE SET
    host_id = EXCLUDED.host_id,
    vcpus = EXCLUDED.vcpus,
    memory_mb = EXCLUDED.memory_mb,
    disk_gb = EXCLUDED.disk_gb,
    claimed_at = EXCLUDED.claimed_at,
    expires_at = EXCLUDED.expires_at,
    settled_at = NULL,
    shown_at = NULL,
    held = NULL;
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

-- The pools, cells and further classes of all hosts, less the claims.
-- Grain: one row a pool of a host that is not retired.
CREATE VIEW vacancy.pci_pool AS
SELECT
  i.host_id,
  i.name AS host_name,
  p.pool->>'vendor_id' AS vendor_id,
  p.pool->>'product_id' AS product_id,
  (p.pool->>'numa_node')::integer AS numa_node,
  p.pool->'tags' AS tags,
  (p.pool->>'total')::bigint AS total,
  p.free,
  (p.pool->>'free')::bigint - p.free AS claimed
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL vacancy.taken(i.host_id) AS taken (taken)
CROSS JOIN LATERAL vacancy.pci_free(i.pci_pools, taken.taken) AS p
WHERE NOT i.retired;

-- Grain: one row a cell of a host that is not retired.
CREATE VIEW vacancy.numa_cell AS
SELECT
  i.host_id,
  i.name AS host_name,
  c.id,
  c.cpus AS cpus_free,
  c.pages AS pages_free
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL vacancy.taken(i.host_id) AS taken (taken)
CROSS JOIN LATERAL vacancy.cells_free(i.numa_free, taken.taken) AS c
WHERE NOT i.retired;

-- Grain: one row a resource class of a host that is not retired, but for those that have columns of their own in host.
CREATE VIEW vacancy.resource_class AS
SELECT
  i.host_id,
  i.name AS host_name,
  class.key AS resource_class,
  (class.value->>'total')::bigint AS total,
  vacancy.class_free(class.key, class.value, i.allocated, taken.taken) AS free
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL vacancy.taken(i.host_id) AS taken (taken)
CROSS JOIN LATERAL jsonb_each(i.inventories) AS class
WHERE NOT i.retired AND class.key NOT IN ('VCPU', 'MEMORY_MB', 'DISK_GB');

COMMENT ON VIEW vacancy.pci_pool IS 'PCI devices by host and pool, less the claims.';
COMMENT ON COLUMN vacancy.pci_pool.claimed IS 'Devices that claims take and the inventory does not show yet.';
COMMENT ON VIEW vacancy.numa_cell IS 'NUMA cells by host, less the claims.';
COMMENT ON COLUMN vacancy.numa_cell.pages_free IS 'Huge pages by their size in KiB.';
COMMENT ON VIEW vacancy.resource_class IS 'Resource classes beyond VCPU, MEMORY_MB and DISK_GB by host, less the claims.';
COMMENT ON COLUMN vacancy.resource_class.free IS 'Null: the host does not say what its instances hold of it.';

REVOKE ALL ON FUNCTION
  vacancy.pci_kinds(jsonb), vacancy.resource_classes(jsonb), vacancy.numa_free(jsonb), vacancy.taken(text),
  vacancy.pci_free(jsonb, jsonb), vacancy.cells_free(jsonb, jsonb), vacancy.class_free(text, jsonb, jsonb, jsonb),
  vacancy.are_amounts(jsonb, bigint), vacancy.parse_pci(jsonb),
  vacancy.complex_missing(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb),
  vacancy.place_pci(jsonb, integer, text[], jsonb[], bigint[]), vacancy.complex_room(text, jsonb, jsonb, jsonb),
  vacancy.complex_judged(text, jsonb, jsonb, jsonb), vacancy.is_complex(vacancy.request), vacancy.kinds(jsonb),
  vacancy.hosts_that_offer(vacancy.request, integer),
  vacancy.best_of_sample(vacancy.request, integer, boolean, integer), vacancy.leave_behind(uuid[]),
  vacancy.claim(uuid[], jsonb)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION vacancy.claim(uuid[], jsonb) TO vacancy_scheduler;

-- Whoever writes a row calls the functions of its generated columns.
GRANT EXECUTE ON FUNCTION vacancy.pci_kinds(jsonb), vacancy.resource_classes(jsonb), vacancy.numa_free(jsonb)
TO vacancy_job;

-- And whoever reads a view those in the view.
GRANT EXECUTE ON FUNCTION
  vacancy.taken(text), vacancy.pci_free(jsonb, jsonb), vacancy.cells_free(jsonb, jsonb),
  vacancy.class_free(text, jsonb, jsonb, jsonb)
TO vacancy_reader;

GRANT SELECT ON vacancy.pci_pool, vacancy.numa_cell, vacancy.resource_class TO vacancy_reader;
