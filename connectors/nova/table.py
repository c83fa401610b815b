"""Reads the table for a scheduler's request: once, within a deadline, or not at all.

What always holds:

- A call ends by its deadline, whatever the database does (``connectors/postgres/servers.py``). The server's
  ``statement_timeout``, which is sent with each statement, ends abandoned ones.
- After a fault no request waits for the database until a pause is over; the pause doubles with each further fault.
- Connections, locks and counts belong to the process that made them, so forking is safe.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2 import extensions

from vacancy.connectors.postgres.servers import Connection, Dialing, LimitError, Servers, set_local, wait
from vacancy.connectors.scheduler.ranking import Amount, Measured, makes_sense

LOG = logging.getLogger("vacancy.nova")
LOG_EVERY_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_CONNECTING_S = 10.0
"""A connection that is not established after this time is given up."""
_CONNECTING_ONE_OF_S = 2.0
"""The same for each of several servers: the next one may be there."""
_IDLE_SESSIONS = 8
"""Idle connections kept per process; further simultaneous requests open new ones."""
_ARRAYS = ("position", "age_seconds", *Measured._fields[1:])
_READ = f"SELECT {', '.join(f'{name}::text' for name in _ARRAYS)} FROM vacancy.measured(%s::text[])"  # noqa: S608  # names
_NOTE = "SELECT vacancy.note_claim(%s::uuid, %s, %s, %s, 0, %s * interval '1 s')"
_HOST_ID = re.compile(r"[0-9A-Za-z._:-]{1,255}")
"""The characters of a compute node's UUID, or of another host id: none that must be quoted in the text of an array."""


