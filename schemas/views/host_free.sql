-- What each host has free: what it says itself, less the claims in flight. The one place where free capacity is computed.
-- Grain: one row a host or storage pool that has a usage row.
-- Of a storage pool: what it says itself or its capacity less what its hosts say that their instances hold, whichever is less;
-- less the claims that no row of a host shows yet. A pool has no CPUs, which spares all hosts the look.
-- No figure of a host is less than -4e18, so that nothing overflows when claims are taken off it, whatever a host says.
-- statement_timestamp() and not now(), which stands still in a transaction and would let silent hosts look fresh.
CREATE OR REPLACE VIEW vacancy.host_free AS
SELECT
  h.host_id,
  -- Null: not known, since the row is from the future.
  CASE WHEN NOT ahead.is_ahead THEN statement_timestamp() - h.observed_at END AS age,
  h.observed_at,
  h.window_start,
  h.window_end,
  h.samples,
  h.vcpus_capacity,
  greatest(h.vcpus_free, -4000000000000000000) - claimed.vcpus AS vcpus_free,
  least(h.vcpus_free_min, greatest(h.vcpus_free, -4000000000000000000) - claimed.vcpus) AS vcpus_free_min,
  h.memory_mb_capacity,
  greatest(h.memory_mb_free, -4000000000000000000) - claimed.memory_mb AS memory_mb_free,
  least(h.memory_mb_free_min, greatest(h.memory_mb_free, -4000000000000000000) - claimed.memory_mb) AS memory_mb_free_min,
  greatest(h.memory_mb_available, -4000000000000000000) - claimed.memory_mb_not_in_pages AS memory_mb_available,
  h.disk_gb_capacity,
  disk.gb_free AS disk_gb_free,
  least(h.disk_gb_free_min, disk.gb_free) AS disk_gb_free_min,
  greatest(h.disk_gb_available, -4000000000000000000) - disk.gb_claimed AS disk_gb_available,
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
  disk.gb_claimed AS disk_gb_claimed,
  h.anomalies,
  h.anomalies & 1 <> 0 AS is_cloned,
  h.uncertain,
  ahead.is_ahead
FROM vacancy.host AS h
CROSS JOIN LATERAL (
  SELECT h.clock_ahead OR h.observed_at > statement_timestamp() + vacancy.max_clock_ahead() AS is_ahead
) AS ahead
CROSS JOIN LATERAL (
  SELECT
    count(*) AS claims,
    coalesce(sum(c.vcpus), 0) AS vcpus,
    coalesce(sum(c.memory_mb), 0) AS memory_mb,
    coalesce(sum(c.memory_mb_not_in_pages), 0) AS memory_mb_not_in_pages,
    coalesce(sum(c.disk_gb) FILTER (WHERE c.pool_id IS NULL), 0) AS disk_gb,
    CASE WHEN h.vcpus_capacity = 0 THEN vacancy.pool_counts(h.host_id) END AS of_pool
  FROM vacancy.claim AS c
  WHERE c.host_id = h.host_id
    AND c.settled_at IS NULL
    -- IS TRUE keeps this from the sweep's index, which a plan made while the table was empty would take.
    AND (c.expires_at > statement_timestamp()) IS TRUE
    -- Listed already when the claim was made: the host's figures hold it, but not the size to come of one that was resized.
    AND (c.resized OR NOT (c.consumer = ANY (h.recent_consumers)))
) AS claimed
CROSS JOIN LATERAL (
  SELECT
    vacancy.disk_gb_free(h.disk_gb_free, h.disk_gb_capacity, claimed.of_pool[1]) - claimed.disk_gb - coalesce(claimed.of_pool[2], 0) AS gb_free,
    claimed.disk_gb + coalesce(claimed.of_pool[2], 0) AS gb_claimed
) AS disk;

-- The fleet page reads it.
GRANT SELECT ON vacancy.host_free TO vacancy_reader;
