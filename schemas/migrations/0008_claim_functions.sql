-- Picking and claiming, in one round trip: vacancy.claim(), vacancy.release(), vacancy.candidates(), vacancy.why().
-- What always holds: hosts' rows are read and never locked, so a claim waits for no batch of the sink and the sink for no
-- claim. Two locks are ours, both advisory and held until the transaction ends:
-- 1. of a consumer, so that the same consumer's requests come one after the other. Taken first, in one order, so that
--    there is no cycle;
-- 2. of a host, so that a claim sees every other one on its host. Only tried, and where it is held the next best host is
--    taken; waited for at most once, while no other host is held, so that there is no cycle either.

-- A request. Null: no matter.
CREATE TYPE vacancy.weights AS (
  vcpus double precision,
  memory_mb double precision,
  disk_gb double precision,
  load double precision,
  age double precision
);

CREATE TYPE vacancy.request AS (
  vcpus bigint,
  memory_mb bigint,
  disk_gb bigint,
  distinct_hosts boolean,
  required text[],
  any_of jsonb,
  forbidden text[],
  aggregates text[],
  zone text,
  include text[],
  avoid text[],
  max_cpu_utilization double precision,
  max_cpu_steal double precision,
  max_cpu_pressure double precision,
  max_memory_pressure double precision,
  max_io_pressure double precision,
  min_memory_mb_available bigint,
  strategy text,
  weights vacancy.weights,
  sample integer,
  max_age interval,
  claim_ttl interval
);

-- A request from JSON, with the defaults for what is missing or null.
-- Raises invalid_parameter_value for a key that no request has and for a value that makes no sense.
CREATE FUNCTION vacancy.parse_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r vacancy.request := (0, 0, 0, false, '{}', '[]', '{}', '{}', NULL, '{}', '{}', NULL, NULL, NULL, NULL, NULL, 0,
    'spread', (1, 1, 1, 1, 0.1)::vacancy.weights, 24, NULL, '2 min');
  strangers jsonb := (document || coalesce(document->'weights', '{}')) - ARRAY[
    'vcpus', 'memory_mb', 'disk_gb', 'distinct_hosts', 'required', 'any_of', 'forbidden', 'aggregates', 'zone', 'include',
    'avoid', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure', 'max_memory_pressure', 'max_io_pressure',
    'min_memory_mb_available', 'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'load', 'age'
  ];
BEGIN
  IF strangers <> '{}' THEN
    RAISE EXCEPTION 'no such part of a request: %', (SELECT min(key) FROM jsonb_object_keys(strangers) AS key)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  r := jsonb_populate_record(r, jsonb_strip_nulls(document));
  IF least(r.vcpus, r.memory_mb, r.disk_gb) < 0 OR r.sample < 1 OR r.claim_ttl <= interval '0'
    OR r.max_age <= interval '0' THEN
    RAISE EXCEPTION 'amounts must not be negative, sample, claim_ttl and max_age must be positive'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF r.strategy NOT IN ('spread', 'pack', 'random') THEN
    RAISE EXCEPTION 'no such strategy: %; spread, pack or random', r.strategy USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN r;
END
$$;

-- The same, and its max_age for the rest of the transaction, by which the view says who is stale.
CREATE FUNCTION vacancy.take_request(document jsonb) RETURNS vacancy.request
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r vacancy.request := vacancy.parse_request(document);
  setting text;
BEGIN
  IF r.max_age IS NOT NULL THEN
    setting := set_config('vacancy.max_age', r.max_age::text, true);
  END IF;
  RETURN r;
END
$$;

-- Waits for calls under way for the same consumers, and keeps others out until the transaction ends; in one order.
-- How many different consumers they are.
CREATE FUNCTION vacancy.lock_consumers(consumers uuid[]) RETURNS integer
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

