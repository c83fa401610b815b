-- Disks that several hosts have, of which they promise more than there is: network and cluster file systems that no one has
-- declared. Where each host keeps what it may not promise in reserve, all is well.
-- Grain: one row a disk_id that more than one host says, of hosts that report.
-- In double precision and within what a bigint holds: nothing overflows, whatever a host says.
CREATE OR REPLACE VIEW vacancy.shared_disk AS
SELECT
  disk.disk_id,
  disk.hosts,
  disk.names,
  greatest(least(disk.promised_gb, 9e18), -9e18)::bigint AS promised_gb,
  greatest(least(disk.capacity_gb, 9e18), -9e18)::bigint AS capacity_gb
FROM (
  SELECT
    i.disk_id,
    count(*) AS hosts,
    array_agg(i.name ORDER BY i.name) AS names,
    sum(greatest(h.disk_gb_capacity, 0)::double precision) AS promised_gb,
    max(coalesce(
      (i.inventories->'DISK_GB'->>'total')::double precision
        * greatest(least(coalesce((i.inventories->'DISK_GB'->>'allocation_ratio')::double precision, 1), 1e6), 0),
      h.disk_gb_capacity
    )) AS capacity_gb
  FROM vacancy.host_inventory AS i
  JOIN vacancy.host AS h ON h.host_id = i.host_id
  -- The hosts of a storage pool have declared it, and promise none of it themselves.
  WHERE i.disk_id IS NOT NULL AND i.disk_pool IS NULL AND NOT i.retired AND NOT i.shares
    AND statement_timestamp() - h.observed_at <= (SELECT vacancy.max_age())
  GROUP BY i.disk_id
) AS disk
WHERE disk.hosts > 1 AND disk.promised_gb > disk.capacity_gb;

COMMENT ON VIEW vacancy.shared_disk IS 'Disks that several hosts have, and of which together they promise more than there is.';
COMMENT ON COLUMN vacancy.shared_disk.names IS 'The hosts, by name.';
COMMENT ON COLUMN vacancy.shared_disk.promised_gb IS 'GiB that they promise together.';
COMMENT ON COLUMN vacancy.shared_disk.capacity_gb IS 'GiB of the disk, times the allocation ratio.';

GRANT SELECT ON vacancy.shared_disk TO vacancy_reader;
