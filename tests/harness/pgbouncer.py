"""PgBouncer, Debian's, in front of a server of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from tests.harness.servers import reachable_directory
from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.local.postgres_server import PostgresServer, _server_user

READY_SECONDS = 30.0


@contextmanager
def running_pgbouncer(
    server: PostgresServer, mode: Literal["transaction", "session"], *, connect_query: str = "SELECT 1", **settings: str
) -> Iterator[str]:
    """The server owner's connection string through a PgBouncer; the test is skipped where it is not installed."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("PgBouncer is not installed; test.sh installs it")
    directory, user, port = reachable_directory(), _server_user(), ports.free_port()
    owner = parse_dsn(server.owner_dsn)
    # Every line of docs/database.md that says how to set it up, and where things are here.
    configured = {
        "pool_mode": mode,
        "ignore_startup_parameters": "extra_float_digits",
        "default_pool_size": "4",
        "max_client_conn": "200",
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(directory / "users"),
    } | settings
    lines = "".join(f"{name} = {value}\n" for name, value in configured.items())
    (directory / "users").write_text(f'"{owner["user"]}" "{owner["password"]}"\n', encoding="utf-8")
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port} connect_query='{connect_query}'\n[pgbouncer]\n{lines}",
        encoding="utf-8",
    )
    if user:
        for name in (".", "users", "pgbouncer.ini"):
            os.chown(directory / name, user.uid, user.gid)
    dsn = make_dsn(server.owner_dsn, host="127.0.0.1", port=str(port))
    with (directory / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [program, str(directory / "pgbouncer.ini")],
            stdout=log,
            stderr=log,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        try:
            wait_until(
                lambda: not ports.is_free(port),
                READY_SECONDS,
                lambda: f"PgBouncer does not start: {(directory / 'log').read_text(encoding='utf-8')}",
            )
            yield dsn
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(directory)
