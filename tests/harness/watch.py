"""How the table fares while something is done to the system: how old its rows are, and that none goes back."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from pydantic import SecretStr

from tests.harness.table import TABLE_SECONDS, Table, open_table
from tests.harness.waiting import wait_until

FRESH_SECONDS = 3.0
"""Half of the rows are no older than this while all is well: a host reports each second, and emit is another."""


class Look(NamedTuple):
    """What the table showed: at seconds of time.monotonic(), ms since 1970, seconds."""

    at_s: float
    newest_ms: int
    median_ms: float
    median_age_s: float
    hosts: int


@dataclass(frozen=True)
class Outage:
    """How the table went through something.

    Attributes:
        without_rows_s: longest time in which no host's row moved on.
        median_age_s: how old half of the rows were at most, at the worst moment.
        seconds: until it was over.
    """

    without_rows_s: float
    median_age_s: float
    seconds: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.without_rows_s:.1f} s without fresh rows, median age up to {self.median_age_s:.1f} s, "
            f"over after {self.seconds:.1f} s"
        )


@dataclass
class Watch:
    """Looks at the table five times a second, past the network that is cut; a context manager.

    A row that goes back in time is a failure.
    """

    dsn: SecretStr
    failures: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    _observed_ms: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, condition: Callable[[Look], bool]) -> None:
        """Waits until a condition holds of the last look."""
        wait_until(
            lambda: self.looks and condition(self.looks[-1]),
            2 * TABLE_SECONDS,
            lambda: f"the table does not come right; the last look: {self.looks[-1:]}",
        )

    def wait_until_fresh(self, hosts: int = 1) -> None:
        """Waits until half of the rows are fresh, and there are so many."""
        self.wait_for(
            lambda look: look.hosts >= hosts and look.median_age_s + time.monotonic() - look.at_s < FRESH_SECONDS
        )

    def since(self, start_s: float) -> Outage:
        """How the table went through what began at a time of time.monotonic()."""
        looks = [look for look in self.looks if look.at_s > start_s - 1]
        gap_s, moved = 0.0, looks[0]
        for look in looks:
            if look.newest_ms > moved.newest_ms:
                gap_s, moved = max(gap_s, look.at_s - moved.at_s), look
        now_s = time.monotonic()
        return Outage(max(gap_s, now_s - moved.at_s), max(look.median_age_s for look in looks), now_s - start_s)

    def _watch(self) -> None:
        with open_table(self.dsn) as table:
            while not self._stop.wait(0.2):
                self._look(table)

    def _look(self, table: Table) -> None:
        now = table.observed_ms()
        if not now:
            return  # the server is away
        before = self._observed_ms
        back = [(host, ms, now.get(host)) for host, ms in before.items() if now.get(host, 0) < ms]
        if back:
            self.failures.append(f"rows went back or away, first {back[:3]}")
        self._observed_ms = now
        median_ms = statistics.median(now.values())
        age_s = time.time() - median_ms / 1000
        self.looks.append(Look(time.monotonic(), max(now.values()), median_ms, age_s, len(now)))
