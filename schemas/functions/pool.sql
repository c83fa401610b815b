-- Storage pools that hosts take their disk from, and what claims hold of them.
-- What always holds, in every snapshot: pool_claimed, summed over its slots, is the sum over the claims that name the pool.
-- Whoever changes one or the other holds the pool alone or one of its slots until the transaction ends, and changes only the
-- row of that slot; so nobody waits for a row.
-- Who holds the pool alone sees every other claim on it. Those who hold slots do not see each other, but there are eight at
-- most, each takes a 256th of the pool at most, and only while a sixteenth of it is free: twice what all of them can take.

-- The pool that a host's disk_pool names, by name or by id; no row: there is none. Of pools with one name always the same.
-- Grain: one row at most. A function of this form becomes part of the query that calls it.
CREATE OR REPLACE FUNCTION vacancy.pool_of(name_or_id text) RETURNS TABLE (pool_id text)
LANGUAGE sql STABLE AS $$
SELECT p.host_id FROM (
  (
    SELECT n.host_id FROM vacancy.host_inventory AS n
    WHERE n.name = name_or_id AND n.shares AND NOT n.retired ORDER BY n.host_id LIMIT 1
  )
  UNION ALL
  SELECT d.host_id FROM vacancy.host_inventory AS d WHERE d.host_id = name_or_id AND d.shares AND NOT d.retired
) AS p
LIMIT 1
$$;

