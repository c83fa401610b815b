-- What few hosts of a zone are found by, and what a claim need not do.

-- A random sample of an availability zone: a run of neighbours in its random order.
CREATE INDEX host_inventory_zones ON vacancy.host_inventory (zone, sample_key) INCLUDE (host_id, disk_pool)
WHERE NOT retired AND status = 'ENABLED' AND NOT shares;

-- Each insert reads the text of each constraint anew, so that one is a third of three.
ALTER TABLE vacancy.claim
  DROP CONSTRAINT IF EXISTS claim_vcpus_check,
  DROP CONSTRAINT IF EXISTS claim_memory_mb_check,
  DROP CONSTRAINT IF EXISTS claim_disk_gb_check,
  ADD CONSTRAINT amounts_not_negative CHECK (least(vcpus, memory_mb, disk_gb) >= 0);

-- Parameters of theirs have gone or have other names.
DROP FUNCTION IF EXISTS
  vacancy.best_of_sample(vacancy.request, integer, boolean, integer), vacancy.hosts_near(text[], integer);