class Fault(Exception):  # noqa: N818  # it is the fault that is counted, by its kind
    """Why there is no answer.

    Attributes:
        kind: "unreachable", "timeout", "refused", "garbage", "paused", "unset".
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class Table:
    """Reads hosts' rows and notes picks. Safe to share between threads, and across forks.

    Args:
        dsn: libpq's connection string.
        timeout_s: how long a call may take.
        clock: monotonic seconds.
    """

    def __init__(self, dsn: str | None, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._clock = clock
        self._servers: Servers | None = None
        # 90 % of the client's time-out, so that the server gives up first and the connection is kept.
        self._limit = set_local(statement_timeout=str(max(1, int(timeout_s * 900))))
        self._processes: dict[int, _Process] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """Events in this process: "reads", "notes", and faults by kind; each count only grows."""
        return self._process().counts

    def count(self, **amounts: int) -> None:
        """Adds to the counts."""
        process = self._process()
        with process.lock:
            process.counts.update(amounts)

    def read(self, hosts: Sequence[str]) -> dict[str, Measured]:
        """The rows of these hosts that have one, by their ids.

        Raises:
            Fault: there is no answer. Faults are counted, and logged at most once every LOG_EVERY_S seconds.
        """
        process = self._process()
        try:
            with _Breaker(process, self._clock):
                rows = self._read(process, [host for host in hosts if _HOST_ID.fullmatch(host)])
        except Fault as fault:
            self._report(process, fault)
            raise
        odd = sum(not makes_sense(row) for row in rows.values())
        self.count(reads=1, hosts_missing=len(hosts) - len(rows), hosts_garbage=odd)
        return rows

    def note(self, consumer: str, host: str, amount: Amount, ttl_s: float) -> None:
        """Sends the pick of a host for a consumer without waiting for the answer; a failure is only counted."""
        process = self._process()
        session = _popped(process.idle)
        if session is None:
            self.count(notes_lost=1)
            return
        try:
            session.finish(self._clock() + self._timeout_s, self._clock)
            session.cursor.execute(
                self._limit + _NOTE, (consumer, host, int(amount.vcpus), int(amount.memory_mb), ttl_s)
            )
        except (psycopg2.Error, Fault):
            session.close()
            self.count(notes_lost=1)
        else:
            process.idle.append(session)
            self.count(notes=1)

    def close(self) -> None:
        """Closes this process's idle connections once their outstanding statements are answered."""
        process = self._process()
        while process.idle:
            session = process.idle.pop()
            try:
                session.finish(self._clock() + self._timeout_s, self._clock)
            except (psycopg2.Error, Fault):
                self.count(notes_lost=1)
            session.close()

    def _process(self) -> _Process:
        return self._processes.get(os.getpid()) or self._processes.setdefault(os.getpid(), _Process())

    def _read(self, process: _Process, hosts: list[str]) -> dict[str, Measured]:
        deadline = self._clock() + self._timeout_s
        texts = self._answer(process, f"{{{','.join(hosts)}}}", deadline)
        try:
            arrays = [_numbers(text) for text in texts]
            rows = map(Measured._make, zip(*arrays[1:], strict=True))
            return {hosts[int(place or 0) - 1]: row for place, row in zip(arrays[0], rows, strict=True)}
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise Fault("garbage", type(error).__name__) from None

    def _answer(self, process: _Process, hosts: str, deadline: float) -> Sequence[str | None]:
        """The statement's one row, read over a kept connection, or over a new one if the kept one is broken."""
        session = _popped(process.idle)
        while True:
            kept = session is not None
            try:
                if session is None:
                    session = self._connect()
                self._settle(session, deadline)
                session.cursor.execute(self._limit + _READ, (hosts,))
                session.finish(deadline, self._clock)
                row: Sequence[str | None] = session.cursor.fetchone()
            except psycopg2.extensions.QueryCanceledError:
                self._keep(process, session)
                raise Fault("timeout", "statement_timeout") from None
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if session is not None:
                    session.close()
                if not kept:
                    raise Fault("unreachable", reason(error)) from None
                # Whatever broke this connection has broken the other idle ones too.
                process.idle.clear()
                session = None
            except psycopg2.Error as error:
                self._keep(process, session)
                raise Fault("refused", reason(error)) from None
            except Fault:
                self._keep_if_connecting(process, session)
                raise
            except BaseException:
                if session is not None:
                    session.close()
                raise
            else:
                self._keep(process, session)
                return row

    def _settle(self, session: _Session, deadline: float) -> None:
        """Reads the outstanding answer to a note, if there is one; after a refusal the connection is still usable."""
        connected = session.connection is not None
        try:
            session.finish(deadline, self._clock)
        except psycopg2.Error as error:
            if not connected:
                raise
            self.count(notes_lost=1)
            if isinstance(error, psycopg2.errors.ReadOnlySqlTransaction) and self._servers and session.connection:
                self._servers.failed(session.connection.place)  # it has become a standby
                raise psycopg2.OperationalError("the server has become a standby") from None
            cancelled = isinstance(error, psycopg2.extensions.QueryCanceledError)
            if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) and not cancelled:
                raise

    def _connect(self) -> _Session:
        """Starts to connect; :meth:`_Session.finish` completes it, in a later request if necessary."""
        if not self._dsn:
            raise Fault("unset", "[vacancy] dsn is not set")
        if self._servers is None:
            try:
                self._servers = Servers(self._dsn, writes=True, parameters={"application_name": "vacancy nova"})
            except (psycopg2.ProgrammingError, psycopg2.OperationalError):
                raise Fault("refused", "[vacancy] dsn cannot be parsed") from None  # the reason would quote it
        several = len(self._servers)
        return _Session(
            Dialing(self._servers, _CONNECTING_S if several == 1 else several * _CONNECTING_ONE_OF_S, self._clock)
        )

    def _keep(self, process: _Process, session: _Session | None) -> None:
        if session is None or (session.connection is not None and session.connection.closed):
            return
        if len(process.idle) < _IDLE_SESSIONS:
            process.idle.append(session)
        else:
            session.close()

    def _keep_if_connecting(self, process: _Process, session: _Session | None) -> None:
        """Keeps a connection that takes longer to establish than one request may wait, such as TLS to a far server."""
        if session is None:
            return
        if session.connection is None and not session.dialing.over:
            self._keep(process, session)
        else:
            session.close()

    def _report(self, process: _Process, fault: Fault) -> None:
        with process.lock:
            process.counts[fault.kind] += 1
            process.unreported[fault.kind] += 1
            if fault.kind != "paused":
                process.last_fault = str(fault)
            now = self._clock()
            if now < process.report_after:
                return
            process.report_after = now + LOG_EVERY_S
            faults, process.unreported = process.unreported, Counter()
        LOG.warning(
            "%d requests were ranked without the table (%s); last: %s",
            sum(faults.values()),
            ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items())),
            process.last_fault,
        )


