"""A connection to libvirt that may only read, and that nothing hangs with."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree as ET

from vacancy.schemas.errors import ConfigError

try:
    import libvirt
except ImportError:
    raise ConfigError(
        "agent.collector = \"libvirt\" needs libvirt's bindings: pip install 'vacancy[libvirt]', which builds them with"
        " libvirt-dev, pkg-config and a C compiler"
    ) from None

_MOST_LEFT_BEHIND = 12
"""Calls, of which libvirtd answers 20 at once."""
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_LOG = logging.getLogger("vacancy.agent")
_T = TypeVar("_T")
ABSENT = {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_SYSTEM_ERROR}
"""What libvirt says that has no driver for what it is asked."""
REFUSALS = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_ACCESS_DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED,
}
"""What libvirt says to who may not ask."""


class LibvirtError(OSError):
    """libvirt cannot be asked now; says where, why and what to do."""


class LibvirtSilentError(LibvirtError):
    """libvirt does not answer in time."""


class _Open(NamedTuple):
    """A connection and its registration for events."""

    connection: Any
    registration: int

    def close(self) -> None:
        """Gives it back; where it is broken either may fail, and without the first its socket is kept."""
        with suppress(libvirt.libvirtError):
            self.connection.domainEventDeregisterAny(self.registration)
        with suppress(libvirt.libvirtError):
            self.connection.close()


class Connection:
    """A connection to libvirt that is opened when it is asked for, and again after it has broken.

    A call that is left behind keeps its connection, and the next one opens another: before libvirt 9.10 threads that
    shared one could wait for ever, each for the other to read its answer.

    Args:
        uri: of libvirt.
        on_event: is called, by a thread of its own, when a domain has begun, ended or changed its state.
    """

    def __init__(self, uri: str, on_event: Callable[[], None]) -> None:
        self._uri = uri
        self._on_event = on_event
        self._open: _Open | None = None
        self._calls: list[threading.Thread] = []
        _start_event_loop()

    def left_behind(self) -> int:
        """How many calls libvirt has not answered yet."""
        self._calls = [call for call in self._calls if call.is_alive()]
        return len(self._calls)

    def call(self, ask: Callable[[Any], _T], limit_s: float) -> _T:
        """What libvirt answers.

        Args:
            ask: is called with the connection by a thread of its own, which may have to be left behind.
            limit_s: how long to wait.

        Raises:
            LibvirtSilentError: it does not answer in time.
            LibvirtError: there is no connection, or libvirt refuses.
        """
        if self.left_behind() > _MOST_LEFT_BEHIND:
            raise self._silent(limit_s)
        answer = Future[_T]()
        former, self._open = self._open, None
        call = threading.Thread(target=self._answer, args=(former, ask, answer), daemon=True, name="libvirt call")
        self._calls.append(call)
        call.start()
        try:
            return answer.result(limit_s)
        except libvirt.libvirtError as error:
            raise LibvirtError(f"libvirt at {self._uri}: {error}; {self._remedy(error)}") from None
        except TimeoutError:
            if not answer.cancel():
                return answer.result()  # it came at the last moment
            raise self._silent(limit_s) from None

    def _answer(self, former: _Open | None, ask: Callable[[Any], _T], answer: Future[_T]) -> None:
        opened = None
        try:
            opened = self._connected(former)
            result = ask(opened.connection)
        except BaseException as error:  # noqa: BLE001  # the caller's to deal with
            if self._is_awaited(answer, opened):
                answer.set_exception(error)
        else:
            if self._is_awaited(answer, opened):
                answer.set_result(result)

    def _is_awaited(self, answer: Future[Any], opened: _Open | None) -> bool:
        """Whether somebody still waits for a call; its connection is the next one's then, or else it is closed."""
        if answer.set_running_or_notify_cancel():
            self._open = opened
            return True
        if opened is not None:
            opened.close()
        return False

    def _connected(self, former: _Open | None) -> _Open:
        if former is not None:
            if former.connection.isAlive():
                return former
            former.close()
        connection = libvirt.openReadOnly(self._uri)
        try:
            connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a driver within this process
                raise
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        return _Open(connection, connection.domainEventRegisterAny(None, lifecycle, lambda *_: self._on_event(), None))

    def _remedy(self, error: Any) -> str:
        """What to do about an error of libvirt's."""
        if error.get_error_code() in REFUSALS or "Permission denied" in str(error):
            return "let the agent's user read, by unix_sock_ro_perms and auth_unix_ro in libvirtd.conf (docs/agent.md)"
        if self._open is None or not self._open.connection.isAlive():
            return (
                "is libvirtd (or virtqemud) running, and is agent.libvirt_uri right? trying to connect at each interval"
            )
        return f"see whether virsh -r -c {self._uri} domstats says the same, and libvirt's log"

    def _silent(self, limit_s: float) -> LibvirtSilentError:
        return LibvirtSilentError(
            f"libvirt at {self._uri} has not answered for {limit_s:g} s;"
            f" see whether virsh -r -c {self._uri} domstats does, and its log"
        )


def is_of_itself(error: Exception, connection: Any) -> bool:
    """Whether an error costs only what was asked for: a document that is broken, or what libvirt cannot do or tell.

    Otherwise libvirt is gone, or does not let us ask.
    """
    if isinstance(error, libvirt.libvirtError):
        return bool(connection.isAlive()) and error.get_error_code() not in REFUSALS
    return isinstance(error, ValueError | ET.ParseError)


@functools.cache
def _start_event_loop() -> None:
    """One for the process: it takes events, and asks libvirt whether it is there still."""
    # What fails is raised as well; libvirt would print it.
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_event_loop, daemon=True, name="libvirt events").start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            _LOG.exception("libvirt's event loop")
            time.sleep(1)  # lest one that goes on failing takes a core
