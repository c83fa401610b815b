"""The fleet in memory: a slot a host, a byte a host and dimension, and the figures that the bytes come from.

What always holds: a host keeps its slot for as long as it is there; of the dimensions that nobody looks at there are
no levels. Everything is a column with a number a slot, and is worked on a column at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vacancy.jobs.web.levels import AGES, DIMENSIONS, FIRST, NEXT, PAINTED, PLACE, STALE_AGE, UNKNOWN, Levels, steps
from vacancy.jobs.web.table import (
    AHEAD,
    CLONED,
    FIGURES,
    FRACTIONS,
    UNKNOWN_INTEGER,
    Floats,
    Integers,
    InventoryRow,
    Look,
    Usage,
)

SCHEDULABLE, DISABLED, NO_USAGE, STALE, DUPLICATE, CLOCK_AHEAD, GONE = range(7)
STATES = ("schedulable", "disabled", "no usage yet", "stale", "duplicate id", "clock ahead", "gone")
HISTORY_SECONDS = 15 * 60
HISTORY_STEP_SECONDS, LONG_HISTORY_STEP_SECONDS = 10.0, 30.0
MANY_HOSTS = 20_000
"""Beyond so many hosts the last minutes have the longer steps."""
HISTORY = ("vcpus_free", "memory_mb_free", "memory_mb_available", "disk_gb_free", "cpu_utilization")
"""The figures that are kept for the last minutes, in 255 steps."""
TOTALS = ("vcpus_free", "vcpus_free_min", "memory_mb_free", "memory_mb_free_min", "disk_gb_free", "disk_gb_free_min")
"""The figures that are added up over the schedulable hosts."""
_OWN_DISK = ("disk_gb_free", "disk_gb_free_min")
_MAX_ZONES, _MAX_SOURCES = 4096, 128


class Host(NamedTuple):
    """What the fleet knows of a host apart from its figures."""

    host_id: str
    name: str
    zone: str
    source: str
    status_reason: str
    traits: tuple[str, ...]
    aggregates: tuple[str, ...]


_NOBODY = Host("", "", "", "", "", (), ())


class Fleet:
    """All hosts; not safe for several threads."""

    def __init__(self, max_age_s: float) -> None:
        self.max_age_s = max_age_s
        self.now = 0.0
        self.hosts: list[Host] = []
        self.version = 0
        """Grows whenever a host or its name, zone and so on changes."""
        self.changed_at: list[int] = []
        """By slot the version in which the host last changed."""
        self.slot_of: dict[str, int] = {}
        self.planes: list[Levels] = [np.zeros(0, np.uint8) for _ in DIMENSIONS]
        """By dimension a byte a slot; of a figure that is not in :attr:`painted` they are old."""
        self.painted: set[str] = set()
        """The figures whose levels are kept up to date."""
        self.figures: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(0, np.float64 if name in FRACTIONS else np.int64) for name in FIGURES
        }
        """By name a number a slot, as :class:`~vacancy.jobs.web.table.Usage` has them."""
        self.observed_at: Floats = np.zeros(0)
        """By slot; 0: no usage yet."""
        self.zones: list[str] = []
        self.sources: list[str] = []
        self.totals = [0] * len(TOTALS)
        self.history: deque[tuple[float, tuple[Levels, ...]]] = deque(
            maxlen=int(HISTORY_SECONDS / HISTORY_STEP_SECONDS) + 1
        )
        self._there, self._disabled, self._inventory_ahead = (np.zeros(0, np.bool_) for _ in range(3))
        self._pooled = np.zeros(0, np.bool_)
        """Whether a host's disk comes from a storage pool: what it has free is in the pool's row."""
        self._odd: Integers = np.zeros(0, np.int64)
        self._max_ahead_s = 0.0
        self._free_slots: list[int] = []

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def history_step_s(self) -> float:
        """Seconds between two steps of :attr:`history`."""
        return HISTORY_STEP_SECONDS if len(self) <= MANY_HOSTS else LONG_HISTORY_STEP_SECONDS

    def apply(self, look: Look) -> list[str]:
        """Takes a look in; returns hosts of which the figures are still to be read."""
        self.now, self._max_ahead_s = look.now, look.max_ahead_s
        new = self._apply_inventory(look.inventory) if look.inventory else []
        self._apply_usage(look.usage)
        self._judge()
        # Rounded: while nobody has the page open, looks come as seldom as steps.
        if not self.history or round(look.now - self.history[-1][0]) >= self.history_step_s:
            self.history.append((look.now, tuple(steps(name, self.figures) for name in HISTORY)))
        found = set(look.usage.hosts) if new else set()
        return [host for host in new if host not in found]

    def _apply_inventory(self, rows: Iterable[InventoryRow]) -> list[str]:
        rows = [row for row in rows if not row.gone or row.host_id in self.slot_of]
        if not rows:
            return []
        self.version += 1
        new = [row for row in rows if row.host_id not in self.slot_of]
        self._make_room(len(new) - len(self._free_slots))
        # In the order of zones and names, so that what is alike lies side by side and compresses.
        new.sort(key=lambda row: (row.zone, row.name, row.host_id))
        zones = _numbers(self.zones, (row.zone for row in rows if not row.gone), _MAX_ZONES)
        sources = _numbers(self.sources, (row.source for row in rows if not row.gone), _MAX_SOURCES)
        for row in [*(row for row in rows if row.host_id in self.slot_of), *new]:
            slot = self.slot_of.get(row.host_id)
            if slot is None:
                slot = self.slot_of[row.host_id] = self._free_slots.pop()
            if row.gone:
                self._leave(slot)
                continue
            host = Host(
                *(row.host_id, row.name, row.zone, row.source, row.status_reason),
                *(tuple(sorted(row.traits)), tuple(sorted(row.aggregates))),
            )
            self._there[slot] = True
            self._disabled[slot] = row.disabled
            self._inventory_ahead[slot] = row.ahead
            self._pooled[slot] = row.pooled
            if host != self.hosts[slot]:
                self.hosts[slot] = host
                self.changed_at[slot] = self.version
                zone = zones.get(row.zone, len(zones) - 1)
                self.planes[PLACE["zone"]][slot] = zone & 255
                self.planes[PLACE["zone_high"]][slot] = zone >> 8
                self.planes[PLACE["source"]][slot] = sources.get(row.source, len(sources) - 1)
        return [row.host_id for row in new]

    def _make_room(self, slots: int) -> None:
        """Adds so many slots that nobody has."""
        if slots <= 0:
            return
        first, place = len(self), PLACE
        self.hosts += [_NOBODY] * slots
        self.changed_at += [0] * slots
        empty = {place[name]: UNKNOWN for name in (*PAINTED, "age")} | {place["state"]: GONE}
        self.planes = [_longer(plane, slots, empty.get(number, 0)) for number, plane in enumerate(self.planes)]
        self.figures = {name: _longer(figure, slots, _unknown(name)) for name, figure in self.figures.items()}
        self.observed_at, self._odd = _longer(self.observed_at, slots, 0), _longer(self._odd, slots, 0)
        self._there, self._disabled, self._inventory_ahead, self._pooled = (
            _longer(flags, slots, 0) for flags in (self._there, self._disabled, self._inventory_ahead, self._pooled)
        )
        self._free_slots += reversed(range(first, first + slots))

    def _leave(self, slot: int) -> None:
        """Frees a slot; another host may take it later."""
        del self.slot_of[self.hosts[slot].host_id]
        self.hosts[slot] = _NOBODY
        self.changed_at[slot] = self.version
        for name, figure in self.figures.items():
            figure[slot] = _unknown(name)
        self.observed_at[slot] = self._odd[slot] = 0
        for flags in (self._there, self._disabled, self._inventory_ahead, self._pooled):
            flags[slot] = False
        for name in PAINTED:
            self.planes[PLACE[name]][slot] = UNKNOWN
        self.planes[PLACE["claims"]][slot] = self.planes[PLACE["drift"]][slot] = 0
        self._free_slots.append(slot)

    def shown(self) -> dict[str, Levels]:
        """The planes that are up to date, by their dimensions."""
        return {name: self.planes[PLACE[name]] for name in DIMENSIONS if name not in PAINTED or name in self.painted}

    def paint(self, name: str) -> None:
        """Makes the levels of a figure, and keeps them up to date from now on."""
        self.painted.add(name)
        self.planes[PLACE[name]] = FIRST[steps(name, self.figures)]

    def _apply_usage(self, usage: Usage) -> None:
        # Hosts that have sent no inventory have no slot, and neither have storage pools.
        places = np.fromiter(map(self.slot_of.get, usage.hosts, repeat(-1)), np.int64, len(usage.hosts))
        known = places >= 0
        slots = places[known]
        self.observed_at[slots], self._odd[slots] = usage.observed_at[known], usage.odd[known]
        figures = {name: figure[known] for name, figure in usage.figures.items()}
        for name in _OWN_DISK:
            figures[name][self._pooled[slots]] = 0  # as `schedulable_host` has it
        for name, figure in figures.items():
            self.figures[name][slots] = figure
        self.planes[PLACE["claims"]][slots] = figures["claims"].clip(0, 254)
        for name in self.painted:
            plane = self.planes[PLACE[name]]
            plane[slots] = NEXT[plane[slots].astype(np.uint16) << 8 | steps(name, figures)]

    def _judge(self) -> None:
        """The ages and states of all hosts, by the rules of `schedulable_host`, and the totals of the schedulable."""
        at, silent = self.observed_at, self.observed_at == 0
        ahead = at > self.now + self._max_ahead_s
        shares = (self.now - at) / self.max_age_s
        ages, old = self.planes[PLACE["age"]], shares >= AGES[0]
        ages[:] = 0
        ages[old] = np.searchsorted(AGES, shares[old], side="right")
        ages[silent | ahead] = UNKNOWN
        state = self.planes[PLACE["state"]]
        state[:] = SCHEDULABLE
        # The last that holds is the state.
        state[self._odd & CLONED != 0] = DUPLICATE
        state[(ages >= STALE_AGE) & (ages != UNKNOWN)] = STALE
        state[self._inventory_ahead | self._is_ahead(slice(None))] = CLOCK_AHEAD
        state[silent] = NO_USAGE
        state[self._disabled] = DISABLED
        state[~self._there] = GONE
        schedulable = state == SCHEDULABLE
        self.totals = [_sum(self.figures[name][schedulable]) for name in TOTALS]

    def _is_ahead(self, slots: int | slice) -> Any:
        return (self._odd[slots] & AHEAD != 0) | (self.observed_at[slots] > self.now + self._max_ahead_s)

    def mark_drift(self, drifting: set[str]) -> None:
        """Notes which hosts drift."""
        plane = np.zeros(len(self), np.uint8)
        for host_id in drifting:
            slot = self.slot_of.get(host_id)
            if slot is not None:
                plane[slot] = 1
        self.planes[PLACE["drift"]] = plane

    def counts(self) -> dict[str, int]:
        """How many hosts are in each state."""
        counted = np.bincount(self.planes[PLACE["state"]], minlength=len(STATES)).tolist()
        return dict(zip(STATES[:GONE], counted, strict=False))

    def by_source(self) -> list[dict[str, Any]]:
        """Of each source how many hosts it speaks for, how many of them should report, and how many are silent."""
        places = self.planes[PLACE["source"]].astype(np.intp) * len(STATES) + self.planes[PLACE["state"]]
        counted = np.bincount(places, minlength=len(self.sources) * len(STATES)).reshape(-1, len(STATES)).tolist()
        rows = []
        for source, (*of, _) in zip(self.sources, counted, strict=False):
            if any(of):
                silent = of[STALE] + of[NO_USAGE]
                rows.append({"source": source, "hosts": sum(of), "expected": sum(of) - of[DISABLED], "silent": silent})
        return rows

    def ages(self) -> dict[str, float] | None:
        """Percentiles of the ages of enabled hosts that have reported, in seconds; None: there are none."""
        at = self.observed_at
        reported = (at > 0) & (at <= self.now + self._max_ahead_s) & ~self._disabled
        seen = np.sort(self.now - at[reported])
        if not len(seen):
            return None
        places = {"min": 0, "p50": (len(seen) - 1) // 2, "p99": (len(seen) - 1) * 99 // 100, "max": len(seen) - 1}
        return {name: round(float(seen[place]), 3) for name, place in places.items()}

    def past(self, slot: int) -> dict[str, Any]:
        """What a host's figures were in the last minutes: times, and of each figure shares of 1; None: not known."""
        held = [(at, planes) for at, planes in self.history if slot < len(planes[0])]
        document: dict[str, Any] = {"at": [round(at, 1) for at, _ in held]}
        for number, name in enumerate(HISTORY):
            levels = [int(planes[number][slot]) for _, planes in held]
            document[name] = [None if step == UNKNOWN else round(step / 254, 3) for step in levels]
        return document

    def document(self, slot: int) -> dict[str, Any]:
        """A host's row for people: its figures by their columns' names, age in seconds."""
        host, at = self.hosts[slot], float(self.observed_at[slot])
        state = int(self.planes[PLACE["state"]][slot])
        reason = STATES[state] if state else None
        if state == DISABLED and host.status_reason:
            reason = f"disabled: {host.status_reason}"
        return {
            "slot": slot,
            "host_id": host.host_id,
            "name": host.name,
            "zone": host.zone,
            "source": host.source,
            "reason": reason,
            "age": round(self.now - at, 1) if at and not self._is_ahead(slot) else None,
            **{name: figure[slot].item() if _is_known(figure[slot]) else None for name, figure in self.figures.items()},
        }

    def order(self, by: str, *, descending: bool = False) -> list[int]:
        """The slots of all hosts, sorted by a column of :meth:`document`; what is not known comes last."""
        slots = np.fromiter(self.slot_of.values(), np.int64, len(self.slot_of))
        if by in FIGURES or by == "age":
            values = self.figures[by][slots] if by in FIGURES else -self.observed_at[slots]
            known = _is_known(values) if by in FIGURES else values != 0
            keys = values[known]
            found = slots[known][np.argsort(-keys if descending else keys, kind="stable")]
            return [*found.tolist(), *slots[~known].tolist()]
        if by == "reason":
            states = self.planes[PLACE["state"]].tolist()
            return sorted(slots.tolist(), key=lambda slot: (states[slot], self.hosts[slot].name), reverse=descending)
        field = Host._fields.index(by if by in Host._fields else "name")
        return sorted(
            slots.tolist(), key=lambda slot: (self.hosts[slot][field], self.hosts[slot].name), reverse=descending
        )


def _numbers(names: list[str], wanted: Iterable[str], limit: int) -> dict[str, int]:
    """Adds names that are new, sorted, and returns the number of each; beyond the limit names have none."""
    missing = sorted(set(wanted).difference(names))
    names += missing[: max(0, limit - len(names))]
    return {name: number for number, name in enumerate(names)}


def _unknown(figure: str) -> float:
    return float("nan") if figure in FRACTIONS else UNKNOWN_INTEGER


def _is_known(values: Any) -> Any:
    return np.isfinite(values) if values.dtype.kind == "f" else values != UNKNOWN_INTEGER


def _longer(column: npt.NDArray[Any], slots: int, value: float) -> npt.NDArray[Any]:
    return np.concatenate([column, np.full(slots, value, column.dtype)])


def _sum(values: npt.NDArray[Any]) -> int:
    """The sum of a figure; what is below 0 or not known offers nothing and takes nothing from others."""
    positive = values[values > 0]
    # In halves, since the sum may exceed 64 bits, whatever a host says.
    return (int((positive >> 32).sum()) << 32) + int((positive & 0xFFFFFFFF).sum())
