-- Every record of the usage topic, decoded once; all that follows reads this view.
-- Grain: a Kafka record, good or bad. Time: append_time, with the source's watermark.
CREATE TEMPORARY VIEW usage_decoded AS
SELECT
  topic,
  `partition`,
  `offset`,
  append_time,
  host_key,
  payload,
  decode_usage(host_key, payload, headers['$reads_as_header'], append_time) AS event
FROM usage_topic
