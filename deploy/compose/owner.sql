\set password `cat /run/secrets/postgres_password`
ALTER ROLE CURRENT_USER PASSWORD :'password';
