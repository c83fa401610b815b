"""The scheduler adapter: picks and claims hosts, in one round trip each.

>>> scheduler = Scheduler("postgresql://scheduler@db/vacancy")                        # doctest: +SKIP
>>> [claim] = scheduler.claim(Request(vcpus=4, memory_mb=8192, disk_gb=40))           # doctest: +SKIP
>>> claim.host_name                                                                   # doctest: +SKIP
'compute-17'

The work is done by SQL functions (``schemas/functions``, from ``claim.sql`` on); this module keeps
connections, tries again where that is safe, and turns answers into types.

What always holds: a call that was cut off, by a restart of the database say, is made again with the same consumers, so
that no claim is lost and none is made twice.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Concatenate, ParamSpec, Self, TypeVar

import psycopg2
import tenacity
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extras import register_uuid
from pydantic import Field, SecretStr, model_validator

from connectors.histogram import Histogram
from connectors.hosts import HostRow, fetch
from connectors.postgres import UnreachableError, dial, explained, where
from connectors.settings import SchedulerSettings, Section, Strategy
from schemas.errors import ConfigError, VacancyError
from schemas.units import Duration, milliseconds_of

CONNECT_TIMEOUT = timedelta(seconds=5)
_CALLS = ("candidates", "claim", "release", "hosts")
_P = ParamSpec("_P")
_T = TypeVar("_T")
_UNITS = "by min_unit, max_unit and step_size,"
_LABELS = {
    "vcpus_unit": f"vcpus, {_UNITS}",
    "memory_mb_unit": f"memory_mb, {_UNITS}",
    "disk_gb_unit": f"disk_gb, {_UNITS}",
    "vcpus_free": "vcpus",
    "memory_mb_free": "memory_mb, by what is promised,",
    "disk_gb_free": "disk_gb, by what is promised,",
    "memory_mb_available": "memory_mb, by what the kernel measures,",
    "disk_gb_available": "disk_gb, by what the kernel measures,",
    "numa_cpus": "CPUs to pin in one NUMA cell",
    "numa": "one NUMA cell with all of it",
    "pci": "PCI devices, all of them together,",
}
_Amount = Annotated[int, Field(ge=1, le=2**31 - 1)]
_PciId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{4}$")]


class Weights(Section):
    """What a fraction of each is worth in a host's score; see docs/claims.md."""

    vcpus: float = 1.0
    memory_mb: float = 1.0
    disk_gb: float = 1.0
    load: float = 1.0
    age: float = 0.1


class Numa(Section):
    """What an instance needs of one NUMA cell, whichever it is.

    Raises:
        pydantic.ValidationError: an amount is negative.
    """

    cpus: int = Field(default=0, ge=0, le=2**31 - 1, description="CPUs to pin.")
    pages: dict[_Amount, _Amount] = Field(default={}, description="Huge pages, by their size in KiB.")


class Pci(Section):
    """PCI devices that an instance needs, all of one kind: from pools that have all of what is given.

    Raises:
        pydantic.ValidationError: an id is not four hex digits, or nothing says which devices.
    """

    vendor_id: _PciId | None = Field(default=None, description="Four hex digits.")
    product_id: _PciId | None = Field(default=None, description="Four hex digits.")
    tags: dict[str, str] = Field(default={}, description="Tags of the pool, such as physical_network.")
    numa_node: int | None = Field(default=None, description="The cell that they hang off.")
    same_cell: bool = Field(default=False, description="One cell with `numa` and with all others that have this.")
    count: _Amount = Field(default=1, description="How many.")

    @model_validator(mode="after")
    def _which(self) -> Self:
        if not (self.vendor_id or self.product_id or self.tags):
            raise ValueError("say which devices: vendor_id, product_id or tags")
        return self


