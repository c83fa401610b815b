-- What a plain request (is_plain()) is ranked and checked by: the rules of usage_fit() and host_fit(), and what host_free counts, with a
-- quarter of their expressions, since what sets up a statement is their number. A test holds both to the same answers.
-- Both become part of the statement that calls them.

-- Those of some hosts that have room by their usage, and how good they are; what rules few of them out, whoever claims finds.
-- Grain: one row a host that fits. fullest: of its classes the greatest share that would be in use with the claim. busiest: its highest
-- figure of load, 0 to 1. age_s: seconds since its newest usage.
-- Amounts are the request's, measured_mb what it takes of measured memory; as numbers that never overflow. oldest: older usage is stale.
-- pools_used: of each of the hosts, in their order, the share of its storage pool that would be in use, -Infinity where it has a disk
-- of its own; null where all of them do.
CREATE OR REPLACE FUNCTION vacancy.plain_ranking(
  hosts text[], pools_used double precision[], oldest timestamptz,
  vcpus double precision, memory_mb double precision, measured_mb double precision, disk_gb double precision
) RETURNS TABLE (host_id text, fullest double precision, busiest double precision, age_s double precision)
LANGUAGE sql STABLE AS $$
SELECT
  s.host_id,
  greatest(
    1 - s.vcpus_left / nullif(s.vcpus_capacity, 0), 1 - s.memory_mb_left / nullif(s.memory_mb_capacity, 0),
    1 - s.disk_gb_left / nullif(s.disk_gb_capacity, 0), s.pool_used
  ),
  s.busiest,
  s.age_s
FROM (
  SELECT
    h.host_id,
    h.vcpus_free::double precision - coalesce(sum(c.vcpus), 0) - plain_ranking.vcpus AS vcpus_left,
    h.vcpus_capacity,
    least(
      h.memory_mb_free::double precision - coalesce(sum(c.memory_mb), 0) - plain_ranking.memory_mb,
      h.memory_mb_available::double precision - coalesce(sum(c.memory_mb_not_in_pages), 0) - measured_mb
    ) AS memory_mb_left,
    h.memory_mb_capacity,
    least(h.disk_gb_free, h.disk_gb_available)::double precision
      - coalesce(sum(CASE WHEN c.pool_id IS NULL THEN c.disk_gb END), 0) - plain_ranking.disk_gb AS disk_gb_left,
    h.disk_gb_capacity,
    CASE WHEN pools_used IS NOT NULL THEN pools_used[array_position(hosts, h.host_id)] END AS pool_used,
    least(greatest(
      CASE num_nulls(h.cpu_utilization, h.cpu_pressure, h.memory_pressure, h.io_pressure)
        WHEN 0 THEN greatest(h.cpu_utilization, h.cpu_pressure, h.memory_pressure, h.io_pressure)
        ELSE vacancy.load_of(
          ARRAY[h.cpu_utilization, h.cpu_pressure, h.memory_pressure, h.io_pressure], (SELECT vacancy.typical_loads())
        )
      END,
      0
    ), 1) AS busiest,
    greatest(date_part('epoch', statement_timestamp() - h.observed_at), 0) AS age_s
  FROM vacancy.host AS h
  LEFT JOIN LATERAL (
    -- OFFSET 0: by host, whatever a plan made while the table was empty would rather join. The claims of all hosts are summed by
    -- one node of the plan, where host_free sets one going for each host.
    SELECT c.vcpus, c.memory_mb, c.memory_mb_not_in_pages, c.disk_gb, c.pool_id
    FROM vacancy.claim AS c
    WHERE c.host_id = h.host_id
      AND c.settled_at IS NULL
      AND (c.expires_at > statement_timestamp()) IS TRUE
      AND (c.resized OR NOT (c.consumer = ANY (h.recent_consumers)))
    OFFSET 0
  ) AS c ON true
  WHERE h.host_id = ANY (hosts) AND h.observed_at >= oldest AND h.anomalies & 1 = 0
  GROUP BY h.host_id
  OFFSET 0
) AS s
WHERE (s.vcpus_left >= 0 OR plain_ranking.vcpus = 0) AND (s.memory_mb_left >= 0 OR plain_ranking.memory_mb = 0)
  AND (s.disk_gb_left >= 0 OR plain_ranking.disk_gb = 0 OR s.pool_used BETWEEN 0 AND 1)
