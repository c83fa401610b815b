-- A login in each of the group roles that `vacancy migrate` makes, with its password from a file. Again and again.
\set job_password `cat /run/secrets/job_password`
\set scheduler_password `cat /run/secrets/scheduler_password`
\set reader_password `cat /run/secrets/reader_password`
SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', login, 'vacancy_' || login)
FROM unnest(ARRAY['job', 'scheduler', 'reader']) AS login
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login)
\gexec
ALTER ROLE job PASSWORD :'job_password';
ALTER ROLE scheduler PASSWORD :'scheduler_password';
ALTER ROLE reader PASSWORD :'reader_password';