class Request(Section):
    """What an instance needs of a host. Hosts and pools are named by id or name; a part that is not given is no matter.

    Raises:
        pydantic.ValidationError: an amount is negative or a part is unknown.
    """

    vcpus: int = Field(default=0, ge=0, description="VCPUs.")
    memory_mb: int = Field(default=0, ge=0, description="MiB of memory.")
    disk_gb: int = Field(default=0, ge=0, description="GiB of disk.")
    resources: dict[str, _Amount] = Field(default={}, description="Amounts of other resource classes, by name.")
    numa: Numa = Field(default=Numa(), description="Pinned CPUs and huge pages, from one NUMA cell.")
    pci: tuple[Pci, ...] = Field(default=(), max_length=8, description="PCI devices.")
    distinct_hosts: bool = Field(default=False, description="No two of the claims on one host.")
    required: tuple[str, ...] = Field(default=(), description="Traits that the host must have.")
    any_of: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Of each group it must have one trait at least."
    )
    forbidden: tuple[str, ...] = Field(default=(), description="Traits that it must not have.")
    aggregates: tuple[str, ...] = Field(default=(), description="It must be in one of these aggregates.")
    near: str | None = Field(default=None, description="It must share an aggregate with this storage pool.")
    zone: str | None = Field(default=None, description="Its availability zone.")
    include: tuple[str, ...] = Field(default=(), description="Only these hosts.")
    avoid: tuple[str, ...] = Field(default=(), description="None of these hosts.")
    max_cpu_utilization: float | None = Field(default=None, description="At most this fraction of its CPUs is busy.")
    max_cpu_steal: float | None = Field(default=None, description="At most this fraction is stolen.")
    max_cpu_pressure: float | None = Field(default=None, description="Tasks wait for a CPU at most this fraction.")
    max_memory_pressure: float | None = Field(default=None, description="Tasks wait for memory at most this fraction.")
    max_io_pressure: float | None = Field(default=None, description="Tasks wait for I/O at most this fraction.")
    min_memory_mb_available: int = Field(default=0, ge=0, description="MiB to be left available after the claim.")
    strategy: Strategy | None = Field(default=None, description="None: as the settings say.")
    weights: Weights = Weights()
    sample: int | None = Field(default=None, ge=1, description="None: as the settings say.")
    max_age: Duration | None = Field(default=None, description="None: as the settings say.")
    claim_ttl: Duration | None = Field(default=None, description="None: as the settings say.")

    def __hash__(self) -> int:
        # Not of each field, as pydantic has it, since dicts have none; requests that share one are still told apart.
        return hash((self.vcpus, self.memory_mb, self.disk_gb))

    @property
    def takes_anything(self) -> bool:
        """Whether it asks for an amount of anything."""
        return any((self.vcpus, self.memory_mb, self.disk_gb, self.resources, self.numa != Numa(), self.pci))

    @functools.lru_cache(maxsize=1024)  # noqa: B019  # requests are small, and few: flavours
    def document(self, settings: SchedulerSettings) -> str:
        """The request as the SQL functions take it, in JSON."""
        given = self.model_dump(exclude_defaults=True)
        for name in ("strategy", "sample", "max_age", "claim_ttl"):
            value = getattr(self, name) or getattr(settings, name)
            given[name] = f"{milliseconds_of(value)} ms" if isinstance(value, timedelta) else value
        return json.dumps(given)


@dataclass(frozen=True)
class Claim:
    """A claim in flight, or one that its host shows by now.

    Attributes:
        consumer: whom it is for.
        host_id: where.
        host_name: its name; None if the host was retired meanwhile.
        claimed_at: when, by the database's clock.
        expires_at: when it ends to count if the host does not show the consumer before.
        already: it was there before this call.
        held: what it takes of resource classes, NUMA cells and PCI pools, by what they are, such as "numa 0 cpus";
            None: nothing of them.
    """

    consumer: uuid.UUID
    host_id: str
    host_name: str | None
    claimed_at: datetime
    expires_at: datetime
    already: bool
    held: dict[str, int] | None


