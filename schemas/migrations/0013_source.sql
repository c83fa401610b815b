-- Which kind of source speaks for each host, so that one that falls silent can be named.
ALTER TABLE vacancy.host_inventory ADD COLUMN source text DEFAULT 'unknown';

COMMENT ON COLUMN vacancy.host_inventory.source IS 'host, libvirt, cinder, notifications, ceilometer, simulator or what a collector of one''s own calls itself; unknown: its agent is too old to say.';

-- As in 0007, with a column more.
CREATE OR REPLACE VIEW vacancy.schedulable_host AS
SELECT
  i.host_id,
  i.name,
  i.zone,
  i.status,
  CASE
    WHEN i.status = 'DISABLED' THEN concat_ws(': ', 'disabled', nullif(i.status_reason, ''))
    WHEN f.host_id IS NULL THEN 'no usage yet'
    WHEN f.age > (SELECT vacancy.max_age()) THEN 'stale'
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
  coalesce(f.claims, 0) AS claims,
  f.vcpus_claimed,
  f.memory_mb_claimed,
  f.disk_gb_claimed,
  coalesce(i.source, 'unknown') AS source
FROM vacancy.host_inventory AS i
LEFT JOIN vacancy.host_free AS f ON f.host_id = i.host_id
WHERE NOT i.retired;

-- Every source and whether it is heard.
-- Grain: one row a source that speaks for a host that is not retired. Hosts that an operator has disabled may be switched
-- off, so their silence says nothing; providers that share by aggregate (storage pools) are disabled for instances always.
CREATE VIEW vacancy.source AS
SELECT
  s.source,
  count(*) AS hosts,
  count(*) FILTER (WHERE s.expected) AS hosts_expected,
  count(*) FILTER (WHERE s.expected AND (s.age > s.max_age OR s.age IS NULL)) AS hosts_silent,
  extract(epoch FROM min(s.age))::double precision AS age_min_seconds,
  extract(epoch FROM max(s.age) FILTER (WHERE s.expected))::double precision AS age_max_seconds
FROM (
  SELECT
    coalesce(i.source, 'unknown') AS source,
    i.status = 'ENABLED' OR 'MISC_SHARES_VIA_AGGREGATE' = ANY (i.traits) AS expected,
    statement_timestamp() - h.observed_at AS age,
    (SELECT vacancy.max_age()) AS max_age
  FROM vacancy.host_inventory AS i
  LEFT JOIN vacancy.host AS h ON h.host_id = i.host_id
  WHERE NOT i.retired
) AS s
GROUP BY s.source;

COMMENT ON VIEW vacancy.source IS 'One row a source: how many hosts it speaks for, and how long ago they were heard.';
COMMENT ON COLUMN vacancy.source.hosts_expected IS 'Those that should report: enabled, or storage pools.';
COMMENT ON COLUMN vacancy.source.hosts_silent IS 'Of the expected: older than vacancy.max_age(), or without usage.';
COMMENT ON COLUMN vacancy.source.age_min_seconds IS 'Age of the newest row of any of its hosts. Null: none has reported.';

GRANT SELECT ON vacancy.source TO vacancy_reader;
