"""What the table shows of a host by the events that were sent, and when a look at the host has to be sent.

A node looks at itself often and sends little: a look is sent when the host's row would otherwise be off the truth by
more than a tolerance, when something changed that is exact, or when nothing was sent for long. The truth is the row
that sending each look would give. This computes both as the job does (docs/semantics.md, *Rates*).

What always holds: with a tolerance of 0 each look is sent. What an agent before this one sent in the same boot is not
known here, so for a first window each look is sent as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from vacancy.schemas.usage import ALLOCATED, CAPACITY, COUNTERS, RESOURCES

EXACT = (
    "boot_id",
    *(f"{resource}{suffix}" for resource in RESOURCES for suffix in (CAPACITY, ALLOCATED)),
    "cpu_count",
    "instances",
    "recent_consumers",
    "uncertain",
    "unknown",
)
"""Fields of a look of which each change is sent at once."""
MEASURED = {"memory_mb_available": "memory_mb_capacity", "disk_gb_available": "disk_gb_capacity"}
"""Amounts that may drift, and what their tolerance is a share of."""
LEAST_BYTES_PER_S = 125_000_000.0
"""Rates of bytes have no capacity: their tolerance is a share of the larger one, and of a gigabit link's at least."""
_NS_PER_S = 1_000_000_000
T = TypeVar("T")