-- What the rows of a pool's hosts say that their instances hold of it, and what claims hold of it that no row shows yet.
-- A function, since it is for pools alone: a plan of host_free is set up whole at each execution, for plain hosts as well.
CREATE OR REPLACE FUNCTION vacancy.pool_counts(pool text) RETURNS bigint[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  RETURN ARRAY[
    (SELECT a.allocated_gb FROM vacancy.pool_allocated AS a WHERE a.pool_id = pool),
    (SELECT d.claimed_gb FROM vacancy.pool_drawn AS d WHERE d.pool_id = pool)
  ];
END
$$;

-- Takes the lock of a pool until the transaction ends: of one of its slots where so many GiB are little to what is free, else of
-- the whole pool. Returns the slot, 0 for the whole pool; null: others are there, and `wait` is false.
CREATE OR REPLACE FUNCTION vacancy.lock_pool(pool text, gb bigint, wait boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  lock_key bigint := hashtextextended(pool, 3);
  chosen integer;
BEGIN
  -- Half as much again as claim_host() wants to be free: that it falls below meanwhile is rare.
  IF NOT EXISTS (
    SELECT FROM vacancy.host_free AS u
    WHERE u.host_id = pool AND gb <= u.disk_gb_capacity / 256
      AND least(u.disk_gb_free, u.disk_gb_available) >= u.disk_gb_capacity / 32 * 3
  ) THEN
    IF pg_try_advisory_xact_lock(lock_key) THEN
      RETURN 0;
    END IF;
    IF wait THEN
      PERFORM pg_advisory_xact_lock(lock_key);
      RETURN 0;
    END IF;
    RETURN NULL;
  END IF;
  IF NOT pg_try_advisory_xact_lock_shared(lock_key) THEN
    IF NOT wait THEN
      RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(lock_key);
  END IF;
  chosen := 1 + floor(random() * 8)::integer;
  FOR tried IN 1..8 LOOP
    IF pg_try_advisory_xact_lock(hashtextextended(pool, 16 + chosen)) THEN
      RETURN chosen;
    END IF;
    chosen := 1 + chosen % 8;
  END LOOP;
  IF wait THEN
    PERFORM pg_advisory_xact_lock(hashtextextended(pool, 16 + chosen));
    RETURN chosen;
  END IF;
  RETURN NULL;
END
$$;

-- Adds to what claims hold of a pool, by a slot whose lock the caller holds.
CREATE OR REPLACE FUNCTION vacancy.draw_from_pool(pool text, by_slot integer, gb bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  INSERT INTO vacancy.pool_claimed AS p (pool_id, slot, claimed_gb) VALUES (pool, by_slot, gb)
  ON CONFLICT (pool_id, slot) DO UPDATE SET claimed_gb = p.claimed_gb + EXCLUDED.claimed_gb;
END
$$;

-- Takes some claims that count no more out of the count of a pool, by a slot whose lock the caller holds. SKIP LOCKED: a claim
-- that somebody is changing is left for the next time. More than claims come, so that none are left in the end.
CREATE OR REPLACE FUNCTION vacancy.write_off_pool(pool text, by_slot integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  due uuid[];
  gb bigint;
BEGIN
  due := ARRAY(
    SELECT c.consumer FROM vacancy.claim AS c
    WHERE c.pool_id = pool AND c.settled_xid IS NULL AND c.expires_at <= statement_timestamp()
    ORDER BY c.expires_at LIMIT 16 FOR UPDATE SKIP LOCKED
  ) || ARRAY(
    SELECT c.consumer FROM vacancy.pool_allocated AS a
    JOIN vacancy.claim AS c ON c.pool_id = a.pool_id AND c.settled_xid < pg_snapshot_xmax(a.as_of)
    WHERE a.pool_id = pool AND pg_visible_in_snapshot(c.settled_xid, a.as_of)
    ORDER BY c.settled_xid LIMIT 16 FOR UPDATE OF c SKIP LOCKED
  );
  IF due <> '{}' THEN
    WITH written_off AS (
      UPDATE vacancy.claim AS c SET pool_id = NULL WHERE c.consumer = ANY (due) RETURNING c.disk_gb
    )
    SELECT sum(w.disk_gb) INTO gb FROM written_off AS w;
    PERFORM vacancy.draw_from_pool(pool, by_slot, -gb);
  END IF;
END
$$;

-- The claims of these consumers on pools give up their names and count on until they are written off: those in flight at the
-- next claim on the pool, settled ones when the pool's sum shows them. So nobody waits for the lock of a pool to give back.
-- Returns the consumers whose claims had not expired.
CREATE OR REPLACE FUNCTION vacancy.leave_to_pool(consumers uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN QUERY
    WITH leaving AS (
      SELECT c.consumer, gen_random_uuid() AS stand_in, c.expires_at > statement_timestamp() AS counted
      FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) AND c.pool_id IS NOT NULL FOR UPDATE
    ), renamed AS (
      UPDATE vacancy.claim AS c
      SET consumer = l.stand_in, vcpus = 0, memory_mb = 0, held = NULL, shown_at = NULL,
        expires_at = least(c.expires_at, statement_timestamp())
      FROM leaving AS l WHERE c.consumer = l.consumer
      RETURNING l.consumer, l.counted
    )
    SELECT r.consumer FROM renamed AS r WHERE r.counted;
END
$$;

-- Sums what the hosts of a pool hold of it, when its usage row is written, at most twice a second. The sum and as_of are of
-- one snapshot: a claim is in the sum if as_of has seen the transaction that settled it.
CREATE OR REPLACE FUNCTION vacancy.sum_pool() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  pool_name text;
BEGIN
  SELECT p.name INTO pool_name FROM vacancy.host_inventory AS p
  WHERE p.host_id = NEW.host_id AND p.shares AND NOT p.retired
    AND NOT EXISTS (
      SELECT FROM vacancy.pool_allocated AS a
      WHERE a.pool_id = p.host_id AND a.summed_at > clock_timestamp() - interval '0.5 s'
    );
  IF FOUND THEN
    INSERT INTO vacancy.pool_allocated AS a (pool_id, allocated_gb, as_of, summed_at)
    SELECT
      NEW.host_id,
      -- In double precision and within bounds: nothing overflows, whatever a host says.
      least(coalesce(sum(greatest(least(h.disk_gb_capacity::double precision - h.disk_gb_free, 1e18), 0)), 0), 4e18)::bigint,
      pg_current_snapshot(),
      clock_timestamp()
    FROM vacancy.host_inventory AS i
    JOIN vacancy.host AS h ON h.host_id = i.host_id
    WHERE i.disk_pool = ANY (ARRAY[pool_name, NEW.host_id]) AND NOT i.retired AND NOT i.shares
    ON CONFLICT (pool_id) DO UPDATE
    SET allocated_gb = EXCLUDED.allocated_gb, as_of = EXCLUDED.as_of, summed_at = EXCLUDED.summed_at;
    -- After a restore from a dump the number of an old transaction says nothing: 3 is one that everybody has seen.
    UPDATE vacancy.claim SET settled_xid = '3' WHERE consumer = ANY (ARRAY(
      SELECT c.consumer FROM vacancy.claim AS c
      WHERE c.pool_id = NEW.host_id AND c.settled_at < clock_timestamp() - interval '1 hour' AND c.settled_xid > '3'
      LIMIT 64 FOR UPDATE SKIP LOCKED
    ));
  END IF;
  RETURN NULL;
END
$$;

-- A pool has no CPUs, which spares all hosts the look.
CREATE OR REPLACE TRIGGER sum_pool AFTER INSERT OR UPDATE ON vacancy.host
FOR EACH ROW WHEN (NEW.vcpus_capacity = 0) EXECUTE FUNCTION vacancy.sum_pool();

REVOKE ALL ON FUNCTION
  vacancy.pool_of(text), vacancy.pool_counts(text), vacancy.lock_pool(text, bigint, boolean), vacancy.draw_from_pool(text, integer, bigint),
  vacancy.write_off_pool(text, integer), vacancy.leave_to_pool(uuid[]), vacancy.sum_pool()
FROM PUBLIC;
-- Whoever reads host_free and schedulable_host calls it.
GRANT EXECUTE ON FUNCTION vacancy.pool_counts(text) TO vacancy_scheduler, vacancy_reader;
