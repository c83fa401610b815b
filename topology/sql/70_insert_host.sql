-- The rows of the scheduling table, whose columns are named in schemas/usage.py; each is one of host_window.
-- Grain: an event that takes its boot forward. Key of the sink: host_id; it keeps the newest by its place in the topic.
INSERT INTO host
SELECT
  $host_columns
FROM host_window
