-- Each event's view of its host: the newest figures, and the window that ends with it.
-- Grain: an event. Key: (host_id, boot_id). The window is (append_time - window, append_time], both ends included, and
-- never reaches back over a boot: what a host had free and how busy it was before says nothing of it now.
-- A row depends on its host's events alone, not on when it is written: the sink may leave out any but the newest.
CREATE TEMPORARY VIEW host_window AS
SELECT
  append_time,
  host_id,
  vcpus_capacity,
  vcpus_free,
  MIN(vcpus_free) OVER w AS vcpus_free_min,
  memory_mb_capacity,
  memory_mb_free,
  MIN(memory_mb_free) OVER w AS memory_mb_free_min,
  disk_gb_capacity,
  disk_gb_free,
  MIN(disk_gb_free) OVER w AS disk_gb_free_min,
  memory_mb_available,
  disk_gb_available,
  instances,
  recent_consumers,
  COUNT(*) OVER w AS samples,
  SUM(elapsed_ns) OVER w AS elapsed_ns,
  SUM(cpu_time_us) OVER w AS cpu_time_us,
  SUM(cpu_busy_ns) OVER w AS cpu_busy_ns,
  SUM(cpu_iowait_ns) OVER w AS cpu_iowait_ns,
  SUM(cpu_steal_ns) OVER w AS cpu_steal_ns,
  SUM(disk_read_bytes) OVER w AS disk_read_bytes,
  SUM(disk_write_bytes) OVER w AS disk_write_bytes,
  SUM(net_rx_bytes) OVER w AS net_rx_bytes,
  SUM(net_tx_bytes) OVER w AS net_tx_bytes,
  SUM(cpu_pressure_us) OVER w AS cpu_pressure_us,
  SUM(memory_pressure_us) OVER w AS memory_pressure_us,
  SUM(io_pressure_us) OVER w AS io_pressure_us
FROM usage_step
WINDOW w AS (
  PARTITION BY host_id, boot_id
  ORDER BY append_time
  RANGE BETWEEN $window PRECEDING AND CURRENT ROW
)
