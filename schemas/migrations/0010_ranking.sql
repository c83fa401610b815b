-- For schedulers that pick by themselves and claim elsewhere, Nova with Placement above all: what many hosts really have,
-- read at once, and what such a scheduler picked, so that the next one knows before the host itself shows it.

-- How busy these hosts are, by measure, less the claims in flight.
-- One row of arrays, one element a host that has usage, all in the same order; position is the host's place in `hosts`,
-- from 1. A null element: not known. Null arrays: none of the hosts has usage. Arrays and not rows, since a client takes
-- a text of 10,000 figures apart far quicker than as many rows.
-- What is in flight is computed as in host_free, but only for hosts that have claims at all: few of thousands.
CREATE FUNCTION vacancy.measured(
  hosts text[],
  OUT "position" bigint[],
  OUT age_seconds double precision[],
  OUT cpu_utilization double precision[],
  OUT cpu_steal double precision[],
  OUT cpu_pressure double precision[],
  OUT memory_pressure double precision[],
  OUT io_pressure double precision[],
  OUT memory_mb_available bigint[],
  OUT vcpus_claimed bigint[]
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off AS $$
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

-- Notes that a scheduler has claimed a host elsewhere: it counts here as a claim in flight, until the host shows its
-- consumer or the time is over. It refuses nothing, since the other claim stands already. A consumer that had a claim,
-- here or on another host, has this one from now on: it moved.
CREATE FUNCTION vacancy.note_claim(
  for_consumer uuid, on_host text, vcpus integer, memory_mb integer, disk_gb integer, claim_ttl interval
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
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
    settled_at = NULL;
  IF random() < 1.0 / 16 THEN
    PERFORM vacancy.sweep_claims();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION
  vacancy.measured(text[]), vacancy.note_claim(uuid, text, integer, integer, integer, interval)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
  vacancy.measured(text[]), vacancy.note_claim(uuid, text, integer, integer, integer, interval)
TO vacancy_scheduler;
