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
  r vacancy.request;
  stranger text;
BEGIN
  r := (0, 0, 0, false, '{}', '[]', '{}', '{}', NULL, '{}', '{}', NULL, NULL, NULL, NULL, NULL, 0,
        'spread', (1, 1, 1, 1, 0.1)::vacancy.weights, 64, NULL, '2 min')::vacancy.request;
  SELECT key INTO stranger
  FROM jsonb_object_keys(document || coalesce(document->'weights', '{}')) AS key
  WHERE key NOT IN (SELECT jsonb_object_keys(to_jsonb(r) || to_jsonb(r.weights)));
  IF FOUND THEN
    RAISE EXCEPTION 'no such part of a request: %', stranger USING ERRCODE = 'invalid_parameter_value';
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
BEGIN
  IF r.max_age IS NOT NULL THEN
    PERFORM set_config('vacancy.max_age', r.max_age::text, true);
  END IF;
  RETURN r;
END
$$;

-- Waits for calls under way for the same consumers, and keeps others out until the transaction ends; in one order.
CREATE FUNCTION vacancy.lock_consumers(consumers uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(key)
  FROM (SELECT DISTINCT hashtextextended(c::text, 2) AS key FROM unnest(consumers) AS c ORDER BY 1) AS ordered;
END
$$;

-- Every host as a request sees it: what rules it out, in the order in which it is looked at, and how good it is.
-- Grain: one row a host that is not retired. ruled_out_by is empty where the request fits.
-- `*_free` is Placement's rule, used + n <= (total - reserved) * ratio, and `*_available` what the kernel measured.
-- A measured figure that is not known rules nothing out.
CREATE FUNCTION vacancy.judged(r vacancy.request)
RETURNS TABLE (
  host_id text,
  name text,
  sample_key double precision,
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
  s.host_id,
  s.name,
  s.sample_key,
  array_remove(ARRAY[
    CASE WHEN s.reason IS NOT NULL THEN split_part(s.reason, ':', 1) END,
    CASE WHEN r.include <> '{}' AND NOT (s.host_id = ANY (r.include) OR s.name = ANY (r.include)) THEN 'include' END,
    CASE WHEN s.host_id = ANY (r.avoid) OR s.name = ANY (r.avoid) THEN 'avoid' END,
    CASE WHEN r.zone <> coalesce(s.zone, '') THEN 'zone' END,
    CASE WHEN r.aggregates <> '{}' AND NOT (s.aggregates && r.aggregates) THEN 'aggregates' END,
    CASE WHEN NOT (s.traits @> r.required) THEN 'required' END,
    CASE WHEN r.any_of <> '[]' AND EXISTS (
      SELECT FROM jsonb_array_elements(r.any_of) AS alternatives
      WHERE NOT alternatives ?| s.traits
    ) THEN 'any_of' END,
    CASE WHEN s.traits && r.forbidden THEN 'forbidden' END,
    CASE WHEN r.vcpus > 0 AND NOT (
      r.vcpus BETWEEN s.vcpus_min_unit AND s.vcpus_max_unit AND r.vcpus % nullif(s.vcpus_step_size, 0) = 0
    ) THEN 'vcpus_unit' END,
    CASE WHEN r.memory_mb > 0 AND NOT (
      r.memory_mb BETWEEN s.memory_mb_min_unit AND s.memory_mb_max_unit AND r.memory_mb % nullif(s.memory_mb_step_size, 0) = 0
    ) THEN 'memory_mb_unit' END,
    CASE WHEN r.disk_gb > 0 AND NOT (
      r.disk_gb BETWEEN s.disk_gb_min_unit AND s.disk_gb_max_unit AND r.disk_gb % nullif(s.disk_gb_step_size, 0) = 0
    ) THEN 'disk_gb_unit' END,
    CASE WHEN r.vcpus > 0 AND r.vcpus > s.vcpus_free THEN 'vcpus_free' END,
    CASE WHEN r.memory_mb > 0 AND r.memory_mb > s.memory_mb_free THEN 'memory_mb_free' END,
    CASE WHEN r.disk_gb > 0 AND r.disk_gb > s.disk_gb_free THEN 'disk_gb_free' END,
    CASE WHEN r.memory_mb + r.min_memory_mb_available > greatest(s.memory_mb_available, 0) THEN 'memory_mb_available' END,
    CASE WHEN r.disk_gb > greatest(s.disk_gb_available, 0) THEN 'disk_gb_available' END,
    CASE WHEN s.cpu_utilization > r.max_cpu_utilization THEN 'cpu_utilization' END,
    CASE WHEN s.cpu_steal > r.max_cpu_steal THEN 'cpu_steal' END,
    CASE WHEN s.cpu_pressure > r.max_cpu_pressure THEN 'cpu_pressure' END,
    CASE WHEN s.memory_pressure > r.max_memory_pressure THEN 'memory_pressure' END,
    CASE WHEN s.io_pressure > r.max_io_pressure THEN 'io_pressure' END
  ], NULL),
  -- Fractions, so that a big host does not win by its size: what would stay free of each class, by promise or by
  -- measure, whichever is less; from it the load, and the age as a fraction of what is allowed.
  CASE r.strategy WHEN 'spread' THEN 1 WHEN 'pack' THEN -1 ELSE 0 END * (
    (r.weights).vcpus * coalesce((s.vcpus_free - r.vcpus)::double precision / nullif(s.vcpus_capacity, 0), 0)
    + (r.weights).memory_mb * coalesce(
      (least(s.memory_mb_free, s.memory_mb_available) - r.memory_mb)::double precision / nullif(s.memory_mb_capacity, 0), 0)
    + (r.weights).disk_gb * coalesce(
      (least(s.disk_gb_free, s.disk_gb_available) - r.disk_gb)::double precision / nullif(s.disk_gb_capacity, 0), 0)
  )
  - CASE r.strategy WHEN 'random' THEN 0 ELSE 1 END * (
    (r.weights).load * coalesce(greatest(s.cpu_utilization, s.cpu_pressure, s.memory_pressure, s.io_pressure), 0)
    + (r.weights).age * greatest(extract(epoch FROM s.age) / (SELECT extract(epoch FROM vacancy.max_age())), 0)
  ),
  s.age,
  s.vcpus_free,
  s.memory_mb_free,
  s.disk_gb_free,
  s.memory_mb_available,
  s.disk_gb_available,
  s.cpu_utilization,
  s.cpu_steal,
  s.cpu_pressure,
  s.memory_pressure,
  s.io_pressure
FROM vacancy.host_state AS s
$$;

-- The ids of the best hosts of a random sample, best first; empty where none of the sample fits.
-- The sample is r.sample hosts in runs of 8 neighbours of the random order, each from a random place; a run that comes to
-- the end goes on from the beginning. Cost: r.sample rows by index, whatever the number of hosts.
CREATE FUNCTION vacancy.best_of_sample(r vacancy.request) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN ARRAY(
    SELECT run.host_id
    FROM (SELECT random() AS start FROM generate_series(1, (r.sample + 7) / 8) OFFSET 0) AS place
    CROSS JOIN LATERAL (
      (
        SELECT j.host_id, j.ruled_out_by, j.score FROM vacancy.judged(r) AS j
        WHERE j.sample_key >= place.start ORDER BY j.sample_key LIMIT 8
      )
      UNION ALL
      (
        SELECT j.host_id, j.ruled_out_by, j.score FROM vacancy.judged(r) AS j
        WHERE j.sample_key < place.start ORDER BY j.sample_key LIMIT 8
      )
      LIMIT 8
    ) AS run
    WHERE run.ruled_out_by = '{}'
    GROUP BY run.host_id, run.score  -- runs may overlap
    ORDER BY run.score DESC, random()
    LIMIT 8
  );
END
$$;

-- The same of all hosts.
CREATE FUNCTION vacancy.best_of_all(r vacancy.request) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = on AS $$
BEGIN
  RETURN ARRAY(
    SELECT j.host_id FROM vacancy.judged(r) AS j
    WHERE j.ruled_out_by = '{}'
    ORDER BY j.score DESC, random()
    LIMIT 8
  );
END
$$;

-- Claims one host for one consumer, whose lock the caller holds. host is null where none fits; contended counts the hosts
-- that others were claiming from at that moment. holding: whether this transaction holds the lock of a host already.
-- Raises serialization_failure where hosts fit but others were always there first.
CREATE FUNCTION vacancy.claim_host(
  r vacancy.request, for_consumer uuid, holding boolean, OUT host text, OUT contended integer
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  candidates text[];
  candidate text;
  key bigint;
BEGIN
  contended := 0;
  FOR round IN 1..5 LOOP
    IF round = 1 AND r.include = '{}' THEN
      candidates := vacancy.best_of_sample(r);
      CONTINUE WHEN candidates = '{}';
    ELSE
      candidates := vacancy.best_of_all(r);
      IF candidates = '{}' THEN
        RETURN;
      END IF;
    END IF;
    FOREACH candidate IN ARRAY candidates LOOP
      key := hashtextextended(candidate, 1);
      IF NOT pg_try_advisory_xact_lock(key) THEN
        contended := contended + 1;
        CONTINUE WHEN holding OR round < 3;
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

-- Deletes a few claims that have expired, oldest first. SKIP LOCKED: nobody waits here.
CREATE FUNCTION vacancy.sweep_claims() RETURNS void
LANGUAGE sql VOLATILE AS $$
  DELETE FROM vacancy.claim WHERE consumer = ANY (ARRAY(
    SELECT consumer FROM vacancy.claim
    WHERE expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT 16 FOR UPDATE SKIP LOCKED
  ))
$$;

-- Why no host fits, as JSON: how many hosts there are, how many each dimension ruled out (a host counts for the first that
-- does), the dimension that ran out (it ruled out the last ones that were left), and the host that came nearest to it.
CREATE FUNCTION vacancy.refusal(r vacancy.request) RETURNS jsonb
LANGUAGE sql STABLE SET plan_cache_mode = force_custom_plan SET enable_seqscan = on AS $$
WITH judged AS MATERIALIZED (
  SELECT j.*, j.ruled_out_by[1] AS dimension FROM vacancy.judged(r) AS j WHERE j.ruled_out_by <> '{}'
), dimension (position, name, requested) AS (
  -- In the order of judged().
  VALUES
    (1, 'disabled', NULL::double precision), (2, 'no usage yet', NULL),
    (3, 'stale', extract(epoch FROM vacancy.max_age())),
    (4, 'include', NULL), (5, 'avoid', NULL), (6, 'zone', NULL), (7, 'aggregates', NULL), (8, 'required', NULL),
    (9, 'any_of', NULL), (10, 'forbidden', NULL), (11, 'vcpus_unit', NULL), (12, 'memory_mb_unit', NULL),
    (13, 'disk_gb_unit', NULL), (14, 'vcpus_free', r.vcpus), (15, 'memory_mb_free', r.memory_mb),
    (16, 'disk_gb_free', r.disk_gb), (17, 'memory_mb_available', r.memory_mb + r.min_memory_mb_available),
    (18, 'disk_gb_available', r.disk_gb), (19, 'cpu_utilization', r.max_cpu_utilization),
    (20, 'cpu_steal', r.max_cpu_steal), (21, 'cpu_pressure', r.max_cpu_pressure),
    (22, 'memory_pressure', r.max_memory_pressure), (23, 'io_pressure', r.max_io_pressure)
), counted AS (
  SELECT d.position, d.name, d.requested, count(*) AS hosts
  FROM judged AS j JOIN dimension AS d ON d.name = j.dimension
  GROUP BY d.position, d.name, d.requested
), last AS (
  SELECT * FROM counted ORDER BY position DESC LIMIT 1
), nearest AS (
  SELECT j.host_id, j.name, j.ruled_out_by, figure.had
  FROM last
  JOIN judged AS j ON j.dimension = last.name
  CROSS JOIN LATERAL (
    SELECT CASE last.name
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
  ) AS figure
  ORDER BY cardinality(j.ruled_out_by), abs(figure.had - last.requested), j.host_id
  LIMIT 1
)
SELECT jsonb_build_object(
  'hosts', (SELECT count(*) FROM judged),
  'ruled_out', (SELECT coalesce(jsonb_object_agg(name, hosts), '{}') FROM counted),
  'dimension', coalesce((SELECT name FROM last), 'hosts'),
  'requested', (SELECT requested FROM last),
  'nearest', (
    SELECT jsonb_build_object('host_id', host_id, 'name', name, 'had', had, 'ruled_out_by', ruled_out_by) FROM nearest
  )
)
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
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  former uuid[];
  taken text[];
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
    OR cardinality(consumers) <> (SELECT count(DISTINCT c) FROM unnest(consumers) AS c) THEN
    RAISE EXCEPTION 'consumers must be 1 to 1000 different ids' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM vacancy.lock_consumers(consumers);
  DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) AND c.expires_at <= statement_timestamp();
  SELECT coalesce(array_agg(c.consumer), '{}'), coalesce(array_agg(c.host_id), '{}') INTO former, taken
  FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);

  FOREACH asked IN ARRAY consumers LOOP
    CONTINUE WHEN asked = ANY (former);
    IF r.distinct_hosts THEN
      r.avoid := r.avoid || taken;
    END IF;
    claimed := vacancy.claim_host(r, asked, made <> '{}');
    passed_over := passed_over + claimed.contended;
    IF claimed.host IS NULL THEN
      -- All or none. Our own claims count no more when the refusal is made.
      DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (made);
      contended := passed_over;
      refusal := vacancy.refusal(r) || jsonb_build_object('claimable', cardinality(made), 'count', cardinality(consumers));
      PERFORM vacancy.sweep_claims();
      RETURN NEXT;
      RETURN;
    END IF;
    made := made || asked;
    taken := ARRAY[claimed.host];
  END LOOP;

  PERFORM vacancy.sweep_claims();
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
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  RETURN QUERY
    WITH gone AS (DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) RETURNING c.consumer, c.expires_at)
    SELECT gone.consumer FROM gone WHERE gone.expires_at > statement_timestamp();
  PERFORM vacancy.sweep_claims();