class _Session:
    """A connection, perhaps not established yet, and its one cursor, which may still wait for the answer to a note."""

    def __init__(self, dialing: Dialing) -> None:
        self.dialing = dialing
        self.connection: Connection | None = None
        self.cursor: Any = None

    def finish(self, deadline: float, clock: Callable[[], float]) -> None:
        """Waits until the connection is established and its outstanding statement is answered.

        Raises:
            Fault: "timeout".
            psycopg2.Error: the answer is an error, or the connection is broken.
        """
        try:
            if self.connection is None:
                self.connection = self.dialing.finish(deadline)
                self.cursor = self.connection.cursor(cursor_factory=extensions.cursor)  # one that does not wait
            elif self.connection.isexecuting():
                wait(self.connection, deadline, clock)
        except LimitError:
            raise Fault("timeout") from None

    def close(self) -> None:
        """Closes the connection, or gives it up."""
        self.dialing.close()
        if self.connection is not None:
            self.connection.close()


class _Process:
    """The state of one process; a forked child creates its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[_Session] = []
        self.counts: Counter[str] = Counter()
        self.unreported: Counter[str] = Counter()
        self.last_fault = ""
        self.report_after = 0.0
        self.pause_s = 0.0
        self.paused_until = 0.0


class _Breaker:
    """A circuit breaker: lets no request through during a pause, one after it, and all while there is no fault.

    Raises:
        Fault: of kind "paused", at once.
    """

    def __init__(self, process: _Process, clock: Callable[[], float]) -> None:
        self._process, self._clock = process, clock

    def __enter__(self) -> None:
        process = self._process
        with process.lock:
            now = self._clock()
            if process.pause_s:
                if now < process.paused_until:
                    raise Fault("paused")
                process.paused_until = now + process.pause_s  # other requests stay out while this one tries

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        process = self._process
        with process.lock:
            if kind is None:
                process.pause_s = 0.0
            else:
                process.pause_s = min(2 * process.pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
                process.paused_until = self._clock() + process.pause_s


def _popped(sessions: list[_Session]) -> _Session | None:
    try:
        return sessions.pop()
    except IndexError:
        return None


def _numbers(text: str | None) -> list[float | None]:
    """An array's text as numbers; [] for null, which the query returns when it finds no host."""
    if not text or text == "{}":
        return []
    return [None if item == "NULL" else float(item) for item in text[1:-1].split(",")]


def reason(error: psycopg2.Error) -> str:
    """The reason that the server or the network gives, without anything quoted from the connection string."""
    if error.diag and error.diag.message_primary:
        return str(error.diag.message_primary)
    text = str(error)
    for mark in ("FATAL:", "failed: ", "ERROR:"):
        if mark in text:
            return text.split(mark)[-1].strip().splitlines()[0]
    if "translate host name" in text:
        return "its host name cannot be resolved"
    first, *_ = text.splitlines() or [""]
    # The operating system's messages, such as "Connection refused", consist of letters and spaces only.
    return first if re.fullmatch(r"[A-Za-z ]+", first) else type(error).__name__
