"""Connections whose every wait ends, to whichever of a connection string's servers is wanted and answers.

What always holds:

- Nothing here waits longer than its caller says, whatever the network and the server do. Connections are libpq's
  asynchronous ones, waiting is done with poll(2) or eventlet's replacement for it, and a name is looked up in a thread
  that is left behind when it takes too long.
- No setting stays in a session, so that a pooler may hand the session to another client after each transaction: the
  settings of a statement are sent with it, as SET LOCAL, in the same message.

libpq itself does neither: its time-out for connecting does not cover name servers or asynchronous connections, those
never leave a host that is silent for the next one, and waiting for an answer has no limit at all. This module needs
psycopg2 alone, since it runs in Nova's process too.
"""

from __future__ import annotations

import ipaddress
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions, sql
from psycopg2.extensions import POLL_OK, POLL_WRITE

Parameters = dict[str, str]
Clock = Callable[[], float]

_STATEMENT_S = 30.0
_SILENCE_MS = 3000
"""What was sent and is not acknowledged after this time breaks the connection."""
_NETWORK: Parameters = {
    "tcp_user_timeout": str(_SILENCE_MS),
    # A server that vanishes while we wait for its answer is noticed within about 10 s.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}


class LimitError(psycopg2.OperationalError):
    """What was waited for did not come in time."""


class NoServerError(psycopg2.OperationalError):
    """No server of the connection string can be used.

    Attributes:
        texts: libpq's message about each server that was tried, in order.
    """

    def __init__(self, texts: list[str]) -> None:
        super().__init__("\n".join(texts))
        self.texts = texts


class Cursor(extensions.cursor):
    """Statements that end within the connection's limit, with the connection's settings."""

    def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:  # noqa: A002  # psycopg2's name
        """Runs a statement and waits for its answer.

        Raises:
            LimitError: there was no answer within the connection's limit; the connection is closed.
            psycopg2.Error: PostgreSQL's, or the connection broke.
        """
        connection: Connection = self.connection  # type: ignore[assignment]  # psycopg2's stubs name its base class
        text = query.as_string(connection) if isinstance(query, sql.Composable) else query
        if connection.settings and connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE:
            text = connection.settings + (text.decode() if isinstance(text, bytes) else text)
        super().execute(text, vars)
        connection.finish()


class Connection(extensions.connection):
    """An asynchronous connection that is used like any other; each statement commits, but between begin and commit.

    Attributes:
        limit_s: how long a statement may take.
        settings: what :func:`set_local` returns; every statement outside of a transaction block is sent with it, and
            :meth:`begin` starts with it.
        place: the parameters of the server that it leads to.
    """

    limit_s = _STATEMENT_S
    settings = ""
    place: Mapping[str, str] = {}  # replaced, never changed

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        """A cursor that waits for the answers."""
        return super().cursor(*arguments, **{"cursor_factory": Cursor} | named)

    def begin(self) -> None:
        """Starts a transaction block."""
        self._run(f"BEGIN; {self.settings}")

    def commit(self) -> None:
        """Commits the transaction block, if there is one."""
        if self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
            self._run("COMMIT")

    def rollback(self) -> None:
        """Rolls the transaction block back, if there is one."""
        if self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
            self._run("ROLLBACK")

    def finish(self) -> None:
        """Waits for the answer to the statement that was sent.

        Raises:
            LimitError: there is none within the limit; the connection is closed.
            psycopg2.Error: the answer is an error, or the connection is broken.
        """
        try:
            wait(self, time.monotonic() + self.limit_s)
        except LimitError:
            self.close()
            raise LimitError(f"no answer in {self.limit_s:g} s") from None
        except psycopg2.Error:
            raise
        except BaseException:
            self.close()  # an answer that nobody has waited for would be the next statement's
            raise

    def _run(self, statement: str) -> None:
        cursor = super().cursor()
        cursor.execute(statement)
        self.finish()


def set_local(**settings: str) -> str:
    """Statements that hold settings until the transaction ends; a name may have a dot, such as ``vacancy.max_age``."""
    return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in settings.items())


