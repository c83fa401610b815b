-- Which of a host's events is the newest is told by its place in its Kafka partition. The broker's time is for ages, and for
-- keys that have moved to another partition (docs/semantics.md). Null: written by a job of an earlier release.
ALTER TABLE vacancy.host
  ADD COLUMN latest_at timestamptz,
  ADD COLUMN topic_offset bigint,
  ADD COLUMN topic_partition integer,
  ADD COLUMN clock_ahead boolean NOT NULL DEFAULT false;

ALTER TABLE vacancy.host_inventory
  ADD COLUMN latest_at timestamptz,
  ADD COLUMN topic_offset bigint,
  ADD COLUMN topic_partition integer,
  ADD COLUMN clock_ahead boolean NOT NULL DEFAULT false;

-- What an earlier release holds in the future, the next event of its host replaces.
UPDATE vacancy.host SET latest_at = 'epoch' WHERE observed_at > statement_timestamp();
UPDATE vacancy.host_inventory SET latest_at = 'epoch' WHERE observed_at > statement_timestamp();

COMMENT ON COLUMN vacancy.host.observed_at IS 'Append time of the newest event, by the broker''s clock.';
COMMENT ON COLUMN vacancy.host.latest_at IS 'Latest observed_at that the row has had and that was not from the future.';
COMMENT ON COLUMN vacancy.host.topic_offset IS 'Where the newest event stands in its partition.';
COMMENT ON COLUMN vacancy.host.topic_partition IS 'The partition of the newest event.';
COMMENT ON COLUMN vacancy.host.clock_ahead IS 'True: observed_at was in the future when the row was written.';
COMMENT ON COLUMN vacancy.host_inventory.observed_at IS 'Append time of the newest inventory event, by the broker''s clock.';
COMMENT ON COLUMN vacancy.host_inventory.latest_at IS 'Latest observed_at that the row has had and that was not from the future.';
COMMENT ON COLUMN vacancy.host_inventory.topic_offset IS 'Where the newest event stands in its partition.';
COMMENT ON COLUMN vacancy.host_inventory.topic_partition IS 'The partition of the newest event.';
COMMENT ON COLUMN vacancy.host_inventory.clock_ahead IS 'True: observed_at was in the future when the row was written.';
