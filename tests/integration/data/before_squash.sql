-- A database as the fourteen migrations before 0001_generated_columns left it, with rows in every table: pg_dump 18.6
-- (--inserts --no-owner --rows-per-insert=50), without its headings. test_migrations.py brings it to this release.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA vacancy;

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
	claim_ttl interval,
	resources jsonb,
	numa jsonb,
	pci jsonb,
	near text,
	near_aggregates text[]
);

CREATE FUNCTION vacancy.are_amounts(document jsonb, at_least bigint) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $_$
SELECT jsonb_typeof(document) = 'object' AND coalesce((
  SELECT bool_and(CASE WHEN value::text ~ '^[0-9]{1,10}$' THEN value::bigint BETWEEN at_least AND 2147483647 ELSE false END)
  FROM jsonb_each(document)
), false)
$_$;

CREATE FUNCTION vacancy.best_of_sample(r vacancy.request, hosts integer, glance boolean, at_most integer DEFAULT 8) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
  complex boolean := vacancy.is_complex(r);
  look_at integer := CASE WHEN NOT complex THEN at_most WHEN glance THEN 8 ELSE hosts END;
  sampled text[];
  ranked text[];
  best text[] := '{}';
  candidate text;
BEGIN
  IF NOT glance AND r.near IS NOT NULL THEN
    sampled := vacancy.hosts_near(r.near_aggregates, hosts);
  ELSIF NOT glance AND complex THEN
    sampled := vacancy.hosts_that_offer(r, hosts);
  END IF;
  sampled := coalesce(sampled, vacancy.random_hosts(hosts));
  IF glance AND r.near IS NULL AND r.zone IS NULL AND r.any_of = '[]'
    AND r.required || r.forbidden || r.aggregates || r.include || r.avoid = '{}' THEN
    ranked := ARRAY(
      SELECT m.host_id FROM vacancy.room(r) AS m
      WHERE m.host_id = ANY (sampled) AND m.ruled_out_by = '{}'
      ORDER BY m.score DESC, random()
      LIMIT look_at
    );
  ELSE
    ranked := ARRAY(
      SELECT j.host_id FROM vacancy.judged(r) AS j
      WHERE j.host_id = ANY (sampled) AND j.ruled_out_by = '{}'
      ORDER BY j.score DESC, random()
      LIMIT look_at
    );
  END IF;
  IF NOT complex THEN
    RETURN ranked;
  END IF;
  FOREACH candidate IN ARRAY ranked LOOP
    IF (SELECT c.held IS NOT NULL FROM vacancy.complex_room(candidate, r.resources, r.numa, r.pci) AS c) THEN
      best := best || candidate;
      EXIT WHEN cardinality(best) = at_most;
    END IF;
  END LOOP;
  RETURN best;
END
$$;

CREATE FUNCTION vacancy.bury_tombstones() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION vacancy.candidates(request jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(host_id text, host_name text, score double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION vacancy.cells_free(cells jsonb, taken jsonb) RETURNS TABLE(id integer, cpus bigint, pages jsonb)
    LANGUAGE sql STABLE
    AS $$
SELECT
  (cell->>'id')::integer,
  (cell->>'cpus')::bigint - coalesce((taken->>('numa ' || (cell->>'id') || ' cpus'))::bigint, 0),
  CASE WHEN taken IS NULL THEN cell->'pages' ELSE (
    SELECT coalesce(jsonb_object_agg(
      size.key, size.value::bigint - coalesce((taken->>('numa ' || (cell->>'id') || ' pages ' || size.key))::bigint, 0)
    ), '{}')
    FROM jsonb_each_text(cell->'pages') AS size
  ) END
FROM jsonb_array_elements(cells) AS cell
$$;

CREATE FUNCTION vacancy.claim(consumers uuid[], request jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(consumer uuid, host_id text, host_name text, claimed_at timestamp with time zone, expires_at timestamp with time zone, already boolean, contended integer, refusal jsonb, held jsonb)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  r vacancy.request := vacancy.take_request(request);
  former uuid[];
  taken text[];
  expired uuid[];
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
    coalesce(array_agg(c.consumer) FILTER (WHERE c.expires_at <= statement_timestamp()), '{}')
  INTO former, taken, expired
  FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers);
  IF expired <> '{}' THEN
    PERFORM vacancy.leave_behind(expired);
    DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (expired);
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
    SELECT c.consumer, c.host_id, i.name, c.claimed_at, c.expires_at, c.consumer = ANY (former), passed_over, NULL::jsonb, c.held
    FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
    WHERE c.consumer = ANY (consumers)
    ORDER BY array_position(consumers, c.consumer);
END
$$;

CREATE FUNCTION vacancy.claim_host(r vacancy.request, for_consumer uuid, holding boolean, OUT host text, OUT contended integer, OUT refusal jsonb) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
  candidates text[];
  candidate text;
  key bigint;
  complex boolean := vacancy.is_complex(r);
BEGIN
  contended := 0;
  FOR round IN 1..6 LOOP
    IF round <= 2 AND r.include = '{}' THEN
      -- When the fleet is nearly full a bigger sample still costs a fraction of a look at all hosts.
      candidates := vacancy.best_of_sample(
        r, CASE round WHEN 1 THEN r.sample ELSE 16 * r.sample END, round = 1, CASE WHEN complex THEN round ELSE 8 END
      );
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
      IF complex THEN
        INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, held)
        SELECT for_consumer, j.host_id, r.vcpus, r.memory_mb, r.disk_gb, at, at + r.claim_ttl, c.held
        FROM vacancy.judged(r) AS j
        CROSS JOIN LATERAL vacancy.complex_room(j.host_id, r.resources, r.numa, r.pci) AS c
        CROSS JOIN clock_timestamp() AS at
        WHERE j.host_id = candidate AND j.ruled_out_by = '{}' AND c.held IS NOT NULL;
      ELSE
        INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at)
        SELECT for_consumer, j.host_id, r.vcpus, r.memory_mb, r.disk_gb, at, at + r.claim_ttl
        FROM vacancy.judged(r) AS j, clock_timestamp() AS at
        WHERE j.host_id = candidate AND j.ruled_out_by = '{}';
      END IF;
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

CREATE FUNCTION vacancy.class_free(class text, inventory jsonb, allocated jsonb, taken jsonb) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
SELECT floor(
  ((inventory->>'total')::bigint - coalesce((inventory->>'reserved')::bigint, 0))
  * coalesce((inventory->>'allocation_ratio')::double precision, 1)
)::bigint
  - CASE WHEN allocated IS NOT NULL THEN coalesce((allocated->>class)::bigint, 0) END
  - coalesce((taken->>class)::bigint, 0)
$$;

CREATE FUNCTION vacancy.complex_judged(on_host text, resources jsonb, numa jsonb, pci jsonb) RETURNS TABLE(missing text[], had double precision)
    LANGUAGE sql STABLE
    AS $$
SELECT
  CASE WHEN m.missing <> '{}' THEN m.missing ELSE (
    SELECT c.missing FROM vacancy.complex_room(on_host, resources, numa, pci) AS c
  ) END,
  m.had
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL (SELECT vacancy.taken(i.host_id) AS taken OFFSET 0) AS t
CROSS JOIN LATERAL vacancy.complex_missing(
  resources, numa, pci, i.inventories, i.allocated, i.numa_free, i.pci_pools, t.taken
) AS m
WHERE i.host_id = on_host
$$;

CREATE FUNCTION vacancy.complex_missing(resources jsonb, numa jsonb, pci jsonb, inventories jsonb, allocated jsonb, numa_free jsonb, pci_pools jsonb, taken jsonb) RETURNS TABLE(missing text[], had double precision)
    LANGUAGE sql STABLE
    AS $$
SELECT
  coalesce(array_agg(j.dimension ORDER BY j.position, j.dimension), '{}'),
  (array_agg(j.had ORDER BY j.position, j.dimension))[1]
FROM (
  SELECT
    0 AS position,
    CASE
      WHEN inventories->asked.key IS NULL OR asked.value::bigint > free.free THEN asked.key
      WHEN free.free IS NULL THEN asked.key || '_allocated'
      WHEN asked.value::bigint NOT BETWEEN coalesce((inventories->asked.key->>'min_unit')::bigint, 1)
          AND coalesce((inventories->asked.key->>'max_unit')::bigint, asked.value::bigint)
        OR asked.value::bigint % coalesce(nullif((inventories->asked.key->>'step_size')::bigint, 0), 1) <> 0
        THEN asked.key || '_unit'
    END AS dimension,
    CASE WHEN inventories->asked.key IS NULL OR asked.value::bigint > free.free THEN greatest(free.free, 0) END AS had
  FROM jsonb_each_text(resources) AS asked
  CROSS JOIN LATERAL (
    SELECT vacancy.class_free(asked.key, inventories->asked.key, allocated, taken) AS free
  ) AS free
  UNION ALL
  -- The most that one cell has.
  SELECT 1, CASE WHEN most.cpus < (numa->>'cpus')::bigint THEN 'numa_cpus' END, most.cpus
  FROM (SELECT coalesce(max(greatest(c.cpus, 0)), 0) AS cpus FROM vacancy.cells_free(numa_free, taken) AS c) AS most
  WHERE numa IS NOT NULL
  UNION ALL
  SELECT 1, CASE WHEN most.pages < size.value::bigint THEN 'numa_pages_' || size.key END, most.pages
  FROM jsonb_each_text(numa->'pages') AS size
  CROSS JOIN LATERAL (
    SELECT coalesce(max((c.pages->>size.key)::bigint), 0) AS pages FROM vacancy.cells_free(numa_free, taken) AS c
  ) AS most
  UNION ALL
  -- Of the pools that do for a demand, in one cell where it has to be one.
  SELECT
    1 + demand.position,
    CASE WHEN most.devices < (demand.value->>'count')::bigint THEN demand.value->>'name' END,
    most.devices
  FROM jsonb_array_elements(pci) WITH ORDINALITY AS demand (value, position)
  CROSS JOIN LATERAL (
    SELECT coalesce(max(f.devices), 0) AS devices
    FROM (
      SELECT sum(greatest(p.free, 0)) AS devices
      FROM vacancy.pci_free(pci_pools, taken) AS p
      WHERE p.pool @> (demand.value->'pool')
        AND NOT ((demand.value->'same_cell')::boolean AND p.pool->>'numa_node' IS NULL)
      GROUP BY CASE WHEN (demand.value->'same_cell')::boolean THEN p.pool->'numa_node' END
    ) AS f
  ) AS most
) AS j
WHERE j.dimension IS NOT NULL
$$;

CREATE FUNCTION vacancy.complex_room(on_host text, resources jsonb, numa jsonb, pci jsonb, OUT held jsonb, OUT missing text[], OUT had double precision) RETURNS record
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
  i record;
  cell record;
  taken jsonb;
  keys text[];
  pools jsonb[];
  free bigint[];
  devices jsonb := '{}';