-- What each host has for a request: what rules it out, in the order in which it is looked at, and how good it is.
-- Grain: one row a host that has usage. ruled_out_by is empty where the request has room.
-- `*_free` is Placement's rule, used + n <= (total - reserved) * ratio, and `*_available` what the kernel measured.
-- A measured figure that is not known rules nothing out.
CREATE FUNCTION vacancy.room(r vacancy.request)
RETURNS TABLE (
  host_id text,
  ruled_out_by text[],
  score double precision,
  age interval,
  vcpus_free bigint,
  memory_mb_free bigint,
  disk_gb_free bigint,
  memory_mb_available bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_steal double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision
)
LANGUAGE sql STABLE AS $$
SELECT
  f.host_id,
  array_remove(ARRAY[
    CASE WHEN f.age > q.default_max_age THEN 'stale' END,
    CASE WHEN q.vcpus > greatest(f.vcpus_free, 0) THEN 'vcpus_free' END,
    CASE WHEN q.memory_mb > greatest(f.memory_mb_free, 0) THEN 'memory_mb_free' END,
    CASE WHEN q.disk_gb > greatest(f.disk_gb_free, 0) THEN 'disk_gb_free' END,
    CASE WHEN q.memory_mb + q.min_memory_mb_available > greatest(f.memory_mb_available, 0) THEN 'memory_mb_available' END,
    CASE WHEN q.disk_gb > greatest(f.disk_gb_available, 0) THEN 'disk_gb_available' END,
    CASE WHEN f.cpu_utilization > q.max_cpu_utilization THEN 'cpu_utilization' END,
    CASE WHEN f.cpu_steal > q.max_cpu_steal THEN 'cpu_steal' END,
    CASE WHEN f.cpu_pressure > q.max_cpu_pressure THEN 'cpu_pressure' END,
    CASE WHEN f.memory_pressure > q.max_memory_pressure THEN 'memory_pressure' END,
    CASE WHEN f.io_pressure > q.max_io_pressure THEN 'io_pressure' END
  ], NULL),
  -- Shares, so that a big host does not win by its size. Of the classes the one that runs out first decides, and for
  -- `pack` the one that would be left over: what else is left of a host is of no use without it.
  coalesce(CASE q.strategy
    WHEN 'spread' THEN -greatest(
      q.vcpus_weight * used.vcpus, q.memory_mb_weight * used.memory_mb, q.disk_gb_weight * used.disk_gb
    )
    WHEN 'pack' THEN least(
      nullif(q.vcpus_weight, 0) * used.vcpus,
      nullif(q.memory_mb_weight, 0) * used.memory_mb,
      nullif(q.disk_gb_weight, 0) * used.disk_gb
    )
  END, 0)
  - CASE q.strategy WHEN 'random' THEN 0 ELSE
    q.load_weight * coalesce(greatest(f.cpu_utilization, f.cpu_pressure, f.memory_pressure, f.io_pressure), 0)
    -- date_part() and not extract(), which gives the slower numeric.
    + q.age_weight * greatest(date_part('epoch', f.age) / date_part('epoch', q.default_max_age), 0)
  END,
  f.age,
  f.vcpus_free,
  f.memory_mb_free,
  f.disk_gb_free,
  f.memory_mb_available,
  f.disk_gb_available,
  f.cpu_utilization,
  f.cpu_steal,
  f.cpu_pressure,
  f.memory_pressure,
  f.io_pressure
FROM vacancy.host_free AS f
CROSS JOIN (
  -- The request's parts once, not once a host: to take one out of a record is to walk it. OFFSET keeps the planner from
  -- putting them back.
  SELECT
    (r).*,
    (r.weights).vcpus AS vcpus_weight,
    (r.weights).memory_mb AS memory_mb_weight,
    (r.weights).disk_gb AS disk_gb_weight,
    (r.weights).load AS load_weight,
    (r.weights).age AS age_weight,
    vacancy.max_age() AS default_max_age
  OFFSET 0
) AS q
CROSS JOIN LATERAL (
  -- Of each class the share that would be in use with the claim: by promise or by measure, whichever is more.
  SELECT
    1 - (f.vcpus_free - q.vcpus)::double precision / nullif(f.vcpus_capacity, 0) AS vcpus,
    1 - (least(f.memory_mb_free, f.memory_mb_available) - q.memory_mb)::double precision
      / nullif(f.memory_mb_capacity, 0) AS memory_mb,
    1 - (least(f.disk_gb_free, f.disk_gb_available) - q.disk_gb)::double precision
      / nullif(f.disk_gb_capacity, 0) AS disk_gb
) AS used
$$;

