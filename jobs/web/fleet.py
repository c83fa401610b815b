"""The fleet in memory: a slot a host, a byte a host and dimension, and the figures that the bytes come from.

What always holds: a host keeps its slot for as long as it is there; what a look costs depends on what changed, and on
the dimensions that somebody looks at: of the others there are no levels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vacancy.jobs.web.levels import AGES, DIMENSIONS, FIRST, NEXT, PAINTED, PLACE, STALE_AGE, UNKNOWN, steps
from vacancy.jobs.web.table import AHEAD, CLONED, FIGURES, FIRST_FIGURE, InventoryRow, Look, UsageRow

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
_TOTALS = tuple(FIRST_FIGURE + FIGURES.index(name) for name in TOTALS)
_CLAIMS = FIRST_FIGURE + FIGURES.index("claims")
_OWN_DISK = [FIRST_FIGURE + FIGURES.index(name) for name in ("disk_gb_free", "disk_gb_free_min")]
_AT, _ODD = 1, 2
_NOTHING: UsageRow = ("", 0.0, 0, *(None,) * len(FIGURES))
"""The row of a host that has sent no usage yet."""
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
        self.planes = [bytearray() for _ in DIMENSIONS]
        """By dimension a byte a slot; of a figure that is not in :attr:`painted` they are old."""
        self.painted: set[str] = set()
        """The figures whose levels are kept up to date."""
        self.rows: list[UsageRow] = []
        """By slot the newest row; :data:`_NOTHING`: no usage yet."""
        self.newest = 0.0
        """The newest observed_at that is not ahead."""
        self.observed_at: list[float] = []
        self.zones: list[str] = []
        self.sources: list[str] = []
        self.totals = [0] * len(TOTALS)
        self.history: deque[tuple[float, tuple[bytes, ...]]] = deque(
            maxlen=int(HISTORY_SECONDS / HISTORY_STEP_SECONDS) + 1
        )
        self._counted: list[UsageRow] = []
        """By slot the row that the totals hold; :data:`_NOTHING`: the host is out."""
        self._disabled = bytearray()
        self._inventory_ahead = bytearray()
        self._pooled: set[str] = set()
        """Hosts whose disk comes from a storage pool: what it has free is in the pool's row."""
        self._max_ahead_s = 0.0
        self._free_slots: list[int] = []

    def __len__(self) -> int:
        return len(self.hosts)

    def apply(self, look: Look) -> list[str]:
        """Takes a look in; returns hosts of which the figures are still to be read."""
        self.now, self._max_ahead_s = look.now, look.max_ahead_s
        new = self._apply_inventory(look.inventory) if look.inventory else []
        self._judge([*self._apply_usage(look), *self._grow_old()])
        step_s = HISTORY_STEP_SECONDS if len(self) <= MANY_HOSTS else LONG_HISTORY_STEP_SECONDS
        if not self.history or look.now - self.history[-1][0] >= step_s:
            self.history.append((look.now, tuple(bytes(steps(name, _Columns(self.rows))) for name in HISTORY)))
        found = {row[0] for row in look.usage} if new else set()
        return [host for host in new if host not in found]

    def _apply_inventory(self, rows: Iterable[InventoryRow]) -> list[str]:
        rows = [row for row in rows if not row.gone or row.host_id in self.slot_of]
        if not rows:
            return []
        self.version += 1
        new = [row for row in rows if row.host_id not in self.slot_of]
        # In the order of zones and names, so that what is alike lies side by side and compresses.
        new.sort(key=lambda row: (row.zone, row.name, row.host_id))
        zones = _numbers(self.zones, (row.zone for row in rows if not row.gone), _MAX_ZONES)
        sources = _numbers(self.sources, (row.source for row in rows if not row.gone), _MAX_SOURCES)
        touched = []
        for row in [*(row for row in rows if row.host_id in self.slot_of), *new]:
            slot = self.slot_of.get(row.host_id)
            if slot is None:
                slot = self._slot(row.host_id)
            if row.gone:
                self._leave(slot)
                touched.append(slot)
                continue
            host = Host(
                *(row.host_id, row.name, row.zone, row.source, row.status_reason),
                *(tuple(sorted(row.traits)), tuple(sorted(row.aggregates))),
            )
            self._disabled[slot] = row.disabled
            self._inventory_ahead[slot] = row.ahead
            (self._pooled.add if row.pooled else self._pooled.discard)(row.host_id)
            if host != self.hosts[slot]:
                self.hosts[slot] = host
                self.changed_at[slot] = self.version
                zone = zones.get(row.zone, len(zones) - 1)
                self.planes[PLACE["zone"]][slot] = zone & 255
                self.planes[PLACE["zone_high"]][slot] = zone >> 8
                self.planes[PLACE["source"]][slot] = sources.get(row.source, len(sources) - 1)
            touched.append(slot)
        self._judge(touched)
        return [row.host_id for row in new]

    def _slot(self, host_id: str) -> int:
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = len(self.hosts)
            self.hosts.append(_NOBODY)
            self.changed_at.append(0)
            self.rows.append(_NOTHING)
            self.observed_at.append(0.0)
            self._counted.append(_NOTHING)
            for plane in self.planes:
                plane.append(0)
            for name in PAINTED:
                self.planes[PLACE[name]][slot] = UNKNOWN
            self._disabled.append(0)
            self._inventory_ahead.append(0)
            self.planes[PLACE["age"]][slot] = UNKNOWN
        self.slot_of[host_id] = slot
        return slot

    def _leave(self, slot: int) -> None:
        """Frees a slot; another host may take it later."""
        del self.slot_of[self.hosts[slot].host_id]
        self._pooled.discard(self.hosts[slot].host_id)
        self.hosts[slot] = _NOBODY
        self.changed_at[slot] = self.version
        self.rows[slot] = _NOTHING
        self.observed_at[slot] = 0.0
        self._disabled[slot] = self._inventory_ahead[slot] = 0
        for name in PAINTED:
            self.planes[PLACE[name]][slot] = UNKNOWN
        self.planes[PLACE["claims"]][slot] = self.planes[PLACE["drift"]][slot] = 0
        self.planes[PLACE["age"]][slot] = UNKNOWN
        self._free_slots.append(slot)

    def shown(self) -> dict[str, bytearray]:
        """The planes that are up to date, by their dimensions."""
        return {name: self.planes[PLACE[name]] for name in DIMENSIONS if name not in PAINTED or name in self.painted}

    def paint(self, name: str) -> None:
        """Makes the levels of a figure, and keeps them up to date from now on."""
        self.painted.add(name)
        self.planes[PLACE[name]] = bytearray(steps(name, _Columns(self.rows))).translate(FIRST)

    def _apply_usage(self, look: Look) -> list[int]:
        """Takes rows in; returns the slots that are still to be judged: those that may not be schedulable after it."""
        # Hosts that have sent no inventory have no slot, and neither have storage pools.
        found = [(slot, row) for row in look.usage if (slot := self.slot_of.get(row[0])) is not None]
        if not found:
            return []
        if self._pooled:
            found = [(slot, _without_disk(row) if row[0] in self._pooled else row) for slot, row in found]
        rows, observed_at, counted = self.rows, self.observed_at, self._counted
        states, claims, age = (self.planes[PLACE[name]] for name in ("state", "claims", "age"))
        since, until = self._fresh()
        odd, gone, came = [], [], []
        for slot, row in found:
            rows[slot] = row
            observed_at[slot] = row[_AT]
            if row[_CLAIMS] or claims[slot]:
                claims[slot] = min(row[_CLAIMS], 254)
            if states[slot] or row[_ODD] or not since <= row[_AT] <= until:
                age[slot] = self._age_level(row[_AT])
                odd.append(slot)
            else:
                # Schedulable, and nothing says otherwise: nearly all, so this is what has to be quick.
                age[slot] = 0
                gone.append(counted[slot])
                came.append(row)
                counted[slot] = row
        self._count(gone, came)
        slots, columns = [slot for slot, _ in found], _Columns([row for _, row in found])
        self.newest = max([self.newest, *[at for at in columns.at() if at <= until]])
        for name in self.painted:
            plane = self.planes[PLACE[name]]
            for slot, step in zip(slots, steps(name, columns), strict=True):
                old = plane[slot]
                plane[slot] = FIRST[step] if old == UNKNOWN else NEXT[old << 8 | step]
        return odd

    def _fresh(self) -> tuple[float, float]:
        """Between which times a row was observed that is quite fresh: neither old nor from the future."""
        return self.now - AGES[0] * self.max_age_s, self.now + self._max_ahead_s

    def _age_level(self, at: float) -> int:
        known = 0 < at <= self.now + self._max_ahead_s
        return bisect_right(AGES, (self.now - at) / self.max_age_s) if known else UNKNOWN

    def _grow_old(self) -> list[int]:
        """The levels of age of those that are no longer quite fresh, or from the future; returns whom it concerns."""
        since, until = self._fresh()
        age, observed_at = self.planes[PLACE["age"]], self.observed_at
        old = [slot for slot, at in enumerate(observed_at) if not since <= at <= until]
        if CLOCK_AHEAD in self.planes[PLACE["state"]]:  # their time comes
            old += [slot for slot, state in enumerate(self.planes[PLACE["state"]]) if state == CLOCK_AHEAD]
        changed = []
        for slot in old:
            level = self._age_level(observed_at[slot])
            if age[slot] != level:
                age[slot] = level
                changed.append(slot)
        return changed

    def _judge(self, slots: Iterable[int]) -> None:
        """The states of hosts, by the rules of `schedulable_host`, and the totals of those that are schedulable."""
        states, ages, rows, counted = self.planes[PLACE["state"]], self.planes[PLACE["age"]], self.rows, self._counted
        gone, came = [], []
        for slot in slots:
            row = rows[slot]
            if not self.hosts[slot].host_id:
                state = GONE
            elif self._disabled[slot]:
                state = DISABLED
            elif row is _NOTHING:
                state = NO_USAGE
            elif self._inventory_ahead[slot] or self._is_ahead(row):
                state = CLOCK_AHEAD
            elif STALE_AGE <= ages[slot] != UNKNOWN:
                state = STALE
            elif row[_ODD] & CLONED:
                state = DUPLICATE
            else:
                state = SCHEDULABLE
            states[slot] = state
            gone.append(counted[slot])
            counted[slot] = row if state == SCHEDULABLE else _NOTHING
            came.append(counted[slot])
        self._count(gone, came)

    def _is_ahead(self, row: UsageRow) -> bool:
        return bool(row[_ODD] & AHEAD) or row[_AT] > self.now + self._max_ahead_s

    def _count(self, gone: list[UsageRow], came: list[UsageRow]) -> None:
        """Takes rows off the totals and adds others."""
        for number, place in enumerate(_TOTALS):
            self.totals[number] += _positive(came, place) - _positive(gone, place)

    def mark_drift(self, drifting: set[str]) -> None:
        """Notes which hosts drift."""
        plane = bytearray(len(self))
        for host_id in drifting:
            slot = self.slot_of.get(host_id)
            if slot is not None:
                plane[slot] = 1
        self.planes[PLACE["drift"]] = plane

    def counts(self) -> dict[str, int]:
        """How many hosts are in each state."""
        return {name: self.planes[PLACE["state"]].count(number) for number, name in enumerate(STATES[:GONE])}

    def by_source(self) -> list[dict[str, Any]]:
        """Of each source how many hosts it speaks for, how many of them should report, and how many are silent."""
        counted = Counter(zip(self.planes[PLACE["source"]], self.planes[PLACE["state"]], strict=True))
        rows = []
        for number, source in enumerate(self.sources):
            of = [counted[number, state] for state in range(GONE)]
            if any(of):
                silent = of[STALE] + of[NO_USAGE]
                rows.append({"source": source, "hosts": sum(of), "expected": sum(of) - of[DISABLED], "silent": silent})
        return rows

    def ages(self) -> dict[str, float] | None:
        """Percentiles of the ages of enabled hosts that have reported, in seconds; None: there are none."""
        reported = zip(self.observed_at, self._disabled, strict=True)
        seen = sorted([at for at, disabled in reported if at and not disabled], reverse=True)
        if not seen:
            return None
        places = {"min": 0, "p50": (len(seen) - 1) // 2, "p99": (len(seen) - 1) * 99 // 100, "max": len(seen) - 1}
        return {name: round(self.now - seen[place], 3) for name, place in places.items()}

    def past(self, slot: int) -> dict[str, Any]:
        """What a host's figures were in the last minutes: times, and of each figure shares of 1; None: not known."""
        held = [(at, planes) for at, planes in self.history if slot < len(planes[0])]
        document: dict[str, Any] = {"at": [round(at, 1) for at, _ in held]}
        for number, name in enumerate(HISTORY):
            steps = [planes[number][slot] for _, planes in held]
            document[name] = [None if step == UNKNOWN else round(step / 254, 3) for step in steps]
        return document

    def document(self, slot: int) -> dict[str, Any]:
        """A host's row for people: its figures by their columns' names, age in seconds."""
        host, row, at = self.hosts[slot], self.rows[slot], self.observed_at[slot]
        state = self.planes[PLACE["state"]][slot]
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
            "age": round(self.now - at, 1) if at and not self._is_ahead(row) else None,
            **dict(zip(FIGURES, row[FIRST_FIGURE:], strict=True)),
        }

    def order(self, by: str, *, descending: bool = False) -> list[int]:
        """The slots of all hosts, sorted by a column of :meth:`document`; what is not known comes last."""
        slots: Sequence[int] = list(self.slot_of.values())
        if by in FIGURES:
            number = FIRST_FIGURE + FIGURES.index(by)
            values: dict[int, Any] = {}
            for slot in slots:
                value = self.rows[slot][number]
                if value is not None:
                    values[slot] = value
            known = sorted(values, key=values.__getitem__, reverse=descending)
            return [*known, *(slot for slot in slots if slot not in values)]
        if by == "age":
            sign = 1 if descending else -1
            at = self.observed_at
            return sorted(slots, key=lambda slot: sign * at[slot] if at[slot] else float("inf"))
        if by == "reason":
            states = self.planes[PLACE["state"]]
            return sorted(slots, key=lambda slot: (states[slot], self.hosts[slot].name), reverse=descending)
        field = Host._fields.index(by if by in Host._fields else "name")
        return sorted(slots, key=lambda slot: (self.hosts[slot][field], self.hosts[slot].name), reverse=descending)


def _numbers(names: list[str], wanted: Iterable[str], limit: int) -> dict[str, int]:
    """Adds names that are new, sorted, and returns the number of each; beyond the limit names have none."""
    missing = sorted(set(wanted).difference(names))
    names += missing[: max(0, limit - len(names))]
    return {name: number for number, name in enumerate(names)}


def _positive(rows: list[UsageRow], place: int) -> int:
    """The sum of a figure; what is below 0 offers nothing and takes nothing from others."""
    return sum([value for row in rows if (value := row[place]) and value > 0])


def _without_disk(row: UsageRow) -> UsageRow:
    """A row as `schedulable_host` has it for a host whose disk comes from a storage pool."""
    return tuple(0 if place in _OWN_DISK else value for place, value in enumerate(row))


class _Columns(Mapping[str, Sequence[Any]]):
    """Rows by column: to work on a column at a time is several times quicker than a row at a time."""

    def __init__(self, rows: Sequence[UsageRow]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> list[Any]:
        place = FIRST_FIGURE + FIGURES.index(name)
        return [row[place] for row in self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(FIGURES)

    def __len__(self) -> int:
        return len(FIGURES)

    def at(self) -> list[float]:
        """When each was observed."""
        return [row[_AT] for row in self._rows]