$$;

-- The name of a host where a plain claim fits it; no row where it does not. Whoever inserts the claim holds the host's lock, and
-- this is of a snapshot newer than the lock. Exact: sums are on the side of the request, and never overflow.
-- of_zone: null: any. of_pool: the name of the storage pool that its disk would come from; null: a disk of its own.
CREATE OR REPLACE FUNCTION vacancy.plain_fit(
  on_host text, of_zone text, of_pool text, oldest timestamptz, vcpus bigint, memory_mb bigint, measured_mb bigint, disk_gb bigint
) RETURNS TABLE (name text)
LANGUAGE sql STABLE AS $$
SELECT i.name
FROM vacancy.host_inventory AS i, vacancy.host AS h, LATERAL (
  SELECT
    coalesce(sum(c.vcpus), 0) AS vcpus,
    coalesce(sum(c.memory_mb), 0) AS memory_mb,
    coalesce(sum(c.memory_mb_not_in_pages), 0) AS memory_mb_not_in_pages,
    coalesce(sum(CASE WHEN c.pool_id IS NULL THEN c.disk_gb END), 0) AS disk_gb
  FROM vacancy.claim AS c
  WHERE c.host_id = on_host AND c.settled_at IS NULL AND (c.expires_at > statement_timestamp()) IS TRUE
    AND (c.resized OR NOT (c.consumer = ANY (h.recent_consumers)))
) AS claimed
WHERE i.host_id = on_host AND NOT i.retired AND NOT i.shares AND i.status <> 'DISABLED' AND NOT i.clock_ahead
  AND (i.zone = of_zone OR of_zone IS NULL)
  AND h.host_id = on_host AND h.observed_at >= oldest AND NOT h.clock_ahead
  AND h.observed_at <= statement_timestamp() + vacancy.max_clock_ahead()
  AND h.anomalies & 1 = 0
  AND (plain_fit.vcpus = 0 OR plain_fit.vcpus + claimed.vcpus <= h.vcpus_free AND (
    plain_fit.vcpus BETWEEN i.vcpus_min_unit AND i.vcpus_max_unit AND plain_fit.vcpus % nullif(i.vcpus_step_size, 0) = 0
  ) IS NOT FALSE)
  AND (plain_fit.memory_mb = 0 OR plain_fit.memory_mb + claimed.memory_mb <= h.memory_mb_free AND (
    plain_fit.memory_mb BETWEEN i.memory_mb_min_unit AND i.memory_mb_max_unit
    AND plain_fit.memory_mb % nullif(i.memory_mb_step_size, 0) = 0
  ) IS NOT FALSE)
  AND (measured_mb = 0 OR measured_mb + claimed.memory_mb_not_in_pages <= h.memory_mb_available)
  AND CASE
    WHEN plain_fit.disk_gb = 0 THEN true
    WHEN of_pool IS NOT NULL THEN i.disk_pool = of_pool AND h.disk_gb_capacity = 0
    ELSE i.disk_pool IS NULL AND plain_fit.disk_gb + claimed.disk_gb <= least(h.disk_gb_free, h.disk_gb_available) AND (
      plain_fit.disk_gb BETWEEN i.disk_gb_min_unit AND i.disk_gb_max_unit
      AND plain_fit.disk_gb % nullif(i.disk_gb_step_size, 0) = 0
    ) IS NOT FALSE
  END
$$;

REVOKE ALL ON FUNCTION
  vacancy.plain_ranking(text[], double precision[], timestamptz, double precision, double precision, double precision, double precision),
  vacancy.plain_fit(text, text, text, timestamptz, bigint, bigint, bigint, bigint)
FROM PUBLIC;