@dataclass(frozen=True)
class Candidate:
    """A host that fits; a higher score is better, and scores of different requests do not compare."""

    host_id: str
    host_name: str
    score: float


@dataclass(frozen=True)
class NearestMiss:
    """The host that came nearest; `had` is its figure in the dimension that ran out, None where that is no amount."""

    host_id: str
    name: str
    had: float | None
    ruled_out_by: list[str]


@dataclass(frozen=True)
class Refusal:
    """Why no host fits.

    Attributes:
        hosts: how many were looked at: all there are.
        ruled_out: hosts by the first dimension that ruled each out.
        dimension: the one that ruled out the last ones left: it ran out. "hosts": there are none.
        requested: how much of it was asked for; None where it is no amount.
        nearest: the host that came nearest to having it.
        claimable: how many of `count` could have been claimed.
        count: how many were to be claimed.
    """

    hosts: int
    ruled_out: dict[str, int]
    dimension: str
    requested: float | None
    nearest: NearestMiss | None
    claimable: int
    count: int


class NoHostFitsError(VacancyError):
    """No host fits, or not enough do; nothing was claimed."""

    exit_status = 3

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(_explain(refusal))


class ContendedError(VacancyError):
    """Others kept claiming the hosts that fit; nothing was claimed. Claiming again with the same consumers is safe."""


class TimedOutError(VacancyError):
    """The database took longer than `scheduler.statement_timeout`. Claiming again with the same consumers is safe."""


