-- Claiming in one round trip, and giving back.
-- What always holds: hosts' rows are read and never locked, so a claim waits for no batch of the sink and the sink for no
-- claim. There are three locks, all advisory and held until the transaction ends:
-- 1. of a consumer, so that the same consumer's requests come one after the other. Taken first, in one order, so that
--    there is no cycle;
-- 2. of the storage pool that a host's disk comes from, or of one of its slots (pool.sql). Waited for only while neither a pool
--    nor a host is held, else only tried;
-- 3. of a host, so that a claim sees every other one on its host. Only tried, and where it is held the next best host is
--    taken; waited for at most once, while no other host is held. Who holds a host waits for nobody, so there is no cycle.

-- Waits for calls under way for the same consumers, and keeps others out until the transaction ends; in one order.
-- Returns how many different consumers they are.
CREATE OR REPLACE FUNCTION vacancy.lock_consumers(consumers uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  ordered uuid[] := consumers;
  consumer uuid;
  locked text;
BEGIN
  IF cardinality(consumers) > 1 THEN
    ordered := ARRAY(SELECT DISTINCT c FROM unnest(consumers) AS c ORDER BY 1);
  END IF;
  FOREACH consumer IN ARRAY ordered LOOP
    locked := pg_advisory_xact_lock(hashtextextended(consumer::text, 2));
  END LOOP;
  RETURN cardinality(ordered);
END
$$;

-- Of claims about to be deleted: what a settled one holds that its host's inventory does not show yet is kept under an id of
-- its own until the inventory shows it.
CREATE OR REPLACE FUNCTION vacancy.keep_unshown_amounts(consumers uuid[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
  INSERT INTO vacancy.claim
    (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, settled_at, shown_at, held)
  SELECT gen_random_uuid(), c.host_id, 0, 0, 0, c.claimed_at, statement_timestamp(), c.settled_at, c.shown_at, c.held
  -- OFFSET 0: by consumer, whatever a plan made while no claim held anything would rather read.
  FROM (SELECT * FROM vacancy.claim WHERE consumer = ANY (consumers) OFFSET 0) AS c
  JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  WHERE c.held IS NOT NULL AND i.observed_at <= c.shown_at
$$;

-- Deletes the claims of some consumers that have expired; what they hold of a storage pool, and what is not shown yet, stays counted.
CREATE OR REPLACE FUNCTION vacancy.delete_expired(consumers uuid[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
  SELECT vacancy.keep_unshown_amounts(consumers);
  SELECT vacancy.leave_to_pool(consumers);
  DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
$$;

-- Deletes some claims that have expired, oldest first, but none of which the host's inventory does not show yet what it
-- holds. SKIP LOCKED: nobody waits here.
-- One call in 16 of claim(), note_claim() and release() sweeps 64 rows, four times what the calls between can have left
-- expired. Not each call sweeps, since each sweep passes over rows that were deleted lately and are not vacuumed yet.
-- Of a storage pool that nobody claims from any more it writes off what has expired, if nobody holds the pool at the moment.
CREATE OR REPLACE FUNCTION vacancy.sweep_claims() RETURNS void
LANGUAGE sql VOLATILE AS $$
  SELECT vacancy.write_off_pool(due.pool_id, 0)
  FROM (
    -- All of them, by index.
    SELECT p.pool_id FROM vacancy.pool_claimed AS p WHERE p.pool_id >= '' AND p.claimed_gb > 0 ORDER BY random() LIMIT 1 OFFSET 0
  ) AS due
  WHERE pg_try_advisory_xact_lock(hashtextextended(due.pool_id, 3));
  DELETE FROM vacancy.claim WHERE consumer = ANY (ARRAY(
    SELECT c.consumer FROM vacancy.claim AS c
    WHERE c.expires_at <= statement_timestamp()
      AND c.pool_id IS NULL
      AND (c.shown_at IS NULL OR NOT EXISTS (
        SELECT FROM vacancy.host_inventory AS i WHERE i.host_id = c.host_id AND i.observed_at <= c.shown_at
      ))
    ORDER BY c.expires_at LIMIT 64 FOR UPDATE OF c SKIP LOCKED
  ))
$$;

-- Claims one host for one consumer, whose lock the caller holds. Where none fits host is null and refusal says why;
-- contended counts the hosts that others were claiming from at that moment.
-- draws_gb: GiB that this transaction draws from storage pools at most. holds_host: whether it holds the lock of a host already.
-- held_pools: the slots that it holds, by storage pool.
-- claimed_at, expires_at, held: of the claim, as the table has them.
-- Raises serialization_failure where hosts fit but others were always there first.
CREATE OR REPLACE FUNCTION vacancy.claim_host(
  request vacancy.request, for_consumer uuid, draws_gb bigint, holds_host boolean, INOUT held_pools jsonb,
  OUT host text, OUT host_name text, OUT contended integer, OUT refusal jsonb, OUT claimed_at timestamptz, OUT expires_at timestamptz,
  OUT held jsonb
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  complex boolean := vacancy.is_complex(request);
  plain boolean := vacancy.is_plain(request);
  samples integer := 2;
  met_others boolean := false;  -- in the sample before
  sampled record;
  placed record;
  candidates text[];
  candidate text;
  lock_key bigint;
  pools vacancy.pools;
  place integer;
  pool text;
  pool_now vacancy.pools;
  oldest timestamptz := statement_timestamp() - vacancy.max_age();
  measured_mb bigint := coalesce((request.numa->>'memory_mb')::bigint, request.memory_mb) + request.min_memory_mb_available;
  slot integer;
BEGIN
  contended := 0;
  IF complex THEN
    samples := 3;
  END IF;
  FOR round IN 1..samples + 4 LOOP
    -- Where a request names its hosts the first sample is all of them. Who only met others in a sample draws one again: all hosts
    -- are looked at where no host of a sample did.
    IF met_others OR round <= samples AND (request.include = '{}' OR round = 1) THEN
      met_others := false;
      -- When the fleet is nearly full a bigger sample still costs a fraction of a look at all hosts. Complex parts are
      -- looked for among as few hosts that offer them before.
      sampled := vacancy.best_of_sample(
        request,
        CASE WHEN round < samples THEN request.sample ELSE 16 * request.sample END,
        round = 1 AND request.include = '{}',
        round < samples
      );
      candidates := sampled.best;
      CONTINUE WHEN candidates = '{}';
      pools := sampled.pools;
    ELSE
      pools := vacancy.pools_of(request, NULL, NULL, false);
      SELECT a.best, a.refusal INTO candidates, refusal FROM vacancy.best_of_all(request, pools) AS a;
      IF refusal IS NOT NULL THEN
        RETURN;
      END IF;
    END IF;
    FOREACH candidate IN ARRAY candidates LOOP
      IF complex THEN
        -- Before any lock: of hosts without room others need not keep away.
        placed := vacancy.place_complex_parts(candidate, request.resources, request.numa, request.pci);
        CONTINUE WHEN placed.held IS NULL;
      END IF;
      pool := NULL;
      slot := NULL;
      IF pools.names IS NOT NULL THEN
        place := array_position(pools.names, pools.disk_pools[array_position(pools.hosts, candidate)]);
        pool := pools.ids[place];
        slot := (held_pools->>pool)::integer;
        IF pool IS NOT NULL AND slot IS NULL THEN
          slot := vacancy.lock_pool(
            pool,
            vacancy.is_little(draws_gb, pools.capacities[place], pools.free[place], pools.available[place]),
            NOT holds_host AND held_pools = '{}'
          );
          IF slot IS NULL THEN
            contended := contended + 1;
            met_others := true;
            CONTINUE;
          END IF;
          held_pools := held_pools || jsonb_build_object(pool, slot);
          -- As often as claims are swept, but always where every GiB may count.
          IF slot = 0 OR random() < 1.0 / 16 THEN
            PERFORM vacancy.write_off_pool(pool, slot);
          END IF;
        END IF;
      END IF;
      lock_key := hashtextextended(candidate, 1);
      IF NOT pg_try_advisory_xact_lock(lock_key) THEN
        contended := contended + 1;
        met_others := true;
        CONTINUE WHEN holds_host OR round < samples + 2;
        PERFORM pg_advisory_xact_lock(lock_key);
      END IF;
      holds_host := true;
      -- Statements whose snapshots are newer than the locks: they see every claim on the host, and on a pool that is held whole.
      pool_now := NULL;
      IF pool IS NOT NULL THEN
        pool_now := vacancy.pools_of(request, ARRAY[candidate], ARRAY[pools.names[place]], slot > 0);
        CONTINUE WHEN pool_now.outs[1] IS NOT NULL OR pool_now.elsewhere[1] OR pool_now.ids[1] IS DISTINCT FROM pool
          OR slot > 0 AND least(pool_now.free[1], pool_now.available[1]) < pool_now.capacities[1] / 16;
      END IF;
      IF plain THEN
        SELECT f.name INTO host_name
        FROM vacancy.plain_fit(
          candidate, request.zone, pool_now.names[1], oldest, request.vcpus, request.memory_mb, measured_mb, request.disk_gb
        ) AS f;
      ELSE
        SELECT h.name INTO host_name
        FROM vacancy.host_fit(request, pool_now) AS h
        WHERE h.host_id = candidate AND h.ruled_out_by = '{}' AND h.pool_id IS NOT DISTINCT FROM pool;
      END IF;
      CONTINUE WHEN NOT FOUND;
      IF complex THEN
        placed := vacancy.place_complex_parts(candidate, request.resources, request.numa, request.pci);
        CONTINUE WHEN placed.held IS NULL;
        held := placed.held;
      END IF;
      host := candidate;
      claimed_at := clock_timestamp();
      expires_at := claimed_at + request.claim_ttl;
      INSERT INTO vacancy.claim AS c (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, asked, pool_id, held)
      VALUES (
        for_consumer, candidate, request.vcpus, request.memory_mb, request.disk_gb, claimed_at, expires_at, request.asked, pool, held
      );
      IF pool IS NOT NULL THEN
        PERFORM vacancy.draw_from_pool(pool, slot, request.disk_gb);
        -- Its host shows it already: it counts until the pool's sum shows it, too.
        PERFORM FROM vacancy.host AS h WHERE h.host_id = candidate AND for_consumer = ANY (h.recent_consumers);
        IF FOUND THEN
          UPDATE vacancy.claim AS c SET settled_at = clock_timestamp(), settled_xid = pg_current_xact_id()
          WHERE c.consumer = for_consumer;
        END IF;
      END IF;
      RETURN;
    END LOOP;
  END LOOP;
  RAISE EXCEPTION 'every host that fits was being claimed from by others'
    USING ERRCODE = 'serialization_failure', HINT = 'Claim again with the same consumers.';
END
$$;

-- Which of some consumers' claims are not true to a request, and in what: parts of the request, "distinct_hosts" for one that
-- shares its host with an earlier one of them, and "host" where the host is gone. A claim that was made for the very same
-- request is true to it, whatever has become of its host.
CREATE OR REPLACE FUNCTION vacancy.contradictions(request vacancy.request, consumers uuid[])
RETURNS TABLE (consumer uuid, host_id text, differs text[])
LANGUAGE sql STABLE AS $$
WITH compared AS (
  SELECT
    c.consumer,
    c.host_id,
    CASE WHEN c.asked = request.asked THEN '{}' ELSE
      array_remove(ARRAY[
        CASE WHEN c.vcpus <> request.vcpus THEN 'vcpus' END,
        CASE WHEN c.memory_mb <> request.memory_mb THEN 'memory_mb' END,
        CASE WHEN c.disk_gb <> request.disk_gb THEN 'disk_gb' END,
        CASE WHEN was.known AND was.resources IS DISTINCT FROM request.resources THEN 'resources' END,
        CASE WHEN was.known AND was.numa IS DISTINCT FROM request.numa - 'vcpus' - 'memory_mb' THEN 'numa' END,
        CASE WHEN was.known AND was.pci IS DISTINCT FROM (
          SELECT jsonb_agg(demand ORDER BY demand::text) FROM jsonb_array_elements(request.pci) AS demand
        ) THEN 'pci' END
      ], NULL) || coalesce((
        SELECT ARRAY(
          SELECT split_part(reason, ' ', 1) FROM unnest(h.ruled_out_by) AS reason
          WHERE split_part(reason, ' ', 1) = ANY ('{include,avoid,zone,aggregates,near,required,any_of,forbidden}')
        )
        FROM vacancy.host_fit(request) AS h WHERE h.host_id = c.host_id
      ), '{host}')
    END AS differs
  FROM vacancy.claim AS c
  CROSS JOIN LATERAL (
    -- What it took of classes, cells and devices. A noted claim took nothing of them; of an earlier release's nobody knows.
    SELECT
      c.asked IS NOT NULL OR c.held IS NULL AS known,
      parsed.resources,
      parsed.numa - 'vcpus' - 'memory_mb' AS numa,
      (SELECT jsonb_agg(demand ORDER BY demand::text) FROM jsonb_array_elements(parsed.pci) AS demand) AS pci
    FROM vacancy.parse_request(coalesce(c.asked, '{}')) AS parsed
  ) AS was
  WHERE c.consumer = ANY (consumers) AND c.expires_at > statement_timestamp()
), apart AS (
  SELECT
    c.*,
    row_number() OVER (PARTITION BY c.host_id, c.differs = '{}' ORDER BY array_position(consumers, c.consumer)) AS place
  FROM compared AS c
)
SELECT a.consumer, a.host_id, CASE WHEN a.differs = '{}' THEN '{distinct_hosts}' ELSE a.differs END
FROM apart AS a
WHERE a.differs <> '{}' OR (request.distinct_hosts AND a.place > 1)
$$;

-- Moves claims: gives those of some consumers back and claims for all that `request` is for, as claim() answers; in one
-- transaction, so that everybody else sees the old ones or the new ones. If it is refused the old ones are as they were.
-- What a settled claim stands for runs on its host, whose own figures hold it for as long as it does: the new one comes on top.
CREATE OR REPLACE FUNCTION vacancy.move_claims(given_back uuid[], consumers uuid[], request jsonb)
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb,
  held jsonb
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  shown jsonb;  -- the hosts of those that were settled, by consumer
  answer record;
BEGIN
  SELECT jsonb_object_agg(c.consumer, c.host_id) INTO shown
  FROM vacancy.claim AS c WHERE c.consumer = ANY (given_back) AND (c.settled_at IS NOT NULL OR c.resized);
  BEGIN
    PERFORM vacancy.release(given_back);
    FOR answer IN SELECT * FROM vacancy.claim(consumers, request) LOOP
      IF answer.refusal IS NOT NULL THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'VC002';  -- takes back what this block did
      END IF;
      consumer := answer.consumer;
      host_id := answer.host_id;
      host_name := answer.host_name;
      claimed_at := answer.claimed_at;
      expires_at := answer.expires_at;
      already := answer.already;
      contended := answer.contended;
      held := answer.held;
      RETURN NEXT;
    END LOOP;
    UPDATE vacancy.claim AS c SET resized = true, settled_at = NULL, settled_xid = NULL
    FROM vacancy.host AS h
    WHERE c.consumer = ANY (given_back) AND h.host_id = c.host_id
      AND (c.consumer = ANY (h.recent_consumers) OR shown->>(c.consumer::text) = c.host_id);
  EXCEPTION WHEN SQLSTATE 'VC002' THEN
    contended := answer.contended;
    refusal := answer.refusal;
    RETURN NEXT;
  END;
END
$$;

-- Claims hosts for consumers: all of them or none. For 64 at most: a claim holds its hosts until it commits, and others wait for
-- as long (bulk.sql has the way for more).
-- Rows: one a consumer, in their order; or a single one whose refusal says why (all else null).
-- A consumer that has a claim which has not expired keeps it, settled or not, and `already` says so; if that claim is not true
-- to the request it moves, where `move` says so, and else nothing is claimed for anybody.
-- held: what it takes of pools, cells and classes, as claim.held has it; null: nothing of them.
-- contended: hosts passed over because others were claiming from them at that moment.
-- Raises serialization_failure: try again with the same consumers; invalid_parameter_value: the request makes no sense;
-- VC001: consumers have claims that are not true to the request, the first 100 of them in the detail, as JSON.
CREATE OR REPLACE FUNCTION vacancy.claim(consumers uuid[], request jsonb DEFAULT '{}', move boolean DEFAULT false)
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb,
  held jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  prepared vacancy.request := vacancy.prepare_request(request);
  already_claimed uuid[] := '{}';
  to_compare boolean;
  contradicting uuid[];
  told jsonb;
  claimed_hosts text[];
  expired uuid[];
  newly_claimed uuid[] := '{}';
  next_consumer uuid;
  result record;
  contended_hosts integer := 0;
  bulk_claims text;
  held_pools jsonb := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was claimed meanwhile.
    RAISE EXCEPTION 'claim() needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF coalesce(cardinality(consumers), 0) NOT BETWEEN 1 AND 64 OR array_position(consumers, NULL) IS NOT NULL
    OR vacancy.lock_consumers(consumers) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'consumers must be 1 to 64 different ids'
      USING ERRCODE = 'invalid_parameter_value', HINT = 'For more of them claim by the adapter, which reserves in parts.';
  END IF;
  PERFORM FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  IF FOUND THEN
    SELECT
      coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
      coalesce(array_agg(c.host_id) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
      coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at <= statement_timestamp()), '{}'),
      coalesce(bool_or(c.asked IS DISTINCT FROM prepared.asked), false) OR (prepared.distinct_hosts AND count(*) > 1)
    INTO already_claimed, claimed_hosts, expired, to_compare
    FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  END IF;
  IF expired <> '{}' THEN
    PERFORM vacancy.delete_expired(expired);
  END IF;

  IF to_compare THEN
    SELECT
      array_agg(d.consumer ORDER BY array_position(consumers, d.consumer)),
      jsonb_agg(
        jsonb_build_object('consumer', d.consumer, 'host_id', d.host_id, 'host_name', i.name, 'differs', d.differs)
        ORDER BY array_position(consumers, d.consumer)
      )
    INTO contradicting, told
    FROM vacancy.contradictions(prepared, consumers) AS d
    LEFT JOIN vacancy.host_inventory AS i ON i.host_id = d.host_id;
    IF contradicting IS NOT NULL AND move THEN
      RETURN QUERY SELECT * FROM vacancy.move_claims(contradicting, consumers, request);
      RETURN;
    ELSIF contradicting IS NOT NULL THEN
      RAISE EXCEPTION 'consumers have claims that are not true to the request'
        USING ERRCODE = 'VC001', HINT = 'Claim with move, or release them first.',
        DETAIL = (SELECT jsonb_agg(one) FROM jsonb_array_elements(told) WITH ORDINALITY AS each (one, place) WHERE place <= 100);
    END IF;
  END IF;

  FOREACH next_consumer IN ARRAY consumers LOOP
    CONTINUE WHEN next_consumer = ANY (already_claimed);
    IF prepared.distinct_hosts THEN
      prepared.avoid := prepared.avoid || claimed_hosts;
    END IF;
    result := vacancy.claim_host(
      prepared, next_consumer, prepared.disk_gb * cardinality(consumers), newly_claimed <> '{}', held_pools
    );
    IF result.host IS NOT NULL AND cardinality(consumers) = 1 THEN
      -- What most calls are: nothing is looked up again.
      IF random() < 1.0 / 16 THEN
        PERFORM vacancy.sweep_claims();
      END IF;
      consumer := next_consumer;
      host_id := result.host;
      host_name := result.host_name;
      claimed_at := result.claimed_at;
      expires_at := result.expires_at;
      already := false;
      contended := result.contended;
      held := result.held;
      RETURN NEXT;
      RETURN;
    END IF;
    held_pools := result.held_pools;
    contended_hosts := contended_hosts + result.contended;
    IF result.host IS NULL THEN
      -- A bulk claim may give back what it has reserved, and then this fits; plpgsql looks the function up when it runs.
      bulk_claims := vacancy.other_reservations(consumers);
      IF bulk_claims IS NOT NULL THEN
        RAISE EXCEPTION 'bulk claims under way have reserved what would fit'
          USING ERRCODE = 'serialization_failure', DETAIL = bulk_claims, HINT = 'Claim again with the same consumers.';
      END IF;
      -- All or none; of pools that this transaction holds.
      PERFORM vacancy.draw_from_pool(c.pool_id, (held_pools->>c.pool_id)::integer, -sum(c.disk_gb))
      FROM vacancy.claim AS c WHERE c.consumer = ANY (newly_claimed) AND c.pool_id IS NOT NULL GROUP BY c.pool_id;
      DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (newly_claimed);
      contended := contended_hosts;
      refusal := result.refusal
        || jsonb_build_object('claimable', cardinality(newly_claimed), 'count', cardinality(consumers));
      RETURN NEXT;
      RETURN;
    END IF;
    newly_claimed := newly_claimed || next_consumer;
    claimed_hosts := ARRAY[result.host];
  END LOOP;

  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
  RETURN QUERY
    SELECT
      c.consumer, c.host_id, i.name, c.claimed_at, c.expires_at, c.consumer = ANY (already_claimed), contended_hosts,
      NULL::jsonb, c.held
    FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
    WHERE c.consumer = ANY (consumers)
    ORDER BY array_position(consumers, c.consumer);
END
$$;

-- Gives claims back; returns the consumers that had one which still counted or was settled. Again is harmless.
CREATE OR REPLACE FUNCTION vacancy.release(consumers uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  PERFORM vacancy.keep_unshown_amounts(consumers);
  RETURN QUERY SELECT vacancy.leave_to_pool(consumers);
  RETURN QUERY
    WITH deleted AS (
      DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) RETURNING c.consumer, c.expires_at
    )
    SELECT d.consumer FROM deleted AS d WHERE d.expires_at > statement_timestamp();
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

-- Notes that a scheduler has claimed a host elsewhere: it counts here as a claim in flight, until the host shows its
-- consumer or the time is over. It refuses nothing, since the other claim stands already. A consumer that had a claim,
-- here or on another host, has this one from now on: it moved. Of pools, cells and classes it notes nothing: whoever
-- claims elsewhere counts them there; its disk comes from the storage pool of its host, if it has one.
CREATE OR REPLACE FUNCTION vacancy.note_claim(
  for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
  pool text;
  slot integer;
  is_resized boolean;
BEGIN
  PERFORM vacancy.lock_consumers(ARRAY[for_consumer]);
  IF disk_gb > 0 THEN
    SELECT named.pool_id INTO pool
    FROM vacancy.host_inventory AS i, vacancy.pool_of(i.disk_pool) AS named
    WHERE i.host_id = on_host AND i.disk_pool IS NOT NULL;
    IF pool IS NOT NULL THEN
      slot := vacancy.lock_pool(pool, coalesce((
        SELECT vacancy.is_little(disk_gb, room.capacity, room.free, room.available) FROM vacancy.pool_room(pool, true) AS room
      ), false), true);
      PERFORM vacancy.write_off_pool(pool, slot);
      PERFORM vacancy.draw_from_pool(pool, slot, disk_gb);
    END IF;
  END IF;
  -- One that draws from a storage pool is replaced by a row of its own, any other in its row.
  SELECT
    (c.settled_at IS NOT NULL OR c.resized) AND c.host_id = on_host
      AND (c.vcpus, c.memory_mb, c.disk_gb) <> (note_claim.vcpus, note_claim.memory_mb, note_claim.disk_gb)
  INTO is_resized
  FROM vacancy.claim AS c WHERE c.consumer = for_consumer AND c.pool_id IS NOT NULL;
  IF FOUND THEN
    PERFORM vacancy.leave_to_pool(ARRAY[for_consumer]);
  END IF;
  INSERT INTO vacancy.claim AS c (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, pool_id, resized)
  SELECT for_consumer, on_host, vcpus, memory_mb, disk_gb, at, at + claim_ttl, pool, coalesce(is_resized, false)
  FROM clock_timestamp() AS at
  ON CONFLICT (consumer) DO UPDATE SET
    host_id = EXCLUDED.host_id,
    vcpus = EXCLUDED.vcpus,
    memory_mb = EXCLUDED.memory_mb,
    disk_gb = EXCLUDED.disk_gb,
    claimed_at = EXCLUDED.claimed_at,
    expires_at = EXCLUDED.expires_at,
    settled_at = NULL,
    shown_at = NULL,
    pool_id = EXCLUDED.pool_id,
    settled_xid = NULL,
    asked = NULL,
    -- Noted again with the same amounts it is the same claim.
    resized = (c.settled_at IS NOT NULL OR c.resized) AND c.host_id = EXCLUDED.host_id
      AND (c.vcpus, c.memory_mb, c.disk_gb) <> (EXCLUDED.vcpus, EXCLUDED.memory_mb, EXCLUDED.disk_gb),
    held = NULL;
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION
  vacancy.lock_consumers(uuid[]), vacancy.keep_unshown_amounts(uuid[]), vacancy.delete_expired(uuid[]),
  vacancy.sweep_claims(),
  vacancy.claim_host(vacancy.request, uuid, bigint, boolean, jsonb), vacancy.contradictions(vacancy.request, uuid[]),
  vacancy.move_claims(uuid[], uuid[], jsonb), vacancy.claim(uuid[], jsonb, boolean), vacancy.release(uuid[]),
  vacancy.note_claim(uuid, text, integer, integer, integer, interval)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  vacancy.claim(uuid[], jsonb, boolean), vacancy.release(uuid[]),
  vacancy.note_claim(uuid, text, integer, integer, integer, interval)
TO vacancy_scheduler;
