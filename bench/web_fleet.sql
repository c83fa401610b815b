-- The hosts that the fleet page is measured and drawn with: %(hosts)s of them in eight zones of different size and load,
-- a few disabled, stale or without usage. Nothing is drawn at random, so that two runs show the same.
CREATE TEMPORARY TABLE fleet_host AS
SELECT
  n,
  'host-' || n AS host_id,
  'compute-' || lpad(n::text, 6, '0') AS name,
  zone.zone,
  -- Three numbers within 0 to 1, the same in each run.
  (hashint8(n * 3 + 1) & 65535) / 65536.0 AS a,
  (hashint8(n * 3 + 2) & 65535) / 65536.0 AS b,
  (hashint8(n * 3 + 3) & 65535) / 65536.0 AS c,
  zone.load
FROM generate_series(1, %(hosts)s) AS n
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN share < 25 THEN 1 WHEN share < 50 THEN 2 WHEN share < 63 THEN 3 WHEN share < 69 THEN 4
    WHEN share < 75 THEN 5 WHEN share < 81 THEN 6 WHEN share < 87 THEN 7 ELSE 8
  END AS number
  FROM (SELECT (hashint8(n * 7 + 5) & 65535) %% 100 AS share) AS of
) AS drawn
CROSS JOIN LATERAL (
  SELECT
    'az-' || chr(96 + drawn.number) AS zone,
    (ARRAY[0.8, 0.6, 0.92, 0.35, 0.66, 0.15, 0.84, 0.47])[drawn.number] AS load
) AS zone;

INSERT INTO vacancy.host_inventory
  (host_id, observed_at, retired, boot_id, name, zone, status, status_reason, inventories, traits, aggregates, numa_cells,
   pci_pools, reporting_interval_ms, agent_version, allocated, source)
SELECT
  host_id,
  now(),
  false,
  'boot',
  name,
  zone,
  CASE WHEN n %% 60 = 7 THEN 'DISABLED' ELSE 'ENABLED' END,
  CASE WHEN n %% 60 = 7 THEN (ARRAY['kernel upgrade', 'RAM fault, ticket 4711', 'to be decommissioned'])[1 + n %% 3] END,
  '{
    "VCPU": {"total": 64, "reserved": 0, "min_unit": 1, "max_unit": 64, "step_size": 1, "allocation_ratio": 4.0},
    "MEMORY_MB": {"total": 262144, "reserved": 0, "min_unit": 1, "max_unit": 262144, "step_size": 1, "allocation_ratio": 1.0},
    "DISK_GB": {"total": 2000, "reserved": 0, "min_unit": 1, "max_unit": 2000, "step_size": 1, "allocation_ratio": 1.0}
  }'::jsonb || CASE WHEN n %% 25 = 0 THEN '{"CUSTOM_LICENCE": {"total": 4}}'::jsonb ELSE '{}' END,
  CASE WHEN n %% 2 = 0 THEN ARRAY['HW_CPU_X86_AVX2', 'HW_CPU_X86_SSE42'] ELSE ARRAY['HW_CPU_X86_SSE42'] END
    || CASE WHEN n %% 10 = 0 THEN ARRAY['HW_CPU_X86_AVX512F'] ELSE '{}' END,
  ARRAY[(ARRAY['a6cbb1bb-3c0a-4b0c-8a54-0d7d4d3c0a01', 'b2a1e0de-77aa-4c0e-9f51-3f3f3b1c0b02', 'c9f8a7b6-1111-4d2e-8888-5c5c5c5c0c03'])[1 + n %% 3]],
  CASE WHEN n %% 10 = 0 THEN '[
    {"id": 0, "cpus": [0, 1, 2, 3], "free_cpus": [0, 2, 3], "memory_mb": 131072, "pages": [{"size_kb": 2048, "total": 8192, "free": 6144}]},
    {"id": 1, "cpus": [4, 5, 6, 7], "free_cpus": [4], "memory_mb": 131072, "pages": [{"size_kb": 2048, "total": 8192, "free": 1024}]}
  ]'::jsonb ELSE '[]' END,
  CASE WHEN n %% 20 = 0
    THEN '[{"vendor_id": "10de", "product_id": "20b5", "numa_node": 0, "tags": {}, "total": 4, "free": 3}]'::jsonb ELSE '[]' END,
  1000,
  '0.1.0',
  '{}',
  CASE WHEN n %% 5 = 0 THEN 'host' ELSE 'libvirt' END
FROM fleet_host;

INSERT INTO vacancy.host
  (host_id, observed_at, window_start, window_end, samples, vcpus_capacity, vcpus_free, vcpus_free_min,
   memory_mb_capacity, memory_mb_free, memory_mb_free_min, memory_mb_available, disk_gb_capacity, disk_gb_free,
   disk_gb_free_min, disk_gb_available, cpu_utilization, cpu_iowait, cpu_steal, disk_read_bytes_per_s,
   disk_write_bytes_per_s, net_rx_bytes_per_s, net_tx_bytes_per_s, cpu_pressure, memory_pressure, io_pressure,
   instances, recent_consumers)
SELECT
  host_id,
  now() - CASE WHEN n %% 300 = 11 THEN interval '7 min' ELSE interval '0' END,
  now() - interval '1 min',
  now(),
  60,
  256,
  256 * vcpus,
  256 * greatest(0, vcpus - 0.03),
  262144,
  262144 * memory,
  262144 * greatest(0, memory - 0.02),
  262144 * least(1, memory + 0.1 * c),
  2000,
  2000 * disk,
  2000 * greatest(0, disk - 0.01),
  2000 * least(1, disk + 0.1 * a),
  CASE WHEN n %% 97 <> 0 THEN load * (0.5 + 0.5 * b) END,
  0.01,
  CASE WHEN b > 0.97 THEN 0.2 * a ELSE 0.002 * a END,
  1.5e6 * a,
  2.5e6 * b,
  1e8 * c,
  1e8 * a,
  0.3 * load * load * a,
  CASE WHEN memory < 0.05 THEN 0.2 ELSE 0 END,
  0.1 * c * load,
  round(20 * load),
  '{}'
FROM fleet_host
CROSS JOIN LATERAL (
  -- Roughly normal around what the zone has free.
  SELECT
    least(1, greatest(0, 1 - load + 0.45 * (a + b + c - 1.5) / 1.5)) AS vcpus,
    least(1, greatest(0, 1 - load + 0.5 * (b + c + a * b - 1.25) / 1.5)) AS memory,
    least(1, greatest(0, 1 - 0.7 * load + 0.4 * (c + a - 1))) AS disk
) AS figures
WHERE n %% 500 <> 13;

DROP TABLE fleet_host;
