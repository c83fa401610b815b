-- Each event's view of its host: the newest figures, and the window that ends with it.
-- Grain: an event. Key: host_id. Lateness: of an event whose monotonic_ns is not above all before it of its
-- boot (late, repeated) in_window is NULL; it is left out of everything.
-- The window is [append_time - window, append_time] and never reaches back over a boot: what a host had free and how busy
-- it was before says nothing of it now. The function keeps it: it has seen every event of the host, and forgets those that
-- have left, so that an event costs the same whatever the window, and a host that reboots takes no more state.
-- A row depends on its host's events alone, not on when it is written: the sink may leave out any but the newest.
CREATE TEMPORARY VIEW host_window AS
SELECT
  host_id,
  vcpus_capacity,
  vcpus_free,
  memory_mb_capacity,
  memory_mb_free,
  disk_gb_capacity,
  disk_gb_free,
  memory_mb_available,
  disk_gb_available,
  instances,
  recent_consumers,
  host_window(
    append_time,
    CAST($window_ms AS BIGINT),
    vcpus_free,
    memory_mb_free,
    disk_gb_free,
    boot_id,
    monotonic_ns,
    cpu_count,
    cpu_busy_ns,
    cpu_iowait_ns,
    cpu_steal_ns,
    disk_read_bytes,
    disk_write_bytes,
    net_rx_bytes,
    net_tx_bytes,
    cpu_pressure_us,
    memory_pressure_us,
    io_pressure_us
  ) OVER (
    PARTITION BY host_id
    ORDER BY arrival
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) AS in_window
FROM usage_arrived
