"""Which looks at the hosts of a fleet are sent: what vacancy.schemas.shown says of one host, for many at once.

Shapes: a column has a value for each of N hosts, as those of the fleet; what is kept of counters is K columns, in one
array and in the order of COUNTERS. Times are ns since the fleet's start, and a rate is a growth in a ns.

What always holds: at each look the row that the job makes of what was sent is within the tolerance of the one that
sending each look would give (tests/unit/test_fleet_looks.py).

How it differs from shown.py: that keeps each look of the last window, which for a million hosts are 5 GB. Here the
points that were sent stand for those between. They lie within a quarter of the tolerance of the line between two of
them, so a look is sent where the row is off by more than the rest, measured from that line. And the first look of a
host is taken for that after a reboot, since the events of a simulator that was started again are those of new boots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vacancy.schemas.shown import LEAST_BYTES_PER_S
from vacancy.schemas.usage import COUNTERS

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]
Rows = slice | Integers

LINE = 0.25
"""The share of the tolerance that what lies between two events may be off the line between them."""
DRIFT = 0.749
"""The share that the row may be off, measured from that line; what remains is more than float32 rounds off."""
NEVER = np.iinfo(np.int64).min
_NS_PER_S = 1_000_000_000
_BYTES = [number for number, counter in enumerate(COUNTERS) if counter.per == "second"]
_LEAST_BYTES = np.float32(LEAST_BYTES_PER_S / _NS_PER_S)


class Looks:
    """Decides for all hosts which looks are sent.

    Args:
        figures: the fleet's figures, which it changes in place: ``counters`` are columns, those of COUNTERS first;
            ``allocated`` too; ``memory_mb_available`` and whatever else the events have have a value a host.
            ``listings`` counts the changes of what is exact but for the allocations, ``boots`` the reboots.
        cpu_count: of each host.
        memory_mb_capacity: of each host.
        pressure: whether the host has the counters of pressure.
        window_ns: the job's.
        tolerance: as `agent.tolerance`, above 0.
        max_silence_ns: as `agent.max_silence`.
    """

    def __init__(
        self,
        figures: Columns,
        *,
        cpu_count: npt.NDArray[Any],
        memory_mb_capacity: Integers,
        pressure: Flags,
        window_ns: int,
        tolerance: float,
        max_silence_ns: int,
    ) -> None:
        hosts = len(cpu_count)
        self._figures = figures
        self._counters: Integers = figures["counters"][: len(COUNTERS)]
        self._window_ns = window_ns
        self._max_silence_ns = max_silence_ns
        self._tolerance = tolerance
        self._memory_mb = tolerance * memory_mb_capacity

        self.last = {name: column.copy() for name, column in figures.items()}
        """The figures of each host's last look."""
        self.last_at_ns: Integers = np.full(hosts, NEVER)
        self._start_ns: Integers = np.full(hosts, NEVER)
        """The first look of the boot, or the first one after a silence of a window: there is no step to it."""
        self._sent_at_ns: Integers = np.full(hosts, NEVER)
        self._sent_mb: Integers = np.zeros(hosts, np.int64)
        self._sent: Integers = np.zeros((len(COUNTERS), hosts), np.int64)
        """The counters as the newest event says."""
        self._grown: Reals = np.zeros(self._sent.shape, np.float32)
        """From where the window of the newest event begins, by the line there, to that event."""
        self._leaving: Reals = np.zeros(self._sent.shape, np.float32)
        """The slope of the line where the window begins: so much less is within it each ns later."""
        self._shown: Reals = np.zeros(self._sent.shape, np.float32)
        """The rates of the row."""
        self._least: Reals = np.full(self._sent.shape, -np.inf, np.float32)
        """The least slope of a line from the newest event that is near all looks since then, and the highest one."""
        self._most: Reals = np.full(self._sent.shape, np.inf, np.float32)
        self._scale: Reals = np.empty(self._sent.shape, np.float32)
        """What a tolerance of 1 is as a rate."""
        scales = {"second": _LEAST_BYTES, "cpu_time": cpu_count, "time": np.where(pressure, 1e-3, np.inf)}
        for number, counter in enumerate(COUNTERS):
            self._scale[number] = scales[counter.per]
        self._points = _Points(4 * hosts)
        self._oldest: Integers = np.zeros(hosts, np.int64)
        """The point at which the step ends that the window begins in."""
        self._oldest_ns: Integers = np.full(hosts, NEVER)
        self._newest: Integers = np.zeros(hosts, np.int64)

    def take(self, rows: slice, looking: Flags, at_ns: int) -> tuple[Integers, Integers]:
        """Takes the looks of some hosts at one time.

        Args:
            rows: the hosts.
            looking: which of them look at themselves.
            at_ns: the time.

        Returns:
            The rows of which the look before is to be sent, which :attr:`last` holds until :meth:`keep`; and those of
            which this one is to be, after that.
        """
        begin_ns = at_ns - self._window_ns
        self._points.forget(begin_ns - self._window_ns)
        last_ns = self.last_at_ns[rows]
        # A step that is longer than the window is none.
        begins = looking & ((self._figures["boots"][rows] != self.last["boots"][rows]) | (last_ns < begin_ns))
        goes_on = looking & ~begins
        allocated, last_allocated = (figures["allocated"][:, rows] for figures in (self._figures, self.last))
        before = (allocated < last_allocated).any(axis=0) | (self._sent_at_ns[rows] < begin_ns)
        before[self._bent(rows, at_ns)] = True
        before &= goes_on & (last_ns != self._sent_at_ns[rows])
        before_rows = rows.start + np.flatnonzero(before)
        self._tell(before_rows, self.last_at_ns[before_rows], self.last)
        self._bent(before_rows, at_ns)

        self._leave(rows.start + np.flatnonzero(goes_on & (self._oldest_ns[rows] < begin_ns)), begin_ns)
        due = (allocated != last_allocated).any(axis=0)
        due |= self._sent_at_ns[rows] <= at_ns - self._max_silence_ns
        due |= self._figures["listings"][rows] != self.last["listings"][rows]
        due |= self._sent_at_ns[rows] == self._start_ns[rows]
        due |= abs(self._figures["memory_mb_available"][rows] - self._sent_mb[rows]) > self._memory_mb[rows]
        due[self._off(rows, at_ns)] = True
        due &= goes_on
        self._tell(rows.start + np.flatnonzero(due), at_ns, self._figures)
        self._begin(rows.start + np.flatnonzero(begins), at_ns)
        return before_rows, rows.start + np.flatnonzero(due | begins)

    def keep(self, rows: slice, looking: Flags, at_ns: int) -> None:
        """Has these looks be the last ones."""
        for name, column in self._figures.items():
            np.copyto(self.last[name][..., rows], column[..., rows], where=looking)
        self.last_at_ns[rows][looking] = at_ns

    def _bent(self, rows: Rows, at_ns: int) -> Integers:
        """Takes looks in; returns where among them the line to one leaves those between, some perhaps more than once.

        Those that do not look are taken in too: that only makes the others stricter.
        """
        per_ns = (1.0 / np.maximum(1, at_ns - self._sent_at_ns[rows])).astype(np.float32)
        slope = (self._counters[:, rows] - self._sent[:, rows]).astype(np.float32)
        slope *= per_ns
        least, most = self._least[:, rows], self._most[:, rows]
        bent = slope < least
        bent |= slope > most
        width = self._scale[:, rows] * (np.float32(LINE * self._tolerance * self._window_ns) * per_ns)
        self._least[:, rows] = np.maximum(least, slope - width)
        self._most[:, rows] = np.minimum(most, slope + width)
        return np.flatnonzero(bent) % len(per_ns) if len(per_ns) else np.empty(0, np.int64)

    def _off(self, rows: slice, at_ns: int) -> Integers:
        """Where a rate that is shown is off by more than DRIFT, some perhaps more than once."""
        ns = (at_ns - self._sent_at_ns[rows]).astype(np.float32)
        span_ns = self._span_ns(rows, at_ns)
        off = (self._counters[:, rows] - self._sent[:, rows]).astype(np.float32)
        off += self._grown[:, rows]
        off -= self._leaving[:, rows] * ns
        off -= self._shown[:, rows] * span_ns
        np.abs(off, out=off)
        return np.flatnonzero(off > self._scale[:, rows] * (np.float32(DRIFT * self._tolerance) * span_ns)) % len(ns)

    def _span_ns(self, rows: Rows, at_ns: int | Integers) -> Reals:
        """What there is of the window."""
        return np.clip(at_ns - self._start_ns[rows], 1, self._window_ns).astype(np.float32)

    def _tell(self, rows: Integers, at_ns: int | Integers, figures: Columns) -> None:
        """Has looks be sent, of hosts that have sent some of the boot."""
        values = figures["counters"][: len(COUNTERS), rows]
        ns = (at_ns - self._sent_at_ns[rows]).astype(np.float32)
        grown = self._grown[:, rows] + (values - self._sent[:, rows]).astype(np.float32) - self._leaving[:, rows] * ns
        self._grown[:, rows] = grown
        self._shown[:, rows] = shown = grown / self._span_ns(rows, at_ns)
        for number in _BYTES:
            self._scale[number, rows] = np.maximum(shown[number], _LEAST_BYTES)
        self._sent_as(rows, at_ns, figures)
        self._newest[rows] = self._points.add(at_ns, values, self._newest[rows])

    def _begin(self, rows: Integers, at_ns: int) -> None:
        """Has first looks be sent: nothing is known of before."""
        for zero in (self._grown, self._leaving, self._shown):
            zero[:, rows] = 0
        for number in _BYTES:
            self._scale[number, rows] = _LEAST_BYTES
        self._sent_as(rows, at_ns, self._figures)
        self._start_ns[rows] = self._oldest_ns[rows] = at_ns
        self._newest[rows] = self._oldest[rows] = self._points.add(at_ns, self._counters[:, rows], None)

    def _sent_as(self, rows: Integers, at_ns: int | Integers, figures: Columns) -> None:
        self._sent[:, rows] = figures["counters"][: len(COUNTERS), rows]
        self._sent_mb[rows] = figures["memory_mb_available"][rows]
        self._sent_at_ns[rows] = at_ns
        self._least[:, rows], self._most[:, rows] = -np.inf, np.inf

    def _leave(self, rows: Integers, begin_ns: int) -> None:
        """Has the window begin in a later step, of hosts of which the one that it began in has left it."""
        while len(rows):
            left = self._oldest[rows]
            self._oldest[rows] = next_ = self._points.after(left)
            from_ns, values = self._points.at(left)
            to_ns, next_values = self._points.at(next_)
            slopes = (next_values - values) / (to_ns - from_ns)
            self._leaving[:, rows] = slopes
            since = slopes * (self._sent_at_ns[rows] - self._window_ns - from_ns)
            self._grown[:, rows] = self._sent[:, rows] - values - since
            self._oldest_ns[rows] = to_ns
            rows = rows[to_ns < begin_ns]