END
$$;

-- The best hosts for a request, best first, and claims none: of a random sample, or of all hosts where none of it fits.
CREATE FUNCTION vacancy.candidates(request jsonb DEFAULT '{}')
RETURNS TABLE (host_id text, host_name text, score double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  best text[];
BEGIN
  IF r.include = '{}' THEN
    best := vacancy.best_of_sample(r);
  END IF;
  IF coalesce(best, '{}') = '{}' THEN
    best := vacancy.best_of_all(r);
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
  vacancy.parse_request(jsonb), vacancy.take_request(jsonb), vacancy.lock_consumers(uuid[]), vacancy.judged(vacancy.request), vacancy.best_of_sample(vacancy.request),
  vacancy.best_of_all(vacancy.request), vacancy.claim_host(vacancy.request, uuid, boolean), vacancy.sweep_claims(),
  vacancy.refusal(vacancy.request), vacancy.claim(uuid[], jsonb), vacancy.release(uuid[]), vacancy.candidates(jsonb),
  vacancy.why(jsonb)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
  vacancy.claim(uuid[], jsonb), vacancy.release(uuid[]), vacancy.candidates(jsonb), vacancy.why(jsonb)
TO vacancy_scheduler;

GRANT EXECUTE ON FUNCTION vacancy.why(jsonb) TO vacancy_reader;
