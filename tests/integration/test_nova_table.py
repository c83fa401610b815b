"""The table as Nova's requests read it, from threads, across broken and slow connections; with a real database."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn, parse_dsn

from tests.harness.rows import query, upsert_usage
from tests.harness.waiting import wait_until
from vacancy.connectors.nova.table import Fault, Table
from vacancy.connectors.scheduler.ranking import Amount

HOSTS = [f"host-{number}" for number in range(20)]
PATIENT_S = 10.0


@pytest.fixture
def table(owner: Connection, database: str) -> Iterator[Table]:
    [(now,)] = query(owner, "SELECT now()")
    for host in HOSTS:
        upsert_usage(owner, host_id=host, observed_at=now, recent_consumers="{}")
    with closing(Table(database, PATIENT_S)) as table:
        yield table


def note(table: Table, host: str) -> None:
    table.note("5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11", host, Amount(4, 8192), 60)


def test_threads_share_it(table: Table) -> None:
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda _: len(table.read([*HOSTS, "host-none", "no 'id'"])), range(200)))
    assert seen == [20] * 200
    assert table.counts["reads"] == 200
    assert table.counts["hosts_missing"] == 400


def test_connections_that_were_ended_are_made_anew(table: Table, owner: Connection) -> None:
    for _ in range(2):
        assert len(table.read(HOSTS)) == 20
        query(
            owner,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'vacancy nova' AND datname = current_database()",
        )
    assert set(table.counts) == {"reads", "hosts_missing", "hosts_garbage"}


def test_a_note_counts_in_the_next_read_and_its_refusal_harms_none(table: Table, owner: Connection) -> None:
    table.read(HOSTS)
    note(table, "host-1")
    assert table.read(["host-1"])["host-1"].vcpus_claimed == 4
    owner.cursor().execute("DROP FUNCTION vacancy.note_claim(uuid, text, integer, integer, integer, interval)")
    note(table, "host-2")
    assert table.read(["host-2"])["host-2"].vcpus_claimed == 0
    assert table.counts["notes_lost"] == 1


def test_a_fork_has_connections_of_its_own(table: Table) -> None:
    table.read(HOSTS)
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            status = int(len(table.read(HOSTS)) != 20 or table.counts["reads"] != 1)
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert len(table.read(HOSTS)) == 20


def test_a_connection_that_takes_longer_than_a_request_may_wait_is_not_lost(table: Table, database: str) -> None:
    del table
    server = parse_dsn(database)
    opened, accepted = threading.Event(), []

    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                opened.wait(PATIENT_S)
                behind = socket.create_connection((server["host"], int(server["port"])))
                accepted.extend([client, behind])
                threading.Thread(target=carry, args=(client, behind), daemon=True).start()
                threading.Thread(target=carry, args=(behind, client), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        dsn = make_dsn(database, host="127.0.0.1", port=str(listener.getsockname()[1]))
        with closing(Table(dsn, 0.2)) as slow:
            with pytest.raises(Fault, match="timeout"):
                slow.read(HOSTS)
            opened.set()

            def answered() -> bool:
                with suppress(Fault):
                    return len(slow.read(HOSTS)) == 20
                return False

            wait_until(answered, PATIENT_S, "no answer")
            assert slow.counts["timeout"] >= 1
        assert len(accepted) == 2  # one connection
        for one in accepted:
            one.close()
