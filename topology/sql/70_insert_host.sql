-- The rows of the scheduling table. Rates are sums of steps over the time that those steps took on the node's own clock.
-- Grain: an event that takes its boot forward. Key of the sink: host_id; it keeps the newest by observed_at.
INSERT INTO host
SELECT
  host_id,
  window_end AS observed_at,
  window_end - $window AS window_start,
  window_end,
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
  cpu_busy_ns_sum / 1E3 / NULLIF(cpu_time_us_sum, 0) AS cpu_utilization,
  cpu_iowait_ns_sum / 1E3 / NULLIF(cpu_time_us_sum, 0) AS cpu_iowait,
  cpu_steal_ns_sum / 1E3 / NULLIF(cpu_time_us_sum, 0) AS cpu_steal,
  disk_read_bytes_sum * 1E9 / elapsed_ns_sum AS disk_read_bytes_per_s,
  disk_write_bytes_sum * 1E9 / elapsed_ns_sum AS disk_write_bytes_per_s,
  net_rx_bytes_sum * 1E9 / elapsed_ns_sum AS net_rx_bytes_per_s,
  net_tx_bytes_sum * 1E9 / elapsed_ns_sum AS net_tx_bytes_per_s,
  cpu_pressure_us_sum * 1E3 / elapsed_ns_sum AS cpu_pressure,
  memory_pressure_us_sum * 1E3 / elapsed_ns_sum AS memory_pressure,
  io_pressure_us_sum * 1E3 / elapsed_ns_sum AS io_pressure,
  CAST(instances AS INT) AS instances,
  recent_consumers
FROM host_window
