-- How far each boot of a host had got when an event arrived.
-- Grain: an event. Key: (host_id, boot_id). An event behind its boot's progress is late or repeated.
CREATE TEMPORARY VIEW usage_progress AS
SELECT
  append_time,
  host_id,
  boot_id,
  monotonic_ns,
  event,
  arrival,
  MAX(monotonic_ns) OVER (
    PARTITION BY host_id, boot_id
    ORDER BY arrival
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) AS progress_ns
FROM usage_arrived
