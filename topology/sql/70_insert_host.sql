-- The rows of the scheduling table. Rates are sums of steps over the time that those steps took on the node's own clock.
-- Grain: an event. Key of the sink: host_id; it keeps the newest by observed_at.
INSERT INTO host
SELECT
  host_id,
  CAST(append_time AS STRING) || 'Z' AS observed_at,
  CAST(append_time - $window AS STRING) || 'Z' AS window_start,
  CAST(append_time AS STRING) || 'Z' AS window_end,
  samples,
  vcpus_capacity,
  vcpus_free,
  vcpus_free_min,
  memory_mb_capacity,
  memory_mb_free,
  memory_mb_free_min,
  disk_gb_capacity,
  disk_gb_free,
  disk_gb_free_min,
  memory_mb_available,
  disk_gb_available,
  cpu_busy_ns / 1E3 / NULLIF(cpu_time_us, 0) AS cpu_utilization,
  cpu_iowait_ns / 1E3 / NULLIF(cpu_time_us, 0) AS cpu_iowait,
  cpu_steal_ns / 1E3 / NULLIF(cpu_time_us, 0) AS cpu_steal,
  disk_read_bytes * 1E9 / elapsed_ns AS disk_read_bytes_per_s,
  disk_write_bytes * 1E9 / elapsed_ns AS disk_write_bytes_per_s,
  net_rx_bytes * 1E9 / elapsed_ns AS net_rx_bytes_per_s,
  net_tx_bytes * 1E9 / elapsed_ns AS net_tx_bytes_per_s,
  cpu_pressure_us * 1E3 / elapsed_ns AS cpu_pressure,
  memory_pressure_us * 1E3 / elapsed_ns AS memory_pressure,
  io_pressure_us * 1E3 / elapsed_ns AS io_pressure,
  CAST(instances AS INT) AS instances,
  recent_consumers
FROM host_window
