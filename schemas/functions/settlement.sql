-- Settles claims: from then on the host's own figures hold them.

-- A claim is settled in the very transaction that makes its consumer part of the host's figures: never counted twice, not
-- even for a moment, and not again when the host no longer lists the consumer. A consumer that leaves the list is settled
-- as well, for the claim that committed while it was listed.
-- A claim that was resized is not settled by a list that had its consumer before: that stands for the former size.
-- Of a claim that holds devices, cells or classes it notes which usage settled it (claim.shown_at).
-- Of one that draws from a storage pool it notes which transaction settled it: the pool's sum may not have seen it yet.
-- SKIP LOCKED: the sink never waits for a scheduler. What it skips is being released.
CREATE OR REPLACE FUNCTION vacancy.settle_claims() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  listed_before uuid[] := '{}';
BEGIN
  IF TG_OP = 'UPDATE' THEN
    listed_before := OLD.recent_consumers;
  END IF;
  UPDATE vacancy.claim
  SET
    settled_at = clock_timestamp(),
    shown_at = CASE WHEN held IS NOT NULL THEN least(NEW.observed_at, clock_timestamp()) END,
    settled_xid = CASE WHEN pool_id IS NOT NULL THEN pg_current_xact_id() END
  WHERE consumer = ANY (ARRAY(
    SELECT consumer FROM vacancy.claim
    WHERE consumer = ANY (NEW.recent_consumers || listed_before)
      AND host_id = NEW.host_id
      AND settled_at IS NULL
      AND NOT (resized AND consumer = ANY (listed_before))
      AND expires_at > statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ));
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER settle_claims AFTER UPDATE ON vacancy.host
FOR EACH ROW WHEN (NEW.recent_consumers IS DISTINCT FROM OLD.recent_consumers) EXECUTE FUNCTION vacancy.settle_claims();

CREATE OR REPLACE TRIGGER settle_claims_of_new AFTER INSERT ON vacancy.host
FOR EACH ROW WHEN (NEW.recent_consumers <> '{}') EXECUTE FUNCTION vacancy.settle_claims();

REVOKE ALL ON FUNCTION vacancy.settle_claims() FROM PUBLIC;
