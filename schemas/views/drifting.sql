-- Hosts whose promises and measurements do not agree now.
-- Grain: one row a host and kind, of hosts that report. Storage pools have neither instances nor memory, so they are left out.
-- Kinds:
--   allocations_without_instances: the host holds VCPUs or memory for instances and counts no instance. Disk does not count,
--     since a host holds it for instances that are shut off, too.
--   instances_without_allocations: the host counts instances and holds neither VCPUs nor memory for them.
--   memory_missing: the host has less memory than it may still promise, by more than a tolerance. A machine whose agent counts no
--     instances (source `host`) and has none is not looked at: what its own programs use is no drift. What it may still promise
--     is divided by the allocation ratio. The tolerance is a fraction of the host's memory:
--     ALTER DATABASE … SET vacancy.drift_tolerance = '0.2' (without: 0.1).
--   shared_disk: the host promises a disk that others promise as well.
-- disk_key: whoever asks for one host names its disk as well ('': not known), so that the other hosts of that disk are found by
-- index; without it all disks are summed.
CREATE OR REPLACE VIEW vacancy.drifting AS
SELECT i.host_id, i.name, i.source, h.observed_at, kinds.kind, kinds.promised, kinds.measured, coalesce(i.disk_id, '') AS disk_key
FROM vacancy.host_inventory AS i
JOIN vacancy.host AS h ON h.host_id = i.host_id
CROSS JOIN LATERAL (
  -- In double precision and within what a bigint holds, with a ratio within bounds: nothing overflows, whatever a host says.
  SELECT
    greatest(least(h.vcpus_capacity::double precision - h.vcpus_free, 9e18), -9e18)::bigint AS vcpus_allocated,
    greatest(least(h.memory_mb_capacity::double precision - h.memory_mb_free, 9e18), -9e18)::bigint AS memory_mb_allocated,
    greatest(least(floor(h.memory_mb_free / ratio.ratio), 9e18), -9e18)::bigint AS memory_mb_promised,
    h.memory_mb_capacity / ratio.ratio * coalesce(nullif(current_setting('vacancy.drift_tolerance', true), '')::double precision, 0.1)
      AS memory_mb_tolerance
  FROM (
    SELECT greatest(least(coalesce((i.inventories->'MEMORY_MB'->>'allocation_ratio')::double precision, 1), 1e6), 1e-6) AS ratio
  ) AS ratio
) AS figures
LEFT JOIN vacancy.shared_disk AS disk ON disk.disk_id = coalesce(i.disk_id, '')
CROSS JOIN LATERAL (
  VALUES
    (
      'allocations_without_instances', figures.vcpus_allocated, h.instances::bigint,
      h.instances = 0 AND (figures.vcpus_allocated > 0 OR figures.memory_mb_allocated > 0)
    ),
    (
      'instances_without_allocations', figures.vcpus_allocated, h.instances::bigint,
      h.instances > 0 AND figures.vcpus_allocated <= 0 AND figures.memory_mb_allocated <= 0
    ),
    (
      'memory_missing', figures.memory_mb_promised, h.memory_mb_available,
      figures.memory_mb_promised::double precision - h.memory_mb_available > figures.memory_mb_tolerance
        AND NOT (i.source = 'host' AND h.instances = 0)
    ),
    ('shared_disk', disk.promised_gb, disk.capacity_gb, disk.hosts > 1)
) AS kinds (kind, promised, measured, applies)
WHERE NOT i.retired AND NOT i.shares AND kinds.applies AND NOT h.clock_ahead
  AND statement_timestamp() - h.observed_at <= (SELECT vacancy.max_age());

GRANT SELECT ON vacancy.drifting TO vacancy_reader;
