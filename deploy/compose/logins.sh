#!/bin/sh
# Creates the logins of docs/tables.md. Secrets are files (docker compose), never process arguments.
set -eu
PGPASSWORD="$(cat /run/secrets/postgres_password)" exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file /logins.sql
