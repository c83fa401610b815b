-- Has the disk of the hosts of fleet.sql come from %(pools)s storage pools, which are large enough for all of them.
UPDATE vacancy.host_inventory SET
  inventories = inventories - 'DISK_GB',
  disk_pool = 'pool-' || 1 + substr(host_id, 6)::integer %% %(pools)s;

-- What its instances hold of the pool: 40 GB each.
UPDATE vacancy.host SET
  disk_gb_capacity = 0, disk_gb_available = 0, disk_gb_free = disk_gb_free - 2000, disk_gb_free_min = disk_gb_free - 2000;

INSERT INTO vacancy.host_inventory
  (host_id, observed_at, retired, boot_id, name, status, inventories, traits, aggregates, numa_cells, pci_pools,
   reporting_interval_ms, agent_version)
SELECT
  'pool-' || number,
  now(),
  false,
  'boot',
  'pool-' || number,
  'ENABLED',
  '{"DISK_GB": {"total": 100000000, "reserved": 0, "min_unit": 1, "max_unit": 2000, "step_size": 1, "allocation_ratio": 1.0}}',
  '{MISC_SHARES_VIA_AGGREGATE}',
  '{}',
  '[]',
  '[]',
  1000,
  'bench'
FROM generate_series(1, %(pools)s) AS number;

INSERT INTO vacancy.host
  (host_id, observed_at, window_start, window_end, samples, vcpus_capacity, vcpus_free, vcpus_free_min,
   memory_mb_capacity, memory_mb_free, memory_mb_free_min, memory_mb_available, disk_gb_capacity, disk_gb_free,
   disk_gb_free_min, disk_gb_available, instances, recent_consumers)
SELECT
  'pool-' || number, now(), now() - interval '1 min', now(), 60, 0, 0, 0, 0, 0, 0, 0,
  100000000, 100000000, 100000000, 100000000, 0, '{}'
FROM generate_series(1, %(pools)s) AS number;
