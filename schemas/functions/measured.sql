-- How busy these hosts are, by measure, less the claims in flight: for schedulers that pick by themselves and claim
-- elsewhere, Nova with Placement above all, which look at many hosts at once.
-- One row of arrays, one element a host that has usage, all in the same order; position is the host's place in `hosts`,
-- from 1. A null element: not known. Null arrays: none of the hosts has usage. A host under whose id several nodes report is left
-- out, as one without usage is: nobody knows whose figures they are. Arrays and not rows, since a client takes
-- a text of 10,000 figures apart far quicker than as many rows.
-- What is in flight, and the least that a figure can be, is computed as in host_free, but only for hosts that have claims at all: few of thousands.
CREATE OR REPLACE FUNCTION vacancy.measured(
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
WITH hosts_with_claims AS MATERIALIZED (
  SELECT DISTINCT c.host_id FROM vacancy.claim AS c
  WHERE c.settled_at IS NULL AND (c.expires_at > statement_timestamp()) IS TRUE
)
SELECT
  array_agg(asked.position),
  -- Of a row from the future the age is not known: too old for everybody.
  array_agg(
    CASE
      WHEN h.clock_ahead OR h.observed_at > statement_timestamp() + vacancy.max_clock_ahead() THEN 'Infinity'
      ELSE date_part('epoch', statement_timestamp() - h.observed_at)
    END
  ),
  array_agg(h.cpu_utilization),
  array_agg(h.cpu_steal),
  array_agg(h.cpu_pressure),
  array_agg(h.memory_pressure),
  array_agg(h.io_pressure),
  array_agg(greatest(h.memory_mb_available, -4000000000000000000) - coalesce(claimed.memory_mb, 0)),
  array_agg(coalesce(claimed.vcpus, 0))
FROM unnest(hosts) WITH ORDINALITY AS asked (host_id, position)
JOIN vacancy.host AS h ON h.host_id = asked.host_id AND h.anomalies & 1 = 0
LEFT JOIN hosts_with_claims AS w ON w.host_id = h.host_id
LEFT JOIN LATERAL (
  SELECT
    sum(c.vcpus)::bigint AS vcpus,
    sum(c.memory_mb_not_in_pages) AS memory_mb
  FROM vacancy.claim AS c
  WHERE c.host_id = w.host_id
    AND c.settled_at IS NULL
    AND (c.expires_at > statement_timestamp()) IS TRUE
    -- Listed already when the claim was made: the host's figures hold it.
    AND (c.resized OR NOT (c.consumer = ANY (h.recent_consumers)))
) AS claimed ON w.host_id IS NOT NULL
$$;

REVOKE ALL ON FUNCTION vacancy.measured(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vacancy.measured(text[]) TO vacancy_scheduler;
