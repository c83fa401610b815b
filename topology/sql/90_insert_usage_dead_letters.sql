-- The usage records that do not decode, with where they stand, why, and what they hold. Grain: a Kafka record.
INSERT INTO dead_letters
SELECT
  payload,
  MAP[
    'vacancy.topic', CAST(topic AS BYTES),
    'vacancy.partition', CAST(CAST(`partition` AS STRING) AS BYTES),
    'vacancy.offset', CAST(CAST(`offset` AS STRING) AS BYTES),
    'vacancy.append_time', CAST(CAST(append_time AS STRING) || 'Z' AS BYTES),
    'vacancy.key', CAST(host_key AS BYTES),
    'vacancy.reason', CAST(event.reason AS BYTES)
  ] AS headers
FROM usage_decoded
WHERE event.reason IS NOT NULL
