-- The rows of the scheduling table. Rates are sums of steps over the time that those steps took on the node's own clock.
-- Grain: an event that takes its boot forward. Key of the sink: host_id; it keeps the newest by observed_at.
INSERT INTO host
SELECT
  host_id,
  in_window.append_time AS observed_at,
  in_window.append_time - $window AS window_start,
  in_window.append_time AS window_end,
  in_window.samples,
  vcpus_capacity,
  vcpus_free,
  in_window.vcpus_free_min,
  memory_mb_capacity,
  memory_mb_free,
  in_window.memory_mb_free_min,
  disk_gb_capacity,
  disk_gb_free,
  in_window.disk_gb_free_min,
  memory_mb_available,
  disk_gb_available,
  in_window.cpu_busy_ns / 1E3 / NULLIF(in_window.cpu_time_us, 0) AS cpu_utilization,
  in_window.cpu_iowait_ns / 1E3 / NULLIF(in_window.cpu_time_us, 0) AS cpu_iowait,
  in_window.cpu_steal_ns / 1E3 / NULLIF(in_window.cpu_time_us, 0) AS cpu_steal,
  in_window.disk_read_bytes * 1E9 / in_window.elapsed_ns AS disk_read_bytes_per_s,
  in_window.disk_write_bytes * 1E9 / in_window.elapsed_ns AS disk_write_bytes_per_s,
  in_window.net_rx_bytes * 1E9 / in_window.elapsed_ns AS net_rx_bytes_per_s,
  in_window.net_tx_bytes * 1E9 / in_window.elapsed_ns AS net_tx_bytes_per_s,
  in_window.cpu_pressure_us * 1E3 / in_window.elapsed_ns AS cpu_pressure,
  in_window.memory_pressure_us * 1E3 / in_window.elapsed_ns AS memory_pressure,
  in_window.io_pressure_us * 1E3 / in_window.elapsed_ns AS io_pressure,
  CAST(instances AS INT) AS instances,
  recent_consumers
FROM host_window
WHERE in_window IS NOT NULL
