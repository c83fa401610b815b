-- The same %(hosts)s hosts as in ../fleet.sql, as Placement's API would have left them: a root provider each, three
-- inventories, and a consumer with three allocations for each instance.
INSERT INTO resource_providers (created_at, updated_at, id, uuid, name, generation, root_provider_id)
SELECT now(), now(), number, gen_random_uuid(), 'compute-' || number, 18, number
FROM generate_series(1, %(hosts)s) AS number;

SELECT setval(pg_get_serial_sequence('resource_providers', 'id'), %(hosts)s);

INSERT INTO inventories
  (created_at, updated_at, resource_provider_id, resource_class_id, total, reserved, min_unit, max_unit, step_size,
   allocation_ratio)
SELECT now(), now(), provider.id, class.id, had.total, 0, 1, had.total, 1, had.allocation_ratio
FROM resource_providers AS provider
CROSS JOIN (VALUES ('VCPU', 64, 4.0), ('MEMORY_MB', 262144, 1.0), ('DISK_GB', 2000, 1.0))
  AS had (class, total, allocation_ratio)
JOIN resource_classes AS class ON class.name = had.class;

INSERT INTO projects (created_at, updated_at, external_id) SELECT now(), now(), 'project-' || n FROM generate_series(0, 49) AS n;
INSERT INTO users (created_at, updated_at, external_id) SELECT now(), now(), 'user-' || n FROM generate_series(0, 49) AS n;
INSERT INTO consumer_types (created_at, updated_at, name) VALUES (now(), now(), 'INSTANCE');

CREATE TEMPORARY TABLE instance AS
SELECT provider.id AS provider_id, gen_random_uuid()::text AS uuid, (provider.id + place) %% 50 AS owner
FROM resource_providers AS provider
CROSS JOIN LATERAL generate_series(1, 5 + provider.id * 7919::bigint %% 11) AS place;

INSERT INTO consumers (created_at, updated_at, uuid, project_id, user_id, generation, consumer_type_id)
SELECT now(), now(), instance.uuid, projects.id, users.id, 1, consumer_types.id
FROM instance
JOIN projects ON projects.external_id = 'project-' || owner
JOIN users ON users.external_id = 'user-' || owner
CROSS JOIN consumer_types;

INSERT INTO allocations (created_at, updated_at, resource_provider_id, consumer_id, resource_class_id, used)
SELECT now(), now(), instance.provider_id, instance.uuid, class.id, held.used
FROM instance
CROSS JOIN (VALUES ('VCPU', 4), ('MEMORY_MB', 8192), ('DISK_GB', 40)) AS held (class, used)
JOIN resource_classes AS class ON class.name = held.class;

INSERT INTO resource_provider_traits (created_at, updated_at, trait_id, resource_provider_id)
SELECT now(), now(), trait.id, provider.id
FROM resource_providers AS provider
JOIN traits AS trait ON
  (provider.id %% 2 = 0 AND trait.name IN ('HW_CPU_X86_AVX2', 'HW_CPU_X86_SSE42', 'COMPUTE_IMAGE_TYPE_QCOW2'))
  OR (provider.id %% 10 = 0 AND trait.name = 'HW_CPU_X86_AVX512F');

DROP TABLE instance;
