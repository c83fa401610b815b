"""Keeps child processes running: restarts a child that has ended, a limited number of times."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vacancy.jobs.local.processes import Child, bound_log
from vacancy.schemas.errors import VacancyError

MAX_RESTARTS = 5
WITHIN_SECONDS = 600
FIRST_DELAY_SECONDS = 1.0


@dataclass
class _Watched:
    child: Child
    spawn: Callable[[], None]
    ends: deque[float] = field(default_factory=deque)
    """The times of its recent ends."""
    restart_at: float | None = None


class Supervisor:
    """Watches children; each pause before a restart is twice as long as the one before.

    A child that ends more than :data:`MAX_RESTARTS` times within :data:`WITHIN_SECONDS` is given up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Watches no child yet; the clock returns seconds."""
        self._clock = clock
        self._watched: list[_Watched] = []

    def add(self, child: Child, spawn: Callable[[], None] | None = None) -> None:
        """Watches a running child; ``spawn`` restarts it (None: :meth:`Child.start`)."""
        self._watched.append(_Watched(child, spawn or child.start))

    def check(self) -> None:
        """Checks that all children run.

        Raises:
            VacancyError: a child has ended; with the last lines of its log.
        """
        for watched in self._watched:
            if not watched.child.running:
                raise VacancyError(watched.child.describe_end())

    def watch(self) -> list[str]:
        """Checks all children without waiting, restarts those that have ended, and returns a line for each event.

        Raises:
            VacancyError: a child is given up; with the last lines of its log.
        """
        now = self._clock()
        events = []
        for watched in self._watched:
            bound_log(watched.child.log)
            if watched.restart_at is not None:
                if now >= watched.restart_at:
                    watched.restart_at = None
                    watched.spawn()
                    events.append(f"{watched.child.name} was started again")
            elif not watched.child.running:
                events.append(self._plan_restart(watched, now))
        return events

    def _plan_restart(self, watched: _Watched, now: float) -> str:
        watched.ends.append(now)
        while watched.ends[0] < now - WITHIN_SECONDS:
            watched.ends.popleft()
        count = len(watched.ends)
        if count > MAX_RESTARTS:
            minutes = WITHIN_SECONDS // 60
            raise VacancyError(f"{watched.child.describe_end()} (given up: its end no. {count} in {minutes} min)")
        delay = FIRST_DELAY_SECONDS * 2 ** (count - 1)
        watched.restart_at = now + delay
        return f"{watched.child.describe_end()}; starting it again in {delay:.0f} s"
