-- The complex parts of a request: PCI devices by pool, pinned CPUs and huge pages by NUMA cell, resource classes beyond
-- VCPU, MEMORY_MB and DISK_GB. A host's own figures of them are in host_inventory, which is written on change. What claims
-- hold of them is in claim.held, and counts against the same pool, cell and class until the host's inventory shows it.
-- Which device and which CPU an instance gets is the hypervisor's choice: here they are counted.

-- What claims hold of a host that its inventory does not show yet: amounts by the keys of claim.held. Null: nothing.
-- The one place that says how long that is: in flight until the claim expires; settled until an inventory newer than the
-- usage that showed the instance. An inventory may be older than a settlement, and then does not show the instance's
-- devices; between the two they would have two owners.
CREATE OR REPLACE FUNCTION vacancy.claimed_amounts(of_host text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT jsonb_object_agg(claimed.key, claimed.amount)
FROM (
  SELECT held.key, sum(held.value::bigint)::bigint AS amount
  FROM vacancy.claim AS c
  LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  CROSS JOIN LATERAL jsonb_each_text(c.held) AS held
  WHERE c.host_id = of_host
    AND c.held IS NOT NULL
    AND CASE WHEN c.settled_at IS NULL THEN c.expires_at > statement_timestamp() ELSE i.observed_at <= c.shown_at END
  GROUP BY held.key
) AS claimed
$$;

-- The pools of a host less what claims hold of them. A pool's key is what it is, without its amounts. What a host says amiss
-- is never more than it has: free devices are between none and all, and of a pool that is listed twice the entry with the
-- fewest counts; `pool` has `free` so, before claims.
-- What was claimed of a pool that is no longer there (somebody changed its tags) counts against all of the same product.
CREATE OR REPLACE FUNCTION vacancy.pci_free(pools jsonb, claimed jsonb) RETURNS TABLE (key text, pool jsonb, free bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
WITH keyed AS (
  SELECT DISTINCT ON (listed.key) listed.key, listed.pool, listed.free
  FROM (
    SELECT
      'pci ' || (pool - 'free' - 'total')::text AS key,
      pool,
      greatest(least((pool->>'free')::bigint, (pool->>'total')::bigint), 0) AS free
    FROM jsonb_array_elements(pools) AS pool
  ) AS listed
  ORDER BY listed.key, listed.free
)
SELECT
  k.key,
  k.pool || jsonb_build_object('free', k.free),
  k.free - coalesce((claimed->>k.key)::bigint, 0) - coalesce((
    SELECT sum(gone.value::bigint) FROM jsonb_each_text(claimed) AS gone
    WHERE gone.key LIKE 'pci %'
      AND NOT EXISTS (SELECT FROM keyed WHERE keyed.key = gone.key)
      AND k.pool @> (substr(gone.key, 5)::jsonb - 'numa_node' - 'tags')
  ), 0)::bigint
FROM keyed AS k
$$;

-- The cells of a host (as host_inventory.numa_free has them) less what claims hold of them: free CPUs, and free huge pages
-- by size in KiB.
CREATE OR REPLACE FUNCTION vacancy.cells_free(cells jsonb, claimed jsonb) RETURNS TABLE (id integer, cpus bigint, pages jsonb)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  (cell->>'id')::integer,
  (cell->>'cpus')::bigint - coalesce((claimed->>('numa ' || (cell->>'id') || ' cpus'))::bigint, 0),
  CASE WHEN claimed IS NULL THEN cell->'pages' ELSE (
    SELECT coalesce(jsonb_object_agg(
      size.key, size.value::bigint - coalesce((claimed->>('numa ' || (cell->>'id') || ' pages ' || size.key))::bigint, 0)
    ), '{}')
    FROM jsonb_each_text(cell->'pages') AS size
  ) END
FROM jsonb_array_elements(cells) AS cell
$$;

-- MiB of the cells of a host (host_inventory.numa_cells) that are in no huge pages, less what claims and instances hold of
-- them. An entry of pages that are smaller than 1 MiB says it; of a cell without one, all that is in no pages.
CREATE OR REPLACE FUNCTION vacancy.cells_memory_free(cells jsonb, claimed jsonb) RETURNS TABLE (id integer, memory_mb bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  (cell->>'id')::integer,
  -- Of a cell that is listed twice the entry with the least counts.
  min(coalesce(pages.base_mb_free, greatest(greatest((cell->>'memory_mb')::bigint, 0) - pages.huge_mb, 0)))
    - coalesce((claimed->>('numa ' || (cell->>'id') || ' memory_mb'))::bigint, 0)
FROM jsonb_array_elements(cells) AS cell
CROSS JOIN LATERAL (
  SELECT
    -- numeric, and within 0 to 1e18: no amount that a host tells is too much or too little for it.
    greatest(least(coalesce(sum(size_kb * total / 1024) FILTER (WHERE size_kb >= 1024), 0), 1e18), 0)::bigint AS huge_mb,
    -- Without such an entry null, which least() would pass over.
    CASE WHEN bool_or(size_kb < 1024) THEN
      trunc(greatest(least(sum(size_kb * least(free, total) / 1024) FILTER (WHERE size_kb < 1024), 1e18), 0))::bigint
    END AS base_mb_free
  FROM jsonb_to_recordset(cell->'pages') AS size (size_kb numeric, total numeric, free numeric)
) AS pages
GROUP BY cell->>'id'
$$;

-- How much of a resource class a host has free, by Placement's rule; null: it has no such class, or does not say what its
-- instances hold of it. Rounded down, as Placement and the agents do. Each part is within -4e18 to 4e18, so that nothing
-- overflows, whatever a host says; a ratio that is negative or above a million promises nothing, and an amount that is
-- negative is not allocated.
CREATE OR REPLACE FUNCTION vacancy.class_free(class text, inventory jsonb, allocated jsonb, claimed jsonb) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT greatest(least(floor(
  ((inventory->>'total')::numeric - coalesce((inventory->>'reserved')::numeric, 0))::double precision
  * CASE
    WHEN coalesce((inventory->>'allocation_ratio')::double precision, 1) BETWEEN 0 AND 1e6
      THEN coalesce((inventory->>'allocation_ratio')::double precision, 1)
    ELSE 0
  END
), 4e18), -4e18)::bigint
  - CASE WHEN allocated IS NOT NULL THEN
    greatest(least(coalesce((allocated->>class)::bigint, 0), 4000000000000000000), 0)
  END
  - coalesce((claimed->>class)::bigint, 0)
$$;

-- The dimensions of the complex parts of which a host has too little, each part looked at alone, and how much it has of
-- the first. Grain: one row. ruled_out_by is empty where the host has enough of each; whether of all together,
-- place_complex_parts() says.
CREATE OR REPLACE FUNCTION vacancy.complex_parts_fit(
  resources jsonb, numa jsonb, pci jsonb, inventories jsonb, allocated jsonb, numa_free jsonb, pci_pools jsonb, claimed jsonb
) RETURNS TABLE (ruled_out_by text[], available double precision)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  coalesce(array_agg(part.dimension ORDER BY part.position, part.dimension), '{}'),
  (array_agg(part.available ORDER BY part.position, part.dimension))[1]
FROM (
  SELECT
    0 AS position,
    CASE
      WHEN inventories->asked.key IS NULL OR asked.value::bigint > class.free THEN asked.key
      WHEN class.free IS NULL THEN asked.key || '_allocated'
      WHEN asked.value::bigint NOT BETWEEN coalesce((inventories->asked.key->>'min_unit')::bigint, 1)
          AND coalesce((inventories->asked.key->>'max_unit')::bigint, asked.value::bigint)
        OR asked.value::bigint % coalesce(nullif((inventories->asked.key->>'step_size')::bigint, 0), 1) <> 0
        THEN asked.key || '_unit'
    END AS dimension,
    CASE WHEN inventories->asked.key IS NULL OR asked.value::bigint > class.free THEN greatest(class.free, 0) END AS available
  FROM jsonb_each_text(resources) AS asked
  CROSS JOIN LATERAL (
    SELECT vacancy.class_free(asked.key, inventories->asked.key, allocated, claimed) AS free
  ) AS class
  UNION ALL
  -- The most that one cell has.
  SELECT 1, CASE WHEN most.cpus < (numa->>'cpus')::bigint THEN 'numa_cpus' END, most.cpus
  FROM (SELECT coalesce(max(greatest(c.cpus, 0)), 0) AS cpus FROM vacancy.cells_free(numa_free, claimed) AS c) AS most
  WHERE numa IS NOT NULL
  UNION ALL
  SELECT 1, CASE WHEN most.pages < size.value::bigint THEN 'numa_pages_' || size.key END, most.pages
  FROM jsonb_each_text(numa->'pages') AS size
  CROSS JOIN LATERAL (
    SELECT coalesce(max((c.pages->>size.key)::bigint), 0) AS pages FROM vacancy.cells_free(numa_free, claimed) AS c
  ) AS most
  UNION ALL
  -- Of the pools that do for a demand, in one cell where it has to be one.
  SELECT
    1 + demand.position,
    CASE WHEN most.devices < (demand.value->>'count')::bigint THEN demand.value->>'name' END,
    most.devices
  FROM jsonb_array_elements(pci) WITH ORDINALITY AS demand (value, position)
  CROSS JOIN LATERAL (
    SELECT coalesce(max(cell.devices), 0) AS devices
    FROM (
      SELECT sum(greatest(p.free, 0)) AS devices
      FROM vacancy.pci_free(pci_pools, claimed) AS p
      WHERE p.pool @> (demand.value->'pool')
        AND NOT ((demand.value->'same_cell')::boolean AND p.pool->>'numa_node' IS NULL)
      GROUP BY CASE WHEN (demand.value->'same_cell')::boolean THEN p.pool->'numa_node' END
    ) AS cell
  ) AS most
) AS part
WHERE part.dimension IS NOT NULL
$$;

-- Devices for all demands from the pools that do for each: amounts by key, as claim.held has them. Null: there are not
-- enough. same_cell: the cell of those that must be in the cell of the rest. keys, pools and free have one element a pool.
-- The demands with the fewest pools come first, and take from the pools that the fewest demands could use. That serves two
-- demands right always, and more where the pools of one lie within those of another, or apart; where three or more overlap
-- crosswise it may miss a way, and never takes what is not there.
CREATE OR REPLACE FUNCTION vacancy.place_pci(pci jsonb, same_cell integer, keys text[], pools jsonb[], free bigint[])
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  demands integer := jsonb_array_length(pci);
  fits boolean[] := '{}';  -- of demand d and pool p at (d - 1) * cardinality(pools) + p
  pools_for integer[] := array_fill(0, ARRAY[demands]);
  demands_for integer[] := array_fill(0, ARRAY[cardinality(pools)]);
  demand jsonb;
  fit boolean;
  lacking bigint;
  taking bigint;
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
  FOR pool_count IN 0..cardinality(pools) LOOP
    FOR d IN 1..demands LOOP
      CONTINUE WHEN pools_for[d] <> pool_count;
      lacking := (pci->(d - 1)->>'count')::bigint;
      FOR demand_count IN 1..demands LOOP
        FOR p IN 1..cardinality(pools) LOOP
          CONTINUE WHEN demands_for[p] <> demand_count OR NOT fits[(d - 1) * cardinality(pools) + p];
          taking := least(lacking, free[p]);
          CONTINUE WHEN taking <= 0;
          lacking := lacking - taking;
          free[p] := free[p] - taking;
          held := held || jsonb_build_object(keys[p], coalesce((held->>keys[p])::bigint, 0) + taking);
        END LOOP;
      END LOOP;
      IF lacking > 0 THEN
        RETURN NULL;
      END IF;
    END LOOP;
  END LOOP;
  RETURN held;
END
$$;

-- The cells of a host that have all that a request wants of one; all cells where it wants nothing.
CREATE OR REPLACE FUNCTION vacancy.cells_that_do(numa jsonb, numa_free jsonb, numa_cells jsonb, claimed jsonb)
RETURNS TABLE (id integer, cpus bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT c.id, c.cpus
FROM vacancy.cells_free(numa_free, claimed) AS c
-- Below 0 while an inventory shows what a claim still holds; none is enough for none.
WHERE numa IS NULL
  OR greatest(c.cpus, 0) >= (numa->>'cpus')::bigint
  AND NOT EXISTS (
    SELECT FROM jsonb_each_text(numa->'pages') AS size
    WHERE coalesce((c.pages->>size.key)::bigint, 0) < size.value::bigint
  )
  AND (numa->>'vcpus' = '0' OR EXISTS (
    SELECT FROM jsonb_array_elements(numa_cells) AS told
    WHERE (told->>'id')::integer = c.id AND told->'cpus' <> '[]'
  ))
  AND greatest((
    SELECT m.memory_mb FROM vacancy.cells_memory_free(numa_cells, claimed) AS m WHERE m.id = c.id
  ), 0) >= (numa->>'memory_mb')::bigint
$$;

-- Places all complex parts of a request on a host: held is what a claim would hold of it, as claim.held has it. Where they
-- do not fit, held is null, ruled_out_by says by what, and available how much there is of the first. "numa": no cell has
-- all that must be in one; "pci": there are not enough devices for all demands together, or not in a cell that has the rest.
-- Of the cells that do, the one with the fewest free CPUs is taken, so that room for big ones is left.
CREATE OR REPLACE FUNCTION vacancy.place_complex_parts(
  on_host text, resources jsonb, numa jsonb, pci jsonb,
  OUT held jsonb, OUT ruled_out_by text[], OUT available double precision
)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  inventory record;
  cell record;
  claimed jsonb;
  keys text[];
  pools jsonb[];
  free bigint[];
  devices jsonb := '{}';
BEGIN
  SELECT i.inventories, i.allocated, i.numa_free, i.numa_cells, i.pci_pools INTO inventory
  FROM vacancy.host_inventory AS i
  WHERE i.host_id = on_host AND (pci IS NULL OR i.pci_kinds @> vacancy.requested_pci_kinds(pci));
  IF NOT FOUND THEN
    ruled_out_by := '{pci}';  -- it has no such devices at all
    RETURN;
  END IF;
  -- Most hosts have no such claims, which a look at an index tells.
  PERFORM FROM vacancy.claim AS c WHERE c.host_id = on_host AND c.held IS NOT NULL;
  IF FOUND THEN
    claimed := vacancy.claimed_amounts(on_host);
  END IF;
  IF resources IS NOT NULL THEN
    SELECT f.ruled_out_by, f.available INTO ruled_out_by, available
    FROM vacancy.complex_parts_fit(
      resources, NULL, NULL, inventory.inventories, inventory.allocated, NULL, NULL, claimed
    ) AS f;
    IF ruled_out_by <> '{}' THEN
      RETURN;
    END IF;
  END IF;
  IF pci IS NOT NULL THEN
    SELECT coalesce(array_agg(p.key), '{}'), coalesce(array_agg(p.pool), '{}'), coalesce(array_agg(p.free), '{}')
    INTO keys, pools, free
    FROM vacancy.pci_free(inventory.pci_pools, claimed) AS p;
  END IF;
  held := coalesce(resources, '{}');
  ruled_out_by := '{}';
  IF numa IS NOT NULL OR pci @> '[{"same_cell": true}]' THEN
    devices := NULL;
    ruled_out_by := CASE WHEN numa IS NULL THEN '{pci}' ELSE '{numa}' END;
    FOR cell IN
      SELECT c.id FROM vacancy.cells_that_do(numa, inventory.numa_free, inventory.numa_cells, claimed) AS c
      ORDER BY c.cpus, c.id
    LOOP
      ruled_out_by := '{pci}';
      devices := CASE WHEN pci IS NULL THEN '{}' ELSE vacancy.place_pci(pci, cell.id, keys, pools, free) END;
      EXIT WHEN devices IS NOT NULL;
    END LOOP;
    IF devices IS NOT NULL AND numa IS NOT NULL THEN
      held := held || (
        SELECT jsonb_object_agg(format('numa %s %s', cell.id, part.name), part.amount)
        FROM (
          SELECT 'cpus' AS name, numa->'cpus' AS amount WHERE numa->'cpus' <> '0'
          UNION ALL
          SELECT 'memory_mb', numa->'memory_mb' WHERE numa->'memory_mb' <> '0'
          UNION ALL
          SELECT 'pages ' || size.key, size.value FROM jsonb_each(numa->'pages') AS size
        ) AS part
      );
    END IF;
  ELSIF pci IS NOT NULL THEN
    devices := vacancy.place_pci(pci, NULL, keys, pools, free);
    ruled_out_by := '{pci}';
  END IF;
  IF devices IS NULL THEN
    held := NULL;
  ELSE
    held := held || devices;
    ruled_out_by := '{}';
  END IF;
END
$$;

-- Which of the classes, cells and devices that a request asks for a host does not have at all, free or not; empty where it has them.
-- Such a host need not be searched for free ones: it is ruled out by these, and complex_parts_fit() says the same of it.
-- classes, kinds: what resource_classes() and requested_pci_kinds() give for the request. The rest is of host_inventory.
-- Grain: one row. Only a host that has some of several classes or devices costs more than a few comparisons.
CREATE OR REPLACE FUNCTION vacancy.not_offered(
  classes text[], numa jsonb, pci jsonb, kinds jsonb, resource_classes text[], pci_kinds jsonb, numa_free jsonb
) RETURNS TABLE (names text[])
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  CASE
    WHEN resource_classes @> classes THEN '{}'
    WHEN NOT resource_classes && classes THEN classes
    ELSE ARRAY(SELECT class FROM unnest(classes) AS class WHERE NOT class = ANY (resource_classes) ORDER BY 1)
  END
  || CASE WHEN numa IS NOT NULL AND numa_free = '[]' THEN
    array_remove(ARRAY[CASE WHEN numa->'cpus' <> '0' THEN 'numa_cpus' END], NULL)
    || ARRAY(SELECT 'numa_pages_' || size FROM jsonb_object_keys(numa->'pages') AS size ORDER BY 1)
    ELSE '{}'
  END
  || CASE
    WHEN pci IS NULL OR pci_kinds @> kinds THEN '{}'
    WHEN pci_kinds = '[]' OR jsonb_array_length(pci) = 1
      THEN ARRAY(SELECT demand->>'name' FROM jsonb_array_elements(pci) WITH ORDINALITY AS each (demand, place) ORDER BY place)
    ELSE ARRAY(
      SELECT demand->>'name' FROM jsonb_array_elements(pci) WITH ORDINALITY AS each (demand, place)
      WHERE NOT pci_kinds @> jsonb_build_array(demand->'pool') ORDER BY place
    )
  END
  || CASE WHEN numa IS NOT NULL AND numa_free = '[]' AND numa->'memory_mb' <> '0' THEN ARRAY['numa_memory_mb'] ELSE '{}' END
OFFSET 0
$$;

-- Whether a host has room for the cell and the devices of a request, all together, as far as that can be told by adding up.
-- Grain: one row. cells: how many cells have what is asked of one. possible: whether in one of them, or on the host where it need
-- not be a cell, there are enough devices for each demand by itself. certain: enough even if the others took theirs from the same
-- pools; then place_complex_parts() finds a place. Of a single demand both are the same, and only between them a try is needed.
CREATE OR REPLACE FUNCTION vacancy.room_by_adding_up(
  numa jsonb, pci jsonb, numa_free jsonb, numa_cells jsonb, pci_pools jsonb, claimed jsonb
) RETURNS TABLE (cells bigint, possible boolean, certain boolean)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  count(*),
  coalesce(bool_or(NOT had.too_few), false),
  coalesce(bool_or(NOT had.perhaps_too_few), false)
FROM (
  SELECT c.id FROM vacancy.cells_that_do(numa, numa_free, numa_cells, claimed) AS c
  WHERE numa IS NOT NULL OR pci @> '[{"same_cell": true}]'
  UNION ALL
  SELECT NULL WHERE numa IS NULL AND (pci @> '[{"same_cell": true}]') IS NOT TRUE
) AS cell (id)
CROSS JOIN LATERAL (
  SELECT
    coalesce(bool_or(devices.free < (demand->>'count')::bigint), false) AS too_few,
    coalesce(bool_or(devices.free < (SELECT sum((one->>'count')::bigint) FROM jsonb_array_elements(pci) AS one)), false)
      AS perhaps_too_few
  FROM jsonb_array_elements(pci) AS demand
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(greatest(p.free, 0)), 0) AS free
    FROM vacancy.pci_free(pci_pools, claimed) AS p
    WHERE p.pool @> (demand->'pool')
      AND (NOT (demand->'same_cell')::boolean OR (p.pool->>'numa_node')::integer = cell.id)
  ) AS devices
) AS had
$$;

-- What rules a host out by the complex parts of a request, and how much it has of the first; empty where they fit.
-- Adding up answers it for most hosts. Only those that it rules out are looked at part by part, and only where several demands
-- could take the same devices a place is searched for.
CREATE OR REPLACE FUNCTION vacancy.complex_fit(on_host text, resources jsonb, numa jsonb, pci jsonb)
RETURNS TABLE (ruled_out_by text[], available double precision)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
  CASE
    WHEN parts.ruled_out_by <> '{}' THEN parts.ruled_out_by
    WHEN room.certain THEN '{}'
    WHEN NOT room.possible THEN CASE WHEN numa IS NOT NULL AND room.cells = 0 THEN '{numa}' ELSE '{pci}' END::text[]
    ELSE (SELECT placed.ruled_out_by FROM vacancy.place_complex_parts(on_host, resources, numa, pci) AS placed)
  END,
  parts.available
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL (
  -- Few hosts have such claims, which a look at an index tells.
  SELECT CASE WHEN EXISTS (SELECT FROM vacancy.claim AS c WHERE c.host_id = i.host_id AND c.held IS NOT NULL)
    THEN vacancy.claimed_amounts(i.host_id) END AS amounts
  OFFSET 0
) AS claimed
CROSS JOIN LATERAL vacancy.room_by_adding_up(numa, pci, i.numa_free, i.numa_cells, i.pci_pools, claimed.amounts) AS room
LEFT JOIN LATERAL (
  SELECT
    f.ruled_out_by || CASE WHEN most.memory_mb < (numa->>'memory_mb')::bigint THEN '{numa_memory_mb}' ELSE '{}' END::text[]
      AS ruled_out_by,
    CASE WHEN f.ruled_out_by <> '{}' THEN f.available
      WHEN most.memory_mb < (numa->>'memory_mb')::bigint THEN most.memory_mb
    END::double precision AS available
  FROM vacancy.complex_parts_fit(
    resources, numa, pci, i.inventories, i.allocated, i.numa_free, i.pci_pools, claimed.amounts
  ) AS f
  CROSS JOIN LATERAL (
    -- The most that one cell has.
    SELECT coalesce(max(greatest(m.memory_mb, 0)), 0) AS memory_mb
    FROM vacancy.cells_memory_free(CASE WHEN numa IS NOT NULL THEN i.numa_cells END, claimed.amounts) AS m
  ) AS most
  WHERE resources IS NOT NULL OR NOT room.certain
  OFFSET 0
) AS parts ON true
WHERE i.host_id = on_host
$$;

REVOKE ALL ON FUNCTION
  vacancy.claimed_amounts(text), vacancy.pci_free(jsonb, jsonb), vacancy.cells_free(jsonb, jsonb),
  vacancy.cells_memory_free(jsonb, jsonb), vacancy.cells_that_do(jsonb, jsonb, jsonb, jsonb), vacancy.class_free(text, jsonb, jsonb, jsonb),
  vacancy.complex_parts_fit(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb),
  vacancy.place_pci(jsonb, integer, text[], jsonb[], bigint[]), vacancy.place_complex_parts(text, jsonb, jsonb, jsonb),
  vacancy.not_offered(text[], jsonb, jsonb, jsonb, text[], jsonb, jsonb),
  vacancy.room_by_adding_up(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb), vacancy.complex_fit(text, jsonb, jsonb, jsonb)
FROM PUBLIC;
-- Whoever reads the views pci_pool, numa_cell and resource_class calls the functions in them.
GRANT EXECUTE ON FUNCTION
  vacancy.claimed_amounts(text), vacancy.pci_free(jsonb, jsonb), vacancy.cells_free(jsonb, jsonb),
  vacancy.class_free(text, jsonb, jsonb, jsonb)
TO vacancy_reader;
