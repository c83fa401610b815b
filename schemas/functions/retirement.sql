-- A retired host leaves at once, and late usage does not bring it back.
-- What always holds between transactions: no host_id is in vacancy.host and retired in vacancy.host_inventory.
-- The functions run with the owner's rights, so that the job's role needs no DELETE.
-- The triggers on host_inventory come first: retirement locks the two tables in that order as well.

-- Whoever writes vacancy.host holds ROW EXCLUSIVE on it until commit. Retirement takes the lock that conflicts with
-- that one: it waits for the writers under way, sees what they committed, and later writers wait and see the tombstone.
-- Writers of vacancy.host never wait for a lock on vacancy.host_inventory, so there is no cycle, and they pay nothing.
CREATE OR REPLACE FUNCTION vacancy.retire_host() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  LOCK TABLE vacancy.host IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM vacancy.host WHERE host_id = NEW.host_id;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER retire_unknown AFTER INSERT ON vacancy.host_inventory
FOR EACH ROW WHEN (NEW.retired) EXECUTE FUNCTION vacancy.retire_host();

CREATE OR REPLACE TRIGGER retire_known AFTER UPDATE ON vacancy.host_inventory
FOR EACH ROW WHEN (NEW.retired AND NOT OLD.retired) EXECUTE FUNCTION vacancy.retire_host();

-- Tombstones go after 7 days, whenever something is written: one look into an index that holds tombstones alone.
-- SKIP LOCKED: two writers never wait for each other here. LIMIT: no statement pays for a backlog.
CREATE OR REPLACE FUNCTION vacancy.delete_old_tombstones() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM vacancy.host_inventory
  WHERE host_id = ANY (ARRAY(
    SELECT host_id FROM vacancy.host_inventory
    WHERE retired_at < statement_timestamp() - interval '7 days'
    ORDER BY retired_at LIMIT 100 FOR UPDATE SKIP LOCKED
  ));
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER delete_old_tombstones AFTER INSERT OR UPDATE ON vacancy.host_inventory
FOR EACH STATEMENT EXECUTE FUNCTION vacancy.delete_old_tombstones();

-- AFTER INSERT fires for rows that are new, not for those that ON CONFLICT turned into an update: BEFORE INSERT would
-- fire for both and look up the tombstone for each row that the job rewrites.
CREATE OR REPLACE FUNCTION vacancy.keep_retired_out() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM vacancy.host
  WHERE host_id = NEW.host_id
    AND EXISTS (SELECT FROM vacancy.host_inventory WHERE host_id = NEW.host_id AND retired);
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER keep_retired_out AFTER INSERT ON vacancy.host
FOR EACH ROW EXECUTE FUNCTION vacancy.keep_retired_out();

REVOKE ALL ON FUNCTION vacancy.retire_host(), vacancy.delete_old_tombstones(), vacancy.keep_retired_out() FROM PUBLIC;
