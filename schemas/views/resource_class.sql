-- The resource classes of all hosts, less the claims; without VCPU, MEMORY_MB and DISK_GB, which are columns of host.
-- Grain: one row a resource class of a host that is not retired.
CREATE OR REPLACE VIEW vacancy.resource_class AS
SELECT
  i.host_id,
  i.name AS host_name,
  class.key AS resource_class,
  (class.value->>'total')::bigint AS total,
  vacancy.class_free(class.key, class.value, i.allocated, claims.amounts) AS free
FROM vacancy.host_inventory AS i
CROSS JOIN LATERAL vacancy.claimed_amounts(i.host_id) AS claims (amounts)
CROSS JOIN LATERAL jsonb_each(i.inventories) AS class
WHERE NOT i.retired AND class.key NOT IN ('VCPU', 'MEMORY_MB', 'DISK_GB');

COMMENT ON VIEW vacancy.resource_class IS 'Resource classes beyond VCPU, MEMORY_MB and DISK_GB by host, less the claims.';
COMMENT ON COLUMN vacancy.resource_class.free IS 'Null: the host does not say what its instances hold of it.';

GRANT SELECT ON vacancy.resource_class TO vacancy_reader;