-- Every host as a request sees it: what rules it out, first by what the host is, then by what it has.
-- Grain: one row a host that is not retired. ruled_out_by is empty where the request fits.
CREATE FUNCTION vacancy.judged(r vacancy.request)
RETURNS TABLE (
  host_id text,
  name text,
  ruled_out_by text[],
  score double precision,
  age interval,
  vcpus_free bigint,
  memory_mb_free bigint,
  disk_gb_free bigint,
  memory_mb_available bigint,
  disk_gb_available bigint,
  cpu_utilization double precision,
  cpu_steal double precision,
  cpu_pressure double precision,
  memory_pressure double precision,
  io_pressure double precision
)
LANGUAGE sql STABLE AS $$
SELECT
  i.host_id,
  i.name,
  array_remove(ARRAY[
    CASE WHEN i.status = 'DISABLED' THEN 'disabled' END,
    CASE WHEN q.include <> '{}' AND NOT (i.host_id = ANY (q.include) OR i.name = ANY (q.include)) THEN 'include' END,
    CASE WHEN i.host_id = ANY (q.avoid) OR i.name = ANY (q.avoid) THEN 'avoid' END,
    CASE WHEN q.zone <> coalesce(i.zone, '') THEN 'zone' END,
    CASE WHEN q.aggregates <> '{}' AND NOT (i.aggregates && q.aggregates) THEN 'aggregates' END,
    CASE WHEN NOT (i.traits @> q.required) THEN 'required' END,
    CASE WHEN q.any_of <> '[]' AND EXISTS (
      SELECT FROM jsonb_array_elements(q.any_of) AS alternatives
      WHERE NOT alternatives ?| i.traits
    ) THEN 'any_of' END,
    CASE WHEN i.traits && q.forbidden THEN 'forbidden' END,
    CASE WHEN q.vcpus > 0 AND NOT (
      q.vcpus BETWEEN i.vcpus_min_unit AND i.vcpus_max_unit AND q.vcpus % nullif(i.vcpus_step_size, 0) = 0
    ) THEN 'vcpus_unit' END,
    CASE WHEN q.memory_mb > 0 AND NOT (
      q.memory_mb BETWEEN i.memory_mb_min_unit AND i.memory_mb_max_unit AND q.memory_mb % nullif(i.memory_mb_step_size, 0) = 0
    ) THEN 'memory_mb_unit' END,
    CASE WHEN q.disk_gb > 0 AND NOT (
      q.disk_gb BETWEEN i.disk_gb_min_unit AND i.disk_gb_max_unit AND q.disk_gb % nullif(i.disk_gb_step_size, 0) = 0
    ) THEN 'disk_gb_unit' END
  ], NULL) || coalesce(m.ruled_out_by, ARRAY['no usage yet']),
  m.score,
  m.age,
  m.vcpus_free,
  m.memory_mb_free,
  m.disk_gb_free,
  m.memory_mb_available,
  m.disk_gb_available,
  m.cpu_utilization,
  m.cpu_steal,
  m.cpu_pressure,
  m.memory_pressure,
  m.io_pressure
FROM vacancy.host_inventory AS i
CROSS JOIN (SELECT (r).* OFFSET 0) AS q  -- once, as in room()
LEFT JOIN vacancy.room(r) AS m ON m.host_id = i.host_id
WHERE NOT i.retired
$$;

-- The ids of so many random hosts that are not disabled, fewer only where there are not as many.
-- They are neighbours in the random order from a random place on; from its end it goes on at its beginning. Cost: so many
-- entries of an index, whatever the number of hosts.
CREATE FUNCTION vacancy.random_hosts(hosts integer) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  place double precision := random();
BEGIN
  RETURN ARRAY(
    (
      SELECT i.host_id FROM vacancy.host_inventory AS i
      WHERE NOT i.retired AND i.status = 'ENABLED' AND i.sample_key >= place ORDER BY i.sample_key LIMIT hosts
    )
    UNION ALL
    (
      SELECT i.host_id FROM vacancy.host_inventory AS i
      WHERE NOT i.retired AND i.status = 'ENABLED' AND i.sample_key < place ORDER BY i.sample_key LIMIT hosts
    )
    LIMIT hosts
  );
END
$$;

