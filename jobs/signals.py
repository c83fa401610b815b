"""Handles SIGTERM, SIGINT and SIGHUP for every command."""

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
    """Lets a process wait for SIGTERM and SIGINT. A second Ctrl-C ends the process at once.

    Another thread can also end a wait, without a signal.
    """

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> Self:
        # The signal handler writes to one end, so that a wait on the other end sees the signal in any interleaving.
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
        """Whether a signal has come."""
        return self._received

    def wait(self, seconds: float) -> bool:
        """Waits at most so long for a signal or an interruption; returns whether a signal has come."""
        if not self._received:
            select.select([self._reader], [], [], max(0.0, seconds))
            with suppress(BlockingIOError):
                self._reader.recv(4096)
        return self._received

    def interrupt(self) -> None:
        """Ends the current wait, or else the next one; any thread may call it."""
        with suppress(OSError):  # the pipe is full or closed: no wake-up is needed
            self._writer.send(b"\0")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)


class Stop(BaseException):
    """A signal asked the process to end; not an Exception, so that no handler catches it by accident."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turns the first signal that asks the process to end, or the death of its parent, into an exception."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        ignore_signals()
        raise KeyboardInterrupt if number == signal.SIGINT else Stop

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # Under nohup SIGHUP is ignored: then the process is meant to outlive its terminal and its parent.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        former[signal.SIGHUP] = signal.signal(signal.SIGHUP, stop)
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """From now on the process ignores these signals."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _end_with(parent: int) -> None:
    """Ends this process if its parent has changed, which means that the original parent has died."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
