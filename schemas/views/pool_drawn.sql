-- What claims hold of each storage pool, and no row of a host shows yet.
-- Grain: one row a pool from which a claim has drawn.
-- The count (pool_claimed) has claims in it that count no more: they have expired, or the sum over the hosts' rows
-- (pool_allocated) shows them. Claims write them off as they go, so that these are few.
CREATE OR REPLACE VIEW vacancy.pool_drawn AS
SELECT
  p.pool_id,
  (sum(p.claimed_gb)
    - coalesce((
      SELECT sum(c.disk_gb) FROM vacancy.claim AS c
      -- Not settled_at, which would do for claim_in_flight: a plan made while the table was empty would take that.
      WHERE c.pool_id = p.pool_id AND c.settled_xid IS NULL AND c.expires_at <= statement_timestamp()
    ), 0)
    - coalesce((
      SELECT sum(c.disk_gb) FROM vacancy.pool_allocated AS a
      JOIN vacancy.claim AS c ON c.pool_id = a.pool_id AND c.settled_xid < pg_snapshot_xmax(a.as_of)
      WHERE a.pool_id = p.pool_id AND pg_visible_in_snapshot(c.settled_xid, a.as_of)
    ), 0))::bigint AS claimed_gb
FROM vacancy.pool_claimed AS p
GROUP BY p.pool_id;
