-- Claiming hosts for many consumers, all of them or none, without holding many hosts at a time.
-- A claim() holds the locks of its hosts until it commits, so one for a thousand consumers would hold up every other claim
-- for as long as it takes. The adapter therefore reserves in parts: each part is a transaction of its own, a claim() under
-- ids of reservations, which counts like any other claim. When all parts are there one last transaction gives the claims to
-- their consumers: until then the consumers have nothing, and from then on everything. What is reserved and not taken is
-- released, or expires.
-- Bulk claims come one after the other, so that each is soon through: one that begins waits while another makes progress.
-- What always holds: of two bulk claims that take from each other what both need, the older one goes on.
-- The id of a reservation is 48 bits of ones, 64 bits of the bulk claim (when it began, so that ids are in the order of age)
-- and 16 bits for the number of the consumer.

-- Whether reservations of other bulk claims than the one of these ids are under way, and what to do therefore: 'give back' to
-- an older one, whose ids come first, 'wait' for a younger one, or null. The ids of a claim that is no bulk claim are those
-- of its consumers.
CREATE OR REPLACE FUNCTION vacancy.other_reservations(ids uuid[]) RETURNS text
LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN left(c.consumer::text, 32) < left(ids[1]::text, 32) THEN 'give back' ELSE 'wait' END
  FROM vacancy.claim AS c
  WHERE c.consumer >= 'ffffffff-ffff-0000-0000-000000000000'
    AND c.expires_at > statement_timestamp()
    AND left(c.consumer::text, 32) <> left(ids[1]::text, 32)
  ORDER BY c.consumer
  LIMIT 1
$$;

-- Whether another bulk claim than the one of these ids makes progress, and this one has not begun.
CREATE OR REPLACE FUNCTION vacancy.must_wait_its_turn(ids uuid[]) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
  -- The newest of all reservations is that of the bulk claim that makes progress.
  SELECT coalesce((
    SELECT c.claimed_at > clock_timestamp() - interval '5 s'
    FROM vacancy.claim AS c
    WHERE c.consumer >= 'ffffffff-ffff-0000-0000-000000000000'
    ORDER BY c.consumer DESC
    LIMIT 1
  ), false) AND NOT EXISTS (
    SELECT FROM vacancy.claim AS c
    WHERE c.consumer BETWEEN (left(ids[1]::text, 32) || '0000')::uuid AND (left(ids[1]::text, 32) || 'ffff')::uuid
  )
$$;

-- Reserves a part; as claim(), whose refusal it returns, and whose errors it raises. Raises serialization_failure with the
-- detail 'wait' where it is another's turn.
-- One part at a time in the whole database: the others wait here, where they hold nothing, and leave the hosts and the
-- processors to ordinary claims.
CREATE OR REPLACE FUNCTION vacancy.reserve(ids uuid[], request jsonb)
RETURNS TABLE (host_id text, contended integer, refusal jsonb)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
  FOR look IN 1..2 LOOP
    -- Without the lock first: most of those that wait are told here.
    IF look = 2 THEN
      PERFORM pg_advisory_xact_lock(hashtextextended('vacancy.reserve', 3));
    END IF;
    IF vacancy.must_wait_its_turn(ids) THEN
      RAISE EXCEPTION 'another bulk claim is under way'
        USING ERRCODE = 'serialization_failure', DETAIL = 'wait', HINT = 'Reserve again.';
    END IF;
  END LOOP;
  -- While it makes progress what it has reserved lasts, however long all of it takes.
  UPDATE vacancy.claim AS c SET expires_at = clock_timestamp() + (request->>'claim_ttl')::interval
  WHERE c.consumer BETWEEN (left(ids[1]::text, 32) || '0000')::uuid AND (left(ids[1]::text, 32) || 'ffff')::uuid
    AND c.expires_at > clock_timestamp()
    AND c.expires_at < clock_timestamp() + (request->>'claim_ttl')::interval / 2;
  RETURN QUERY SELECT c.host_id, c.contended, c.refusal FROM vacancy.claim(ids, request) AS c;
END
$$;

-- Gives what is reserved to its consumers, and returns their claims in order, as claim() does. A consumer that has got a
-- claim meanwhile keeps that.
-- Raises serialization_failure where a reservation has expired; then nothing is taken.
CREATE OR REPLACE FUNCTION vacancy.take_reserved(ids uuid[], consumers uuid[], claim_ttl interval)
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  held jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  expired uuid[];
  already_claimed uuid[];
  taken integer;
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  SELECT
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at <= statement_timestamp()), '{}')
  INTO already_claimed, expired
  FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  IF expired <> '{}' THEN
    PERFORM vacancy.delete_expired(expired);
  END IF;
  IF already_claimed <> '{}' THEN
    PERFORM vacancy.leave_to_pool(ARRAY(
      SELECT r.id FROM unnest(ids, consumers) AS r (id, for_consumer) WHERE r.for_consumer = ANY (already_claimed)
    ));
    DELETE FROM vacancy.claim AS c
    USING unnest(ids, consumers) AS r (id, for_consumer)
    WHERE c.consumer = ANY (ids) AND c.consumer = r.id AND r.for_consumer = ANY (already_claimed);
  END IF;
  -- ANY: by consumer, whatever a plan made while the table was empty would rather join.
  UPDATE vacancy.claim AS c
  SET consumer = r.for_consumer, claimed_at = at, expires_at = at + claim_ttl
  FROM unnest(ids, consumers) AS r (id, for_consumer), clock_timestamp() AS at
  WHERE c.consumer = ANY (ids) AND c.consumer = r.id AND c.expires_at > statement_timestamp();
  GET DIAGNOSTICS taken = ROW_COUNT;
  IF taken + cardinality(already_claimed) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'what was reserved has expired' USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN QUERY
    SELECT c.consumer, c.host_id, i.name, c.claimed_at, c.expires_at, c.consumer = ANY (already_claimed), c.held
    FROM unnest(consumers) WITH ORDINALITY AS r (for_consumer, number)
    JOIN vacancy.claim AS c ON c.consumer = r.for_consumer
    LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
    WHERE c.consumer = ANY (consumers)
    ORDER BY r.number;
END
$$;

-- Which of these consumers have a claim that has not expired.
CREATE OR REPLACE FUNCTION vacancy.claimed(consumers uuid[]) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  SELECT c.consumer FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) AND c.expires_at > statement_timestamp()
$$;

REVOKE ALL ON FUNCTION
  vacancy.other_reservations(uuid[]), vacancy.must_wait_its_turn(uuid[]), vacancy.reserve(uuid[], jsonb),
  vacancy.take_reserved(uuid[], uuid[], interval), vacancy.claimed(uuid[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  vacancy.reserve(uuid[], jsonb), vacancy.take_reserved(uuid[], uuid[], interval), vacancy.claimed(uuid[])
TO vacancy_scheduler;
