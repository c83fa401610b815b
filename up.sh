#!/bin/sh
# Installs Vacancy into .venv beside this file, from the locked packages, and runs `vacancy up` with these arguments.
# A second call installs nothing unless the lock has changed.
set -eu
cd "$(dirname "$0")"
lock=requirements/local.lock
if ! cmp -s "$lock" .venv/installed.lock; then
    echo "Installing into $PWD/.venv: about 1 GB, once." >&2
    test -x .venv/bin/python || python3.11 -m venv .venv
    # uv installs in seconds what takes pip minutes, and shows how far it is.
    .venv/bin/python -m pip install -q --disable-pip-version-check uv
    .venv/bin/uv pip install --python .venv/bin/python -r "$lock"
    .venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
    cp "$lock" .venv/installed.lock
fi
exec .venv/bin/vacancy up "$@"