BEGIN
  SELECT h.inventories, h.allocated, h.numa_free, h.pci_pools INTO i
  FROM vacancy.host_inventory AS h
  WHERE h.host_id = on_host AND (pci IS NULL OR h.pci_kinds @> vacancy.kinds(pci));
  IF NOT FOUND THEN
    missing := '{pci}';  -- it has no such devices at all
    RETURN;
  END IF;
  taken := vacancy.taken(on_host);
  IF resources IS NOT NULL THEN
    SELECT m.missing, m.had INTO missing, had
    FROM vacancy.complex_missing(resources, NULL, NULL, i.inventories, i.allocated, NULL, NULL, taken) AS m;
    IF missing <> '{}' THEN
      RETURN;
    END IF;
  END IF;
  IF pci IS NOT NULL THEN
    SELECT coalesce(array_agg(p.key), '{}'), coalesce(array_agg(p.pool), '{}'), coalesce(array_agg(p.free), '{}')
    INTO keys, pools, free
    FROM vacancy.pci_free(i.pci_pools, taken) AS p;
  END IF;
  held := coalesce(resources, '{}');
  missing := '{}';
  IF numa IS NOT NULL OR pci @> '[{"same_cell": true}]' THEN
    devices := NULL;
    missing := CASE WHEN numa IS NULL THEN '{pci}' ELSE '{numa}' END;
    FOR cell IN
      SELECT c.id FROM vacancy.cells_free(i.numa_free, taken) AS c
      -- Below 0 while an inventory shows what a claim still holds; none is enough for none.
      WHERE numa IS NULL OR greatest(c.cpus, 0) >= (numa->>'cpus')::bigint AND NOT EXISTS (
        SELECT FROM jsonb_each_text(numa->'pages') AS size
        WHERE coalesce((c.pages->>size.key)::bigint, 0) < size.value::bigint
      )
      ORDER BY c.cpus, c.id
    LOOP
      missing := '{pci}';
      devices := CASE WHEN pci IS NULL THEN '{}' ELSE vacancy.place_pci(pci, cell.id, keys, pools, free) END;
      EXIT WHEN devices IS NOT NULL;
    END LOOP;
    IF devices IS NOT NULL AND numa IS NOT NULL THEN
      held := held || (
        SELECT jsonb_object_agg(format('numa %s %s', cell.id, part.name), part.amount)
        FROM (
          SELECT 'cpus' AS name, numa->'cpus' AS amount WHERE numa->'cpus' <> '0'
          UNION ALL
          SELECT 'pages ' || size.key, size.value FROM jsonb_each(numa->'pages') AS size
        ) AS part
      );
    END IF;
  ELSIF pci IS NOT NULL THEN
    devices := vacancy.place_pci(pci, NULL, keys, pools, free);
    missing := '{pci}';
  END IF;
  IF devices IS NULL THEN
    held := NULL;
  ELSE
    held := held || devices;
    missing := '{}';
  END IF;
END
$$;

CREATE FUNCTION vacancy.hosts_near(of_pool text[], hosts integer) RETURNS text[]
    LANGUAGE plpgsql
    SET enable_bitmapscan TO 'on'
    AS $$
BEGIN
  RETURN ARRAY(
    SELECT i.host_id FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND i.aggregates && of_pool
    ORDER BY random() LIMIT hosts
  );
END
$$;

CREATE FUNCTION vacancy.hosts_that_offer(r vacancy.request, hosts integer) RETURNS text[]
    LANGUAGE plpgsql
    SET enable_bitmapscan TO 'on'
    AS $$
DECLARE
  kinds jsonb := vacancy.kinds(r.pci);
  classes text[] := coalesce(vacancy.resource_classes(r.resources), '{}');
BEGIN
  IF r.pci IS NULL AND r.resources IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN ARRAY(
    SELECT i.host_id FROM vacancy.host_inventory AS i
    WHERE NOT i.retired AND i.status = 'ENABLED' AND i.pci_kinds @> kinds AND i.resource_classes @> classes
    ORDER BY random() LIMIT hosts
  );
END
$$;

CREATE FUNCTION vacancy.is_complex(r vacancy.request) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN (((r).resources IS NOT NULL) OR ((r).numa IS NOT NULL) OR ((r).pci IS NOT NULL));

CREATE FUNCTION vacancy.judged(r vacancy.request) RETURNS TABLE(host_id text, name text, ruled_out_by text[], score double precision, age interval, vcpus_free bigint, memory_mb_free bigint, disk_gb_free bigint, memory_mb_available bigint, disk_gb_available bigint, cpu_utilization double precision, cpu_steal double precision, cpu_pressure double precision, memory_pressure double precision, io_pressure double precision)
    LANGUAGE sql STABLE
    AS $$
