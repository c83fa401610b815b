-- What schedulers read: every host that is not retired, how old its figures are, and why it is out if it is.

-- scheduler.max_age, which each client sets for its session (SET vacancy.max_age = '30 s').
CREATE FUNCTION vacancy.max_age() RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('vacancy.max_age', true), '')::interval, interval '30 s');

-- Grain: one row a host that sent inventory; its usage columns are null until its first usage row is there.
-- statement_timestamp() and not now(), which stands still in a transaction and would let silent hosts look fresh.
CREATE VIEW vacancy.schedulable_host AS
SELECT
  i.host_id,
  i.name,
  i.zone,
  i.status,
  CASE
    WHEN i.status = 'DISABLED' THEN concat_ws(': ', 'disabled', nullif(i.status_reason, ''))
    WHEN h.host_id IS NULL THEN 'no usage yet'
    WHEN statement_timestamp() - h.observed_at > (SELECT vacancy.max_age()) THEN 'stale'
  END AS reason,
  statement_timestamp() - h.observed_at AS age,
  h.observed_at,
  h.window_start,
  h.window_end,
  h.samples,
  h.vcpus_capacity,
  h.vcpus_free,
  h.vcpus_free_min,
  h.memory_mb_capacity,
  h.memory_mb_free,
  h.memory_mb_free_min,
  h.memory_mb_available,
  h.disk_gb_capacity,
  h.disk_gb_free,
  h.disk_gb_free_min,
  h.disk_gb_available,
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
  i.boot_id,
  i.inventories,
  i.traits,
  i.aggregates,
  i.numa_cells,
  i.pci_pools,
  i.reporting_interval_ms,
  i.agent_version,
  i.observed_at AS inventory_observed_at
FROM vacancy.host_inventory AS i
LEFT JOIN vacancy.host AS h ON h.host_id = i.host_id
WHERE NOT i.retired;

COMMENT ON VIEW vacancy.schedulable_host IS 'Hosts that are not retired; reason is null where one may be picked.';
COMMENT ON COLUMN vacancy.schedulable_host.age IS 'Since observed_at, by this server''s clock. Null: no usage yet.';
COMMENT ON COLUMN vacancy.schedulable_host.reason IS 'The first that applies: disabled, no usage yet, stale. Null: schedulable.';
