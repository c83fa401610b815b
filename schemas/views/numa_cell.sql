-- The NUMA cells of all hosts, less the claims.
-- Grain: one row a cell of a host that is not retired.
CREATE OR REPLACE VIEW vacancy.numa_cell AS
SELECT
  i.host_id,
  i.name AS host_name,
  c.id,
  c.cpus AS cpus_free,
  c.pages AS pages_free
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL vacancy.claimed_amounts(i.host_id) AS claims (amounts)
CROSS JOIN LATERAL vacancy.cells_free(i.numa_free, claims.amounts) AS c
WHERE NOT i.retired;

COMMENT ON VIEW vacancy.numa_cell IS 'NUMA cells by host, less the claims.';
COMMENT ON COLUMN vacancy.numa_cell.pages_free IS 'Huge pages by their size in KiB.';

GRANT SELECT ON vacancy.numa_cell TO vacancy_reader;
