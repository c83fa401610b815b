#!/bin/sh
# Gives the owner the password of .env, so that a changed one applies. PostgreSQL's own socket, which asks for none, is in a
# volume that only the database and this service have.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file /owner.sql
