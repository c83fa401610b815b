-- The usage events that decode, in columns.
-- Grain: one row an event. Key: (host_id, boot_id), in append order. A counter that the node does not have is NULL.
CREATE TEMPORARY VIEW `usage` AS
SELECT
  append_time,
  event.host_id,
  event.boot_id,
  event.monotonic_ns,
  event.vcpus_capacity,
  event.vcpus_capacity - event.vcpus_allocated AS vcpus_free,
  event.memory_mb_capacity,
  event.memory_mb_capacity - event.memory_mb_allocated AS memory_mb_free,
  event.disk_gb_capacity,
  event.disk_gb_capacity - event.disk_gb_allocated AS disk_gb_free,
  event.memory_mb_available,
  event.disk_gb_available,
  event.cpu_count,
  event.cpu_busy_ns,
  NULLIF(event.cpu_iowait_ns, -1) AS cpu_iowait_ns,
  NULLIF(event.cpu_steal_ns, -1) AS cpu_steal_ns,
  NULLIF(event.disk_read_bytes, -1) AS disk_read_bytes,
  NULLIF(event.disk_write_bytes, -1) AS disk_write_bytes,
  NULLIF(event.net_rx_bytes, -1) AS net_rx_bytes,
  NULLIF(event.net_tx_bytes, -1) AS net_tx_bytes,
  NULLIF(event.cpu_pressure_us, -1) AS cpu_pressure_us,
  NULLIF(event.memory_pressure_us, -1) AS memory_pressure_us,
  NULLIF(event.io_pressure_us, -1) AS io_pressure_us,
  event.instances,
  event.recent_consumers
FROM usage_decoded
WHERE event.reason IS NULL
