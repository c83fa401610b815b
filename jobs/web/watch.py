"""Looks at the tables at intervals, for all browsers at once, and publishes what they show."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from vacancy.connectors.postgres.connection import connect, explained
from vacancy.connectors.postgres.servers import Connection, set_local
from vacancy.jobs.settings import Settings
from vacancy.jobs.web.fleet import TOTALS, Fleet
from vacancy.jobs.web.frames import Frames
from vacancy.jobs.web.levels import PAINTED, PLACE
from vacancy.jobs.web.table import Table
from vacancy.schemas.errors import VacancyError

T = TypeVar("T")
FRESHNESS_STEP_SECONDS = 10.0
FRESHNESS_SECONDS = 3600
_WATCHED_SECONDS = 10.0
"""Somebody looks: a browser has asked within this time."""
_QUICK_HOSTS = 50_000
"""Up to so many hosts a look without changes costs little, so that there are two a second."""
_MOST_SECONDS = 10.0
"""Seconds between two looks at most, while somebody has the page open."""
_EASY_SECONDS = 0.5
"""Looks that take so long are made each second, those that take twice as long each 4 s: a long look reads many rows,
and keeps PostgreSQL for as long from removing old versions of rows, so that it is in the way of whoever writes them."""
_FRESHEN_SECONDS = 3.0
"""A browser that has just come waits no longer than this for a look."""
_PAINTED_SECONDS = 60.0
"""Levels of a dimension are kept up to date for so long after a browser has asked for it."""
_STATEMENT_TIMEOUT = timedelta(seconds=20)


class Watch:
    """The fleet, and the thread that keeps it up to date; what others read of it, they read under :attr:`lock`.

    Args:
        settings: the reader's login and `scheduler.max_age`.
        frames: where the states go.
        clock: seconds that never go back.
    """

    def __init__(self, settings: Settings, frames: Frames, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.Lock()
        self.fleet = Fleet(settings.scheduler.max_age.total_seconds())
        self.frames = frames
        self.freshness: deque[dict[str, Any]] = deque(maxlen=int(FRESHNESS_SECONDS / FRESHNESS_STEP_SECONDS))
        self.ticked = -math.inf
        """By the clock, when the newest look was over."""
        self.rows = 0
        """Rows that have changed since the start."""
        self.looks = 0
        self.failed_looks = 0
        self.look_seconds = 0.0
        self.took = deque([0.0], maxlen=2)
        """Seconds that the newest looks took, of those since a browser came; while nobody has it open they are long."""
        self.frame_bytes = 0
        """Of the newest frame that a browser got."""
        self.trouble: dict[str, Any] | None = None
        self._settings = settings
        self._clock = clock
        self._asked_at = -math.inf
        """By the clock, when a browser last asked."""
        self._turn = threading.Condition()
        """Told when a look is over, when a browser has come, and when the looks shall end."""
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)
        self._inventory = _Paced(0.4, 30)
        self._ages = _Paced(0.4, 100)
        # It takes as long as many looks, which wait for it.
        self._drift = _Paced(60.0, 200)
        self._drifting = 0
        self._connection: Connection | None = None
        self._table: Table | None = None
        self._wanted: list[str] = []
        self._painted_at: dict[str, float] = {}
        self._summary: dict[str, Any] = {}
        self._good_at = time.time()

    @property
    def every(self) -> float:
        """Seconds between the beginnings of two looks; many where nobody has the page open or a look takes long."""
        if not self.watched:  # what the last minutes of a host need, and the metrics
            return self.fleet.history_step_s
        least = 0.5 if len(self.fleet) <= _QUICK_HOSTS else 1.0
        # One slow look says little.
        return min(max(least, (min(self.took) / _EASY_SECONDS) ** 2), _MOST_SECONDS)

    @property
    def watched(self) -> bool:
        """Whether somebody has the page open."""
        return self._clock() - self._asked_at < _WATCHED_SECONDS

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the looks, and waits until the present one is over."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
        self._thread.join(timeout=5)
        self.close()

    def until_next(self) -> float:
        """Seconds until the next look ends, about."""
        return max(0.0, self.ticked + self.every - self._clock())

    def noticed(self) -> bool:
        """Notes that a browser asks, so that looks follow quickly; whether the newest is as new as they are then."""
        with self._turn:
            if not self.watched:
                self.took.extend((0.0, 0.0))
                self._turn.notify_all()
            self._asked_at = now = self._clock()
            return now - self.ticked < 2 * self.every

    def freshen(self) -> None:
        """Notes that a browser asks, and waits for a look if the newest is old; not for ever."""
        if not self.noticed():
            with self._turn:
                self._turn.wait_for(lambda: self._clock() - self.ticked < self.every, _FRESHEN_SECONDS)

    def _run(self) -> None:
        while not self._stopped:
            began = self._clock()
            self.tick()
            self._wait(began)

    def _wait(self, began: float) -> None:
        """Waits until the next look is due, which may come to be sooner meanwhile."""
        with self._turn:
            least = self._clock() + 0.05
            while not self._stopped and (seconds := max(least, began + self.every) - self._clock()) > 0:
                self._turn.wait(seconds)

    def tick(self) -> None:
        """One look, and the frame that it leads to; a database that is away makes a frame that says so."""
        began = time.perf_counter()
        try:
            self._look()
            self.trouble = None
        except VacancyError as error:
            self.close()
            self.failed_looks += 1
            if self.trouble is None:
                self.trouble = {"message": str(error), "since": self._good_at}
        with self.lock:
            self._summary["trouble"] = self.trouble
            self._forget_paints()
            self.frames.publish(self.fleet.shown(), self._summary, self.fleet.now)
        self.looks += 1
        self.look_seconds = time.perf_counter() - began
        self.took.append(self.look_seconds)
        with self._turn:
            self.ticked = self._clock()
            self._turn.notify_all()

    def is_painted(self, name: str) -> bool:
        """Notes that somebody looks at a dimension; whether its levels are there already."""
        self._painted_at[name] = time.monotonic()
        return name not in PAINTED or name in self.fleet.painted

    def paint(self, name: str) -> None:
        """Makes the levels of a dimension that nobody has looked at."""
        with self.lock:
            if not self.is_painted(name):
                self.fleet.paint(name)
                self.frames.add(name, self.fleet.planes[PLACE[name]])

    def _forget_paints(self) -> None:
        since = time.monotonic() - _PAINTED_SECONDS
        self.fleet.painted -= {name for name in self.fleet.painted if self._painted_at[name] < since}

    def _look(self) -> None:
        dsn = self._settings.postgres.reader_dsn
        if self._table is None:
            self._connection = connect(
                dsn,
                connect_timeout=self._settings.postgres.connect_timeout,
                application_name="vacancy web",
                read_only=True,
                max_age=self._settings.scheduler.max_age,
                statement_timeout=_STATEMENT_TIMEOUT,
            )
            # To compile a look takes longer than the look, and is done anew for each.
            self._connection.settings += set_local(jit="off")
            self._table = Table(self._connection)
            self._inventory.due = True
        table = self._table
        with explained(dsn):
            look = self._inventory.run(lambda: table.look(with_inventory=True, wanted=self._wanted))
            if look is None:
                look = table.look(with_inventory=False, wanted=self._wanted)
            drifting = self._drift.run(table.drifting) if self.watched else None
        with self.lock:
            before = self.fleet.now
            self._wanted = self.fleet.apply(look)
            if drifting is not None:
                self.fleet.mark_drift(drifting)
                self._drifting = len(drifting)
            self._good_at = time.time()
            self.rows += look.changed
            # In a longer time a row may be written several times, and is found once.
            gap_s = look.now - before
            self._summarize(look.changed / max(gap_s, 0.001) if gap_s < _MOST_SECONDS / 2 else None, look.claims)

    def _summarize(self, rows_per_s: float | None, claims: int) -> None:
        """Makes the summary; without a rate, where the looks do not tell it, the page shows none."""
        fleet, summary = self.fleet, self._summary
        paced = self._ages.run(lambda: (fleet.ages(), fleet.by_source()))
        if paced is not None:
            summary["ages"], summary["sources"] = paced
            summary["newest"] = fleet.now - paced[0]["min"] if paced[0] else None
        counts = fleet.counts()
        if rows_per_s is not None and (smooth := summary.get("rows_per_s")) is not None:
            rows_per_s = smooth + (rows_per_s - smooth) * 0.3
        summary.update(
            hosts=len(fleet.slot_of),
            counts=counts,
            totals=dict(zip(TOTALS, fleet.totals, strict=True)),
            claims=claims,
            drifting=self._drifting,
            rows_per_s=None if rows_per_s is None else round(rows_per_s, 1),
            version=fleet.version,
            every=self.every,
        )
        if not self.freshness or round(fleet.now - self.freshness[-1]["at"]) >= FRESHNESS_STEP_SECONDS:
            self.freshness.append(
                {
                    "at": fleet.now,
                    **{f"age_{name}": value for name, value in (summary["ages"] or {}).items()},
                    "rows_per_s": summary["rows_per_s"],
                    "schedulable": counts["schedulable"],
                    "stale": counts["stale"],
                    "claims": claims,
                }
            )

    def close(self) -> None:
        """Closes the connection; the next look opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._table = None


class _Paced:
    """Runs something no more often than a period, and so seldom that it takes no more than a share of the time.

    Args:
        period_s: at least so long between two runs.
        times: and so many times as long as a run takes.
    """

    def __init__(self, period_s: float, times: float) -> None:
        self.due = True
        self._period_s, self._times = period_s, times
        self._next = 0.0

    def run(self, work: Callable[[], T]) -> T | None:
        """The result, or None where it is not due."""
        began = time.monotonic()
        if not self.due and began < self._next:
            return None
        result = work()
        self.due = False
        now = time.monotonic()
        self._next = now + max(self._period_s, self._times * (now - began))
        return result
