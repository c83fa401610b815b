-- The inventory topic: compacted, its key the host id; a null payload retires the host.
CREATE TEMPORARY TABLE inventory_topic (
  host_key STRING,
  payload BYTES,
  headers MAP<STRING NOT NULL, BYTES> NOT NULL METADATA VIRTUAL,
  topic AS '$topic',
  `partition` INT NOT NULL METADATA VIRTUAL,
  `offset` BIGINT NOT NULL METADATA VIRTUAL,
  append_time TIMESTAMP_LTZ(3) NOT NULL METADATA FROM 'timestamp' VIRTUAL
) WITH ($options)
