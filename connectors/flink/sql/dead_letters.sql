-- The dead-letter topic: a record's value is the payload, as much of it as fits; its headers say where it stood and why it
-- is here. The sink adds the payload's length and SHA-256.
CREATE TEMPORARY TABLE dead_letters (
  payload BYTES,
  headers MAP<STRING NOT NULL, BYTES>
) WITH ($options)
