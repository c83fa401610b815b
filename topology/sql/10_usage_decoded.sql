-- Every record of the usage topic, decoded once.
-- Grain: one row a Kafka record. Time: append_time, as the source declares it. Bad records carry their reason.
CREATE TEMPORARY VIEW usage_decoded AS
SELECT
  topic,
  `partition`,
  `offset`,
  append_time,
  payload,
  -- One byte more than the decoder accepts: enough to see that a payload is too large, without moving all of it.
  decode_usage(CAST(payload AS VARBINARY(65537))) AS event
FROM usage_topic
