"""SIGTERM, SIGINT and SIGHUP, for every process of ours."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Self


class StopSignal:
    """SIGTERM and SIGINT as something to wait for. A second Ctrl-C ends the process at once.

    Another thread may end a wait as well, without a signal.
    """

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> Self:
        # The signal's number is written to one end, so that a wait on the other end sees it however they interleave.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno())
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def is_set(self) -> bool:
        """Whether one has come."""
        return self._received

    def wait(self, seconds: float) -> bool:
        """Waits for one or an interruption, but not longer than that; whether a signal has come."""
        if not self._received:
            select.select([self._reader], [], [], max(0.0, seconds))
            with suppress(BlockingIOError):
                self._reader.recv(4096)
        return self._received

    def interrupt(self) -> None:
        """Ends the present wait, or else the next one; for any thread."""
        with suppress(OSError):  # so many that it is full, or it is closed: nobody has to be woken
            self._writer.send(b"\0")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)


class Stop(BaseException):
    """A signal asked us to end; no error, so that nobody handles it on its way up."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turns the signals that ask us to end, and the death of our parent, into an exception, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        ignore_signals()
        raise KeyboardInterrupt if number == signal.SIGINT else Stop

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # nohup ignores it: then we are to outlive the terminal, and our parent too.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, stop)
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """From now on none of them does anything."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """Ends us when our parent is no longer the one it was."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
