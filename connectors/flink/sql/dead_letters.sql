-- The dead-letter topic: a record's value is the payload as it came, its headers say where it stood and why it is here.
CREATE TEMPORARY TABLE dead_letters (
  payload BYTES,
  headers MAP<STRING NOT NULL, BYTES> METADATA
) WITH ($options)
