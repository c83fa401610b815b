-- Every record of the usage topic, decoded once; all that follows reads this view.
-- Grain: a Kafka record, good or bad. Time: append_time, with the source's watermark.
CREATE TEMPORARY VIEW usage_decoded AS
SELECT
  topic,
  `partition`,
  `offset`,
  append_time,
  payload,
  -- One byte more than the decoder accepts: enough to see that a payload is too large without moving all of it.
  decode_usage(CAST(payload AS VARBINARY(65537))) AS event
FROM usage_topic
