-- A row never goes back in event time: an upsert with an older observed_at changes nothing.
-- After a restart the job writes again what it had written before, and the JDBC upsert overwrites unconditionally.
-- Equal times are let through: writing the same row again is harmless, and a job with new settings can rewrite it.
-- The WHEN clause is judged without calling the function, so a row in order pays for one comparison.
CREATE FUNCTION vacancy.drop_row() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RETURN NULL;
END
$$;

CREATE TRIGGER never_back_in_time BEFORE UPDATE ON vacancy.host
FOR EACH ROW WHEN (NEW.observed_at < OLD.observed_at) EXECUTE FUNCTION vacancy.drop_row();

CREATE TRIGGER never_back_in_time BEFORE UPDATE ON vacancy.host_inventory
FOR EACH ROW WHEN (NEW.observed_at < OLD.observed_at) EXECUTE FUNCTION vacancy.drop_row();
