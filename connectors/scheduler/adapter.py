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
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg2
import tenacity
from psycopg2 import errors, sql
from psycopg2.extras import register_uuid
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import GRACE_S, UnreachableError, dial_one_of, explained, servers, where
from vacancy.connectors.postgres.schedulable_hosts import ALL, QUERY, HostRow
from vacancy.connectors.postgres.servers import Connection, LimitError, set_local
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
from vacancy.connectors.scheduler.bulk import LONGEST, MOST, MOST_MOVED, PART, RESERVED, parts, reservation_ids
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


class _ReservedError(_TransientError):
    """Bulk claims under way have reserved what would fit.

    Attributes:
        give_back: whether a bulk claim that is refused has to give back to an older one what it has reserved.
    """

    def __init__(self, message: str, *, give_back: bool) -> None:
        super().__init__(message)
        self.give_back = give_back


_CLAIM = """SELECT refusal, contended, consumer, host_id, host_name, claimed_at, expires_at, already, held
FROM vacancy.claim(%s::uuid[], %s, %s)"""
_CLAIM_MANY = """SELECT
  error, detail, refusal, contended, consumer, host_id, host_name, claimed_at, expires_at, already, held
FROM vacancy.claim_many(%s::uuid[], %s::jsonb[])"""
_CONTRADICTION = "VC001"
"""The SQLSTATE of claim() where consumers have claims for something else."""
_CONTENDED = "40001"
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
        self._limit = set_local(statement_timeout=f"{milliseconds_of(self._settings.statement_timeout)} ms")
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
        self,
        request: Request,
        consumers: Sequence[uuid.UUID | str] | None = None,
        *,
        count: int = 1,
        move: bool = False,
    ) -> list[Claim]:
        """Claims a host for each consumer: for all of them or for none.

        A consumer that has a claim keeps it, so a call whose outcome is unknown can be repeated; a claim that is not
        true to the request is an error, or moves. A claim for many consumers holds up others for no longer than one for
        `bulk.PART` does, and ends within ten minutes and a call. Where claims have to move all of it is one
        transaction, so that such a call is for `bulk.MOST_MOVED` consumers at most.

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
            ConfigError: more than `bulk.MOST` consumers, or not all different; with `move`: claims of more than
                `bulk.MOST_MOVED` consumers would have to move in one step.
        """
        given = [uuid.uuid4() for _ in range(count)] if consumers is None else consumers
        ids = [str(consumer) for consumer in given]
        if not ids:
            return []
        if len(ids) <= PART:
            return self._claim_at_once(request, ids, move=move)
        different = _different(ids)
        if different is None or len(ids) > MOST:
            raise ConfigError(
                f"a claim is for 1 to {MOST} consumers, with ids that are all different, not for {len(ids)}"
            )
        try:
            return self._claim_in_bulk(request, different)
        except ContradictionError:
            if not move:
                raise
            if len(ids) > MOST_MOVED:
                raise ConfigError(
                    f"claims of these {len(ids)} consumers would have to move, which is one transaction and "
                    f"therefore for {MOST_MOVED} consumers at most; move them in several calls"
                ) from None
        return self._claim_at_once(request, different, move=True)

    @_timed
    def claim_many(
        self, requests: Sequence[Request], consumers: Sequence[uuid.UUID | str] | None = None
    ) -> list[Claim | NoHostFitsError | ContradictionError | ContendedError | ConfigError]:
        """Claims a host for each of some different requests, in one round trip and one commit for each `bulk.PART`.

        Each is answered by itself, as `claim` would answer it alone: one that is refused keeps no other from its host.
        Repeating the call is as safe as repeating `claim`.

        Args:
            requests: what each consumer needs.
            consumers: as many different ids; None: new ones.

        Returns:
            for each request, in order, its claim, or the error that `claim` would raise.
        """
        ids = [str(each) for each in (consumers if consumers is not None else [uuid.uuid4() for _ in requests])]
        if len(ids) != len(requests):
            raise ConfigError(f"{len(requests)} requests for {len(ids)} consumers; give one for each")
        answers: list[Claim | NoHostFitsError | ContradictionError | ContendedError | ConfigError] = []
        for part in parts(list(zip(ids, requests, strict=True))):
            documents = [request.document(self._settings) for _, request in part]
            values = ([consumer for consumer, _ in part], documents)
            rows = self._call(lambda cursor: cursor.fetchall(), _CLAIM_MANY, values)
            answers += [self._answer(row, *each) for row, each in zip(rows, part, strict=True)]
        return answers

    @_timed
    def release(self, *consumers: uuid.UUID | str) -> list[uuid.UUID]:
        """Releases claims; returns the consumers that had one. Repeating it is harmless."""
        ids = [str(consumer) for consumer in consumers]
        return self._call(_column, "SELECT vacancy.release(%s::uuid[])", (ids,))

    @_timed
    def hosts(self, limit: int | None = None) -> list[HostRow]:
        """The table: schedulable hosts first, then by name; at most `limit` of them."""
        clauses, values = ALL.clauses(limit)
        return self._call(
            lambda cursor: [HostRow(*row) for row in cursor.fetchall()],
            QUERY + clauses,
            values,
            max_age=self._settings.max_age,
        )

    def _claim_at_once(self, request: Request, ids: Sequence[str], *, move: bool = False) -> list[Claim]:
        """Claims in one transaction."""
        rows = self._call(lambda cursor: cursor.fetchall(), _CLAIM, (ids, request.document(self._settings), move))
        refusal, contended = rows[0][:2]
        if refusal is not None:
            raise self._refused(refusal, contended)
        claims = [Claim(*row[2:]) for row in rows]
        self.counters.add(claims=sum(not claim.already for claim in claims), contended_hosts=contended)
        return claims

    def _answer(
        self, row: Sequence[Any], consumer: str, request: Request
    ) -> Claim | NoHostFitsError | ContradictionError | ContendedError | ConfigError:
        """The answer to one of many requests; a claim alone waits for hosts, which one among many does not."""
        error, detail, refusal, contended, *claimed = row
        if error == _CONTRADICTION:
            return _contradiction(detail)
        if error == _CONTENDED:
            try:
                return self._claim_at_once(request, [consumer])[0]
            except (NoHostFitsError, ContradictionError, ContendedError) as alone:
                return alone
        if error is not None:
            return ConfigError(f"the request makes no sense: {detail}")
        if refusal is not None:
            return self._refused(refusal, contended)
        claim = Claim(*claimed)
        self.counters.add(claims=not claim.already, contended_hosts=contended)
        return claim

    def _refused(self, refusal: dict[str, Any], contended: int) -> NoHostFitsError:
        self.counters.add(contended_hosts=contended)
        self.counters.refuse(refusal["dimension"])
        nearest = refusal["nearest"] and NearestMiss(**refusal["nearest"])
        return NoHostFitsError(Refusal(**refusal | {"nearest": nearest}))

    def _claim_in_bulk(self, request: Request, ids: Sequence[str]) -> list[Claim]:
        """Reserves part by part, then takes all of it in one transaction; gives back what it has not taken."""
        ends = time.monotonic() + LONGEST.total_seconds()
        while True:
            made: list[str] = []
            try:
                return self._reserve_and_take(request, ids, made, ends)
            except BaseException as error:
                # Tried once: what stays expires.
                with suppress(VacancyError):
                    limit = time.monotonic() + self._settings.statement_timeout.total_seconds() + GRACE_S
                    self._once(_column, "SELECT vacancy.release(%s::uuid[])", (made,), self._limit, limit)
                # An older bulk claim needs what this one has reserved, and this one what the other has.
                if not isinstance(error, _ReservedError) or time.monotonic() > ends:
                    if isinstance(error, _TransientError):
                        raise ContendedError(str(error)) from None
                    raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311  # chance, not a secret

    def _reserve_and_take(self, request: Request, ids: Sequence[str], made: list[str], ends: float) -> list[Claim]:
        """As `_claim_in_bulk`, once; `made` gets what is to be given back if it fails."""
        claimed = set(self._call(_column, "SELECT vacancy.claimed(%s::uuid[])::text", (ids,)))
        claims: dict[str, Claim] = {}
        for part in parts([consumer for consumer in ids if consumer in claimed]):
            again = self._claim_at_once(request, part)
            claims |= {str(claim.consumer): claim for claim in again}
            made += [str(claim.consumer) for claim in again if not claim.already]
        new = [consumer for consumer in ids if consumer not in claimed]
        reserved = reservation_ids(len(new))
        document = json.loads(request.document(self._settings)) | {"claim_ttl": f"{milliseconds_of(RESERVED)} ms"}
        hosts = [claim.host_id for claim in claims.values()]
        contended = 0
        for part in parts(reserved):
            if request.distinct_hosts:
                document["avoid"] = [*request.avoid, *hosts]
            made += part
            rows = self._reserve(part, json.dumps(document), ends)
            contended += rows[0][1]
            if (refusal := rows[0][2]) is not None:
                counts = {"claimable": len(hosts) - len(claims) + refusal["claimable"], "count": len(ids)}
                raise self._refused(refusal | counts, contended)
            hosts += [host for host, *_ in rows]
        ttl = f"{milliseconds_of(request.claim_ttl or self._settings.claim_ttl)} ms"
        taken = self._call(
            lambda cursor: [Claim(*row) for row in cursor.fetchall()],
            "SELECT * FROM vacancy.take_reserved(%s::uuid[], %s::uuid[], %s)",
            (reserved, new, ttl),
        )
        self.counters.add(claims=sum(not claim.already for claim in taken), contended_hosts=contended)
        claims |= {str(claim.consumer): claim for claim in taken}
        return [claims[consumer] for consumer in ids]

    def _reserve(self, part: Sequence[str], document: str, ends: float) -> list[tuple[Any, ...]]:
        """Reserves a part; waits for its turn, and until younger bulk claims in its way have given up."""
        while True:
            if time.monotonic() > ends:
                raise TimedOutError(
                    f"{self._place}: a claim for many consumers takes longer than {LONGEST.total_seconds():g} s; "
                    "claim again with the same consumers, or for fewer"
                )
            try:
                return self._call(
                    lambda cursor: cursor.fetchall(),
                    "SELECT host_id, contended, refusal FROM vacancy.reserve(%s::uuid[], %s)",
                    (part, document),
                    in_bulk=True,
                )
            except _ReservedError as error:
                if error.give_back:
                    raise
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311  # as above

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

    def _call(
        self,
        read: Callable[[Any], _T],
        statement: str | sql.Composable,
        values: object,
        *,
        in_bulk: bool = False,
        max_age: timedelta | None = None,
    ) -> _T:
        """Runs a statement and reads its answer; after a transient error retries at once, then with growing pauses.

        Args:
            read: takes the cursor.
            statement: one statement, which is a transaction.
            values: of its parameters.
            in_bulk: do not wait for what other bulk claims have reserved.
            max_age: scheduler.max_age, where the statement reads the view.
        """
        retry_for_s = self._settings.retry_for.total_seconds()
        local = self._limit
        if max_age is not None:
            local += set_local(**{"vacancy.max_age": f"{milliseconds_of(max_age)} ms"})
        # The last try begins while calls are still retried, and this is when it ends.
        ends = time.monotonic() + retry_for_s + self._settings.statement_timeout.total_seconds() + GRACE_S
        try:
            return self._once(read, statement, values, local, ends)
        except _AGAIN as error:
            self._count(error)
            if in_bulk and isinstance(error, _ReservedError):
                raise
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _AGAIN) and not (in_bulk and isinstance(error, _ReservedError))
            ),
            stop=tenacity.stop_after_delay(retry_for_s),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            before_sleep=lambda state: self._count(state.outcome.exception() if state.outcome else None),
            reraise=True,
        )
        try:
            answer: _T = retrying(self._once, read, statement, values, local, ends)
        except _TransientError as error:
            if in_bulk and isinstance(error, _ReservedError):
                raise
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
                with connection.cursor() as cursor, _contradictions_told():
                    cursor.execute(statement, values)
                    return read(cursor)
            except errors.QueryCanceled:
                limit = self._settings.statement_timeout.total_seconds()
                raise TimedOutError(
                    f"{self._place}: no answer within scheduler.statement_timeout = {limit:g} s; "
                    "claim again with the same consumers"
                ) from None
            except (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable) as error:
                message = f"{self._place}: {error.diag.message_primary}; claim again"
                if error.diag.message_detail in ("give back", "wait"):
                    raise _ReservedError(message, give_back=error.diag.message_detail == "give back") from None
                raise _TransientError(message) from None
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


def _column(cursor: Any) -> list[Any]:
    return [row[0] for row in cursor.fetchall()]


def _different(ids: Sequence[str]) -> list[str] | None:
    """The ids in the form in which PostgreSQL writes them; None if they are not ids or not all different."""
    try:
        written = [str(uuid.UUID(each)) for each in ids]
    except ValueError:
        return None
    return written if len(set(written)) == len(written) else None


@contextmanager
def _contradictions_told() -> Iterator[None]:
    """Gives the error of claims that are not true to the request its type."""
    try:
        yield
    except psycopg2.Error as error:
        if error.pgcode != _CONTRADICTION:
            raise
        told = error.diag.message_detail
    else:
        return
    raise _contradiction(told)


def _contradiction(told: str | None) -> ContradictionError:
    found = json.loads(told or "[]")
    return ContradictionError([Contradiction(**one | {"consumer": uuid.UUID(one["consumer"])}) for one in found])


_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _open_all() -> None:
    for scheduler in _SCHEDULERS:
        scheduler._open()  # noqa: SLF001  # this module's own


# A child cannot share connections with its parent, and the parent's threads may have held the locks.
os.register_at_fork(after_in_child=_open_all)
