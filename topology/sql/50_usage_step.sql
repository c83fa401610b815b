-- What each event says of the time since the one before it: the step.
-- Grain: an event, each once. Key: (host_id, boot_id).
-- The figures of a step are NULL where there is none to form: the first event of a boot, a counter that went back or
-- that came or went (one reset ends the step for all, since they share its time), or more time than the window.
-- A counter that the node does not have is -1 in an event, NULL in a step.
CREATE TEMPORARY VIEW usage_step AS
SELECT
  append_time,
  host_id,
  boot_id,
  event.vcpus_capacity,
  event.vcpus_capacity - event.vcpus_allocated AS vcpus_free,
  event.memory_mb_capacity,
  event.memory_mb_capacity - event.memory_mb_allocated AS memory_mb_free,
  event.disk_gb_capacity,
  event.disk_gb_capacity - event.disk_gb_allocated AS disk_gb_free,
  event.memory_mb_available,
  event.disk_gb_available,
  event.instances,
  event.recent_consumers,
  event.monotonic_ns - step_from.monotonic_ns AS elapsed_ns,
  (event.monotonic_ns - step_from.monotonic_ns) / 1000 * event.cpu_count AS cpu_time_us,
  event.cpu_busy_ns - step_from.cpu_busy_ns AS cpu_busy_ns,
  CASE WHEN event.cpu_iowait_ns >= 0 THEN event.cpu_iowait_ns - step_from.cpu_iowait_ns END AS cpu_iowait_ns,
  CASE WHEN event.cpu_steal_ns >= 0 THEN event.cpu_steal_ns - step_from.cpu_steal_ns END AS cpu_steal_ns,
  CASE WHEN event.disk_read_bytes >= 0 THEN event.disk_read_bytes - step_from.disk_read_bytes END AS disk_read_bytes,
  CASE WHEN event.disk_write_bytes >= 0 THEN event.disk_write_bytes - step_from.disk_write_bytes END AS disk_write_bytes,
  CASE WHEN event.net_rx_bytes >= 0 THEN event.net_rx_bytes - step_from.net_rx_bytes END AS net_rx_bytes,
  CASE WHEN event.net_tx_bytes >= 0 THEN event.net_tx_bytes - step_from.net_tx_bytes END AS net_tx_bytes,
  CASE WHEN event.cpu_pressure_us >= 0 THEN event.cpu_pressure_us - step_from.cpu_pressure_us END AS cpu_pressure_us,
  CASE WHEN event.memory_pressure_us >= 0
    THEN event.memory_pressure_us - step_from.memory_pressure_us END AS memory_pressure_us,
  CASE WHEN event.io_pressure_us >= 0 THEN event.io_pressure_us - step_from.io_pressure_us END AS io_pressure_us
FROM (
  SELECT
    append_time,
    host_id,
    boot_id,
    event,
    CASE WHEN event.monotonic_ns - previous.monotonic_ns <= $window_ns
      AND event.cpu_busy_ns >= previous.cpu_busy_ns
      AND event.cpu_iowait_ns >= previous.cpu_iowait_ns
      AND event.cpu_steal_ns >= previous.cpu_steal_ns
      AND event.disk_read_bytes >= previous.disk_read_bytes
      AND event.disk_write_bytes >= previous.disk_write_bytes
      AND event.net_rx_bytes >= previous.net_rx_bytes
      AND event.net_tx_bytes >= previous.net_tx_bytes
      AND event.cpu_pressure_us >= previous.cpu_pressure_us
      AND event.memory_pressure_us >= previous.memory_pressure_us
      AND event.io_pressure_us >= previous.io_pressure_us
      -- None of them came: what a node gains is above -1 from one event to the next.
      AND (previous.cpu_iowait_ns >= 0 OR event.cpu_iowait_ns = -1)
      AND (previous.cpu_steal_ns >= 0 OR event.cpu_steal_ns = -1)
      AND (previous.disk_read_bytes >= 0 OR event.disk_read_bytes = -1)
      AND (previous.disk_write_bytes >= 0 OR event.disk_write_bytes = -1)
      AND (previous.net_rx_bytes >= 0 OR event.net_rx_bytes = -1)
      AND (previous.net_tx_bytes >= 0 OR event.net_tx_bytes = -1)
      AND (previous.cpu_pressure_us >= 0 OR event.cpu_pressure_us = -1)
      AND (previous.memory_pressure_us >= 0 OR event.memory_pressure_us = -1)
      AND (previous.io_pressure_us >= 0 OR event.io_pressure_us = -1)
      THEN previous END AS step_from
  FROM usage_in_order
  WHERE previous.monotonic_ns IS NULL OR previous.monotonic_ns < monotonic_ns
)
