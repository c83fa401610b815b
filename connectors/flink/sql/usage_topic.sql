-- The usage topic, its key the host id. Its records come with where they stand; time is the broker's append time.
-- No row waits for the watermark: it is there for Flink's metrics, which show by it how far the job has read, and for the
-- timers that forget hosts. A time after the year 9999, which the decoder refuses, does not move it.
CREATE TEMPORARY TABLE usage_topic (
  host_key STRING,
  payload BYTES,
  headers MAP<STRING NOT NULL, BYTES> NOT NULL METADATA VIRTUAL,
  topic AS '$topic',
  `partition` INT NOT NULL METADATA VIRTUAL,
  `offset` BIGINT NOT NULL METADATA VIRTUAL,
  append_time TIMESTAMP_LTZ(3) NOT NULL METADATA FROM 'timestamp' VIRTUAL,
  WATERMARK FOR append_time AS CASE WHEN append_time <= TO_TIMESTAMP_LTZ(253402300799999, 3) THEN append_time END
) WITH ($options)