class _Points:
    """What was sent lately, in the order in which it was; the numbers of points grow without end.

    A point has a time, the values of all counters, and the number of its host's next one. What is older than two
    windows is not needed: the step that a window begins in is no longer than one.
    """

    def __init__(self, least: int) -> None:
        self._size = 1 << max(10, (least - 1).bit_length())
        self._first = self._end = 0
        self._added: deque[tuple[int, int]] = deque()  # (when, up to which number), in this order
        self._at_ns: Integers = np.empty(self._size, np.int64)
        self._values: Integers = np.empty((self._size, len(COUNTERS)), np.int64)
        self._after: Integers = np.empty(self._size, np.int64)

    def __len__(self) -> int:
        """How many there is room for."""
        return self._size

    def at(self, numbers: Integers) -> tuple[Integers, Integers]:
        """Times and values of points; the latter as columns."""
        places = self._place(numbers)
        return self._at_ns[places], self._values[places].T

    def after(self, numbers: Integers) -> Integers:
        """The numbers of their hosts' next ones."""
        return self._after[self._place(numbers)]

    def add(self, at_ns: int | Integers, values: Integers, after: Integers | None) -> Integers:
        """Adds points by columns of values, behind those ``after``; returns their numbers."""
        added = values.shape[1]
        while self._end + added - self._first > self._size:
            self._grow()
        numbers = np.arange(self._end, self._end + added)
        self._end += added
        places = self._place(numbers)
        self._at_ns[places] = at_ns
        self._values[places] = values.T
        if after is not None:
            self._after[self._place(after)] = numbers
        if added:
            self._added.append((int(np.max(at_ns)), self._end))
        return numbers

    def forget(self, before_ns: int) -> None:
        """Has room for other points where there are those that were added before a time."""
        while self._added and self._added[0][0] < before_ns:
            self._first = self._added.popleft()[1]

    def _place(self, numbers: Integers) -> Integers:
        return numbers & (self._size - 1)

    def _grow(self) -> None:
        kept = np.arange(self._first, self._end)
        old = self._place(kept)
        self._size *= 2
        new = self._place(kept)
        for name in ("_at_ns", "_values", "_after"):
            column = getattr(self, name)
            larger = np.empty((self._size, *column.shape[1:]), np.int64)
            larger[new] = column[old]
            setattr(self, name, larger)
