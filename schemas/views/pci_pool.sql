-- The pools of PCI devices of all hosts, less the claims.
-- Grain: one row a pool of a host that is not retired.
CREATE OR REPLACE VIEW vacancy.pci_pool AS
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
CROSS JOIN LATERAL vacancy.claimed_amounts(i.host_id) AS claims (amounts)
CROSS JOIN LATERAL vacancy.pci_free(i.pci_pools, claims.amounts) AS p
WHERE NOT i.retired;

COMMENT ON VIEW vacancy.pci_pool IS 'PCI devices by host and pool, less the claims.';
COMMENT ON COLUMN vacancy.pci_pool.claimed IS 'Devices that claims hold and the inventory does not show yet.';

GRANT SELECT ON vacancy.pci_pool TO vacancy_reader;
