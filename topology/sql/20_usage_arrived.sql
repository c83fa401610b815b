-- The usage events that decode, in the order they arrive: within a host, that of its partition.
-- Grain: an event. Key: (host_id, boot_id).
CREATE TEMPORARY VIEW usage_arrived AS
SELECT
  append_time,
  event.host_id,
  event.boot_id,
  event.monotonic_ns,
  event,
  PROCTIME() AS arrival
FROM usage_decoded
WHERE event.reason IS NULL