class Look(NamedTuple):
    """A look: when on the node's clock, its CPUs, its counters, None where one is not there."""

    at_ns: int
    cpus: int
    counters: tuple[int | None, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Look:
        """That of a usage event's fields."""
        return cls(fields["monotonic_ns"], fields["cpu_count"], tuple(fields[counter.field] for counter in COUNTERS))


class _Step(NamedTuple):
    """What leads to a look: what each counter grew by, None where that is void, in ns and in ns of all CPUs."""

    to_ns: int
    ns: int
    cpu_ns: int
    growth: tuple[int | None, ...]


class Window:
    """The steps between looks, or between events, of one boot that a row's rates are made of; sums are kept running."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self.clear()

    def clear(self) -> None:
        """Forgets all, as at a reboot."""
        self._steps: deque[_Step] = deque()
        self._newest: Look | None = None
        self._fallen_from: dict[int, int] = {}
        """Where counters had been that fell in the newest step, by number."""
        self._grown = [0] * len(COUNTERS)
        self._ns = [0] * len(COUNTERS)

    def add(self, look: Look) -> None:
        """Takes the next one."""
        before, self._newest = self._newest, look
        start_ns = look.at_ns - self._window_ns
        while self._steps and self._steps[0].to_ns < start_ns:
            self._count(self._steps.popleft(), -1)
        formerly_fallen, self._fallen_from = self._fallen_from, {}
        if before is not None and before.at_ns >= start_ns:
            ns = look.at_ns - before.at_ns
            growth = [_growth(was, now) for was, now in zip(before.counters, look.counters, strict=True)]
            for number, reached in formerly_fallen.items():
                now = look.counters[number]
                if now is not None and now >= reached:
                    growth[number] = now - reached
                    self._count_after_all(number)
            for number, (was, now) in enumerate(zip(before.counters, look.counters, strict=True)):
                if was is not None and now is not None and now < was:
                    self._fallen_from[number] = max(was, formerly_fallen.get(number, was))
            step = _Step(look.at_ns, ns, ns * look.cpus, tuple(growth))
            self._steps.append(step)
            self._count(step, 1)

    @property
    def has_fallen(self) -> bool:
        """Whether a counter fell in the newest step."""
        return bool(self._fallen_from)

    def _count_after_all(self, number: int) -> None:
        """Has the newest step count for a counter that fell in it and is back."""
        if self._steps:
            last = self._steps[-1]
            self._steps[-1] = last._replace(growth=(*last.growth[:number], 0, *last.growth[number + 1 :]))
            self._ns[number] += _time_ns(last, number)

    def _count(self, step: _Step, sign: int) -> None:
        for number, growth in enumerate(step.growth):
            if growth is not None:
                self._grown[number] += sign * growth
                self._ns[number] += sign * _time_ns(step, number)

    def rates(self) -> list[float | None]:
        """The counters' rates, in their order, as the job computes them; fractions are at most 1."""
        return [self._rate(number) for number in range(len(COUNTERS))]

    def _rate(self, number: int) -> float | None:
        newest = self._newest
        if newest is None or newest.counters[number] is None:
            return None
        grown, ns = float(self._grown[number]), float(self._ns[number])
        if self._steps and (growth := self._steps[0].growth[number]) is not None:
            # Of the oldest step that part is outside which is before the window.
            oldest = self._steps[0]
            outside = max(0.0, 1 - (oldest.to_ns - (newest.at_ns - self._window_ns)) / oldest.ns)
            grown -= outside * growth
            ns -= outside * _time_ns(oldest, number)
        if ns <= 0 or grown < 0:
            return None
        per = COUNTERS[number].per
        if per == "second":
            return grown * _NS_PER_S / ns
        return min(1.0, grown * (1_000 if COUNTERS[number].field.endswith("_us") else 1) / ns)


def _growth(before: int | None, after: int | None) -> int | None:
    """None where a counter is missing or has fallen."""
    return None if before is None or after is None or after < before else after - before


def _time_ns(step: _Step, number: int) -> int:
    return step.cpu_ns if COUNTERS[number].per == "cpu_time" else step.ns


class Reports(Generic[T]):
    """Which looks at a host are sent.

    A look is sent when the row is off by more than the tolerance, or has to change. Beside that the looks between two
    that are sent must lie near the straight line between them, since the job takes a counter to have grown evenly
    where the window begins within a step. Where the next look would leave that line, the one before it is sent. It is
    sent as well where a step would be void, so that no more is than if each look were sent.

    Args:
        window_ns: the job's window.
        tolerance: how far a fraction, or an amount by its capacity, may drift unsent; 0: each look is sent.
        max_silence_ns: after this time without an event a look is sent, whatever it shows; half a window at most.
    """

    def __init__(self, window_ns: int, tolerance: float, max_silence_ns: int) -> None:
        self._window_ns = window_ns
        self._tolerance = tolerance
        self._max_silence_ns = max_silence_ns
        self._looked, self._told = Window(window_ns), Window(window_ns)
        self._sent: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] | None = None
        self._last_event: T
        self._shown: Sequence[float | None] = ()
        self._slopes: list[tuple[float, float]] = []
        self._ns_between = 0
        """From the look before to this one."""
        self._settled_ns = 0
        """Until then, on the node's clock, the job may know of the host what is not known here."""

    def take(self, look: Mapping[str, Any], event: T) -> list[T]:
        """Takes a look and what would be sent of it; returns what to send now, in order.

        Args:
            look: the fields of a usage event; ``unknown`` is what of them is not known, of which a counter is None.
            event: is returned if it is to be sent, by this call or, as that of the last look, by the next.
        """
        if not self._tolerance:
            return [event]
        due: list[T] = []
        last, now_ns = self._last, look["monotonic_ns"]
        rebooted = last is not None and look["boot_id"] != last["boot_id"]
        if last is None or rebooted or now_ns <= last["monotonic_ns"]:
            self._looked.clear()
            self._told.clear()
            # The job begins anew as well at a reboot; at another time it knows more of the host than this.
            self._settled_ns = now_ns if rebooted else now_ns + self._window_ns
            last = None
        self._ns_between = 0 if last is None else now_ns - last["monotonic_ns"]
        # Whether a counter that fell is back shows in the very next step.
        after_fall = self._looked.has_fallen
        self._looked.add(Look.of(look))
        apart = last is not None and (_is_apart(last, look) or self._ns_since_sent(look) > self._window_ns)
        if last is not None and last is not self._sent and (apart or not self._goes_on(look)):
            self._tell(last)
            due.append(self._last_event)
        if last is None or apart or after_fall or now_ns < self._settled_ns or self._has_to_be_told(look):
            self._tell(look)
            due.append(event)
        elif last is self._sent:
            self._goes_on(look)
        self._last, self._last_event = look, event
        return due

    def rates(self) -> tuple[Sequence[float | None], Sequence[float | None]]:
        """The counters' rates that the row shows now, and those that it would show if each look were sent."""
        return self._shown, self._looked.rates()

    def _tell(self, look: Mapping[str, Any]) -> None:
        self._told.add(Look.of(look))
        self._sent = look
        self._shown = self._told.rates()
        self._slopes = [(-inf, inf)] * len(COUNTERS)

    def _ns_since_sent(self, look: Mapping[str, Any]) -> int:
        assert self._sent is not None  # noqa: S101  # a boot's first look is sent
        ns: int = look["monotonic_ns"] - self._sent["monotonic_ns"]
        return ns

    def _goes_on(self, look: Mapping[str, Any]) -> bool:
        """Whether the line from the look that was sent to this one is near those between; takes this one in."""
        sent = self._sent
        assert sent is not None  # noqa: S101  # a boot's first look is sent
        ns = self._ns_since_sent(look)
        for number, counter in enumerate(COUNTERS):
            if look[counter.field] is None:
                continue
            slope, (least, most) = (look[counter.field] - sent[counter.field]) / ns, self._slopes[number]
            if not least <= slope <= most:
                return False
            room = self._room(number, look) / ns
            self._slopes[number] = max(least, slope - room), min(most, slope + room)
        return True

    def _room(self, number: int, look: Mapping[str, Any]) -> float:
        """How far a look may be from the line, as a count: what changes the row by half of the tolerance."""
        counter = COUNTERS[number]
        room = self._tolerance / 2 * self._window_ns
        if counter.per == "second":
            return room * max(LEAST_BYTES_PER_S, self._shown[number] or 0.0) / _NS_PER_S
        if counter.per == "cpu_time":
            return room * float(look["cpu_count"])
        return room / (1_000 if counter.field.endswith("_us") else 1)

    def _has_to_be_told(self, look: Mapping[str, Any]) -> bool:
        sent = self._sent
        assert sent is not None  # noqa: S101  # as above
        # The look that is nearest to the end of the silence.
        if self._ns_since_sent(look) + self._ns_between / 2 >= self._max_silence_ns:
            return True
        if any(look[name] != sent[name] for name in EXACT):
            return True
        for name, capacity in MEASURED.items():
            if abs(look[name] - sent[name]) > self._tolerance * max(1, look[capacity]):
                return True
        return any(
            self._differ(counter.per, shown, true)
            for counter, shown, true in zip(COUNTERS, self._shown, self._looked.rates(), strict=True)
        )

    def _differ(self, per: str, shown: float | None, true: float | None) -> bool:
        if shown is None or true is None:
            return shown is not true
        scale = max(shown, true, LEAST_BYTES_PER_S) if per == "second" else 1.0
        return abs(shown - true) > self._tolerance * scale


def _is_apart(last: Mapping[str, Any], look: Mapping[str, Any]) -> bool:
    """Whether both of two looks have to be sent.

    A counter's step between them is void, or more of something is free: the least of the window has to know until when
    there was less.
    """
    if look["cpu_count"] != last["cpu_count"] or any(_free(look, name) > _free(last, name) for name in RESOURCES):
        return True
    return any(
        _growth(last[counter.field], look[counter.field]) is None and last[counter.field] is not look[counter.field]
        for counter in COUNTERS
    )


def _free(look: Mapping[str, Any], resource: str) -> int:
    free: int = look[f"{resource}{CAPACITY}"] - look[f"{resource}{ALLOCATED}"]
    return free
