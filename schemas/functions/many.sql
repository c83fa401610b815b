-- Different requests in one round trip and one transaction, each answered by itself.
-- The locks are those of claim.sql: all consumers first, in order. Who holds a host or a pool already waits for neither: what others
-- are claiming from at that moment is not waited for, and an answer may be that it was contended.

-- Claims hosts, all at once, for those requests that are for amounts alone, in the first one's zone if it names one, and whose
-- consumers have no claim: what it takes to set up a statement is paid once, and not for each of them. They share a sample: what
-- one draws alone, and for more than eight an eighth of what all would. It is ranked by the mean of what they ask for; each gets
-- another host, the largest the best. The others, and who gets none here, are left to the caller, who holds the consumers' locks.
-- Numbers and times are read here where they are written as the adapter writes them; any others are left, too.
-- made: the consumers that got a host; hosts, names, claimed_at, expires_at: theirs, in the same order; null: none did.
-- holds_hosts: whether this transaction holds locks of hosts now. contended: hosts that others were claiming from.
CREATE OR REPLACE FUNCTION vacancy.claim_plain(
  consumers uuid[], requests jsonb[],
  OUT made uuid[], OUT hosts text[], OUT names text[], OUT claimed_at timestamptz[], OUT expires_at timestamptz[],
  OUT holds_hosts boolean, OUT contended integer
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  asking uuid[];
  asked jsonb[];
  vcpus integer[];
  memory_mb integer[];
  disk_gb integer[];
  ttls interval[];
  mean_vcpus double precision;
  mean_memory_mb double precision;
  mean_disk_gb double precision;
  sample_size integer;
  max_age interval;
  of_zone text := requests[1]->>'zone';
  sampled text[];
  free text[];
  oldest timestamptz;
  max_age_s double precision;
BEGIN
  contended := 0;
  holds_hosts := false;
  IF of_zone = '' THEN
    RETURN;  -- hosts without a zone, which no index finds
  END IF;
  SELECT
    array_agg(r.consumer), array_agg(r.asked), array_agg(r.vcpus), array_agg(r.memory_mb), array_agg(r.disk_gb), array_agg(r.ttl),
    avg(r.vcpus::double precision), avg(r.memory_mb::double precision), avg(r.disk_gb::double precision),
    ceil(sum(r.sample)::double precision / least(count(*), 8)), min(r.max_age)
  INTO asking, asked, vcpus, memory_mb, disk_gb, ttls, mean_vcpus, mean_memory_mb, mean_disk_gb, sample_size, max_age
  FROM (
    SELECT
      one.consumer,
      vacancy.asked_for(one.request) AS asked,
      coalesce((one.request->>'vcpus')::integer, 0) AS vcpus,
      coalesce((one.request->>'memory_mb')::integer, 0) AS memory_mb,
      coalesce((one.request->>'disk_gb')::integer, 0) AS disk_gb,
      coalesce((one.request->>'sample')::integer, 24) AS sample,
      coalesce((one.request->>'max_age')::interval, vacancy.max_age()) AS max_age,
      coalesce((one.request->>'claim_ttl')::interval, '2 min') AS ttl
    FROM (
      SELECT one.consumer, one.request
      FROM unnest(consumers, requests) AS one (consumer, request)
      WHERE CASE WHEN jsonb_typeof(one.request) = 'object' THEN
        one.request - '{vcpus,memory_mb,disk_gb,zone,strategy,sample,max_age,claim_ttl}'::text[] = '{}'
          AND one.request->>'zone' IS NOT DISTINCT FROM of_zone
          AND coalesce(one.request->>'strategy', 'spread') = 'spread'
          AND coalesce(one.request->>'vcpus', '0') ~ '^[0-9]{1,9}$'
          AND coalesce(one.request->>'memory_mb', '0') ~ '^[0-9]{1,9}$'
          AND coalesce(one.request->>'disk_gb', '0') ~ '^[0-9]{1,9}$'
          AND coalesce(one.request->>'sample', '1') ~ '^[1-9][0-9]{0,3}$'
          AND coalesce(one.request->>'max_age', '1 ms') ~ '^[1-9][0-9]{0,11} ms$'
          AND coalesce(one.request->>'claim_ttl', '1 ms') ~ '^[1-9][0-9]{0,11} ms$'
      END
      OFFSET 0
    ) AS one
    -- Looked up one by one, whatever a plan made while the table was empty would rather join.
    WHERE (SELECT true FROM vacancy.claim AS c WHERE c.consumer = one.consumer) IS NULL
    ORDER BY 4 DESC, 3 DESC, 5 DESC
  ) AS r
  -- A claim that draws from a storage pool takes more locks than that of its host.
  WHERE r.disk_gb = 0 OR NOT EXISTS (SELECT FROM vacancy.host_inventory AS i WHERE i.disk_pool IS NOT NULL AND NOT i.retired);
  IF asking IS NULL THEN
    RETURN;
  END IF;
  oldest := statement_timestamp() - max_age;
  max_age_s := date_part('epoch', max_age);
  IF of_zone IS NULL THEN
    sampled := (vacancy.random_hosts(sample_size)).hosts;
  ELSE
    sampled := (vacancy.hosts_in_zone(of_zone, sample_size)).hosts;
  END IF;
  SELECT array_agg(l.host_id ORDER BY l.place), coalesce(max(l.place) - count(*), 0)
  INTO free, contended
  FROM (
    SELECT r.host_id, r.place
    FROM unnest(ARRAY(
      SELECT s.host_id
      FROM vacancy.plain_ranking(sampled, NULL, oldest, mean_vcpus, mean_memory_mb, mean_memory_mb, mean_disk_gb) AS s
      ORDER BY s.fullest + s.busiest + 0.1 * s.age_s / max_age_s, random()
    )) WITH ORDINALITY AS r (host_id, place)
    WHERE pg_try_advisory_xact_lock(hashtextextended(r.host_id, 1))
    LIMIT cardinality(asking)
  ) AS l;
  holds_hosts := free IS NOT NULL;
  IF NOT holds_hosts THEN
    RETURN;
  END IF;
  -- A statement whose snapshot is newer than the locks.
  WITH fitting AS (
    SELECT r.consumer, r.host_id, f.name, r.vcpus, r.memory_mb, r.disk_gb, at AS made_at, at + r.ttl AS ends_at, r.asked
    FROM unnest(asking, free, vcpus, memory_mb, disk_gb, ttls, asked)
        AS r (consumer, host_id, vcpus, memory_mb, disk_gb, ttl, asked)
    CROSS JOIN clock_timestamp() AS at
    CROSS JOIN LATERAL vacancy.plain_fit(r.host_id, of_zone, NULL, oldest, r.vcpus, r.memory_mb, r.memory_mb, r.disk_gb) AS f
  ), inserted AS (
    INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, asked)
    SELECT f.consumer, f.host_id, f.vcpus, f.memory_mb, f.disk_gb, f.made_at, f.ends_at, f.asked FROM fitting AS f
  )
  SELECT array_agg(f.consumer), array_agg(f.host_id), array_agg(f.name), array_agg(f.made_at), array_agg(f.ends_at)
  INTO made, hosts, names, claimed_at, expires_at
  FROM fitting AS f;
