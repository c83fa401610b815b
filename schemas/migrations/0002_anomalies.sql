-- What is wrong with a host by its own events, as bits; docs/semantics.md says when.
ALTER TABLE vacancy.host ADD COLUMN anomalies integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN vacancy.host.anomalies IS 'Bits: 1 several nodes report under this id, 2 the node''s clock went back, 4 a fraction was above 1.';
