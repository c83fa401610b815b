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
import json
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
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extras import register_uuid
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import UnreachableError, dial, explained, where
from vacancy.connectors.postgres.schedulable_hosts import HostRow, fetch
from vacancy.connectors.scheduler.answers import (
    Candidate,
    Claim,
    ContendedError,
    Contradiction,
    ContradictionError,
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


_PREPARE = """PREPARE claim (uuid[], jsonb, boolean) AS
SELECT refusal, contended, consumer, host_id, host_name, claimed_at, expires_at, already, held
FROM vacancy.claim($1, $2, $3)"""
_CONTRADICTION = "VC001"
"""The SQLSTATE of claim() where consumers have claims for something else."""
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
        self._open()
        _SCHEDULERS.add(self)

    @_timed
    def candidates(self, request: Request) -> list[Candidate]:
        """Up to 8 of the best hosts for a request, best first, without claiming any; [] if none fits."""
        return self._call(
            lambda cursor: [Candidate(*row) for row in cursor.fetchall()],
            "SELECT host_id, host_name, score FROM vacancy.candidates(%s)",
            request.document(self._settings),
        )

    @_timed
    def claim(
        self,
        request: Request,
        consumers: Sequence[uuid.UUID | str] | None = None,
        *,
        count: int = 1,
        move: bool = False,
    ) -> list[Claim]:
        """Claims a host for each consumer: for all of them or for none.

        A consumer that has a claim keeps it, so a call whose outcome is unknown can be repeated; a claim that is not
        true to the request is an error, or moves.

        Args:
            request: what each of them needs.
            consumers: ids of the instances that the claims are for; an empty sequence claims nothing. None: `count`
                new ids.
            count: how many hosts to claim if `consumers` is None.
            move: whether claims that are not true to the request move: the old ones are given back and new ones made in
                one step, or, if no host fits, everything stays as it was.

        Returns:
            a claim for each consumer, in their order.

        Raises:
            NoHostFitsError: names the dimension that ran out, and the nearest miss.
            ContradictionError: without `move`: consumers have claims for something else.
            ContendedError: others kept claiming the hosts that fit.
        """
        given = [uuid.uuid4() for _ in range(count)] if consumers is None else consumers
        ids = [str(consumer) for consumer in given]
        if not ids:
            return []
        rows = self._call(
            lambda cursor: cursor.fetchall(),
            "EXECUTE claim(%s::uuid[], %s, %s)",
            ids,
            request.document(self._settings),
            move,
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
            lambda cursor: [row[0] for row in cursor.fetchall()], "SELECT vacancy.release(%s::uuid[])", ids
        )

    @_timed
    def hosts(self, limit: int | None = None) -> list[HostRow]:
        """The table: schedulable hosts first, then by name; at most `limit` of them."""

        def read(cursor: Any) -> list[HostRow]:
            return fetch(cursor.connection, limit)

        max_age = f"{milliseconds_of(self._settings.max_age)} ms"
        return self._call(read, "SELECT set_config('vacancy.max_age', %s, false)", max_age)

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
    def _connection(self) -> Iterator[Connection]:
        """A connection that no other thread uses, in autocommit mode."""
        idle = self._idle
        with self._places:
            try:
                connection = idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                if not connection.closed:
                    idle.append(connection)

    def _connect(self) -> Connection:
        connection = dial(self._dsn, connect_timeout=CONNECT_TIMEOUT, application_name="vacancy scheduler")
        connection.autocommit = True
        register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]  # its stubs name no types
        # The server may disappear between connecting and these statements.
        with explained(self._dsn), connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (milliseconds_of(self._settings.statement_timeout),))
            cursor.execute(_PREPARE)
        return connection

    def _call(self, read: Callable[[Any], _T], statement: str, *values: object) -> _T:
        """Runs a statement and reads its answer; after a transient error retries at once, then with growing pauses."""
        try:
            return self._once(read, statement, values)
        except _AGAIN as error:
            self._count(error)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_AGAIN),
            stop=tenacity.stop_after_delay(self._settings.retry_for.total_seconds()),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            before_sleep=lambda state: self._count(state.outcome.exception() if state.outcome else None),
            reraise=True,
        )
        try:
            answer: _T = retrying(self._once, read, statement, values)
        except _TransientError as error:
            raise ContendedError(str(error)) from None
        return answer

    def _count(self, error: BaseException | None) -> None:
        self.counters.add(**{"retries" if isinstance(error, _TransientError) else "reconnects": 1})

    def _once(self, read: Callable[[Any], _T], statement: str, values: Sequence[object]) -> _T:
        with self._connection() as connection, explained(self._dsn):
            try:
                with connection.cursor() as cursor, _contradictions_told():
                    cursor.execute(statement, values)
                    return read(cursor)
            except errors.QueryCanceled:
                limit = self._settings.statement_timeout.total_seconds()
                raise TimedOutError(
                    f"{self._place}: no answer within scheduler.statement_timeout = {limit:g} s; "
                    "claim again with the same consumers"
                ) from None
            except (errors.SerializationFailure, errors.DeadlockDetected) as error:
                raise _TransientError(f"{self._place}: {error.diag.message_primary}; claim again") from None
            except psycopg2.DataError as error:
                raise ConfigError(f"the request makes no sense: {error.diag.message_primary}") from None
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                connection.close()
                self.close()  # whatever broke this connection has broken the other idle ones too
                raise


@contextmanager
def _contradictions_told() -> Iterator[None]:
    """Gives the error of claims that are not true to the request its type."""
    try:
        yield
    except psycopg2.Error as error:
        if error.pgcode != _CONTRADICTION:
            raise
        found = json.loads(error.diag.message_detail or "[]")
    else:
        return
    raise ContradictionError([Contradiction(**one | {"consumer": uuid.UUID(one["consumer"])}) for one in found])


_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _open_all() -> None:
    for scheduler in _SCHEDULERS:
        scheduler._open()  # noqa: SLF001  # this module's own


# A child cannot share connections with its parent, and the parent's threads may have held the locks.
os.register_at_fork(after_in_child=_open_all)
