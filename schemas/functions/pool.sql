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

-- What a host or pool has free before claims: what it says itself; of a pool at most what its hosts leave (allocated, null of a host).
CREATE OR REPLACE FUNCTION vacancy.disk_gb_free(told bigint, capacity bigint, allocated bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(least(told, greatest(capacity, 0) - allocated), -4000000000000000000);

-- The disk of a pool that has usage, as host_free has it; allocated is null before the first sum over its hosts.
-- roughly: claims that count no more are in it until they are written off, so that it has at least what this says. Else the
-- count is that of pool_counts(), which is a function, so that its plan is set up where it is needed alone.
-- Grain: one row at most. A function of this form becomes part of the query that calls it.
CREATE OR REPLACE FUNCTION vacancy.pool_room(pool text, roughly boolean)
RETURNS TABLE (
  age interval, is_ahead boolean, is_cloned boolean, allocated bigint, capacity bigint, free bigint, available bigint
)
LANGUAGE sql STABLE AS $$
SELECT
  statement_timestamp() - h.observed_at,
  h.clock_ahead OR h.observed_at > statement_timestamp() + vacancy.max_clock_ahead(),
  h.anomalies & 1 <> 0,
  a.allocated_gb,
  h.disk_gb_capacity,
  vacancy.disk_gb_free(h.disk_gb_free, h.disk_gb_capacity, a.allocated_gb) - coalesce(claimed.gb, 0),
  greatest(h.disk_gb_available, -4000000000000000000) - coalesce(claimed.gb, 0)
FROM vacancy.host AS h
LEFT JOIN vacancy.pool_allocated AS a ON a.pool_id = h.host_id
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN roughly THEN (SELECT sum(c.claimed_gb)::bigint FROM vacancy.pool_claimed AS c WHERE c.pool_id = h.host_id)
    ELSE (vacancy.pool_counts(h.host_id))[2]
  END AS gb
  OFFSET 0
) AS claimed
WHERE h.host_id = pool AND h.vcpus_capacity = 0
$$;

-- Whether so many GiB are little to what a pool has free, so that one of its slots does. Half as much again is free as
-- claim_host() wants to be: that it falls below meanwhile is rare.
CREATE OR REPLACE FUNCTION vacancy.is_little(gb bigint, capacity bigint, free bigint, available bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN coalesce(gb <= capacity / 256 AND least(free, available) >= capacity / 32 * 3, false);

-- Takes the lock of a pool until the transaction ends: of one of its slots for what is little to it, else of the whole pool.
-- Returns the slot, 0 for the whole pool; null: others are there, and `wait` is false.
CREATE OR REPLACE FUNCTION vacancy.lock_pool(pool text, little boolean, wait boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  lock_key bigint := hashtextextended(pool, 3);
  chosen integer;
BEGIN
  IF NOT little THEN
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
  UPDATE vacancy.pool_claimed AS p SET claimed_gb = p.claimed_gb + gb WHERE p.pool_id = pool AND p.slot = by_slot;
  IF NOT FOUND THEN
    INSERT INTO vacancy.pool_claimed AS p (pool_id, slot, claimed_gb) VALUES (pool, by_slot, gb);
  END IF;
END
$$;

-- Takes some claims that count no more out of the count of a pool, by a slot whose lock the caller holds: those that have
-- expired go, settled ones name the pool no longer. SKIP LOCKED: a claim that somebody is changing is left for the next time.
CREATE OR REPLACE FUNCTION vacancy.write_off_pool(pool text, by_slot integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  gb bigint;
BEGIN
  WITH gone AS (
    DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (ARRAY(
      SELECT due.consumer FROM vacancy.claim AS due
      WHERE due.pool_id = pool AND due.settled_xid IS NULL AND due.expires_at <= statement_timestamp()
      ORDER BY due.expires_at LIMIT 64 FOR UPDATE SKIP LOCKED
    )) RETURNING c.disk_gb
  ), shown AS (
    UPDATE vacancy.claim AS c SET pool_id = NULL WHERE c.consumer = ANY (ARRAY(
      SELECT due.consumer FROM vacancy.pool_allocated AS a
      JOIN vacancy.claim AS due ON due.pool_id = a.pool_id AND due.settled_xid < pg_snapshot_xmax(a.as_of)
      WHERE a.pool_id = pool AND pg_visible_in_snapshot(due.settled_xid, a.as_of)
      ORDER BY due.settled_xid LIMIT 64 FOR UPDATE OF due SKIP LOCKED
    )) RETURNING c.disk_gb
  )
  SELECT sum(w.disk_gb) INTO gb FROM (SELECT g.disk_gb FROM gone AS g UNION ALL SELECT s.disk_gb FROM shown AS s) AS w;
  IF gb IS NOT NULL THEN
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
      FROM leaving AS l WHERE c.consumer = ANY (consumers) AND c.consumer = l.consumer
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
  vacancy.pool_of(text), vacancy.pool_counts(text), vacancy.disk_gb_free(bigint, bigint, bigint), vacancy.pool_room(text, boolean),
  vacancy.is_little(bigint, bigint, bigint, bigint), vacancy.lock_pool(text, boolean, boolean), vacancy.draw_from_pool(text, integer, bigint),
  vacancy.write_off_pool(text, integer), vacancy.leave_to_pool(uuid[]), vacancy.sum_pool()
FROM PUBLIC;
-- Whoever reads host_free and schedulable_host calls them.
GRANT EXECUTE ON FUNCTION vacancy.pool_counts(text), vacancy.disk_gb_free(bigint, bigint, bigint) TO vacancy_scheduler, vacancy_reader;