class Servers:
    """The servers that a connection string names; the one that was good last is tried first.

    Args:
        dsn: libpq's connection string. Several hosts, target_session_attrs and load_balance_hosts mean what they mean
            to libpq.
        writes: whether a server that takes writes is needed: of several hosts the one that does, if the string does
            not say target_session_attrs.
        parameters: libpq's parameters that the string cannot change.

    Raises:
        psycopg2.ProgrammingError: the string cannot be parsed; libpq's message may quote it.
        psycopg2.OperationalError: its hosts and ports do not match.
    """

    def __init__(self, dsn: str, *, writes: bool, parameters: Mapping[str, str]) -> None:
        self._common = _NETWORK | extensions.parse_dsn(dsn) | dict(parameters)
        hosts = self._list("host", "PGHOST")
        addresses = self._list("hostaddr", "PGHOSTADDR")
        ports = self._list("port", "PGPORT") or [""]
        several = len(addresses or hosts)
        if addresses and hosts and len(addresses) != len(hosts):
            raise psycopg2.OperationalError(f"{len(hosts)} hosts and {len(addresses)} addresses do not match")
        if len(ports) not in (1, max(several, 1)):
            raise psycopg2.OperationalError(f"{len(ports)} ports and {several} hosts do not match")
        self._places: list[Parameters] = []
        for number in range(several):
            place = {"host": hosts[number]} if hosts else {}
            place |= {"hostaddr": addresses[number]} if addresses else {}
            place |= {"port": ports[number if len(ports) > 1 else 0]}
            self._places.append({name: value for name, value in place.items() if value})
        self._places = self._places or [{}]
        wanted = self._common.pop("target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS"))
        if wanted is None and writes and several > 1:
            wanted = "read-write"
        # Asked of the server itself: what libpq looks at, a pooler may remember from before a failover.
        self.must_write = wanted == "read-write"
        wanted = "any" if self.must_write or not wanted else wanted
        self._passes = ["standby", "any"] if wanted == "prefer-standby" else [wanted]
        self._random = self._common.pop("load_balance_hosts", "disable") == "random"

    def __len__(self) -> int:
        """How many servers there are."""
        return len(self._places)

    @property
    def timeout_s(self) -> float | None:
        """The string's own connect_timeout, which libpq counts for each server; None: it has none."""
        seconds = int(self._common.get("connect_timeout") or 0)
        return max(2.0, seconds) if seconds > 0 else None

    def places(self) -> list[Parameters]:
        """The parameters of each connection to try, in order."""
        places = list(self._places)
        if self._random:
            random.shuffle(places)
        return [self._common | {"target_session_attrs": wanted} | place for wanted in self._passes for place in places]

    def worked(self, place: Mapping[str, str]) -> None:
        """Tries this server first from now on."""
        self._places = sorted(self._places, key=lambda each: not _is_of(each, place))

    def failed(self, place: Mapping[str, str]) -> None:
        """Tries this server last from now on: it has become a standby, or answers no more."""
        self._places = sorted(self._places, key=lambda each: _is_of(each, place))

    def connect(self, timeout_s: float) -> Connection:
        """A connection to the first server that is as wanted.

        Raises:
            LimitError: none was found in time.
            NoServerError: none is as wanted.
        """
        dialing = Dialing(self, timeout_s)
        try:
            return dialing.finish(time.monotonic() + timeout_s)
        except LimitError as error:
            raise NoServerError([*dialing.texts, str(error)]) from None
        finally:
            dialing.close()

    def _list(self, name: str, variable: str) -> list[str]:
        value = self._common.pop(name, "") or os.environ.get(variable, "")
        return value.split(",") if value else []


def _is_of(place: Mapping[str, str], of: Mapping[str, str]) -> bool:
    return all(of.get(name) == value for name, value in place.items() if name != "hostaddr")


