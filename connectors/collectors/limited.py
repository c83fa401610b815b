"""Calls that may hang, such as of a file system whose server is gone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Limited(Generic[_T]):
    """A call that is made by a thread of its own, so that whoever asks never waits longer than a limit.

    One call is under way at a time: while it hangs no other is begun, and asking costs nothing. The thread is a daemon,
    so that one that hangs for ever keeps no process from its end. For one thread that asks.

    Args:
        call: what may hang.
        what: it is, for messages.
        wait_s: how long to wait for a call that has just begun.
        patience_s: how long the last answer stands in for the next one.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        call: Callable[[], _T],
        what: str,
        *,
        wait_s: float = 0.5,
        patience_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._what = what
        self._wait_s = wait_s
        self._patience_s = patience_s
        self._clock = clock
        self._questions: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[_T | Exception] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked_at: float | None = None
        self._last: list[_T | Exception] = []

    def __call__(self) -> _T:
        """What the call returns, or raises; the last of it while the present call is not older than the patience.

        Raises:
            TimeoutError: the call hangs.
        """
        wait_s = 0.0
        if self._asked_at is None:
            self._ask()
            wait_s = self._wait_s
        try:
            self._last = [self._answers.get(timeout=wait_s) if wait_s else self._answers.get_nowait()]
            self._asked_at = None
        except queue.Empty:
            if not self._last or self._clock() - (self._asked_at or 0.0) > self._patience_s:
                raise TimeoutError(f"{self._what} does not answer") from None
        (last,) = self._last
        if isinstance(last, Exception):
            raise last.with_traceback(None)
        return last

    def _ask(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=self._what)
            self._thread.start()
        self._asked_at = self._clock()
        self._questions.put(None)

    def _work(self) -> None:
        while True:
            self._questions.get()
            try:
                self._answers.put(self._call())
            except Exception as error:  # noqa: BLE001  # whoever asks gets it
                self._answers.put(error)
