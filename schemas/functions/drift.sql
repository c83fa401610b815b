-- Since when hosts drift: notes what drifts now and was not noted, and forgets what is over; how many of each.
-- A host that is silent, of which nobody knows, keeps what is noted.
CREATE OR REPLACE FUNCTION vacancy.record_drift(OUT begun bigint, OUT ended bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH drifting_now AS MATERIALIZED (
  SELECT host_id, kind, observed_at FROM vacancy.drifting
), deleted AS (
  DELETE FROM vacancy.drift AS noted
  WHERE NOT EXISTS (SELECT FROM drifting_now AS d WHERE d.host_id = noted.host_id AND d.kind = noted.kind)
    AND NOT EXISTS (
      SELECT FROM vacancy.host AS h
      WHERE h.host_id = noted.host_id AND statement_timestamp() - h.observed_at > vacancy.max_age()
    )
  RETURNING 1
), inserted AS (
  INSERT INTO vacancy.drift (host_id, kind, since) SELECT host_id, kind, observed_at FROM drifting_now
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*) FROM inserted), (SELECT count(*) FROM deleted)
$$;

REVOKE ALL ON FUNCTION vacancy.record_drift() FROM PUBLIC;
-- Readers may call it: it writes nothing but what they may read.
GRANT EXECUTE ON FUNCTION vacancy.record_drift() TO vacancy_reader;