class Dialing:
    """A connection on its way: tries one server after the other, each for its share of the time.

    Args:
        servers: where to.
        total_s: how long it may take in all.
        clock: monotonic seconds.
    """

    def __init__(self, servers: Servers, total_s: float, clock: Clock = time.monotonic) -> None:
        self.texts: list[str] = []
        self._servers = servers
        self._clock = clock
        self._ends = clock() + total_s
        self._left = servers.places()
        self._lookup: _Lookup | None = None
        self._connection: Connection | None = None
        self._asked: extensions.cursor | None = None
        """Asks the server whether it takes writes."""
        self._place_ends = 0.0

    @property
    def over(self) -> bool:
        """Whether its time is up."""
        return self._clock() >= self._ends

    def finish(self, deadline: float) -> Connection:
        """Waits until there is a connection.

        Raises:
            LimitError: there is none by the deadline; it may be waited for again.
            NoServerError: there will be none.
        """
        while self._left:
            if self._connection is None and self._lookup is None:
                self._begin()
            try:
                connection = self._step(min(deadline, self._place_ends))
            except LimitError:
                if self._clock() < self._place_ends:
                    raise
                self._next("timeout expired")
            except psycopg2.Error as error:
                self._next(str(error))
            else:
                if connection is not None:
                    self._connection = self._asked = None
                    connection.place = self._left[0]
                    self._servers.worked(connection.place)
                    return connection
        raise NoServerError(self.texts)

    def close(self) -> None:
        """Gives up a connection that is not established."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._asked = None

    def _begin(self) -> None:
        """Starts with the next server."""
        now = self._clock()
        share_s = max(0.0, self._ends - now) / len(self._left)
        self._place_ends = now + min(share_s, self._servers.timeout_s or share_s)
        place = self._left[0]
        if _is_name(place):
            self._lookup = _Lookup(place["host"])

    def _step(self, deadline: float) -> Connection | None:
        """The connection, or None where there is another step to do."""
        if self._lookup is not None:
            addresses = self._lookup.wait(deadline - self._clock())
            self._lookup = None
            place = self._left.pop(0)
            self._left[:0] = [place | {"hostaddr": address} for address in addresses]
            return None
        if self._connection is None:
            self._connection = Connection(extensions.make_dsn(**self._left[0]), async_=1)
        wait(self._connection, deadline, self._clock)
        if self._servers.must_write:
            if self._asked is None:
                self._asked = self._connection.cursor(cursor_factory=extensions.cursor)
                self._asked.execute("SHOW transaction_read_only")
                return None
            if self._asked.fetchone() == ("on",):
                raise psycopg2.OperationalError("session is read-only")
        return self._connection

    def _next(self, text: str) -> None:
        self.texts.append(text)
        self.close()
        self._lookup = None
        self._left.pop(0)


class _Lookup:
    """The addresses of a name, looked up in a thread: the C library's resolver has no limit that one could set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[str] | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="vacancy name lookup", daemon=True).start()

    def wait(self, seconds: float) -> list[str]:
        """The addresses.

        Raises:
            LimitError: the name service does not answer.
            psycopg2.OperationalError: it knows no such name.
        """
        if not self._done.wait(max(0.0, seconds)):
            raise LimitError(f'could not translate host name "{self._name}" in time')
        if not self._found:
            raise psycopg2.OperationalError(f'could not translate host name "{self._name}" to address')
        return self._found

    def _run(self) -> None:
        try:
            found = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
            self._found = list(dict.fromkeys(str(address[0]) for *_, address in found))
        except (OSError, UnicodeError):
            pass  # it stays None
        finally:
            self._done.set()


def _is_name(place: Mapping[str, str]) -> bool:
    host = place.get("host", "")
    if not host or "hostaddr" in place or host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def wait(connection: Any, deadline: float, clock: Clock = time.monotonic) -> None:
    """Waits for an asynchronous connection's next answer.

    Raises:
        LimitError: there is none by the deadline; it may be waited for again.
        psycopg2.Error: the answer is an error, or the connection is broken.
    """
    while (state := connection.poll()) != POLL_OK:
        left_s = deadline - clock()
        if left_s <= 0:
            raise LimitError("timeout expired")
        _ready(connection.fileno(), state == POLL_WRITE, left_s)


def _ready(descriptor: int, to_write: bool, seconds: float) -> None:
    """Waits until a descriptor is ready or the time is over."""
    # eventlet removes poll() and makes select() yield to other green threads. Without eventlet poll() is used, since
    # select() fails for descriptors from 1024 on.
    poll = getattr(select, "poll", None)
    if poll is None:
        one = [descriptor]
        select.select([] if to_write else one, one if to_write else [], [], seconds)
        return
    poller = poll()
    poller.register(descriptor, select.POLLOUT if to_write else select.POLLIN)
    poller.poll(seconds * 1000)
