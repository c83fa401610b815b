"""A primary and a standby that streams from it and can be promoted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import make_dsn

from tests.harness.servers import reachable_directory
from tests.harness.waiting import wait_until
from vacancy.jobs.local.postgres_server import PostgresServer, _server_user

REPLICATION_SECONDS = 60.0


@dataclass
class Pair:
    """Two servers with the same data and the same passwords."""

    primary: PostgresServer
    standby: PostgresServer

    def dsn(self, *, standby_first: bool = False, **more: str) -> str:
        """The owner's connection string with both."""
        servers = [self.standby, self.primary] if standby_first else [self.primary, self.standby]
        return make_dsn(
            self.primary.owner_dsn,
            host=",".join(server.host for server in servers),
            port=",".join(str(server.port) for server in servers),
            **more,
        )

    def wait_until_replayed(self) -> None:
        """Waits until the standby has everything that the primary has."""
        with closing(psycopg2.connect(self.primary.owner_dsn)) as one, closing(_connect(self.standby)) as other:
            one.autocommit = other.autocommit = True
            with one.cursor() as written, other.cursor() as replayed:
                written.execute("SELECT pg_current_wal_lsn()::text")
                ((end,),) = written.fetchall()

                def there() -> bool:
                    replayed.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,))
                    return replayed.fetchall() == [(True,)]

                wait_until(there, REPLICATION_SECONDS, "the standby does not follow")

    def promote(self) -> None:
        """Makes the standby a primary; the former one is as it was."""
        with closing(_connect(self.standby)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT pg_promote(true, 60)")
            assert cursor.fetchall() == [(True,)]


@contextmanager
def running_pair() -> Iterator[Pair]:
    """A primary without tables and its standby."""
    directories = [reachable_directory(), reachable_directory()]
    primary = PostgresServer(directories[0])
    standby = PostgresServer(directories[1])
    try:
        primary.start()
        with closing(_connect(primary)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            # The standby has these settings too.
            cursor.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
            cursor.execute("ALTER SYSTEM SET hot_standby_feedback = on")
            cursor.execute("ALTER SYSTEM SET wal_receiver_status_interval = 1")
        primary.stop()
        primary.start()
        copy(primary, standby)
        standby.start()
        yield Pair(primary, standby)
    finally:
        for server, directory in zip((standby, primary), directories, strict=True):
            server.stop()
            shutil.rmtree(directory)


def copy(primary: PostgresServer, standby: PostgresServer) -> None:
    """Makes the data of a standby that has not been started, with pg_basebackup."""
    cluster = standby.directory / "cluster"
    shutil.copy(primary.directory / "superuser-password", standby.directory)
    user = _server_user()
    if user:
        os.chown(standby.directory, user.uid, user.gid)
    program = primary._reachable_binaries() / "pg_basebackup"
    arguments = ["--dbname", primary.owner_dsn, "--pgdata", str(cluster), "--write-recovery-conf"]
    subprocess.run(
        [str(program), *arguments, "--checkpoint", "fast"],
        check=True,
        timeout=REPLICATION_SECONDS,
        cwd="/",
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )


def _connect(server: PostgresServer) -> psycopg2.extensions.connection:
    return psycopg2.connect(server.owner_dsn, connect_timeout=10)
