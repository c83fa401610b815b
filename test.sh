#!/bin/sh
# Passes the tests on a machine that has Python 3.11 with venv and nothing else.
set -eu
cd "$(dirname "$0")"
test -d .venv || python3.11 -m venv .venv
.venv/bin/pip install -q -r requirements/dev.lock
.venv/bin/pip install -q --no-deps -e .
.venv/bin/ruff format --check -q .
.venv/bin/ruff check -q .
.venv/bin/mypy
.venv/bin/lint-imports
exec .venv/bin/pytest -q "$@"