-- The ids of the best of so many random hosts, best first; empty where none of them fits.
-- glance: look at what the hosts have and not at what they are, which is a third cheaper and does for a request that says
-- nothing of it. Units of a host's inventories may still rule it out when it is claimed.
CREATE FUNCTION vacancy.best_of_sample(r vacancy.request, hosts integer, glance boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  sampled text[] := vacancy.random_hosts(hosts);
BEGIN
  IF glance AND r.zone IS NULL AND r.any_of = '[]'
    AND r.required || r.forbidden || r.aggregates || r.include || r.avoid = '{}' THEN
    RETURN ARRAY(
      SELECT m.host_id FROM vacancy.room(r) AS m
      WHERE m.host_id = ANY (sampled) AND m.ruled_out_by = '{}'
      ORDER BY m.score DESC, random()
      LIMIT 8
    );
  END IF;
  RETURN ARRAY(
    SELECT j.host_id FROM vacancy.judged(r) AS j
    WHERE j.host_id = ANY (sampled) AND j.ruled_out_by = '{}'
    ORDER BY j.score DESC, random()
    LIMIT 8
  );
END
$$;

-- The same of all hosts, looked at once: the ids of the best, best first, or why none fits, as JSON: how many hosts there
-- are, how many each dimension ruled out (a host counts for the first that does), the dimension that ran out (it ruled out
-- the last ones that were left), and the host that came nearest to it.
CREATE FUNCTION vacancy.look_at_all(r vacancy.request, OUT best text[], OUT refusal jsonb)
LANGUAGE sql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = on AS $$
WITH judged AS MATERIALIZED (
  SELECT
    j.host_id,
    j.name,
    j.score,
    j.ruled_out_by,
    CASE j.ruled_out_by[1]
      WHEN 'stale' THEN extract(epoch FROM j.age)
      WHEN 'vcpus_free' THEN j.vcpus_free
      WHEN 'memory_mb_free' THEN j.memory_mb_free
      WHEN 'disk_gb_free' THEN j.disk_gb_free
      WHEN 'memory_mb_available' THEN j.memory_mb_available
      WHEN 'disk_gb_available' THEN j.disk_gb_available
      WHEN 'cpu_utilization' THEN j.cpu_utilization
      WHEN 'cpu_steal' THEN j.cpu_steal
      WHEN 'cpu_pressure' THEN j.cpu_pressure
      WHEN 'memory_pressure' THEN j.memory_pressure
      WHEN 'io_pressure' THEN j.io_pressure
    END AS had
  FROM vacancy.judged(r) AS j
), dimension (position, name, requested) AS (
  -- In the order of judged() and room().
  VALUES
    (1, 'disabled', NULL::double precision), (2, 'include', NULL), (3, 'avoid', NULL), (4, 'zone', NULL),
    (5, 'aggregates', NULL), (6, 'required', NULL), (7, 'any_of', NULL), (8, 'forbidden', NULL),
    (9, 'vcpus_unit', NULL), (10, 'memory_mb_unit', NULL), (11, 'disk_gb_unit', NULL), (12, 'no usage yet', NULL),
    (13, 'stale', extract(epoch FROM vacancy.max_age())), (14, 'vcpus_free', r.vcpus),
    (15, 'memory_mb_free', r.memory_mb), (16, 'disk_gb_free', r.disk_gb),
    (17, 'memory_mb_available', r.memory_mb + r.min_memory_mb_available), (18, 'disk_gb_available', r.disk_gb),
    (19, 'cpu_utilization', r.max_cpu_utilization), (20, 'cpu_steal', r.max_cpu_steal),
    (21, 'cpu_pressure', r.max_cpu_pressure), (22, 'memory_pressure', r.max_memory_pressure),
    (23, 'io_pressure', r.max_io_pressure)
), counted AS (
  SELECT d.position, d.name, d.requested, count(*) AS hosts
  FROM judged AS j JOIN dimension AS d ON d.name = j.ruled_out_by[1]
  GROUP BY d.position, d.name, d.requested
), last AS (
  SELECT * FROM counted ORDER BY position DESC LIMIT 1
), nearest AS (
  SELECT j.host_id, j.name, j.had, j.ruled_out_by
  FROM last
  JOIN judged AS j ON j.ruled_out_by[1] = last.name
  ORDER BY cardinality(j.ruled_out_by), abs(j.had - last.requested), j.host_id
  LIMIT 1
)
SELECT
  ARRAY(SELECT host_id FROM judged WHERE ruled_out_by = '{}' ORDER BY score DESC, random() LIMIT 8),
  CASE WHEN NOT EXISTS (SELECT FROM judged WHERE ruled_out_by = '{}') THEN
    jsonb_build_object(
      'hosts', (SELECT count(*) FROM judged),
      'ruled_out', (SELECT coalesce(jsonb_object_agg(name, hosts), '{}') FROM counted),
      'dimension', coalesce((SELECT name FROM last), 'hosts'),
      'requested', (SELECT requested FROM last),
      'nearest', (
        SELECT jsonb_build_object('host_id', host_id, 'name', name, 'had', had, 'ruled_out_by', ruled_out_by)
        FROM nearest
      )
    )
  END
$$;

-- Claims one host for one consumer, whose lock the caller holds. Where none fits host is null and refusal says why;
-- contended counts the hosts that others were claiming from at that moment.
-- holding: whether this transaction holds the lock of a host already.
-- Raises serialization_failure where hosts fit but others were always there first.
CREATE FUNCTION vacancy.claim_host(
  r vacancy.request, for_consumer uuid, holding boolean, OUT host text, OUT contended integer, OUT refusal jsonb
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  candidates text[];
  candidate text;
  key bigint;
BEGIN
  contended := 0;
  FOR round IN 1..6 LOOP
    IF round <= 2 AND r.include = '{}' THEN
      -- When the fleet is nearly full a bigger sample still costs a fraction of a look at all hosts.
      candidates := vacancy.best_of_sample(r, CASE round WHEN 1 THEN r.sample ELSE 16 * r.sample END, round = 1);
      CONTINUE WHEN candidates = '{}';
    ELSE
      SELECT a.best, a.refusal INTO candidates, refusal FROM vacancy.look_at_all(r) AS a;
      IF refusal IS NOT NULL THEN
        RETURN;
      END IF;
    END IF;
    FOREACH candidate IN ARRAY candidates LOOP
      key := hashtextextended(candidate, 1);
      IF NOT pg_try_advisory_xact_lock(key) THEN
        contended := contended + 1;
        CONTINUE WHEN holding OR round < 4;
        PERFORM pg_advisory_xact_lock(key);
      END IF;
      holding := true;
      -- A statement of its own, whose snapshot is newer than the lock: it sees every claim on the host.
      INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at)
      SELECT for_consumer, j.host_id, r.vcpus, r.memory_mb, r.disk_gb, at, at + r.claim_ttl
      FROM vacancy.judged(r) AS j, clock_timestamp() AS at
      WHERE j.host_id = candidate AND j.ruled_out_by = '{}';
      IF FOUND THEN
        host := candidate;
        RETURN;
      END IF;
    END LOOP;
  END LOOP;
  RAISE EXCEPTION 'every host that fits was being claimed from by others'
    USING ERRCODE = 'serialization_failure', HINT = 'Claim again with the same consumers.';
END
$$;

-- Deletes some claims that have expired, oldest first. SKIP LOCKED: nobody waits here.
-- Callers do it one time in 16: each look passes over what was deleted lately and is not vacuumed yet, so it has to be
-- worth it. 64 are four times what as many claims can leave behind.
CREATE FUNCTION vacancy.sweep_claims() RETURNS void
LANGUAGE sql VOLATILE AS $$
  DELETE FROM vacancy.claim WHERE consumer = ANY (ARRAY(
    SELECT consumer FROM vacancy.claim
    WHERE expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT 64 FOR UPDATE SKIP LOCKED
  ))
$$;

-- Claims hosts for consumers: all of them or none.
-- Rows: one a consumer, in their order; or a single one whose refusal says why (all else null).
-- A consumer that has a claim which has not expired keeps it, settled or not, and `already` says so.
-- contended: hosts passed over because others were claiming from them at that moment.
-- Raises serialization_failure: try again with the same consumers; invalid_parameter_value: the request makes no sense.
CREATE FUNCTION vacancy.claim(consumers uuid[], request jsonb DEFAULT '{}')
RETURNS TABLE (
  consumer uuid,
  host_id text,
  host_name text,
  claimed_at timestamptz,
  expires_at timestamptz,
  already boolean,
  contended integer,
  refusal jsonb
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  former uuid[];
  taken text[];
  expired integer;
  made uuid[] := '{}';
  asked uuid;
  claimed record;
  passed_over integer := 0;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was claimed meanwhile.
    RAISE EXCEPTION 'claim() needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF coalesce(cardinality(consumers), 0) NOT BETWEEN 1 AND 1000 OR array_position(consumers, NULL) IS NOT NULL
    OR vacancy.lock_consumers(consumers) <> cardinality(consumers) THEN
    RAISE EXCEPTION 'consumers must be 1 to 1000 different ids' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
    coalesce(array_agg(c.host_id) FILTER (WHERE c.expires_at > statement_timestamp()), '{}'),
    count(*) FILTER (WHERE c.expires_at <= statement_timestamp())
  INTO former, taken, expired
  FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  IF expired > 0 THEN
    DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) AND c.expires_at <= statement_timestamp();
  END IF;

  FOREACH asked IN ARRAY consumers LOOP
    CONTINUE WHEN asked = ANY (former);
    IF r.distinct_hosts THEN
      r.avoid := r.avoid || taken;
    END IF;
    claimed := vacancy.claim_host(r, asked, made <> '{}');
    passed_over := passed_over + claimed.contended;
    IF claimed.host IS NULL THEN
      -- All or none.
      DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (made);
      contended := passed_over;
      refusal := claimed.refusal || jsonb_build_object('claimable', cardinality(made), 'count', cardinality(consumers));
      RETURN NEXT;
      RETURN;
    END IF;
    made := made || asked;
    taken := ARRAY[claimed.host];
  END LOOP;

  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
  RETURN QUERY
    SELECT c.consumer, c.host_id, i.name, c.claimed_at, c.expires_at, c.consumer = ANY (former), passed_over, NULL::jsonb
    FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
    WHERE c.consumer = ANY (consumers)
    ORDER BY array_position(consumers, c.consumer);
END
$$;

-- Gives claims back; the consumers that had one which still counted or was settled. Again is harmless.
CREATE FUNCTION vacancy.release(consumers uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  RETURN QUERY
    WITH gone AS (DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) RETURNING c.consumer, c.expires_at)
    SELECT gone.consumer FROM gone WHERE gone.expires_at > statement_timestamp();
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

-- The best hosts for a request, best first, and claims none: of a random sample, or of all hosts where none of it fits.
CREATE FUNCTION vacancy.candidates(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, score double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  best text[];
BEGIN
  IF r.include = '{}' THEN
    best := vacancy.best_of_sample(r, r.sample, false);
  END IF;
  IF coalesce(best, '{}') = '{}' THEN
    SELECT a.best INTO best FROM vacancy.look_at_all(r) AS a;
  END IF;
  RETURN QUERY
    SELECT j.host_id, j.name, j.score FROM vacancy.judged(r) AS j
    WHERE j.host_id = ANY (best) ORDER BY j.score DESC, array_position(best, j.host_id);
END
$$;

-- Every host and what rules it out for a request; empty where it fits.
CREATE FUNCTION vacancy.why(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, ruled_out_by text[])
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  r vacancy.request := vacancy.take_request(request);
BEGIN
  RETURN QUERY SELECT j.host_id, j.name, j.ruled_out_by FROM vacancy.judged(r) AS j;
END
$$;

REVOKE ALL ON FUNCTION
  vacancy.parse_request(jsonb), vacancy.take_request(jsonb), vacancy.lock_consumers(uuid[]), vacancy.room(vacancy.request),
  vacancy.judged(vacancy.request), vacancy.random_hosts(integer),
  vacancy.best_of_sample(vacancy.request, integer, boolean), vacancy.look_at_all(vacancy.request),
  vacancy.claim_host(vacancy.request, uuid, boolean), vacancy.sweep_claims(), vacancy.claim(uuid[], jsonb),
  vacancy.release(uuid[]), vacancy.candidates(jsonb), vacancy.why(jsonb)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
  vacancy.claim(uuid[], jsonb), vacancy.release(uuid[]), vacancy.candidates(jsonb), vacancy.why(jsonb)
TO vacancy_scheduler;

GRANT EXECUTE ON FUNCTION vacancy.why(jsonb) TO vacancy_reader;
