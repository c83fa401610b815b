-- How fresh the table is and what becomes of its hosts, for dashboards and alerts. Storage pools are not counted.
-- Grain: one row. The six counts by reason (schedulable, disabled, silent, clock ahead, stale, duplicate id) add up to
-- hosts.
-- Ages are those of enabled hosts that have reported: one that is disabled may be switched off for weeks.
CREATE OR REPLACE VIEW vacancy.freshness AS
SELECT
  count(*) AS hosts,
  count(*) FILTER (WHERE s.reason IS NULL) AS hosts_schedulable,
  count(*) FILTER (WHERE s.status = 'DISABLED') AS hosts_disabled,
  count(*) FILTER (WHERE s.reason = 'no usage yet') AS hosts_silent,
  count(*) FILTER (WHERE s.reason = 'stale') AS hosts_stale,
  (
    SELECT count(*) FROM vacancy.host AS h
    WHERE NOT EXISTS (SELECT FROM vacancy.host_inventory AS i WHERE i.host_id = h.host_id)
  ) AS hosts_without_inventory,
  extract(epoch FROM min(s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision AS age_min_seconds,
  extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision
    AS age_p50_seconds,
  extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision
    AS age_p99_seconds,
  extract(epoch FROM max(s.age) FILTER (WHERE s.status = 'ENABLED'))::double precision AS age_max_seconds,
  coalesce(sum(s.claims), 0)::bigint AS claims_in_flight,
  count(*) FILTER (WHERE s.reason = 'duplicate id') AS hosts_duplicate_id,
  count(*) FILTER (WHERE s.reason = 'clock ahead') AS hosts_clock_ahead
FROM vacancy.schedulable_host AS s
WHERE NOT s.shares;

COMMENT ON VIEW vacancy.freshness IS 'One row: how old the table is, how many hosts may be picked and why others may not.';
COMMENT ON COLUMN vacancy.freshness.hosts IS 'Hosts that sent inventory and are not retired.';
COMMENT ON COLUMN vacancy.freshness.hosts_silent IS 'Enabled hosts that sent inventory but never usage.';
COMMENT ON COLUMN vacancy.freshness.hosts_stale IS 'Enabled hosts whose newest usage is older than vacancy.max_age().';
COMMENT ON COLUMN vacancy.freshness.hosts_without_inventory IS 'Hosts that sent usage but no inventory: no scheduler sees them.';
COMMENT ON COLUMN vacancy.freshness.age_p99_seconds IS '99 % of enabled hosts are at most this old; p50 alike. Null: none has reported.';
COMMENT ON COLUMN vacancy.freshness.hosts_duplicate_id IS 'Enabled hosts under whose id several nodes report.';
COMMENT ON COLUMN vacancy.freshness.hosts_clock_ahead IS 'Enabled hosts whose newest event is from the future, by this server''s clock.';
COMMENT ON COLUMN vacancy.freshness.claims_in_flight IS 'Claims that count against a host now.';

GRANT SELECT ON vacancy.freshness TO vacancy_reader;
