-- The functions of the stored generated columns of host_inventory. They are versioned and not in ../functions, since a new
-- definition would leave the stored values as they are: a migration that changes one rewrites the rows as well.

-- The kinds of devices of a host: its pools without their amounts.
CREATE OR REPLACE FUNCTION vacancy.pci_kinds(pools jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_agg(DISTINCT pool - 'free' - 'total'), '[]') FROM jsonb_array_elements(pools) AS pool);

CREATE OR REPLACE FUNCTION vacancy.resource_classes(inventories jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT jsonb_object_keys(inventories) ORDER BY 1);

-- By cell: `id`, how many `cpus` are free, and free huge `pages` by size in KiB. What a host says amiss is never more than
-- it has: a CPU counts once, and only in the cell that has it; free pages are between none and all; of a cell or size that
-- is listed twice the entry with the least counts.
CREATE OR REPLACE FUNCTION vacancy.numa_free(cells jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
  SELECT coalesce(jsonb_agg(jsonb_build_object('id', bounded.id, 'cpus', bounded.cpus, 'pages', bounded.pages)), '[]')
  FROM (
    SELECT DISTINCT ON (cell->'id')
      cell->'id' AS id,
      free.cpus,
      (
        SELECT coalesce(jsonb_object_agg(size.size_kb, size.free), '{}')
        FROM (
          SELECT
            page->>'size_kb' AS size_kb,
            greatest(min(least((page->>'free')::bigint, (page->>'total')::bigint)), 0) AS free
          FROM jsonb_array_elements(cell->'pages') AS page
          GROUP BY page->>'size_kb'
        ) AS size
      ) AS pages
    FROM jsonb_array_elements(cells) AS cell
    CROSS JOIN LATERAL (
      SELECT count(*) AS cpus FROM (
        SELECT jsonb_array_elements(cell->'free_cpus') INTERSECT SELECT jsonb_array_elements(cell->'cpus')
      ) AS cpu
    ) AS free
    ORDER BY cell->'id', free.cpus
  ) AS bounded
);