@dataclass
class Counters:
    """What a scheduler did since it was made; each only grows.

    Attributes:
        claims: claims made, one a consumer.
        refusals: calls that no host fitted.
        retries: calls made again because others were in the way (serialization failures and deadlocks).
        reconnects: calls made again because the connection broke or could not be had.
        contended_hosts: hosts passed over since others were claiming from them at that moment.
        refused_by: refusals by the dimension that ran out.
        durations: how long calls took, by the method's name.
    """

    claims: int = 0
    refusals: int = 0
    retries: int = 0
    reconnects: int = 0
    contended_hosts: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Histogram] = field(
        default_factory=lambda: {call: Histogram() for call in _CALLS}, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **amounts: int) -> None:
        """Adds to some of them at once."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def refuse(self, dimension: str) -> None:
        """Counts a refusal."""
        with self._lock:
            self.refusals += 1
            self.refused_by[dimension] += 1

    def took(self, call: str, seconds: float) -> None:
        """Counts a call."""
        with self._lock:
            self.durations[call].add(seconds)

    def unlock(self) -> None:
        """Takes a lock of its own: after a fork, a thread that is not here any more may hold the former."""
        self._lock = threading.Lock()


class _TransientError(VacancyError):
    """The server says that the call may succeed when it is made again."""


_PREPARE = """PREPARE claim (uuid[], jsonb) AS
SELECT refusal, contended, consumer, host_id, host_name, claimed_at, expires_at, already, held
FROM vacancy.claim($1, $2)"""
_AGAIN = (UnreachableError, _TransientError)
"""What may pass when the call is made again."""


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
        settings: max_age, claim_ttl, sample and strategy where a request does not say; connections and time-outs.

    Every method raises:
        UnreachableError: the database stayed away for `settings.retry_for`.
        TimedOutError: it took too long over the call.
        ConfigError: the request makes no sense.
        VacancyError: anything else that PostgreSQL refuses.
    """

    def __init__(self, dsn: str | SecretStr, settings: SchedulerSettings | None = None) -> None:
        self.counters = Counters()
        self._dsn = dsn if isinstance(dsn, SecretStr) else SecretStr(dsn)
        self._settings = settings or SchedulerSettings()
        self._place = where(self._dsn)  # a wrong connection string is said now
        self._open()
        _SCHEDULERS.add(self)

    @_timed
    def candidates(self, request: Request) -> list[Candidate]:
        """Up to 8 of the best hosts for a request, best first; claims none. [] if none fits."""
        return self._call(
            lambda cursor: [Candidate(*row) for row in cursor.fetchall()],
            "SELECT host_id, host_name, score FROM vacancy.candidates(%s)",
            request.document(self._settings),
        )

    @_timed
    def claim(
        self, request: Request, consumers: Sequence[uuid.UUID | str] | None = None, *, count: int = 1
    ) -> list[Claim]:
        """Claims a host for each consumer: for all of them or for none.

        A consumer that has a claim keeps it, so a call can be made again whenever it is not known how it ended.

        Args:
            request: what each of them needs.
            consumers: whom the claims are for, the ids of the instances to be; None: `count` new ids.
            count: how many, where no consumers are given.

        Returns:
            a claim for each consumer, in their order.

        Raises:
            NoHostFitsError: says which dimension ran out, and the nearest miss.
            ContendedError: others kept claiming the hosts that fit.
        """
        ids = [str(consumer) for consumer in consumers] if consumers else [str(uuid.uuid4()) for _ in range(count)]
        rows = self._call(
            lambda cursor: cursor.fetchall(),
            "EXECUTE claim(%s::uuid[], %s)",
            ids,
            request.document(self._settings),
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
        """Gives claims back; the consumers that had one. Once more is harmless."""
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
        """Starts without connections. Those of a parent process are left to it: psycopg2 ends them in no child."""
        self.counters.unlock()
        self._places = threading.BoundedSemaphore(self._settings.connections)
        # Our own, since psycopg2's pools keep no connection that they did not open at their start.
        self._idle: list[Connection] = []

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection that is ours alone, and commits each statement by itself."""
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
        # The server may go away just now.
        with explained(self._dsn), connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (milliseconds_of(self._settings.statement_timeout),))
            cursor.execute(_PREPARE)
        return connection

    def _call(self, read: Callable[[Any], _T], statement: str, *values: object) -> _T:
        """Runs a statement and reads its answer; again where that may help: at once, and then with growing pauses."""
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
                with connection.cursor() as cursor:
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
                self.close()  # what broke one has broken the others
                raise


_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _open_all() -> None:
    for scheduler in _SCHEDULERS:
        scheduler._open()  # noqa: SLF001  # this module's own


# Connections cannot be shared with a parent, and its threads may have held the locks.
os.register_at_fork(after_in_child=_open_all)


def _label(dimension: str) -> str:
    """What people call a dimension."""
    if dimension.startswith("near "):
        return f"no aggregate shared with the storage pool {dimension.removeprefix('near ')}"
    if dimension.startswith("numa_pages_"):
        return f"huge pages of {dimension.removeprefix('numa_pages_')} KiB in one NUMA cell"
    if dimension.endswith("_unit") and dimension not in _LABELS:
        return f"{dimension.removesuffix('_unit')}, {_UNITS}"
    if dimension.endswith("_allocated"):
        return f"{dimension.removesuffix('_allocated')}, of which hosts do not say what their instances hold,"
    return _LABELS.get(dimension, dimension)


def _explain(refusal: Refusal) -> str:
    """A refusal in one line: what ran out, and the nearest miss."""
    if not refusal.hosts:
        return "no host fits: the table has no hosts; do agents report (`vacancy doctor`)?"
    last = refusal.ruled_out[refusal.dimension]
    text = f"no host fits: {_label(refusal.dimension)} ruled out the last {last} of "
    text += f"{refusal.hosts} hosts"
    if refusal.count > 1:
        text = f"no host fits for {refusal.count - refusal.claimable} of {refusal.count}: {text.partition(': ')[2]}"
    if refusal.nearest:
        text += f"; nearest: {refusal.nearest.name}"
        if refusal.nearest.had is not None and refusal.requested is not None:
            text += f" with {refusal.nearest.had:g} for {refusal.requested:g}"
    return text
