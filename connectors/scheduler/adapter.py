"""The scheduler adapter: picks and claims hosts, in one round trip each.

>>> scheduler = Scheduler("postgresql://scheduler@db/vacancy")                        # doctest: +SKIP
>>> [claim] = scheduler.claim(Request(vcpus=4, memory_mb=8192, disk_gb=40))           # doctest: +SKIP
>>> claim.host_name                                                                   # doctest: +SKIP
'compute-17'

The work is done by SQL functions (``schemas/functions``, from ``claim.sql`` on); this module keeps
connections, tries again where that is safe, and turns answers into types.

What always holds: a call that was interrupted, for example by a restart of the database, is repeated with the same
consumers, so that no claim is lost and none is made twice.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg2
import tenacity
from psycopg2 import errors, sql
from psycopg2.extras import register_uuid
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import GRACE_S, UnreachableError, dial_one_of, explained, servers, where
from vacancy.connectors.postgres.schedulable_hosts import ORDER, QUERY, HostRow
from vacancy.connectors.postgres.servers import Connection, LimitError, set_local
from vacancy.connectors.scheduler.answers import (
    Candidate,
    Claim,
    ContendedError,
    NearestMiss,
    NoHostFitsError,
    Refusal,
    TimedOutError,
)
from vacancy.connectors.scheduler.counters import Counters
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.schemas.units import milliseconds_of

CONNECT_TIMEOUT = timedelta(seconds=5)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _TransientError(VacancyError):
    """The server says that the call may succeed when it is made again."""


_CLAIM = """SELECT refusal, contended, consumer, host_id, host_name, claimed_at, expires_at, already, held
FROM vacancy.claim(%s::uuid[], %s)"""
_AGAIN = (UnreachableError, _TransientError)
"""Errors after which the same call may succeed."""


def _timed(call: Callable[Concatenate[Scheduler, _P], _T]) -> Callable[Concatenate[Scheduler, _P], _T]:
    """Counts how long a call takes, however it ends."""

    @functools.wraps(call)
    def timed(self: Scheduler, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        began = time.perf_counter()
        try:
            return call(self, *args, **kwargs)
        finally:
            self.counters.took(call.__name__, time.perf_counter() - began)

    return timed


class Scheduler:
    """Picks and claims. Safe to share between threads; after a fork the child has connections of its own.

    Args:
        dsn: libpq's connection string, of a login in the role ``vacancy_scheduler``.
        settings: defaults for a request's max_age, claim_ttl, sample and strategy; connections and time-outs.

    Every method raises:
        UnreachableError: the database could not be reached for `settings.retry_for`.
        TimedOutError: the call took longer than `settings.statement_timeout`.
        ConfigError: the request is invalid.
        VacancyError: anything else that PostgreSQL refuses.
    """

    def __init__(self, dsn: str | SecretStr, settings: SchedulerSettings | None = None) -> None:
        self.counters = Counters()
        self._dsn = dsn if isinstance(dsn, SecretStr) else SecretStr(dsn)
        self._settings = settings or SchedulerSettings()
        self._place = where(self._dsn)  # an invalid connection string fails here, not in the first call
        self._servers = servers(self._dsn, application_name="vacancy scheduler", writes=True)
        self._open()
        _SCHEDULERS.add(self)

    @_timed
    def candidates(self, request: Request) -> list[Candidate]:
        """Up to 8 of the best hosts for a request, best first, without claiming any; [] if none fits."""
        return self._call(
            lambda cursor: [Candidate(*row) for row in cursor.fetchall()],
            "SELECT host_id, host_name, score FROM vacancy.candidates(%s)",
            (request.document(self._settings),),
        )

    @_timed
    def claim(
        self, request: Request, consumers: Sequence[uuid.UUID | str] | None = None, *, count: int = 1
    ) -> list[Claim]:
        """Claims a host for each consumer: for all of them or for none.

        A consumer that has a claim keeps it, so a call whose outcome is unknown can be repeated.

        Args:
            request: what each of them needs.
            consumers: ids of the instances that the claims are for; an empty sequence claims nothing. None: `count`
                new ids.
            count: how many hosts to claim if `consumers` is None.

        Returns:
            a claim for each consumer, in their order.

        Raises:
            NoHostFitsError: names the dimension that ran out, and the nearest miss.
            ContendedError: others kept claiming the hosts that fit.
        """
        given = [uuid.uuid4() for _ in range(count)] if consumers is None else consumers
        ids = [str(consumer) for consumer in given]
        if not ids:
            return []
        rows = self._call(
            lambda cursor: cursor.fetchall(),
            _CLAIM,
            (ids, request.document(self._settings)),
        )
        refusal, contended = rows[0][:2]
        if refusal is not None:
            self.counters.add(contended_hosts=contended)
            self.counters.refuse(refusal["dimension"])
            nearest = refusal["nearest"] and NearestMiss(**refusal["nearest"])
            raise NoHostFitsError(Refusal(**refusal | {"nearest": nearest}))
        claims = [Claim(*row[2:]) for row in rows]
        self.counters.add(claims=sum(not claim.already for claim in claims), contended_hosts=contended)
        return claims

    @_timed
    def release(self, *consumers: uuid.UUID | str) -> list[uuid.UUID]:
        """Releases claims; returns the consumers that had one. Repeating it is harmless."""
        ids = [str(consumer) for consumer in consumers]
        return self._call(
            lambda cursor: [row[0] for row in cursor.fetchall()], "SELECT vacancy.release(%s::uuid[])", (ids,)
        )

    @_timed
    def hosts(self, limit: int | None = None) -> list[HostRow]:
        """The table: schedulable hosts first, then by name; at most `limit` of them."""
        return self._call(
            lambda cursor: [HostRow(*row) for row in cursor.fetchall()],
            QUERY + ORDER,
            {"limit": limit},
            **{"vacancy.max_age": f"{milliseconds_of(self._settings.max_age)} ms"},
        )

    def close(self) -> None:
        """Closes the connections that no call is using."""
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> None:
        """Starts without connections. A parent's connections stay open: psycopg2 does not close them in a child."""
        self.counters.unlock()
        self._places = threading.BoundedSemaphore(self._settings.connections)
        # psycopg2's own pools keep only as many connections as they opened at their start.
        self._idle: list[Connection] = []

    @contextmanager
    def _connection(self, ends: float) -> Iterator[Connection]:
        """A connection that no other thread uses; `ends` is when the call does, in monotonic seconds."""
        idle, left_s = self._idle, ends - time.monotonic()
        limit_s = self._settings.statement_timeout.total_seconds() + GRACE_S
        if not self._places.acquire(timeout=max(0.0, min(limit_s, left_s))):
            raise TimedOutError(
                f"{self._place}: all {self._settings.connections} connections of this scheduler were in use for "
                f"{limit_s:g} s; raise scheduler.connections, or claim again with the same consumers"
            )
        try:
            left_s = max(0.0, ends - time.monotonic())
            try:
                connection = idle.pop()
            except IndexError:
                connection = self._connect(left_s)
            try:
                connection.limit_s = min(limit_s, max(0.0, ends - time.monotonic()))
                yield connection
            finally:
                if not connection.closed:
                    idle.append(connection)
        finally:
            self._places.release()

    def _connect(self, left_s: float) -> Connection:
        timeout = min(CONNECT_TIMEOUT, timedelta(seconds=left_s))
        connection = dial_one_of(self._servers, self._dsn, timeout)
        register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]  # its stubs name no types
        return connection

    def _call(self, read: Callable[[Any], _T], statement: str | sql.Composable, values: object, **settings: str) -> _T:
        """Runs a statement and reads its answer; after a transient error retries at once, then with growing pauses.

        Args:
            read: takes the cursor.
            statement: one statement, which is a transaction.
            values: of its parameters.
            settings: PostgreSQL's, for this statement, besides its time-out.
        """
        retry_for_s = self._settings.retry_for.total_seconds()
        timeout = f"{milliseconds_of(self._settings.statement_timeout)} ms"
        local = set_local(statement_timeout=timeout, **settings)
        # The last try begins while calls are still retried, and this is when it ends.
        ends = time.monotonic() + retry_for_s + self._settings.statement_timeout.total_seconds() + GRACE_S
        try:
            return self._once(read, statement, values, local, ends)
        except _AGAIN as error:
            self._count(error)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_AGAIN),
            stop=tenacity.stop_after_delay(retry_for_s),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            before_sleep=lambda state: self._count(state.outcome.exception() if state.outcome else None),
            reraise=True,
        )
        try:
            answer: _T = retrying(self._once, read, statement, values, local, ends)
        except _TransientError as error:
            raise ContendedError(str(error)) from None
        return answer

    def _count(self, error: BaseException | None) -> None:
        self.counters.add(**{"retries" if isinstance(error, _TransientError) else "reconnects": 1})

    def _once(
        self, read: Callable[[Any], _T], statement: str | sql.Composable, values: object, local: str, ends: float
    ) -> _T:
        with self._connection(ends) as connection, explained(self._dsn):
            try:
                connection.settings = local
                with connection.cursor() as cursor:
                    cursor.execute(statement, values)
                    return read(cursor)
            except errors.QueryCanceled:
                limit = self._settings.statement_timeout.total_seconds()
                raise TimedOutError(
                    f"{self._place}: no answer within scheduler.statement_timeout = {limit:g} s; "
                    "claim again with the same consumers"
                ) from None
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable) as error:
                raise _TransientError(f"{self._place}: {error.diag.message_primary}; claim again") from None
            except psycopg2.DataError as error:
                raise ConfigError(f"the request makes no sense: {error.diag.message_primary}") from None
            except psycopg2.Error as error:
                if isinstance(error, LimitError | errors.ReadOnlySqlTransaction):
                    self._servers.failed(connection.place)  # it is gone, or a standby: another one is to be found
                elif (
                    not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) and not connection.closed
                ):
                    raise
                connection.close()
                self.close()  # whatever broke this connection has broken the other idle ones too
                raise


_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _open_all() -> None:
    for scheduler in _SCHEDULERS:
        scheduler._open()  # noqa: SLF001  # this module's own


# A child cannot share connections with its parent, and the parent's threads may have held the locks.
os.register_at_fork(after_in_child=_open_all)
