-- The hosts of vacancy.drifting, and since when, as far as record_drift() has noted it.
-- Grain: one row a host and kind.
CREATE OR REPLACE VIEW vacancy.host_drift AS
SELECT
  drifting.host_id,
  drifting.name,
  drifting.source,
  drifting.kind,
  drifting.promised,
  drifting.measured,
  noted.since,
  statement_timestamp() - noted.since AS lasted
FROM vacancy.drifting
LEFT JOIN vacancy.drift AS noted ON noted.host_id = drifting.host_id AND noted.kind = drifting.kind;

COMMENT ON VIEW vacancy.host_drift IS 'Hosts whose allocations and measurements disagree, and for how long.';
COMMENT ON COLUMN vacancy.host_drift.kind IS 'allocations_without_instances, instances_without_allocations, memory_missing or shared_disk.';
COMMENT ON COLUMN vacancy.host_drift.promised IS 'VCPUs allocated to instances; for memory_missing: MiB that it may still promise; for shared_disk: GiB that all hosts of the disk promise.';
COMMENT ON COLUMN vacancy.host_drift.measured IS 'Instances that the host counts; for memory_missing: MiB that the kernel reports as available; for shared_disk: GiB of the disk.';
COMMENT ON COLUMN vacancy.host_drift.lasted IS 'The drift has lasted at least this long. Null: record_drift() has not seen it yet.';

GRANT SELECT ON vacancy.host_drift TO vacancy_reader;
