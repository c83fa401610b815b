-- The events that take their boot forward, each with the one before it.
-- Grain: an event. Key: (host_id, boot_id); monotonic_ns never falls, and rises but for repeats of the newest event.
-- Late events end here; repeats of the newest one end in the next view, which sees that no time has passed.
CREATE TEMPORARY VIEW usage_in_order AS
SELECT
  append_time,
  host_id,
  boot_id,
  monotonic_ns,
  event,
  LAG(event) OVER (PARTITION BY host_id, boot_id ORDER BY arrival) AS previous
FROM usage_progress
WHERE monotonic_ns = progress_ns
