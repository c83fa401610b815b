-- What people and schedulers read: what each host is, what it has free, and why it is out if it is.
-- Grain: one row a host or storage pool that sent inventory and is not retired. The usage columns are null until its first
-- usage row is there.
CREATE OR REPLACE VIEW vacancy.schedulable_host AS
SELECT
  i.host_id,
  i.name,
  i.zone,
  i.status,
  CASE
    WHEN i.status = 'DISABLED' THEN concat_ws(': ', 'disabled', nullif(i.status_reason, ''))
    WHEN f.host_id IS NULL THEN 'no usage yet'
    WHEN f.is_ahead OR i.clock_ahead THEN 'clock ahead'
    WHEN f.age > (SELECT vacancy.max_age()) THEN 'stale'
    WHEN f.is_cloned THEN 'duplicate id'
    WHEN i.shares THEN coalesce(nullif(i.status_reason, ''), 'pool')
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
  CASE WHEN i.disk_pool IS NULL THEN f.disk_gb_free ELSE 0 END AS disk_gb_free,
  CASE WHEN i.disk_pool IS NULL THEN f.disk_gb_free_min ELSE 0 END AS disk_gb_free_min,
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
  coalesce(i.source, 'unknown') AS source,
  i.shares,
  f.anomalies,
  f.uncertain,
  i.disk_id,
  i.disk_pool
FROM vacancy.host_inventory AS i
LEFT JOIN vacancy.host_free AS f ON f.host_id = i.host_id
WHERE NOT i.retired;

COMMENT ON VIEW vacancy.schedulable_host IS 'Hosts that are not retired, with the claims in flight subtracted. reason is null where a host may be picked.';
COMMENT ON COLUMN vacancy.schedulable_host.age IS 'Time since observed_at, by this server''s clock. Null: no usage yet, or usage from the future.';
COMMENT ON COLUMN vacancy.schedulable_host.reason IS 'Why the host is out, the first that applies: disabled, no usage yet, clock ahead, stale, duplicate id. Null: schedulable.';
COMMENT ON COLUMN vacancy.schedulable_host.vcpus_free IS 'Capacity less what instances hold and claims in flight; memory_mb and disk_gb alike.';
COMMENT ON COLUMN vacancy.schedulable_host.memory_mb_available IS 'MiB that the kernel says can be had, less claims in flight.';
COMMENT ON COLUMN vacancy.schedulable_host.disk_gb_available IS 'GiB free on the instances'' file system, less claims in flight.';
COMMENT ON COLUMN vacancy.schedulable_host.claims IS 'Claims in flight on the host.';
COMMENT ON COLUMN vacancy.schedulable_host.disk_pool IS 'The storage pool that its disk comes from. Its own disk_gb_free is 0 then, and the pool''s row says what is free. Null: it has a disk of its own.';
COMMENT ON COLUMN vacancy.schedulable_host.shares IS 'True: a storage pool, which is never picked.';
COMMENT ON COLUMN vacancy.schedulable_host.anomalies IS 'Bits: 1 several nodes report under this id, 2 the node''s clock went back, 4 a fraction was above 1.';
COMMENT ON COLUMN vacancy.schedulable_host.uncertain IS 'Fields of the newest event that are not known for certain. Null: none.';
COMMENT ON COLUMN vacancy.schedulable_host.disk_id IS 'The disk that it has: the same on all hosts that see the same file system. Null: not known.';

GRANT SELECT ON vacancy.schedulable_host TO vacancy_scheduler, vacancy_reader;
