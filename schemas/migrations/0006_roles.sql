-- Who may do what. Group roles without a login: an operator grants them to login roles (docs/tables.md).
-- Roles belong to the whole cluster, so another database's migration may be making them at this moment.
DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['vacancy_job', 'vacancy_scheduler', 'vacancy_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA vacancy TO vacancy_job, vacancy_scheduler, vacancy_reader;

-- What INSERT ... ON CONFLICT DO UPDATE needs: SELECT, because it reads EXCLUDED's columns.
GRANT SELECT, INSERT, UPDATE ON vacancy.host, vacancy.host_inventory TO vacancy_job;

GRANT SELECT ON vacancy.schedulable_host TO vacancy_scheduler;

GRANT SELECT ON vacancy.host, vacancy.host_inventory, vacancy.schedulable_host, vacancy.schema_migration
TO vacancy_reader;
