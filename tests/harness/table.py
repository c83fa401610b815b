"""The table vacancy.host, and how it differs from what the oracle says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions
from pydantic import SecretStr

from tests.harness import oracle
from tests.harness.oracle import Record
from tests.harness.sender import Sender
from tests.harness.waiting import wait_until

TABLE_SECONDS = 120.0
_UUIDS = extensions.new_array_type((2951,), "uuid[]", psycopg2.STRING)


class Table:
    """Reads vacancy.host; survives a server that goes away."""

    def __init__(self, dsn: SecretStr) -> None:
        self._dsn = dsn.get_secret_value()
        self._connection: Any = None

    def observed_ms(self) -> dict[str, int]:
        """When each host was last seen; empty while the server is away."""
        rows = self._query("SELECT host_id, round(extract(epoch FROM observed_at) * 1000)::bigint FROM vacancy.host")
        return dict(rows)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Each host's row as the oracle has it."""
        rows = self._query(
            "SELECT to_jsonb(h) - '{observed_at,window_start,window_end,recent_consumers}'::text[],"
            " round(extract(epoch FROM observed_at) * 1000)::bigint, recent_consumers, window_end = observed_at"
            " FROM vacancy.host h"
        )
        assert all(ends_with_event for *_, ends_with_event in rows)
        return {
            row["host_id"]: row | {"observed_ms": ms, "recent_consumers": consumers} for row, ms, consumers, _ in rows
        }

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._dsn, connect_timeout=5)
                self._connection.autocommit = True
                extensions.register_type(_UUIDS, self._connection)
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()
            return []


@contextmanager
def open_table(dsn: SecretStr) -> Iterator[Table]:
    """The table, for as long as the context lasts."""
    table = Table(dsn)
    try:
        yield table
    finally:
        table.close()


def differences(row: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> list[str]:
    """How a row of the table differs from the oracle's, which may be nothing; rates may differ by rounding."""
    if row is None:
        return [f"{expected['host_id']} has no row"]
    return [
        f"{expected['host_id']}.{name} is {row[name]}, should be {value}"
        for name, value in expected.items()
        if not same(row[name], value)
    ]


def differences_of_one(row: Mapping[str, Any], history: Sequence[Record], window_ms: int) -> list[str]:
    """How a live row differs from what the oracle says of its host's events with the row's time, the last or another.

    Of events with one append time, as after an outage, the row of one may be there before that of the last.
    """
    found = [differences(row, each) for each in oracle.rows_at(history, window_ms, row["observed_ms"])]
    if not found:
        ends_ms = [record.append_ms for record in history[:: max(1, len(history) - 1)]]
        return [f"{row['host_id']} is at {row['observed_ms']} ms, and no event of it; its first and last: {ends_ms}"]
    return next((none for none in found if not none), found[0])


def same(value: Any, right: Any) -> bool:
    """Whether a value of the table is the oracle's; a rate may differ by rounding."""
    if isinstance(right, float) and value is not None:  # a float that is whole comes as an integer
        return math.isclose(value, right, rel_tol=1e-9)
    return bool(value == right)


def wait_for_table(table: Table, fleet: Mapping[str, Sequence[Record]], window_ms: int, sender: Sender) -> None:
    """Waits until the table is exactly what the oracle says, and names the first differences otherwise."""
    expected = {host_id: row for host_id, history in fleet.items() if (row := oracle.newest_row(history, window_ms))}
    newest = {host_id: row["observed_ms"] for host_id, row in expected.items()}
    found: list[str] = ["nothing was read yet"]

    def settled() -> bool:
        sender.poll(0.2)
        observed = table.observed_ms()
        if observed != newest:
            behind = [host_id for host_id, ms in newest.items() if observed.get(host_id) != ms]
            found[:] = [
                f"{len(behind)} of {len(newest)} hosts are not at their newest event, first "
                f"{[(host_id, newest[host_id], observed.get(host_id)) for host_id in behind[:3]]}"
            ]
            return False
        rows = table.rows()
        found[:] = [line for host_id, row in expected.items() for line in differences(rows.get(host_id), row)]
        return not found

    wait_until(settled, TABLE_SECONDS, lambda: f"{len(found)} differences: {found[:5]}")
