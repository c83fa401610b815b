"""The table's rows of Kubernetes nodes, read within a limit.

What always holds: whoever asks has an answer or an error within the limit, whatever the database and the network do.
"""

from __future__ import annotations

import queue
import time
from datetime import timedelta

from pydantic import SecretStr

from vacancy.connectors.postgres.connection import UnreachableError, explained, no_server, servers, where
from vacancy.connectors.postgres.servers import Connection, Dialing, LimitError, NoServerError, set_local
from vacancy.connectors.scheduler.ranking import Amount, Measured
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import milliseconds_of

ANSWER_WITHIN = timedelta(milliseconds=700)
CONNECTIONS = 4
# One message and so one transaction: nothing is left in the session, for poolers that share it. The server ends the
# statement a little before we give up, since it does not notice while it waits for a lock that nobody waits for it.
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

    Raises:
        VacancyError: the connection string is wrong.
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
        self._servers = servers(dsn, application_name="vacancy extender", writes=False)
        self._kept: queue.LifoQueue[Connection | Dialing | None] = queue.LifoQueue()
        """Connections that nobody uses, also those under way and those yet to be made."""
        for _ in range(CONNECTIONS):
            self._kept.put(None)

    def read(self, names: list[str], by: float | None = None) -> dict[str, tuple[Measured, Amount]]:
        """The rows of those nodes that have one, and the size of their machines.

        Args:
            names: the nodes.
            by: when the answer must be there, by time.monotonic(); None: `answer_within` from now.

        Raises:
            VacancyError: the table cannot be read, or not in time.
        """
        by = time.monotonic() + self.answer_within_s if by is None else by
        try:
            kept = self._kept.get(timeout=max(0.0, by - time.monotonic()))
        except queue.Empty:
            raise self._late() from None
        try:
            if isinstance(kept, Connection):
                try:
                    return self._ask(kept, names, by)
                except UnreachableError:  # the server was restarted since: a new connection may work
                    kept = None
            dialing = kept if kept and not kept.over else Dialing(self._servers, self._connect_timeout.total_seconds())
            kept = dialing  # what takes longer than one question may is gone on with by the next one
            try:
                kept = dialing.finish(by)
            except LimitError:
                raise self._late() from None
            except NoServerError as error:
                kept = None
                raise no_server(error, self._dsn, self._connect_timeout) from None
            kept.settings = set_local(transaction_read_only="on")
            return self._ask(kept, names, by)
        finally:
            self._kept.put(None if isinstance(kept, Connection) and kept.closed else kept)

    def close(self) -> None:
        """Waits for the questions under way, and closes the connections."""
        for _ in range(CONNECTIONS):
            kept = self._kept.get()
            if kept is not None:
                kept.close()

    def _late(self) -> VacancyError:
        limit = f"extender.answer_within = {self.answer_within_s:g} s"
        return UnreachableError(f"{where(self._dsn)}: no answer within {limit}; see `vacancy doctor`")

    def _ask(self, connection: Connection, names: list[str], by: float) -> dict[str, tuple[Measured, Amount]]:
        left_s = by - time.monotonic()
        if left_s <= 0:
            raise self._late()
        connection.limit_s = left_s
        try:
            with explained(self._dsn), connection.cursor() as cursor:
                cursor.execute(_READ, (f"{max(1, round(900 * left_s))} ms", self._max_age, names))
                rows = cursor.fetchall()
        except BaseException as error:
            connection.close()
            if isinstance(error, UnreachableError) and time.monotonic() >= by:
                raise self._late() from None
            raise
        return {
            name: (Measured(*figures), Amount(vcpus or 0, memory_mb or 0)) for name, *figures, vcpus, memory_mb in rows
        }
