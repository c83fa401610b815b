-- What every host has free and how busy it is.
-- Grain: one row a host, rewritten by the job alone for as long as the host reports. Key: host_id.
-- Every update is HOT: the primary key is the only index, and a page keeps room for a second version of its rows
-- (docs/tables.md has the measurement). An index on a column that changes would cost exactly that.
CREATE TABLE vacancy.host (
  -- 8-byte columns first, never-null before nullable, text last: no byte of alignment padding.
  observed_at timestamptz NOT NULL,
  window_start timestamptz NOT NULL,
  window_end timestamptz NOT NULL,
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
  host_id text PRIMARY KEY,
  recent_consumers uuid[] NOT NULL
) WITH (
  fillfactor = 48,
  -- Page pruning cleans up after the updates, so vacuum finds next to nothing: let it finish quickly, and never let it
  -- ask for the exclusive lock that giving pages back takes.
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off,
  -- ANALYZE holds a snapshot, and while it does no page is pruned: once in a hundred updates of each row is enough.
  autovacuum_analyze_scale_factor = 100
);

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
