-- The usage events that decode, in the order they arrive: within a host, that of its partition.
-- Grain: an event. Key: host_id. event has the columns of decode_usage; a counter that the node does not have is -1.
-- What is free is said here and nowhere else; it is below 0 where a host has promised more than it may.
-- The order of the columns is that of topology/java/vacancy/HostWindowFunction.java.
CREATE TEMPORARY VIEW usage_arrived AS
SELECT
  event.host_id,
  append_time,
  `partition` AS topic_partition,
  `offset` AS topic_offset,
  event,
  event.vcpus_capacity - event.vcpus_allocated AS vcpus_free,
  event.memory_mb_capacity - event.memory_mb_allocated AS memory_mb_free,
  event.disk_gb_capacity - event.disk_gb_allocated AS disk_gb_free
FROM usage_decoded
WHERE event.reason IS NULL