END
$$;

-- Claims a host for each consumer by its own request; the n-th request is for the n-th consumer.
-- Rows: one a consumer, in their order, each as claim() would answer for it alone; what claim() raises is in error and detail instead:
-- error is its SQLSTATE (22023: the request makes no sense; VC001: the consumer has a claim that is not true to it, which detail has as
-- JSON; 40001: others were always there first, claim again), detail the message.
CREATE OR REPLACE FUNCTION vacancy.claim_many(consumers uuid[], requests jsonb[])
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb,
  held jsonb,
  error text,
  detail text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  max_age text := coalesce(current_setting('vacancy.max_age', true), '');
  prepared vacancy.request;
  draws_gb bigint;
  held_pools jsonb := '{}';
  holds_host boolean := false;
  standing record;
  told jsonb;
  result record;
  setting text;
  plain record;
  number integer;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was claimed meanwhile.
    RAISE EXCEPTION 'claim_many() needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF coalesce(cardinality(consumers), 0) NOT BETWEEN 1 AND 64 OR array_position(consumers, NULL) IS NOT NULL
    OR cardinality(requests) IS DISTINCT FROM cardinality(consumers)
    OR vacancy.lock_consumers(consumers) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'consumers must be 1 to 64 different ids, and requests as many' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  plain := vacancy.claim_plain(consumers, requests);
  holds_host := plain.holds_hosts;
  -- What is no amount is refused below.
  SELECT coalesce(sum(greatest(least((asked->>'disk_gb')::numeric, 1e15), 0)), 0)::bigint INTO draws_gb
  FROM unnest(requests) AS asked WHERE jsonb_typeof(asked->'disk_gb') = 'number';
  FOR place IN 1..cardinality(consumers) LOOP
    consumer := consumers[place];
    host_id := NULL;
    host_name := NULL;
    claimed_at := NULL;
    expires_at := NULL;
    already := NULL;
    refusal := NULL;
    held := NULL;
    error := NULL;
    detail := NULL;
    contended := CASE WHEN place = 1 THEN plain.contended ELSE 0 END;
    number := array_position(plain.made, consumer);
    IF number IS NOT NULL THEN
      host_id := plain.hosts[number];
      host_name := plain.names[number];
      claimed_at := plain.claimed_at[number];
      expires_at := plain.expires_at[number];
      already := false;
      RETURN NEXT;
      CONTINUE;
    END IF;
    BEGIN
      setting := set_config('vacancy.max_age', max_age, true);
      prepared := vacancy.prepare_request(coalesce(requests[place], '{}'));
      SELECT c.host_id, i.name, c.claimed_at, c.expires_at, c.held INTO standing
      FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
      WHERE c.consumer = consumers[place];
      IF standing.expires_at > statement_timestamp() THEN
        told := (
          SELECT jsonb_agg(jsonb_build_object('consumer', d.consumer, 'host_id', d.host_id, 'host_name', i.name, 'differs', d.differs))
          FROM vacancy.contradictions(prepared, ARRAY[consumers[place]]) AS d
          LEFT JOIN vacancy.host_inventory AS i ON i.host_id = d.host_id
        );
        IF told IS NOT NULL THEN
          RAISE EXCEPTION 'the consumer has a claim that is not true to the request' USING ERRCODE = 'VC001', DETAIL = told;
        END IF;
        host_id := standing.host_id;
        host_name := standing.name;
        claimed_at := standing.claimed_at;
        expires_at := standing.expires_at;
        held := standing.held;
        already := true;
      ELSE
        IF standing.expires_at IS NOT NULL THEN
          PERFORM vacancy.delete_expired(ARRAY[consumers[place]]);
        END IF;
        result := vacancy.claim_host(prepared, consumers[place], draws_gb, holds_host, held_pools);
        contended := contended + result.contended;
        IF result.host IS NULL THEN
          IF vacancy.other_reservations(ARRAY[consumers[place]]) IS NOT NULL THEN
            RAISE EXCEPTION 'bulk claims under way have reserved what would fit' USING ERRCODE = 'serialization_failure';
          END IF;
          refusal := result.refusal || '{"claimable": 0, "count": 1}';
        ELSE
          host_id := result.host;
          host_name := result.host_name;
          claimed_at := result.claimed_at;
          expires_at := result.expires_at;
          held := result.held;
          already := false;
          holds_host := true;
        END IF;
        held_pools := result.held_pools;
      END IF;
    EXCEPTION
      -- This request's alone; what it locked is free again.
      WHEN serialization_failure OR data_exception OR SQLSTATE 'VC001' THEN
        error := SQLSTATE;
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
        detail := coalesce(nullif(detail, ''), SQLERRM);
    END;
    RETURN NEXT;
  END LOOP;
  IF random() < cardinality(consumers) / 16.0 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION vacancy.claim_plain(uuid[], jsonb[]), vacancy.claim_many(uuid[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vacancy.claim_many(uuid[], jsonb[]) TO vacancy_scheduler;
