-- A random sample of an availability zone: a run of neighbours in its random order.
CREATE INDEX host_inventory_zones ON vacancy.host_inventory (zone, sample_key) INCLUDE (host_id, disk_pool)
WHERE NOT retired AND status = 'ENABLED' AND NOT shares;

-- Parameters of theirs have gone or have other names.
DROP FUNCTION IF EXISTS
  vacancy.best_of_sample(vacancy.request, integer, boolean, integer), vacancy.hosts_near(text[], integer);
