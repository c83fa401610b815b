-- The hosts that the benchmark of claims picks from: %(hosts)s of 64 cores at ratio 4, 256 GiB and 2000 GB, each with 5
-- to 15 instances of 4 VCPUs, 8 GiB and 40 GB. placement/fleet.sql makes the same for Placement.
INSERT INTO vacancy.host_inventory
  (host_id, observed_at, retired, boot_id, name, zone, status, inventories, traits, aggregates, numa_cells, pci_pools,
   reporting_interval_ms, agent_version)
SELECT
  'host-' || number,
  now(),
  false,
  'boot',
  'compute-' || number,
  'zone-' || number %% 3,
  'ENABLED',
  '{
    "VCPU": {"total": 64, "reserved": 0, "min_unit": 1, "max_unit": 64, "step_size": 1, "allocation_ratio": 4.0},
    "MEMORY_MB": {"total": 262144, "reserved": 0, "min_unit": 1, "max_unit": 262144, "step_size": 1, "allocation_ratio": 1.0},
    "DISK_GB": {"total": 2000, "reserved": 0, "min_unit": 1, "max_unit": 2000, "step_size": 1, "allocation_ratio": 1.0}
  }',
  CASE WHEN number %% 2 = 0 THEN ARRAY['HW_CPU_X86_AVX2', 'HW_CPU_X86_SSE42', 'COMPUTE_IMAGE_TYPE_QCOW2'] ELSE '{}' END
    || CASE WHEN number %% 10 = 0 THEN ARRAY['HW_CPU_X86_AVX512F'] ELSE '{}' END,
  '{}',
  '[]',
  '[]',
  1000,
  'bench'
FROM generate_series(1, %(hosts)s) AS number;

INSERT INTO vacancy.host
  (host_id, observed_at, window_start, window_end, samples, vcpus_capacity, vcpus_free, vcpus_free_min,
   memory_mb_capacity, memory_mb_free, memory_mb_free_min, memory_mb_available, disk_gb_capacity, disk_gb_free,
   disk_gb_free_min, disk_gb_available, cpu_utilization, cpu_iowait, cpu_steal, disk_read_bytes_per_s,
   disk_write_bytes_per_s, net_rx_bytes_per_s, net_tx_bytes_per_s, cpu_pressure, memory_pressure, io_pressure,
   instances, recent_consumers)
SELECT
  'host-' || number,
  now(),
  now() - interval '1 min',
  now(),
  60,
  256,
  256 - 4 * instances,
  256 - 4 * instances,
  262144,
  262144 - 8192 * instances,
  262144 - 8192 * instances,
  262144 - 6000 * instances,
  2000,
  2000 - 40 * instances,
  2000 - 40 * instances,
  2000 - 30 * instances,
  instances / 20.0,
  0.01,
  0,
  1.5e6,
  2.5e6,
  1e8,
  1e8,
  0.02,
  0,
  0.01,
  instances,
  '{}'
FROM generate_series(1, %(hosts)s) AS number
CROSS JOIN LATERAL (SELECT (5 + number * 7919::bigint %% 11)::integer AS instances) AS used;
