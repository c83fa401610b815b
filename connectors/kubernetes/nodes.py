"""The table's rows of Kubernetes nodes, read within a limit.

What always holds: whoever asks has an answer or an error within the limit, whatever the database and the network do.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import UnreachableError, connect, explained, where
from vacancy.connectors.scheduler.ranking import Amount, Measured
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import milliseconds_of

ANSWER_WITHIN = timedelta(milliseconds=700)
CONNECTIONS = 4
# One message and so one transaction: nothing is left in the session, for poolers that share it. The server ends the
# statement by itself too, since it does not notice while it waits for a lock that nobody waits for it.
_READ = """
SET LOCAL statement_timeout = %s;
SET LOCAL vacancy.max_age = %s;
SELECT name, date_part('epoch', age), cpu_utilization, cpu_steal, cpu_pressure, memory_pressure, io_pressure,
  memory_mb_available, coalesce(vcpus_claimed, 0), (inventories->'VCPU'->>'total')::float8,
  (inventories->'MEMORY_MB'->>'total')::float8
FROM vacancy.schedulable_host
WHERE name = ANY(%s) AND reason IS NULL
"""


class Nodes:
    """Reads the table, for several threads at once; each question is one round trip.

    Args:
        dsn: of a login in the role ``vacancy_reader``, or ``vacancy_scheduler``.
        connect_timeout: how long to wait for the server when a connection is made.
        max_age: a host that has not reported for this long counts as unknown.
        answer_within: how long a question may take.
    """

    def __init__(
        self,
        dsn: SecretStr,
        connect_timeout: timedelta,
        max_age: timedelta,
        answer_within: timedelta = ANSWER_WITHIN,
    ) -> None:
        self.answer_within_s = answer_within.total_seconds()
        self._dsn, self._connect_timeout = dsn, connect_timeout
        self._max_age = f"{milliseconds_of(max_age)} ms"
        self._readers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="nodes")
        self._idle: deque[Connection] = deque()

    def read(self, names: list[str], by: float | None = None) -> dict[str, tuple[Measured, Amount]]:
        """The rows of those nodes that have one, and the size of their machines.

        Args:
            names: the nodes.
            by: when the answer must be there, by time.monotonic(); None: `answer_within` from now.

        Raises:
            VacancyError: the table cannot be read, or not in time.
        """
        by = time.monotonic() + self.answer_within_s if by is None else by
        if by <= time.monotonic():
            raise self._late()
        using: list[Connection] = []
        reading = self._readers.submit(self._read, names, by, using)
        try:
            return reading.result(max(0.0, by - time.monotonic()))
        except TimeoutError:
            if not reading.cancel() and not reading.done():
                for connection in using:
                    _cut(connection)
            raise self._late() from None

    def close(self) -> None:
        """Waits for the questions under way, and closes the connections."""
        self._readers.shutdown()
        while self._idle:
            self._idle.pop().close()

    def _late(self) -> VacancyError:
        limit = f"extender.answer_within = {self.answer_within_s:g} s"
        return UnreachableError(f"{where(self._dsn)}: no answer within {limit}; see `vacancy doctor`")

    def _read(self, names: list[str], by: float, using: list[Connection]) -> dict[str, tuple[Measured, Amount]]:
        while self._idle and time.monotonic() < by:
            with suppress(IndexError, UnreachableError):  # the server was restarted since: a new connection may work
                return self._ask(self._idle.pop(), names, by, using)
        connection = connect(
            self._dsn,
            connect_timeout=self._connect_timeout,
            application_name="vacancy extender",
            read_only=True,
            statement_timeout=timedelta(seconds=self.answer_within_s),
        )
        return self._ask(connection, names, by, using)

    def _ask(
        self, connection: Connection, names: list[str], by: float, using: list[Connection]
    ) -> dict[str, tuple[Measured, Amount]]:
        left_ms = round((by - time.monotonic()) * 1000)
        if left_ms <= 0:  # it took long to connect: nobody waits any more, but the next one has a connection
            self._idle.append(connection)
            raise self._late()
        using.append(connection)
        try:
            with explained(self._dsn), connection.cursor() as cursor:
                cursor.execute(_READ, (f"{left_ms} ms", self._max_age, names))
                rows = cursor.fetchall()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return {
            name: (Measured(*figures), Amount(vcpus or 0, memory_mb or 0)) for name, *figures, vcpus, memory_mb in rows
        }


def _cut(connection: Connection) -> None:
    """Ends a connection that another thread waits on, which then has an error instead of an answer."""
    # It may be closed at this moment, and then there is nothing to end.
    with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)
