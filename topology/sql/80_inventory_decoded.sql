-- Every record of the inventory topic, decoded once. A null payload retires the host that its key names.
-- Grain: a Kafka record, good or bad.
CREATE TEMPORARY VIEW inventory_decoded AS
SELECT
  topic,
  `partition`,
  `offset`,
  append_time,
  host_key,
  payload,
  decode_inventory(host_key, payload, headers['$reads_as_header'], append_time) AS event
FROM inventory_topic