SELECT
  i.host_id,
  i.name,
  array_remove(ARRAY[
    CASE WHEN i.status = 'DISABLED' THEN 'disabled' END,
    CASE WHEN q.include <> '{}' AND NOT (i.host_id = ANY (q.include) OR i.name = ANY (q.include)) THEN 'include' END,
    CASE WHEN i.host_id = ANY (q.avoid) OR i.name = ANY (q.avoid) THEN 'avoid' END,
    CASE WHEN q.zone <> coalesce(i.zone, '') THEN 'zone' END,
    CASE WHEN q.aggregates <> '{}' AND NOT (i.aggregates && q.aggregates) THEN 'aggregates' END,
    CASE WHEN q.near IS NOT NULL AND (i.aggregates && q.near_aggregates) IS NOT TRUE THEN 'near ' || q.near END,
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
WHERE NOT i.retired AND NOT i.shares
$$;

CREATE FUNCTION vacancy.keep_retired_out() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  DELETE FROM vacancy.host
  WHERE host_id = NEW.host_id
    AND EXISTS (SELECT FROM vacancy.host_inventory WHERE host_id = NEW.host_id AND retired);
  RETURN NULL;
END
$$;

CREATE FUNCTION vacancy.kinds(pci jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    RETURN (SELECT COALESCE(jsonb_agg((demand.value -> 'pool'::text)), '[]'::jsonb) AS "coalesce" FROM jsonb_array_elements(kinds.pci) demand(value));

CREATE FUNCTION vacancy.leave_behind(consumers uuid[]) RETURNS void
    LANGUAGE sql
    AS $$
  INSERT INTO vacancy.claim
    (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, settled_at, shown_at, held)
  SELECT gen_random_uuid(), c.host_id, 0, 0, 0, c.claimed_at, statement_timestamp(), c.settled_at, c.shown_at, c.held
  FROM vacancy.claim AS c
  JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  WHERE c.consumer = ANY (consumers) AND c.held IS NOT NULL AND i.observed_at <= c.shown_at
$$;

CREATE FUNCTION vacancy.lock_consumers(consumers uuid[]) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION vacancy.look_at_all(r vacancy.request, OUT best text[], OUT refusal jsonb) RETURNS record
    LANGUAGE sql
    SET plan_cache_mode TO 'force_custom_plan'
    SET enable_seqscan TO 'on'
    AS $$
WITH plain AS MATERIALIZED (
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
    END::double precision AS had
  FROM vacancy.judged(r) AS j
), offering AS MATERIALIZED (
  SELECT i.host_id FROM vacancy.host_inventory AS i
  WHERE vacancy.is_complex(r) AND NOT i.retired AND i.pci_kinds @> vacancy.kinds(r.pci)
    AND i.resource_classes @> coalesce(vacancy.resource_classes(r.resources), '{}')
), judged AS MATERIALIZED (
  SELECT * FROM plain WHERE NOT vacancy.is_complex(r) OR ruled_out_by <> '{}'
  UNION ALL
  SELECT p.host_id, p.name, p.score, c.missing, c.had
  FROM plain AS p
  JOIN offering AS o ON o.host_id = p.host_id
  CROSS JOIN LATERAL vacancy.complex_judged(p.host_id, r.resources, r.numa, r.pci) AS c
  WHERE vacancy.is_complex(r) AND p.ruled_out_by = '{}'
  UNION ALL
  -- Hosts without such devices and classes are not searched for free ones.
  SELECT
    p.host_id,
    p.name,
    p.score,
    ARRAY(SELECT class FROM jsonb_object_keys(r.resources) AS class WHERE NOT i.inventories ? class ORDER BY 1)
      || ARRAY(
        SELECT demand->>'name' FROM jsonb_array_elements(r.pci) AS demand
        WHERE NOT i.pci_kinds @> jsonb_build_array(demand->'pool')
      ),
    0
  FROM plain AS p
  JOIN vacancy.host_inventory AS i ON i.host_id = p.host_id
  WHERE vacancy.is_complex(r) AND p.ruled_out_by = '{}' AND NOT EXISTS (SELECT FROM offering AS o WHERE o.host_id = p.host_id)
), dimension (position, name, requested) AS (
  -- In the order of judged(), room() and complex_missing().
  VALUES
    (1, 'disabled', NULL::double precision), (2, 'include', NULL), (3, 'avoid', NULL), (4, 'zone', NULL),
    (5, 'aggregates', NULL), (5.5, 'near ' || r.near, NULL), (6, 'required', NULL), (7, 'any_of', NULL), (8, 'forbidden', NULL),
    (9, 'vcpus_unit', NULL), (10, 'memory_mb_unit', NULL), (11, 'disk_gb_unit', NULL), (12, 'no usage yet', NULL),
    (13, 'stale', extract(epoch FROM vacancy.max_age())), (14, 'vcpus_free', r.vcpus),
    (15, 'memory_mb_free', r.memory_mb), (16, 'disk_gb_free', r.disk_gb),
    (17, 'memory_mb_available', r.memory_mb + r.min_memory_mb_available), (18, 'disk_gb_available', r.disk_gb),
    (19, 'cpu_utilization', r.max_cpu_utilization), (20, 'cpu_steal', r.max_cpu_steal),
    (21, 'cpu_pressure', r.max_cpu_pressure), (22, 'memory_pressure', r.max_memory_pressure),
    (23, 'io_pressure', r.max_io_pressure), (27, 'numa', NULL), (29, 'pci', NULL)
  UNION ALL
  SELECT 24, asked.key || suffix.suffix, CASE suffix.suffix WHEN '' THEN asked.value::double precision END
  FROM jsonb_each_text(r.resources) AS asked, (VALUES (''), ('_allocated'), ('_unit')) AS suffix (suffix)
  UNION ALL
  SELECT 25, 'numa_cpus', (r.numa->>'cpus')::double precision
  UNION ALL
  SELECT 26, 'numa_pages_' || size.key, size.value::double precision FROM jsonb_each_text(r.numa->'pages') AS size
  UNION ALL
  SELECT 28, demand->>'name', max((demand->>'count')::double precision)
  FROM jsonb_array_elements(r.pci) AS demand GROUP BY demand->>'name'
), counted AS (
  SELECT d.position, d.name, d.requested, count(*) AS hosts
  FROM judged AS j JOIN dimension AS d ON d.name = j.ruled_out_by[1]
  GROUP BY d.position, d.name, d.requested
), last AS (
  SELECT * FROM counted ORDER BY position DESC, hosts DESC, name LIMIT 1
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

CREATE FUNCTION vacancy.max_age() RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE((NULLIF(current_setting('vacancy.max_age'::text, true), ''::text))::interval, '00:00:30'::interval);

CREATE FUNCTION vacancy.measured(hosts text[], OUT "position" bigint[], OUT age_seconds double precision[], OUT cpu_utilization double precision[], OUT cpu_steal double precision[], OUT cpu_pressure double precision[], OUT memory_pressure double precision[], OUT io_pressure double precision[], OUT memory_mb_available bigint[], OUT vcpus_claimed bigint[]) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
WITH has_claims AS MATERIALIZED (
  SELECT DISTINCT c.host_id FROM vacancy.claim AS c
  WHERE c.settled_at IS NULL AND (c.expires_at > statement_timestamp()) IS TRUE
)
SELECT
  array_agg(asked.position),
  array_agg(date_part('epoch', statement_timestamp() - h.observed_at)),
  array_agg(h.cpu_utilization),
  array_agg(h.cpu_steal),
  array_agg(h.cpu_pressure),
  array_agg(h.memory_pressure),
  array_agg(h.io_pressure),
  array_agg(h.memory_mb_available - coalesce(claimed.memory_mb, 0)),
  array_agg(coalesce(claimed.vcpus, 0))
FROM unnest(hosts) WITH ORDINALITY AS asked (host_id, position)
JOIN vacancy.host AS h ON h.host_id = asked.host_id
LEFT JOIN has_claims ON has_claims.host_id = h.host_id
LEFT JOIN LATERAL (
  SELECT sum(c.vcpus)::bigint AS vcpus, sum(c.memory_mb)::bigint AS memory_mb
  FROM vacancy.claim AS c
  WHERE c.host_id = has_claims.host_id
    AND c.settled_at IS NULL
    AND (c.expires_at > statement_timestamp()) IS TRUE
    -- Listed already when the claim was made: the host's figures hold it.
    AND NOT (c.consumer = ANY (h.recent_consumers))
) AS claimed ON has_claims.host_id IS NOT NULL
$$;

CREATE FUNCTION vacancy.note_claim(for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
  INSERT INTO vacancy.claim AS c (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at)
  SELECT for_consumer, on_host, vcpus, memory_mb, disk_gb, at, at + claim_ttl FROM clock_timestamp() AS at
  ON CONFLICT (consumer) DO UPDATE SET
    host_id = EXCLUDED.host_id,
    vcpus = EXCLUDED.vcpus,
    memory_mb = EXCLUDED.memory_mb,
    disk_gb = EXCLUDED.disk_gb,
    claimed_at = EXCLUDED.claimed_at,
    expires_at = EXCLUDED.expires_at,
    settled_at = NULL,
    shown_at = NULL,
    held = NULL;
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

CREATE FUNCTION vacancy.numa_free(cells jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(jsonb_agg(jsonb_build_object('id', (cell.value -> 'id'::text), 'cpus', COALESCE(jsonb_array_length((cell.value -> 'free_cpus'::text)), 0), 'pages', (SELECT COALESCE(jsonb_object_agg((size.value ->> 'size_kb'::text), (size.value -> 'free'::text)), '{}'::jsonb) AS "coalesce" FROM jsonb_array_elements((cell.value -> 'pages'::text)) size(value)))), '[]'::jsonb) AS "coalesce" FROM jsonb_array_elements(numa_free.cells) cell(value));

CREATE FUNCTION vacancy.parse_pci(document jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    AS $_$
DECLARE
  demand jsonb;
  pool jsonb;
  demands jsonb := '[]';
BEGIN
  IF jsonb_typeof(document) <> 'array' THEN
    RAISE EXCEPTION 'pci must be a list of demands' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF jsonb_array_length(document) > 8 THEN
    RAISE EXCEPTION 'pci must be 8 demands at most' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR demand IN SELECT * FROM jsonb_array_elements(document) LOOP
    IF jsonb_typeof(demand) <> 'object' THEN
      RAISE EXCEPTION 'a pci demand must be an object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    demand := '{"count": 1, "same_cell": false, "tags": {}}' || demand;
    pool := demand - 'count' - 'same_cell';
    IF pool - ARRAY['vendor_id', 'product_id', 'tags', 'numa_node'] <> '{}'
      OR jsonb_typeof(pool->'tags') <> 'object'
      OR jsonb_typeof(demand->'same_cell') <> 'boolean'
      OR jsonb_typeof(coalesce(pool->'numa_node', '0')) <> 'number'
      OR NOT vacancy.are_amounts(jsonb_build_object('count', demand->'count'), 1)
      OR NOT coalesce(pool->>'vendor_id', pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT coalesce(pool->>'product_id', '0000') ~ '^[0-9a-fA-F]{4}$'
      OR NOT (pool ? 'vendor_id' OR pool ? 'product_id' OR pool->'tags' <> '{}') THEN
      RAISE EXCEPTION 'a pci demand has vendor_id and product_id (four hex digits), tags, numa_node, same_cell and count; '
        'one of the first three at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pool->'tags' = '{}' THEN
      pool := pool - 'tags';
    END IF;
    pool := pool || jsonb_strip_nulls(jsonb_build_object(
      'vendor_id', lower(pool->>'vendor_id'), 'product_id', lower(pool->>'product_id')
    ));
    demands := demands || jsonb_build_object(
      'pool', pool,
      'same_cell', demand->'same_cell',
      'count', demand->'count',
      'name', concat_ws(' ',
        format('pci %s:%s', coalesce(pool->>'vendor_id', '*'), coalesce(pool->>'product_id', '*')),
        (SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM jsonb_each_text(pool->'tags')),
        'node ' || (pool->>'numa_node')
      )
    );
  END LOOP;
  RETURN nullif(demands, '[]');
END
$_$;

CREATE FUNCTION vacancy.parse_request(document jsonb) RETURNS vacancy.request
    LANGUAGE plpgsql IMMUTABLE
    AS $$
DECLARE
  r vacancy.request := (0, 0, 0, false, '{}', '[]', '{}', '{}', NULL, '{}', '{}', NULL, NULL, NULL, NULL, NULL, 0,
    'spread', (1, 1, 1, 1, 0.1)::vacancy.weights, 24, NULL, '2 min', NULL, NULL, NULL, NULL, NULL);
  strangers jsonb := (document || coalesce(document->'weights', '{}')) - ARRAY[
    'vcpus', 'memory_mb', 'disk_gb', 'distinct_hosts', 'required', 'any_of', 'forbidden', 'aggregates', 'zone', 'include',
    'avoid', 'max_cpu_utilization', 'max_cpu_steal', 'max_cpu_pressure', 'max_memory_pressure', 'max_io_pressure',
    'min_memory_mb_available', 'strategy', 'weights', 'sample', 'max_age', 'claim_ttl', 'load', 'age',
    'resources', 'numa', 'pci', 'near'
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
  r.resources := nullif(r.resources, '{}');
  IF r.resources IS NOT NULL AND (r.resources ?| ARRAY['VCPU', 'MEMORY_MB', 'DISK_GB'] OR NOT vacancy.are_amounts(r.resources, 1)) THEN
    RAISE EXCEPTION 'resources must be whole amounts above 0 by class; VCPU, MEMORY_MB and DISK_GB are vcpus, memory_mb, disk_gb'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF r.numa IS NOT NULL THEN
    r.numa := CASE WHEN jsonb_typeof(r.numa) = 'object' THEN '{"cpus": 0, "pages": {}}' || r.numa END;
    IF (
      r.numa - ARRAY['cpus', 'pages'] = '{}'
      AND vacancy.are_amounts(r.numa - 'pages', 0)
      AND (r.numa->'pages' = '{}' OR vacancy.are_amounts(r.numa->'pages', 1))
    ) IS NOT TRUE THEN
      RAISE EXCEPTION 'numa has cpus and pages: whole amounts, of pages by size in KiB' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    r.numa := nullif(r.numa, '{"cpus": 0, "pages": {}}');
  END IF;
  IF r.pci IS NOT NULL THEN
    r.pci := vacancy.parse_pci(r.pci);
  END IF;
  RETURN r;
END
$$;

CREATE FUNCTION vacancy.pci_free(pools jsonb, taken jsonb) RETURNS TABLE(key text, pool jsonb, free bigint)
    LANGUAGE sql STABLE
    AS $$
WITH keyed AS (
  SELECT 'pci ' || (pool - 'free' - 'total')::text AS key, pool FROM jsonb_array_elements(pools) AS pool
)
SELECT
  k.key,
  k.pool,
  (k.pool->>'free')::bigint - coalesce((taken->>k.key)::bigint, 0) - coalesce((
    SELECT sum(lost.value::bigint) FROM jsonb_each_text(taken) AS lost
    WHERE lost.key LIKE 'pci %'
      AND NOT EXISTS (SELECT FROM keyed WHERE keyed.key = lost.key)
      AND k.pool @> (substr(lost.key, 5)::jsonb - 'numa_node' - 'tags')
  ), 0)::bigint
FROM keyed AS k
$$;

CREATE FUNCTION vacancy.pci_kinds(pools jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT COALESCE(jsonb_agg(DISTINCT ((pool.value - 'free'::text) - 'total'::text)), '[]'::jsonb) AS "coalesce" FROM jsonb_array_elements(pci_kinds.pools) pool(value));

CREATE FUNCTION vacancy.place_pci(pci jsonb, same_cell integer, keys text[], pools jsonb[], free bigint[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE
    AS $$
DECLARE
  demands integer := jsonb_array_length(pci);
  fits boolean[] := '{}';  -- of demand d and pool p at (d - 1) * cardinality(pools) + p
  pools_for integer[] := array_fill(0, ARRAY[demands]);
  demands_for integer[] := array_fill(0, ARRAY[cardinality(pools)]);
  demand jsonb;
  fit boolean;
  want bigint;
  take bigint;
  held jsonb := '{}';
BEGIN
  FOR d IN 1..demands LOOP
    demand := pci->(d - 1);
    FOR p IN 1..cardinality(pools) LOOP
      fit := free[p] > 0 AND pools[p] @> (demand->'pool')
        AND (NOT (demand->'same_cell')::boolean OR coalesce((pools[p]->>'numa_node')::integer = same_cell, false));
      fits := fits || fit;
      IF fit THEN
        pools_for[d] := pools_for[d] + 1;
        demands_for[p] := demands_for[p] + 1;
      END IF;
    END LOOP;
  END LOOP;
  FOR few_pools IN 0..cardinality(pools) LOOP
    FOR d IN 1..demands LOOP
      CONTINUE WHEN pools_for[d] <> few_pools;
      want := (pci->(d - 1)->>'count')::bigint;
      FOR few_demands IN 1..demands LOOP
        FOR p IN 1..cardinality(pools) LOOP
          CONTINUE WHEN demands_for[p] <> few_demands OR NOT fits[(d - 1) * cardinality(pools) + p];
          take := least(want, free[p]);
          CONTINUE WHEN take <= 0;
          want := want - take;
          free[p] := free[p] - take;
          held := held || jsonb_build_object(keys[p], coalesce((held->>keys[p])::bigint, 0) + take);
        END LOOP;
      END LOOP;
      IF want > 0 THEN
        RETURN NULL;
      END IF;
    END LOOP;
  END LOOP;
  RETURN held;
END
$$;

CREATE FUNCTION vacancy.random_hosts(hosts integer) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION vacancy.record_drift(OUT begun bigint, OUT ended bigint) RETURNS record
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
WITH present AS MATERIALIZED (
  SELECT host_id, kind, observed_at FROM vacancy.drifting
), gone AS (
  DELETE FROM vacancy.drift AS d
  WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.host_id = d.host_id AND p.kind = d.kind)
    AND NOT EXISTS (
      SELECT FROM vacancy.host AS h
      WHERE h.host_id = d.host_id AND statement_timestamp() - h.observed_at > vacancy.max_age()
    )
  RETURNING 1
), come AS (
  INSERT INTO vacancy.drift (host_id, kind, since) SELECT host_id, kind, observed_at FROM present
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*) FROM come), (SELECT count(*) FROM gone)
$$;

CREATE FUNCTION vacancy.release(consumers uuid[]) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
  PERFORM vacancy.lock_consumers(consumers);
  PERFORM vacancy.leave_behind(consumers);
  RETURN QUERY
    WITH gone AS (DELETE FROM vacancy.claim AS c WHERE c.consumer = ANY (consumers) RETURNING c.consumer, c.expires_at)
    SELECT gone.consumer FROM gone WHERE gone.expires_at > statement_timestamp();
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

CREATE FUNCTION vacancy.resource_classes(inventories jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT jsonb_object_keys(inventories) AS jsonb_object_keys ORDER BY (jsonb_object_keys(inventories)));

CREATE FUNCTION vacancy.retire_host() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  LOCK TABLE vacancy.host IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM vacancy.host WHERE host_id = NEW.host_id;
  RETURN NULL;
END
$$;

CREATE FUNCTION vacancy.room(r vacancy.request) RETURNS TABLE(host_id text, ruled_out_by text[], score double precision, age interval, vcpus_free bigint, memory_mb_free bigint, disk_gb_free bigint, memory_mb_available bigint, disk_gb_available bigint, cpu_utilization double precision, cpu_steal double precision, cpu_pressure double precision, memory_pressure double precision, io_pressure double precision)
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION vacancy.settle_claims() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  shown uuid[] := NEW.recent_consumers;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    shown := shown || OLD.recent_consumers;
  END IF;
  UPDATE vacancy.claim
  SET settled_at = clock_timestamp(), shown_at = CASE WHEN held IS NOT NULL THEN NEW.observed_at END
  WHERE consumer = ANY (ARRAY(
    SELECT consumer FROM vacancy.claim
    WHERE consumer = ANY (shown)
      AND host_id = NEW.host_id
      AND settled_at IS NULL
      AND expires_at > statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ));
  RETURN NULL;
END
$$;

CREATE FUNCTION vacancy.sweep_claims() RETURNS void
    LANGUAGE sql
    AS $$
  DELETE FROM vacancy.claim WHERE consumer = ANY (ARRAY(
    SELECT c.consumer FROM vacancy.claim AS c
    WHERE c.expires_at <= statement_timestamp()
      AND (c.shown_at IS NULL OR NOT EXISTS (
        SELECT FROM vacancy.host_inventory AS i WHERE i.host_id = c.host_id AND i.observed_at <= c.shown_at
      ))
    ORDER BY c.expires_at LIMIT 64 FOR UPDATE OF c SKIP LOCKED
  ))
$$;

CREATE FUNCTION vacancy.take_request(document jsonb) RETURNS vacancy.request
    LANGUAGE plpgsql
    AS $$
DECLARE
  r vacancy.request := vacancy.parse_request(document);
  setting text;
BEGIN
  IF r.max_age IS NOT NULL THEN
    setting := set_config('vacancy.max_age', r.max_age::text, true);
  END IF;
  IF r.near IS NOT NULL THEN
    SELECT i.aggregates INTO r.near_aggregates
    FROM vacancy.host_inventory AS i
    WHERE i.shares AND NOT i.retired AND r.near IN (i.name, i.host_id)
    ORDER BY i.observed_at DESC LIMIT 1;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'near: no such storage pool: %', r.near USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  RETURN r;
END
$$;

CREATE FUNCTION vacancy.taken(on_host text) RETURNS jsonb
    LANGUAGE sql STABLE
    AS $$
SELECT jsonb_object_agg(held.key, held.amount)
FROM (
  SELECT part.key, sum(part.value::bigint)::bigint AS amount
  FROM vacancy.claim AS c
  LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
  CROSS JOIN LATERAL jsonb_each_text(c.held) AS part
  WHERE c.host_id = on_host
    AND c.held IS NOT NULL
    AND CASE WHEN c.settled_at IS NULL THEN c.expires_at > statement_timestamp() ELSE i.observed_at <= c.shown_at END
  GROUP BY part.key
) AS held
$$;

CREATE FUNCTION vacancy.why(request jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(host_id text, host_name text, ruled_out_by text[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
DECLARE
  r vacancy.request := vacancy.take_request(request);
BEGIN
  IF vacancy.is_complex(r) THEN
    RETURN QUERY
      SELECT j.host_id, j.name, j.ruled_out_by || c.missing
      FROM vacancy.judged(r) AS j CROSS JOIN LATERAL vacancy.complex_judged(j.host_id, r.resources, r.numa, r.pci) AS c;
  ELSE
    RETURN QUERY SELECT j.host_id, j.name, j.ruled_out_by FROM vacancy.judged(r) AS j;
  END IF;
END
$$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE vacancy.claim (
    claimed_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone,
    vcpus integer NOT NULL,
    memory_mb integer NOT NULL,
    disk_gb integer NOT NULL,
    consumer uuid NOT NULL,
    host_id text NOT NULL,
    held jsonb,
    shown_at timestamp with time zone,
    CONSTRAINT claim_disk_gb_check CHECK ((disk_gb >= 0)),
    CONSTRAINT claim_memory_mb_check CHECK ((memory_mb >= 0)),
    CONSTRAINT claim_vcpus_check CHECK ((vcpus >= 0))
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.5', autovacuum_vacuum_cost_delay='0', vacuum_truncate=off);

COMMENT ON TABLE vacancy.claim IS 'What schedulers picked and hosts do not show yet. Written by claim() and release() alone.';

COMMENT ON COLUMN vacancy.claim.expires_at IS 'From then on it no longer counts, whatever has become of it.';

COMMENT ON COLUMN vacancy.claim.settled_at IS 'When the host''s row listed the consumer; from then on the row''s own figures hold it.';

COMMENT ON COLUMN vacancy.claim.memory_mb IS 'MiB claimed.';

COMMENT ON COLUMN vacancy.claim.disk_gb IS 'GiB claimed.';

COMMENT ON COLUMN vacancy.claim.held IS 'How much of what on the host: "numa 0 cpus", "numa 0 pages 2048", "pci {…}" (a pool), "CUSTOM_…" (a class).';

COMMENT ON COLUMN vacancy.claim.shown_at IS 'observed_at of the host row that settled it, where it holds anything; the next inventory holds that.';

CREATE TABLE vacancy.drift (
    host_id text NOT NULL,
    kind text NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE vacancy.drift IS 'Since when hosts drift; written by record_drift() alone.';

COMMENT ON COLUMN vacancy.drift.since IS 'Append time of the row in which it was first seen: it is so since then, or for longer.';

CREATE TABLE vacancy.host (
    observed_at timestamp with time zone NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    samples bigint NOT NULL,
    vcpus_capacity bigint NOT NULL,
    vcpus_free bigint NOT NULL,
    vcpus_free_min bigint NOT NULL,
    memory_mb_capacity bigint NOT NULL,
    memory_mb_free bigint NOT NULL,
    memory_mb_free_min bigint NOT NULL,
    memory_mb_available bigint NOT NULL,
    disk_gb_capacity bigint NOT NULL,
    disk_gb_free bigint NOT NULL,
    disk_gb_free_min bigint NOT NULL,
    disk_gb_available bigint NOT NULL,
    cpu_utilization double precision,
    cpu_iowait double precision,
    cpu_steal double precision,
    disk_read_bytes_per_s double precision,
    disk_write_bytes_per_s double precision,
    net_rx_bytes_per_s double precision,
    net_tx_bytes_per_s double precision,
    cpu_pressure double precision,
    memory_pressure double precision,
    io_pressure double precision,
    instances integer NOT NULL,
    host_id text NOT NULL,
    recent_consumers uuid[] NOT NULL
)
WITH (fillfactor='48', autovacuum_vacuum_cost_delay='0', vacuum_truncate=off, autovacuum_analyze_scale_factor='100');

COMMENT ON TABLE vacancy.host IS 'One row a host: free, least free, rates. Written by the job alone.';

COMMENT ON COLUMN vacancy.host.observed_at IS 'Append time of the newest event in the row; never goes back.';

COMMENT ON COLUMN vacancy.host.window_start IS 'Start of the window that samples, *_free_min and the rates cover.';

COMMENT ON COLUMN vacancy.host.window_end IS 'End of that window.';

COMMENT ON COLUMN vacancy.host.samples IS 'Usage events in the window.';

COMMENT ON COLUMN vacancy.host.vcpus_capacity IS '(total - reserved) * allocation ratio; memory_mb (MiB) and disk_gb (GiB) alike.';

COMMENT ON COLUMN vacancy.host.vcpus_free IS 'Capacity less what instances hold, at observed_at; memory_mb and disk_gb alike.';

COMMENT ON COLUMN vacancy.host.vcpus_free_min IS 'Least free in the window; memory_mb and disk_gb alike.';

COMMENT ON COLUMN vacancy.host.memory_mb_available IS 'MiB that the kernel says can be had without swapping.';

COMMENT ON COLUMN vacancy.host.disk_gb_available IS 'GiB free on the file system that holds the instances'' disks.';

COMMENT ON COLUMN vacancy.host.cpu_utilization IS 'Fraction of all CPUs busy in the window, 0 to 1. Null: not known yet.';

COMMENT ON COLUMN vacancy.host.cpu_iowait IS 'Fraction of all CPUs idle for I/O, 0 to 1. Null: not known.';

COMMENT ON COLUMN vacancy.host.cpu_steal IS 'Fraction of all CPUs taken by the hypervisor below, 0 to 1. Null: not known.';

COMMENT ON COLUMN vacancy.host.cpu_pressure IS 'Fraction of time that some task waited for a CPU; memory and io alike. Null: not known.';

COMMENT ON COLUMN vacancy.host.instances IS 'Instances on the host at observed_at.';

COMMENT ON COLUMN vacancy.host.recent_consumers IS 'Instances that the host began to count in the last minutes.';

CREATE TABLE vacancy.host_inventory (
    observed_at timestamp with time zone NOT NULL,
    retired_at timestamp with time zone GENERATED ALWAYS AS (
CASE
    WHEN retired THEN observed_at
    ELSE NULL::timestamp with time zone
END) STORED,
    reporting_interval_ms bigint,
    retired boolean DEFAULT false NOT NULL,
    host_id text NOT NULL,
    boot_id text,
    name text,
    zone text,
    status text,
    status_reason text,
    agent_version text,
    inventories jsonb,
    traits text[],
    aggregates text[],
    numa_cells jsonb,
    pci_pools jsonb,
    sample_key double precision DEFAULT random() NOT NULL,
    vcpus_min_unit bigint GENERATED ALWAYS AS ((((inventories -> 'VCPU'::text) ->> 'min_unit'::text))::bigint) STORED,
    vcpus_max_unit bigint GENERATED ALWAYS AS ((((inventories -> 'VCPU'::text) ->> 'max_unit'::text))::bigint) STORED,
    vcpus_step_size bigint GENERATED ALWAYS AS ((((inventories -> 'VCPU'::text) ->> 'step_size'::text))::bigint) STORED,
    memory_mb_min_unit bigint GENERATED ALWAYS AS ((((inventories -> 'MEMORY_MB'::text) ->> 'min_unit'::text))::bigint) STORED,
    memory_mb_max_unit bigint GENERATED ALWAYS AS ((((inventories -> 'MEMORY_MB'::text) ->> 'max_unit'::text))::bigint) STORED,
    memory_mb_step_size bigint GENERATED ALWAYS AS ((((inventories -> 'MEMORY_MB'::text) ->> 'step_size'::text))::bigint) STORED,
    disk_gb_min_unit bigint GENERATED ALWAYS AS ((((inventories -> 'DISK_GB'::text) ->> 'min_unit'::text))::bigint) STORED,
    disk_gb_max_unit bigint GENERATED ALWAYS AS ((((inventories -> 'DISK_GB'::text) ->> 'max_unit'::text))::bigint) STORED,
    disk_gb_step_size bigint GENERATED ALWAYS AS ((((inventories -> 'DISK_GB'::text) ->> 'step_size'::text))::bigint) STORED,
    allocated jsonb,
    resource_classes text[] GENERATED ALWAYS AS (vacancy.resource_classes(inventories)) STORED,
    pci_kinds jsonb GENERATED ALWAYS AS (vacancy.pci_kinds(pci_pools)) STORED,
    numa_free jsonb GENERATED ALWAYS AS (vacancy.numa_free(numa_cells)) STORED,
    source text DEFAULT 'unknown'::text,
    shares boolean GENERATED ALWAYS AS (COALESCE(('MISC_SHARES_VIA_AGGREGATE'::text = ANY (traits)), false)) STORED NOT NULL,
    CONSTRAINT host_inventory_status_check CHECK ((status = ANY (ARRAY['ENABLED'::text, 'DISABLED'::text]))),
    CONSTRAINT present_unless_retired CHECK ((retired OR ((name IS NOT NULL) AND (status IS NOT NULL))))
)
WITH (fillfactor='70');

COMMENT ON TABLE vacancy.host_inventory IS 'One row a host: what it is. Written by the job alone.';

COMMENT ON COLUMN vacancy.host_inventory.observed_at IS 'Append time of the newest inventory event; never goes back.';

COMMENT ON COLUMN vacancy.host_inventory.reporting_interval_ms IS 'ms between two usage events, as the agent is configured.';

COMMENT ON COLUMN vacancy.host_inventory.retired IS 'True: a tombstone. It keeps late usage out and goes after 7 days.';

COMMENT ON COLUMN vacancy.host_inventory.status_reason IS 'Why the host is disabled, in the operator''s words.';

COMMENT ON COLUMN vacancy.host_inventory.inventories IS 'By resource class: total, reserved, min_unit, max_unit, step_size, allocation_ratio.';

COMMENT ON COLUMN vacancy.host_inventory.sample_key IS 'Place in a random order, 0 to 1; fixed when the row is made.';

COMMENT ON COLUMN vacancy.host_inventory.allocated IS 'By resource class: what instances hold. Null: the host does not say.';

COMMENT ON COLUMN vacancy.host_inventory.resource_classes IS 'The keys of inventories.';

COMMENT ON COLUMN vacancy.host_inventory.pci_kinds IS 'pci_pools without total and free, for the index: pci_kinds @> ''[{"vendor_id": "10de"}]''.';

COMMENT ON COLUMN vacancy.host_inventory.numa_free IS 'By cell: how many CPUs are free, and huge pages by size in KiB.';

COMMENT ON COLUMN vacancy.host_inventory.source IS 'host, libvirt, cinder, notifications, ceilometer, simulator or what a collector of one''s own calls itself; unknown: its agent is too old to say.';

COMMENT ON COLUMN vacancy.host_inventory.shares IS 'No host but a pool of storage, shared by the hosts of its aggregates.';

CREATE VIEW vacancy.drifting AS
 SELECT i.host_id,
    i.name,
    i.source,
    h.observed_at,
    d.kind,
    d.promised,
    d.measured
   FROM (((vacancy.host_inventory i
     JOIN vacancy.host h ON ((h.host_id = i.host_id)))
     CROSS JOIN LATERAL ( SELECT (h.vcpus_capacity - h.vcpus_free) AS vcpus_allocated,
            (h.memory_mb_capacity - h.memory_mb_free) AS memory_mb_allocated,
            (floor(((h.memory_mb_free)::double precision / ratio.ratio)))::bigint AS memory_mb_promised,
            (((h.memory_mb_capacity)::double precision / ratio.ratio) * COALESCE((NULLIF(current_setting('vacancy.drift_tolerance'::text, true), ''::text))::double precision, (0.1)::double precision)) AS memory_mb_tolerance
           FROM ( SELECT COALESCE((((i.inventories -> 'MEMORY_MB'::text) ->> 'allocation_ratio'::text))::double precision, (1)::double precision) AS ratio) ratio) f)
     CROSS JOIN LATERAL ( VALUES ('allocations_without_instances'::text,f.vcpus_allocated,(h.instances)::bigint,((h.instances = 0) AND ((f.vcpus_allocated > 0) OR (f.memory_mb_allocated > 0)))), ('instances_without_allocations'::text,f.vcpus_allocated,(h.instances)::bigint,((h.instances > 0) AND (f.vcpus_allocated <= 0) AND (f.memory_mb_allocated <= 0))), ('memory_missing'::text,f.memory_mb_promised,h.memory_mb_available,(((f.memory_mb_promised - h.memory_mb_available))::double precision > f.memory_mb_tolerance))) d(kind, promised, measured, drifts))
  WHERE ((NOT i.retired) AND (NOT i.shares) AND d.drifts AND ((statement_timestamp() - h.observed_at) <= ( SELECT vacancy.max_age() AS max_age)));

CREATE VIEW vacancy.host_free AS
 SELECT h.host_id,
    (statement_timestamp() - h.observed_at) AS age,
    h.observed_at,
    h.window_start,
    h.window_end,
    h.samples,
    h.vcpus_capacity,
    (h.vcpus_free - claimed.vcpus) AS vcpus_free,
    LEAST(h.vcpus_free_min, (h.vcpus_free - claimed.vcpus)) AS vcpus_free_min,
    h.memory_mb_capacity,
    (h.memory_mb_free - claimed.memory_mb) AS memory_mb_free,
    LEAST(h.memory_mb_free_min, (h.memory_mb_free - claimed.memory_mb)) AS memory_mb_free_min,
    (h.memory_mb_available - claimed.memory_mb) AS memory_mb_available,
    h.disk_gb_capacity,
    (h.disk_gb_free - claimed.disk_gb) AS disk_gb_free,
    LEAST(h.disk_gb_free_min, (h.disk_gb_free - claimed.disk_gb)) AS disk_gb_free_min,
    (h.disk_gb_available - claimed.disk_gb) AS disk_gb_available,
    h.cpu_utilization,
    h.cpu_iowait,
    h.cpu_steal,
    h.disk_read_bytes_per_s,
    h.disk_write_bytes_per_s,
    h.net_rx_bytes_per_s,
    h.net_tx_bytes_per_s,
    h.cpu_pressure,
    h.memory_pressure,
    h.io_pressure,
    h.instances,
    h.recent_consumers,
    claimed.claims,
    claimed.vcpus AS vcpus_claimed,
    claimed.memory_mb AS memory_mb_claimed,
    claimed.disk_gb AS disk_gb_claimed
   FROM (vacancy.host h
     CROSS JOIN LATERAL ( SELECT count(*) AS claims,
            COALESCE(sum(c.vcpus), (0)::bigint) AS vcpus,
            COALESCE(sum(c.memory_mb), (0)::bigint) AS memory_mb,
            COALESCE(sum(c.disk_gb), (0)::bigint) AS disk_gb
           FROM vacancy.claim c
          WHERE ((c.host_id = h.host_id) AND (c.settled_at IS NULL) AND ((c.expires_at > statement_timestamp()) IS TRUE) AND (NOT (c.consumer = ANY (h.recent_consumers))))) claimed);

CREATE VIEW vacancy.schedulable_host AS
 SELECT i.host_id,
    i.name,
    i.zone,
    i.status,
        CASE
            WHEN ((i.status = 'DISABLED'::text) AND (NOT i.shares)) THEN concat_ws(': '::text, 'disabled', NULLIF(i.status_reason, ''::text))
            WHEN (f.host_id IS NULL) THEN 'no usage yet'::text
            WHEN (f.age > ( SELECT vacancy.max_age() AS max_age)) THEN 'stale'::text
            WHEN i.shares THEN COALESCE(NULLIF(i.status_reason, ''::text), 'pool'::text)
            ELSE NULL::text
        END AS reason,
    f.age,
    f.observed_at,
    f.window_start,
    f.window_end,
    f.samples,
    f.vcpus_capacity,
    f.vcpus_free,
    f.vcpus_free_min,
    f.memory_mb_capacity,
    f.memory_mb_free,
    f.memory_mb_free_min,
    f.memory_mb_available,
    f.disk_gb_capacity,
    f.disk_gb_free,
    f.disk_gb_free_min,
    f.disk_gb_available,
    f.cpu_utilization,
    f.cpu_iowait,
    f.cpu_steal,
    f.disk_read_bytes_per_s,
    f.disk_write_bytes_per_s,
    f.net_rx_bytes_per_s,
    f.net_tx_bytes_per_s,
    f.cpu_pressure,
    f.memory_pressure,
    f.io_pressure,
    f.instances,
    f.recent_consumers,
    i.boot_id,
    i.inventories,
    i.traits,
    i.aggregates,
    i.numa_cells,
    i.pci_pools,
    i.reporting_interval_ms,
    i.agent_version,
    i.observed_at AS inventory_observed_at,
    COALESCE(f.claims, (0)::bigint) AS claims,
    f.vcpus_claimed,
    f.memory_mb_claimed,
    f.disk_gb_claimed,
    COALESCE(i.source, 'unknown'::text) AS source,
    i.shares
   FROM (vacancy.host_inventory i
     LEFT JOIN vacancy.host_free f ON ((f.host_id = i.host_id)))
  WHERE (NOT i.retired);

COMMENT ON VIEW vacancy.schedulable_host IS 'Hosts that are not retired, less the claims in flight; reason is null where one may be picked.';

COMMENT ON COLUMN vacancy.schedulable_host.reason IS 'The first that applies: disabled, no usage yet, stale. Null: schedulable.';

COMMENT ON COLUMN vacancy.schedulable_host.age IS 'Since observed_at, by this server''s clock. Null: no usage yet.';

COMMENT ON COLUMN vacancy.schedulable_host.vcpus_free IS 'Capacity less what instances hold and claims in flight; memory_mb and disk_gb alike.';

COMMENT ON COLUMN vacancy.schedulable_host.memory_mb_available IS 'MiB that the kernel says can be had, less claims in flight.';

COMMENT ON COLUMN vacancy.schedulable_host.disk_gb_available IS 'GiB free on the instances'' file system, less claims in flight.';

COMMENT ON COLUMN vacancy.schedulable_host.claims IS 'Claims in flight on the host.';

COMMENT ON COLUMN vacancy.schedulable_host.shares IS 'A pool of storage, which is never picked.';

CREATE VIEW vacancy.freshness AS
 SELECT count(*) AS hosts,
    count(*) FILTER (WHERE (reason IS NULL)) AS hosts_schedulable,
    count(*) FILTER (WHERE (status = 'DISABLED'::text)) AS hosts_disabled,
    count(*) FILTER (WHERE (reason = 'no usage yet'::text)) AS hosts_silent,
    count(*) FILTER (WHERE (reason = 'stale'::text)) AS hosts_stale,
    ( SELECT count(*) AS count
           FROM vacancy.host h
          WHERE (NOT (EXISTS ( SELECT
                   FROM vacancy.host_inventory i
                  WHERE (i.host_id = h.host_id))))) AS hosts_without_inventory,
    (EXTRACT(epoch FROM min(age) FILTER (WHERE (status = 'ENABLED'::text))))::double precision AS age_min_seconds,
    (EXTRACT(epoch FROM percentile_disc((0.5)::double precision) WITHIN GROUP (ORDER BY age) FILTER (WHERE (status = 'ENABLED'::text))))::double precision AS age_p50_seconds,
    (EXTRACT(epoch FROM percentile_disc((0.99)::double precision) WITHIN GROUP (ORDER BY age) FILTER (WHERE (status = 'ENABLED'::text))))::double precision AS age_p99_seconds,
    (EXTRACT(epoch FROM max(age) FILTER (WHERE (status = 'ENABLED'::text))))::double precision AS age_max_seconds,
    (COALESCE(sum(claims), (0)::numeric))::bigint AS claims_in_flight
   FROM vacancy.schedulable_host s
  WHERE (NOT shares);

COMMENT ON VIEW vacancy.freshness IS 'One row: how old the table is, how many hosts may be picked and why others may not.';

COMMENT ON COLUMN vacancy.freshness.hosts IS 'Hosts that sent inventory and are not retired.';

COMMENT ON COLUMN vacancy.freshness.hosts_silent IS 'Enabled hosts that sent inventory but never usage.';

COMMENT ON COLUMN vacancy.freshness.hosts_stale IS 'Enabled hosts whose newest usage is older than vacancy.max_age().';

COMMENT ON COLUMN vacancy.freshness.hosts_without_inventory IS 'Hosts that sent usage but no inventory: no scheduler sees them.';

COMMENT ON COLUMN vacancy.freshness.age_p99_seconds IS '99 % of enabled hosts are at most this old; p50 alike. Null: none has reported.';

COMMENT ON COLUMN vacancy.freshness.claims_in_flight IS 'Claims that count against a host now.';

CREATE VIEW vacancy.host_drift AS
 SELECT n.host_id,
    n.name,
    n.source,
    n.kind,
    n.promised,
    n.measured,
    r.since,
    (statement_timestamp() - r.since) AS lasted
   FROM (vacancy.drifting n
     LEFT JOIN vacancy.drift r ON (((r.host_id = n.host_id) AND (r.kind = n.kind))));

COMMENT ON VIEW vacancy.host_drift IS 'Hosts whose promises and measurements do not go together, and for how long.';

COMMENT ON COLUMN vacancy.host_drift.kind IS 'allocations_without_instances, instances_without_allocations or memory_missing.';

COMMENT ON COLUMN vacancy.host_drift.promised IS 'VCPUs that it holds for instances; of memory_missing: MiB that it may still promise.';

COMMENT ON COLUMN vacancy.host_drift.measured IS 'Instances that it counts; of memory_missing: MiB that the kernel says can be had.';

COMMENT ON COLUMN vacancy.host_drift.lasted IS 'At least so long. Null: record_drift() has not seen it.';

CREATE VIEW vacancy.numa_cell AS
 SELECT i.host_id,
    i.name AS host_name,
    c.id,
    c.cpus AS cpus_free,
    c.pages AS pages_free
   FROM ((vacancy.host_inventory i
     CROSS JOIN LATERAL vacancy.taken(i.host_id) taken(taken))
     CROSS JOIN LATERAL vacancy.cells_free(i.numa_free, taken.taken) c(id, cpus, pages))
  WHERE (NOT i.retired);

COMMENT ON VIEW vacancy.numa_cell IS 'NUMA cells by host, less the claims.';

COMMENT ON COLUMN vacancy.numa_cell.pages_free IS 'Huge pages by their size in KiB.';

CREATE VIEW vacancy.pci_pool AS
 SELECT i.host_id,
    i.name AS host_name,
    (p.pool ->> 'vendor_id'::text) AS vendor_id,
    (p.pool ->> 'product_id'::text) AS product_id,
    ((p.pool ->> 'numa_node'::text))::integer AS numa_node,
    (p.pool -> 'tags'::text) AS tags,
    ((p.pool ->> 'total'::text))::bigint AS total,
    p.free,
    (((p.pool ->> 'free'::text))::bigint - p.free) AS claimed
   FROM ((vacancy.host_inventory i
     CROSS JOIN LATERAL vacancy.taken(i.host_id) taken(taken))
     CROSS JOIN LATERAL vacancy.pci_free(i.pci_pools, taken.taken) p(key, pool, free))
  WHERE (NOT i.retired);

COMMENT ON VIEW vacancy.pci_pool IS 'PCI devices by host and pool, less the claims.';

COMMENT ON COLUMN vacancy.pci_pool.claimed IS 'Devices that claims take and the inventory does not show yet.';

CREATE VIEW vacancy.resource_class AS
 SELECT i.host_id,
    i.name AS host_name,
    class.key AS resource_class,
    ((class.value ->> 'total'::text))::bigint AS total,
    vacancy.class_free(class.key, class.value, i.allocated, taken.taken) AS free
   FROM ((vacancy.host_inventory i
     CROSS JOIN LATERAL vacancy.taken(i.host_id) taken(taken))
     CROSS JOIN LATERAL jsonb_each(i.inventories) class(key, value))
  WHERE ((NOT i.retired) AND (class.key <> ALL (ARRAY['VCPU'::text, 'MEMORY_MB'::text, 'DISK_GB'::text])));

COMMENT ON VIEW vacancy.resource_class IS 'Resource classes beyond VCPU, MEMORY_MB and DISK_GB by host, less the claims.';

COMMENT ON COLUMN vacancy.resource_class.free IS 'Null: the host does not say what its instances hold of it.';

CREATE TABLE vacancy.schema_migration (
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE VIEW vacancy.source AS
 SELECT source,
    count(*) AS hosts,
    count(*) FILTER (WHERE expected) AS hosts_expected,
    count(*) FILTER (WHERE (expected AND ((age > max_age) OR (age IS NULL)))) AS hosts_silent,
    (EXTRACT(epoch FROM min(age)))::double precision AS age_min_seconds,
    (EXTRACT(epoch FROM max(age) FILTER (WHERE expected)))::double precision AS age_max_seconds
   FROM ( SELECT COALESCE(i.source, 'unknown'::text) AS source,
            ((i.status = 'ENABLED'::text) OR ('MISC_SHARES_VIA_AGGREGATE'::text = ANY (i.traits))) AS expected,
            (statement_timestamp() - h.observed_at) AS age,
            ( SELECT vacancy.max_age() AS max_age) AS max_age
           FROM (vacancy.host_inventory i
             LEFT JOIN vacancy.host h ON ((h.host_id = i.host_id)))
          WHERE (NOT i.retired)) s
  GROUP BY source;

COMMENT ON VIEW vacancy.source IS 'One row a source: how many hosts it speaks for, and how long ago they were heard.';

COMMENT ON COLUMN vacancy.source.hosts_expected IS 'Those that should report: enabled, or storage pools.';

COMMENT ON COLUMN vacancy.source.hosts_silent IS 'Of the expected: older than vacancy.max_age(), or without usage.';

COMMENT ON COLUMN vacancy.source.age_min_seconds IS 'Age of the newest row of any of its hosts. Null: none has reported.';

-- Data for Name: claim; Type: TABLE DATA; Schema: vacancy; Owner: -

INSERT INTO vacancy.claim VALUES
	('2026-11-28 08:52:29.150408+00', '2126-11-28 08:52:29.150408+00', NULL, 2, 1024, 0, '00000000-0000-4000-8000-000000000001', 'host-1', NULL, NULL),
	('2026-11-28 08:52:29.152253+00', '2126-11-28 08:52:29.152253+00', NULL, 2, 1024, 0, '00000000-0000-4000-8000-000000000002', 'host-1', NULL, NULL),
	('2026-11-28 08:52:29.325771+00', '2126-11-28 08:52:29.325771+00', NULL, 2, 0, 0, '00000000-0000-4000-8000-000000000003', 'host-4', '{"CUSTOM_FPGA": 2, "numa 0 cpus": 2, "numa 0 pages 2048": 16, "pci {\"tags\": {\"rack\": \"7\"}, \"numa_node\": 0, \"vendor_id\": \"10de\", \"product_id\": \"20b5\"}": 2}', NULL),
	('2026-11-28 08:52:29.354462+00', '2126-11-28 08:52:29.354462+00', '2026-11-28 08:52:29.355366+00', 1, 0, 0, '00000000-0000-4000-8000-000000000004', 'host-8', '{"pci {\"tags\": {}, \"numa_node\": null, \"vendor_id\": \"8086\", \"product_id\": \"1572\"}": 1}', '2026-11-28 08:52:29.998304+00'),
	('2026-11-28 08:52:29.355696+00', '2126-11-28 08:52:29.355696+00', NULL, 3, 2048, 20, '00000000-0000-4000-8000-000000000005', 'host-1', NULL, NULL),
	('2026-11-28 08:52:29.357405+00', '2026-11-28 08:52:29.357406+00', NULL, 3, 2048, 20, '00000000-0000-4000-8000-000000000006', 'host-2', NULL, NULL);

-- Data for Name: drift; Type: TABLE DATA; Schema: vacancy; Owner: -

INSERT INTO vacancy.drift VALUES
	('host-4', 'allocations_without_instances', '2026-11-28 08:52:29.002304+00'),
	('host-12', 'allocations_without_instances', '2026-11-28 08:52:28.994304+00'),
	('host-8', 'allocations_without_instances', '2026-11-28 08:52:29.998304+00'),
	('host-16', 'allocations_without_instances', '2026-11-28 08:52:28.990304+00'),
	('host-20', 'allocations_without_instances', '2026-11-28 08:52:28.986304+00');

-- Data for Name: host; Type: TABLE DATA; Schema: vacancy; Owner: -

INSERT INTO vacancy.host VALUES
	('2026-11-28 08:52:29.005304+00', '2026-11-28 08:51:29.005304+00', '2026-11-28 08:52:29.005304+00', 60, 256, 254, 200, 258048, 253952, 200000, 239000, 4000, 3000, 2900, 2800, 0.05, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.025, NULL, 0.25, 1, 'host-1', '{}'),
	('2026-11-28 08:52:29.004304+00', '2026-11-28 08:51:29.004304+00', '2026-11-28 08:52:29.004304+00', 60, 256, 252, 200, 258048, 249856, 200000, 238000, 4000, 3000, 2900, 2800, 0.1, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.05, NULL, 0.25, 2, 'host-2', '{}'),
	('2026-11-28 08:52:29.003304+00', '2026-11-28 08:51:29.003304+00', '2026-11-28 08:52:29.003304+00', 60, 256, 255, 200, 258048, 245760, 200000, 237000, 4000, 3000, 2900, 2800, 0.15, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.075, NULL, 0.25, 3, 'host-3', '{}'),
	('2026-11-28 08:52:29.002304+00', '2026-11-28 08:51:29.002304+00', '2026-11-28 08:52:29.002304+00', 60, 256, 253, 200, 258048, 241664, 200000, 236000, 4000, 3000, 2900, 2800, 0.2, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.1, NULL, 0.25, 0, 'host-4', '{}'),
	('2026-11-28 08:52:29.001304+00', '2026-11-28 08:51:29.001304+00', '2026-11-28 08:52:29.001304+00', 60, 256, 256, 200, 258048, 237568, 200000, 235000, 4000, 3000, 2900, 2800, 0.25, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.125, NULL, 0.25, 1, 'host-5', '{}'),
	('2026-11-28 08:52:29.000304+00', '2026-11-28 08:51:29.000304+00', '2026-11-28 08:52:29.000304+00', 60, 256, 254, 200, 258048, 233472, 200000, 234000, 4000, 3000, 2900, 2800, 0.3, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.15, NULL, 0.25, 2, 'host-6', '{}'),
	('2026-11-28 08:52:28.999304+00', '2026-11-28 08:51:28.999304+00', '2026-11-28 08:52:28.999304+00', 60, 256, 252, 200, 258048, 229376, 200000, 233000, 4000, 3000, 2900, 2800, 0.35, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.175, NULL, 0.25, 3, 'host-7', '{}'),
	('2026-11-28 08:52:28.997304+00', '2026-11-28 08:51:28.997304+00', '2026-11-28 08:52:28.997304+00', 60, 256, 253, 200, 258048, 221184, 200000, 231000, 4000, 3000, 2900, 2800, 0.45, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.225, NULL, 0.25, 1, 'host-9', '{}'),
	('2026-11-28 08:52:28.996304+00', '2026-11-28 08:51:28.996304+00', '2026-11-28 08:52:28.996304+00', 60, 256, 256, 200, 258048, 217088, 200000, 230000, 4000, 3000, 2900, 2800, 0.5, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.25, NULL, 0.25, 2, 'host-10', '{}'),
	('2026-11-28 08:52:28.995304+00', '2026-11-28 08:51:28.995304+00', '2026-11-28 08:52:28.995304+00', 60, 256, 254, 200, 258048, 212992, 200000, 229000, 4000, 3000, 2900, 2800, 0.55, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.275, NULL, 0.25, 3, 'host-11', '{}'),
	('2026-11-28 08:52:28.994304+00', '2026-11-28 08:51:28.994304+00', '2026-11-28 08:52:28.994304+00', 60, 256, 252, 200, 258048, 208896, 200000, 228000, 4000, 3000, 2900, 2800, 0.6, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.3, NULL, 0.25, 0, 'host-12', '{}'),
	('2026-11-28 08:52:28.993304+00', '2026-11-28 08:51:28.993304+00', '2026-11-28 08:52:28.993304+00', 60, 256, 255, 200, 258048, 204800, 200000, 227000, 4000, 3000, 2900, 2800, 0.65, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.325, NULL, 0.25, 1, 'host-13', '{}'),
	('2026-11-28 08:52:28.992304+00', '2026-11-28 08:51:28.992304+00', '2026-11-28 08:52:28.992304+00', 60, 256, 253, 200, 258048, 200704, 200000, 226000, 4000, 3000, 2900, 2800, 0.7, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.35, NULL, 0.25, 2, 'host-14', '{}'),
	('2026-11-28 08:52:28.991304+00', '2026-11-28 08:51:28.991304+00', '2026-11-28 08:52:28.991304+00', 60, 256, 256, 200, 258048, 196608, 200000, 225000, 4000, 3000, 2900, 2800, 0.75, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.375, NULL, 0.25, 3, 'host-15', '{}'),
	('2026-11-28 08:52:29.998304+00', '2026-11-28 08:51:28.998304+00', '2026-11-28 08:52:28.998304+00', 60, 256, 255, 200, 258048, 225280, 200000, 232000, 4000, 3000, 2900, 2800, 0.4, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.2, NULL, 0.25, 0, 'host-8', '{00000000-0000-4000-8000-000000000004}'),
	('2026-11-28 08:52:28.990304+00', '2026-11-28 08:51:28.990304+00', '2026-11-28 08:52:28.990304+00', 60, 256, 254, 200, 258048, 192512, 200000, 224000, 4000, 3000, 2900, 2800, 0.8, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.4, NULL, 0.25, 0, 'host-16', '{}'),
	('2026-11-28 08:52:28.989304+00', '2026-11-28 08:51:28.989304+00', '2026-11-28 08:52:28.989304+00', 60, 256, 252, 200, 258048, 188416, 200000, 223000, 4000, 3000, 2900, 2800, 0.85, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.425, NULL, 0.25, 1, 'host-17', '{}'),
	('2026-11-28 08:52:28.988304+00', '2026-11-28 08:51:28.988304+00', '2026-11-28 08:52:28.988304+00', 60, 256, 255, 200, 258048, 184320, 200000, 222000, 4000, 3000, 2900, 2800, 0.9, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.45, NULL, 0.25, 2, 'host-18', '{}'),
	('2026-11-28 08:52:28.987304+00', '2026-11-28 08:51:28.987304+00', '2026-11-28 08:52:28.987304+00', 60, 256, 253, 200, 258048, 180224, 200000, 221000, 4000, 3000, 2900, 2800, 0.95, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.475, NULL, 0.25, 3, 'host-19', '{}'),
	('2026-11-28 08:52:28.986304+00', '2026-11-28 08:51:28.986304+00', '2026-11-28 08:52:28.986304+00', 60, 256, 256, 200, 258048, 176128, 200000, 220000, 4000, 3000, 2900, 2800, 1, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.5, NULL, 0.25, 0, 'host-20', '{}'),
	('2026-11-28 08:52:29.006304+00', '2026-11-28 08:51:29.006304+00', '2026-11-28 08:52:29.006304+00', 60, 256, 256, 200, 258048, 237568, 200000, 235000, 4000, 3000, 2900, 2800, 0.25, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.125, NULL, 0.25, 1, 'pool-1', '{}'),
	('2026-11-28 08:52:29.006304+00', '2026-11-28 08:51:29.006304+00', '2026-11-28 08:52:29.006304+00', 60, 256, 254, 200, 258048, 233472, 200000, 234000, 4000, 3000, 2900, 2800, 0.3, 0.01, NULL, 1500000, 0, 1000000000, 999, 0.15, NULL, 0.25, 2, 'without-inventory', '{}');

-- Data for Name: host_inventory; Type: TABLE DATA; Schema: vacancy; Owner: -

INSERT INTO vacancy.host_inventory VALUES
	('2026-11-28 08:00:01+00', DEFAULT, 1000, false, 'host-1', 'boot-1', 'compute-1', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.9851677175347999, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:02+00', DEFAULT, 1000, false, 'host-2', 'boot-2', 'compute-2', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[]', '[]', 0.825301858027981, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:03+00', DEFAULT, 1000, false, 'host-3', 'boot-3', 'compute-3', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.12974610012450416, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:04+00', DEFAULT, 1000, false, 'host-4', 'boot-4', 'compute-4', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}, "CUSTOM_FPGA": {"total": 8, "max_unit": 8, "min_unit": 1, "reserved": 1, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[{"id": 0, "cpus": [0, 1, 2, 3], "pages": [{"free": 512, "total": 1024, "size_kb": 2048}], "free_cpus": [1, 2, 3]}, {"id": 1, "cpus": [4, 5, 6, 7], "pages": [{"free": 1024, "total": 1024, "size_kb": 2048}, {"free": 16, "total": 16, "size_kb": 1048576}], "free_cpus": [4, 5, 6, 7]}]', '[{"free": 4, "tags": {"rack": "7"}, "total": 4, "numa_node": 0, "vendor_id": "10de", "product_id": "20b5"}, {"free": 6, "tags": {}, "total": 8, "numa_node": null, "vendor_id": "8086", "product_id": "1572"}]', 0.16356291958601088, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:05+00', DEFAULT, 1000, false, 'host-5', 'boot-5', 'compute-5', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{f2c4a7ae-3f13-4a3e-8a2a-1f1df2a1f001}', '[]', '[]', 0.6476186144084, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:06+00', DEFAULT, 1000, false, 'host-6', 'boot-6', 'compute-6', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[]', '[]', 0.8822771983038762, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:07+00', DEFAULT, 1000, false, 'host-7', 'boot-7', 'compute-7', 'zone-1', 'DISABLED', 'its fan is "broken"', '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.1404566845227775, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:08+00', DEFAULT, 1000, false, 'host-8', 'boot-8', 'compute-8', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}, "CUSTOM_FPGA": {"total": 8, "max_unit": 8, "min_unit": 1, "reserved": 1, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[{"id": 0, "cpus": [0, 1, 2, 3], "pages": [{"free": 512, "total": 1024, "size_kb": 2048}], "free_cpus": [1, 2, 3]}, {"id": 1, "cpus": [4, 5, 6, 7], "pages": [{"free": 1024, "total": 1024, "size_kb": 2048}, {"free": 16, "total": 16, "size_kb": 1048576}], "free_cpus": [4, 5, 6, 7]}]', '[{"free": 4, "tags": {"rack": "7"}, "total": 4, "numa_node": 0, "vendor_id": "10de", "product_id": "20b5"}, {"free": 6, "tags": {}, "total": 8, "numa_node": null, "vendor_id": "8086", "product_id": "1572"}]', 0.15619865764623442, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:09+00', DEFAULT, 1000, false, 'host-9', 'boot-9', 'compute-9', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.5145227426983392, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:10+00', DEFAULT, 1000, false, 'host-10', 'boot-10', 'compute-10', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{f2c4a7ae-3f13-4a3e-8a2a-1f1df2a1f001}', '[]', '[]', 0.7712969548127826, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:11+00', DEFAULT, 1000, false, 'host-11', 'boot-11', 'compute-11', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.48403393317276766, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:12+00', DEFAULT, 1000, false, 'host-12', 'boot-12', 'compute-12', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}, "CUSTOM_FPGA": {"total": 8, "max_unit": 8, "min_unit": 1, "reserved": 1, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[{"id": 0, "cpus": [0, 1, 2, 3], "pages": [{"free": 512, "total": 1024, "size_kb": 2048}], "free_cpus": [1, 2, 3]}, {"id": 1, "cpus": [4, 5, 6, 7], "pages": [{"free": 1024, "total": 1024, "size_kb": 2048}, {"free": 16, "total": 16, "size_kb": 1048576}], "free_cpus": [4, 5, 6, 7]}]', '[{"free": 4, "tags": {"rack": "7"}, "total": 4, "numa_node": 0, "vendor_id": "10de", "product_id": "20b5"}, {"free": 6, "tags": {}, "total": 8, "numa_node": null, "vendor_id": "8086", "product_id": "1572"}]', 0.9709894670705799, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:13+00', DEFAULT, 1000, false, 'host-13', 'boot-13', 'compute-13', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.45481208559326447, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:14+00', DEFAULT, 1000, false, 'host-14', 'boot-14', 'compute-14', 'zone-2', 'DISABLED', 'its fan is "broken"', '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[]', '[]', 0.5385999182909114, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:15+00', DEFAULT, 1000, false, 'host-15', 'boot-15', 'compute-15', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{f2c4a7ae-3f13-4a3e-8a2a-1f1df2a1f001}', '[]', '[]', 0.7495564594841835, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:16+00', DEFAULT, 1000, false, 'host-16', 'boot-16', 'compute-16', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}, "CUSTOM_FPGA": {"total": 8, "max_unit": 8, "min_unit": 1, "reserved": 1, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[{"id": 0, "cpus": [0, 1, 2, 3], "pages": [{"free": 512, "total": 1024, "size_kb": 2048}], "free_cpus": [1, 2, 3]}, {"id": 1, "cpus": [4, 5, 6, 7], "pages": [{"free": 1024, "total": 1024, "size_kb": 2048}, {"free": 16, "total": 16, "size_kb": 1048576}], "free_cpus": [4, 5, 6, 7]}]', '[{"free": 4, "tags": {"rack": "7"}, "total": 4, "numa_node": 0, "vendor_id": "10de", "product_id": "20b5"}, {"free": 6, "tags": {}, "total": 8, "numa_node": null, "vendor_id": "8086", "product_id": "1572"}]', 0.4405985622389268, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:17+00', DEFAULT, 1000, false, 'host-17', 'boot-17', 'compute-17', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.7424392403425444, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:18+00', DEFAULT, 1000, false, 'host-18', 'boot-18', 'compute-18', 'zone-0', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{}', '[]', '[]', 0.5835833950950005, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:19+00', DEFAULT, 1000, false, 'host-19', 'boot-19', 'compute-19', 'zone-1', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}}', '{}', '{}', '[]', '[]', 0.9005839449158886, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'host', DEFAULT),
	('2026-11-28 08:00:20+00', DEFAULT, 1000, false, 'host-20', 'boot-20', 'compute-20', 'zone-2', 'ENABLED', NULL, '0.1.0', '{"VCPU": {"total": 64, "max_unit": 64, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 4.0}, "DISK_GB": {"total": 4000, "max_unit": 4000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.0}, "MEMORY_MB": {"total": 262144, "max_unit": 262144, "min_unit": 1, "reserved": 4096, "step_size": 1, "allocation_ratio": 1.0}, "CUSTOM_FPGA": {"total": 8, "max_unit": 8, "min_unit": 1, "reserved": 1, "step_size": 1, "allocation_ratio": 1.0}}', '{HW_CPU_X86_AVX2,CUSTOM_RACK_7}', '{f2c4a7ae-3f13-4a3e-8a2a-1f1df2a1f001}', '[{"id": 0, "cpus": [0, 1, 2, 3], "pages": [{"free": 512, "total": 1024, "size_kb": 2048}], "free_cpus": [1, 2, 3]}, {"id": 1, "cpus": [4, 5, 6, 7], "pages": [{"free": 1024, "total": 1024, "size_kb": 2048}, {"free": 16, "total": 16, "size_kb": 1048576}], "free_cpus": [4, 5, 6, 7]}]', '[{"free": 4, "tags": {"rack": "7"}, "total": 4, "numa_node": 0, "vendor_id": "10de", "product_id": "20b5"}, {"free": 6, "tags": {}, "total": 8, "numa_node": null, "vendor_id": "8086", "product_id": "1572"}]', 0.8545986941779253, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, '{"VCPU": 12, "CUSTOM_FPGA": 2}', DEFAULT, DEFAULT, DEFAULT, 'libvirt', DEFAULT),
	('2026-11-28 08:00:00+00', DEFAULT, NULL, false, 'pool-1', 'boot', 'ceph', NULL, 'DISABLED', 'storage pool', NULL, '{"DISK_GB": {"total": 1000000, "max_unit": 1000000, "min_unit": 1, "reserved": 0, "step_size": 1, "allocation_ratio": 1.5}}', '{MISC_SHARES_VIA_AGGREGATE}', '{f2c4a7ae-3f13-4a3e-8a2a-1f1df2a1f001}', '[]', '[]', 0.04538394427044845, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'cinder', DEFAULT),
	('2026-11-28 08:00:00+00', DEFAULT, NULL, false, 'silent', NULL, 'compute-silent', NULL, 'ENABLED', NULL, NULL, '{}', '{}', '{}', '[]', '[]', 0.36902888781015775, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT),
	('2026-11-28 08:52:29.006304+00', DEFAULT, NULL, true, 'retired', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0.24800417241983963, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, NULL, DEFAULT, DEFAULT, DEFAULT, 'unknown', DEFAULT);

-- Data for Name: schema_migration; Type: TABLE DATA; Schema: vacancy; Owner: -

INSERT INTO vacancy.schema_migration VALUES
	('0001_host', '6ccbafbcfdc54edd615bc848f7b2a958c6c324f0e6b64bdb8fdae5e232603d49', '2026-11-28 08:52:28.442946+00'),
	('0002_host_inventory', '4c643ffe3f33e05ca03b6e0ccc00eb192fb6d6d3ce500cd01c6b45cd2a6a3b99', '2026-11-28 08:52:28.471191+00'),
	('0003_never_back_in_time', '39dd42ce60d0eb46254b3487618f53662184f773456f249e2e8f5bdabe20d5e8', '2026-11-28 08:52:28.481688+00'),
	('0004_retirement', 'c4d300075370409bfb901c663855af2066ebf59439da4e2b6eb98de16f6a3fe1', '2026-11-28 08:52:28.53286+00'),
	('0005_schedulable_host', 'fb76009e689c2ecdf7617b7732d8f655c8590b7ed0a93ef9a416d3238e4c3f7f', '2026-11-28 08:52:28.538948+00'),
	('0006_roles', 'b991e62f41fdeda80a6021ce34b9487a42072adbdeea36fc680b3e7ecbad8c32', '2026-11-28 08:52:28.559205+00'),
	('0007_claim', 'bd0e6b2fd6ddcd4700eda11f07de5ee7feff5d8a79a1d270e8306a4a7e842936', '2026-11-28 08:52:28.575844+00'),
	('0008_claim_functions', 'd038bb8174bb13ab3fa95d1ddbf4f13abccf8042bb48a899bc9fe9b6e7467975', '2026-11-28 08:52:28.641239+00'),
	('0009_freshness', '04d1f87849953da9fee44e402771e7218b550ccb4d2e7fecb1e6f725f6caad61', '2026-11-28 08:52:28.66857+00'),
	('0010_ranking', '0cbc755df7b22536bd9a1aed7222d595bacf831ee17a5e823d1c5b2e037e2dfc', '2026-11-28 08:52:28.706011+00'),
	('0011_newest_by_the_sink', '95fe7fe57c62faf8b21ccfc72a8acdce8994feef13ab1dd1889c6e32a4097ae0', '2026-11-28 08:52:28.710876+00'),
	('0012_complex_resources', '42ac829eb63d0e4a21ddbdebb23894f723f289e7053ad92d67332f8d9247aa0a', '2026-11-28 08:52:28.7171+00'),
	('0013_source', 'b5b7f60bb5c9f501e6ce18380fd619e2b8b7c80f08947c73f566ce8c3fc81f5d', '2026-11-28 08:52:28.834461+00'),
	('0014_storage_and_drift', 'a7048d6e68a809a0928f898c40b77c83008a596715488cefd1253184195b5e44', '2026-11-28 08:52:28.850253+00');

ALTER TABLE ONLY vacancy.claim
    ADD CONSTRAINT claim_pkey PRIMARY KEY (consumer);

ALTER TABLE ONLY vacancy.drift
    ADD CONSTRAINT drift_pkey PRIMARY KEY (host_id, kind);

ALTER TABLE ONLY vacancy.host_inventory
    ADD CONSTRAINT host_inventory_pkey PRIMARY KEY (host_id);

ALTER TABLE ONLY vacancy.host
    ADD CONSTRAINT host_pkey PRIMARY KEY (host_id);

ALTER TABLE ONLY vacancy.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (name);

CREATE INDEX claim_expiry ON vacancy.claim USING btree (expires_at);

CREATE INDEX claim_held ON vacancy.claim USING btree (host_id) WHERE (held IS NOT NULL);

CREATE INDEX claim_in_flight ON vacancy.claim USING btree (host_id) WHERE (settled_at IS NULL);

CREATE INDEX host_inventory_aggregates ON vacancy.host_inventory USING gin (aggregates) WHERE (NOT retired);

CREATE INDEX host_inventory_offers ON vacancy.host_inventory USING gin (pci_kinds jsonb_path_ops, resource_classes) WHERE (NOT retired);

CREATE INDEX host_inventory_pools ON vacancy.host_inventory USING btree (name) WHERE (shares AND (NOT retired));

CREATE INDEX host_inventory_sample ON vacancy.host_inventory USING btree (sample_key) INCLUDE (host_id) WHERE ((NOT retired) AND (status = 'ENABLED'::text));

CREATE INDEX host_inventory_tombstones ON vacancy.host_inventory USING btree (retired_at) WHERE (retired_at IS NOT NULL);

CREATE TRIGGER bury_tombstones AFTER INSERT OR UPDATE ON vacancy.host_inventory FOR EACH STATEMENT EXECUTE FUNCTION vacancy.bury_tombstones();

CREATE TRIGGER keep_retired_out AFTER INSERT ON vacancy.host FOR EACH ROW EXECUTE FUNCTION vacancy.keep_retired_out();

CREATE TRIGGER retire_known AFTER UPDATE ON vacancy.host_inventory FOR EACH ROW WHEN ((new.retired AND (NOT old.retired))) EXECUTE FUNCTION vacancy.retire_host();

CREATE TRIGGER retire_unknown AFTER INSERT ON vacancy.host_inventory FOR EACH ROW WHEN (new.retired) EXECUTE FUNCTION vacancy.retire_host();

CREATE TRIGGER settle_claims AFTER UPDATE ON vacancy.host FOR EACH ROW WHEN ((new.recent_consumers IS DISTINCT FROM old.recent_consumers)) EXECUTE FUNCTION vacancy.settle_claims();

CREATE TRIGGER settle_claims_of_new AFTER INSERT ON vacancy.host FOR EACH ROW WHEN ((new.recent_consumers <> '{}'::uuid[])) EXECUTE FUNCTION vacancy.settle_claims();

GRANT USAGE ON SCHEMA vacancy TO vacancy_job;
GRANT USAGE ON SCHEMA vacancy TO vacancy_scheduler;
GRANT USAGE ON SCHEMA vacancy TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.are_amounts(document jsonb, at_least bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.best_of_sample(r vacancy.request, hosts integer, glance boolean, at_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.bury_tombstones() FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.candidates(request jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.candidates(request jsonb) TO vacancy_scheduler;

REVOKE ALL ON FUNCTION vacancy.cells_free(cells jsonb, taken jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.cells_free(cells jsonb, taken jsonb) TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.claim(consumers uuid[], request jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.claim(consumers uuid[], request jsonb) TO vacancy_scheduler;

REVOKE ALL ON FUNCTION vacancy.claim_host(r vacancy.request, for_consumer uuid, holding boolean, OUT host text, OUT contended integer, OUT refusal jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.class_free(class text, inventory jsonb, allocated jsonb, taken jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.class_free(class text, inventory jsonb, allocated jsonb, taken jsonb) TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.complex_judged(on_host text, resources jsonb, numa jsonb, pci jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.complex_missing(resources jsonb, numa jsonb, pci jsonb, inventories jsonb, allocated jsonb, numa_free jsonb, pci_pools jsonb, taken jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.complex_room(on_host text, resources jsonb, numa jsonb, pci jsonb, OUT held jsonb, OUT missing text[], OUT had double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.hosts_near(of_pool text[], hosts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.hosts_that_offer(r vacancy.request, hosts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.is_complex(r vacancy.request) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.judged(r vacancy.request) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.keep_retired_out() FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.kinds(pci jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.leave_behind(consumers uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.lock_consumers(consumers uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.look_at_all(r vacancy.request, OUT best text[], OUT refusal jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.measured(hosts text[], OUT "position" bigint[], OUT age_seconds double precision[], OUT cpu_utilization double precision[], OUT cpu_steal double precision[], OUT cpu_pressure double precision[], OUT memory_pressure double precision[], OUT io_pressure double precision[], OUT memory_mb_available bigint[], OUT vcpus_claimed bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.measured(hosts text[], OUT "position" bigint[], OUT age_seconds double precision[], OUT cpu_utilization double precision[], OUT cpu_steal double precision[], OUT cpu_pressure double precision[], OUT memory_pressure double precision[], OUT io_pressure double precision[], OUT memory_mb_available bigint[], OUT vcpus_claimed bigint[]) TO vacancy_scheduler;

REVOKE ALL ON FUNCTION vacancy.note_claim(for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.note_claim(for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval) TO vacancy_scheduler;

REVOKE ALL ON FUNCTION vacancy.numa_free(cells jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.numa_free(cells jsonb) TO vacancy_job;

REVOKE ALL ON FUNCTION vacancy.parse_pci(document jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.parse_request(document jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.pci_free(pools jsonb, taken jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.pci_free(pools jsonb, taken jsonb) TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.pci_kinds(pools jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.pci_kinds(pools jsonb) TO vacancy_job;

REVOKE ALL ON FUNCTION vacancy.place_pci(pci jsonb, same_cell integer, keys text[], pools jsonb[], free bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.random_hosts(hosts integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.record_drift(OUT begun bigint, OUT ended bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.record_drift(OUT begun bigint, OUT ended bigint) TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.release(consumers uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.release(consumers uuid[]) TO vacancy_scheduler;

REVOKE ALL ON FUNCTION vacancy.resource_classes(inventories jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.resource_classes(inventories jsonb) TO vacancy_job;

REVOKE ALL ON FUNCTION vacancy.retire_host() FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.room(r vacancy.request) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.settle_claims() FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.sweep_claims() FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.take_request(document jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION vacancy.taken(on_host text) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.taken(on_host text) TO vacancy_reader;

REVOKE ALL ON FUNCTION vacancy.why(request jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION vacancy.why(request jsonb) TO vacancy_scheduler;
GRANT ALL ON FUNCTION vacancy.why(request jsonb) TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.claim TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.drift TO vacancy_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE vacancy.host TO vacancy_job;
GRANT SELECT ON TABLE vacancy.host TO vacancy_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE vacancy.host_inventory TO vacancy_job;
GRANT SELECT ON TABLE vacancy.host_inventory TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.drifting TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.schedulable_host TO vacancy_scheduler;
GRANT SELECT ON TABLE vacancy.schedulable_host TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.freshness TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.host_drift TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.numa_cell TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.pci_pool TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.resource_class TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.schema_migration TO vacancy_reader;

GRANT SELECT ON TABLE vacancy.source TO vacancy_reader;

