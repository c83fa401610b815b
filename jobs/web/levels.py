"""How figures become the levels that the map paints: 16 a dimension, 255 for what is not known.

A level has half a level of hysteresis, so that a figure that moves a little around a border does not change it each
second: that is what keeps the frames small and the map quiet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

LEVELS = 16
UNKNOWN = 255
_FINEST = 254

BASE = ("state", "zone", "zone_high", "source")
"""What every frame has: a byte of each host."""

_SHARES = (
    ("vcpus_free", "vcpus_capacity"),
    ("vcpus_free_min", "vcpus_capacity"),
    ("memory_mb_free", "memory_mb_capacity"),
    ("memory_mb_free_min", "memory_mb_capacity"),
    ("memory_mb_available", "memory_mb_capacity"),
    ("disk_gb_free", "disk_gb_capacity"),
    ("disk_gb_available", "disk_gb_capacity"),
)
"""Painted as a share of the capacity."""
_FRACTIONS = ("cpu_utilization",)
_RARE = ("cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure")
"""Fractions of which little is much already: painted by their square root."""
PAINTED = (*(name for name, _ in _SHARES), *_FRACTIONS, *_RARE)
"""The figures that the map paints."""
DIMENSIONS = (*BASE, *PAINTED, "claims", "age", "drift")
"""A byte of each host for each. A frame has those of BASE and the one that a browser paints."""
PLACE = {name: place for place, name in enumerate(DIMENSIONS)}

AGES = (0.5, 1, 2, 10, 30, 120, 720, 2880, 20160)
"""Borders of the levels of age, in times max_age. A healthy host is at level 0, so that ages cost no bytes."""
STALE_AGE = 2
"""The level of age from which a host is stale."""

_SHARE_OF = dict(_SHARES)


def steps(name: str, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """A painted figure of many hosts in 255 steps; 255: not known.

    Args:
        name: one of :data:`PAINTED`.
        columns: the figures by their names, a host each.
    """
    values = columns[name]
    if name in _SHARE_OF:
        return [
            UNKNOWN
            if free is None or not capacity or capacity < 0
            else 0
            if free <= 0
            else _FINEST
            if free >= capacity
            else free * 255 // capacity
            for free, capacity in zip(values, columns[_SHARE_OF[name]], strict=True)
        ]
    if name in _RARE:
        values = [sqrt(value) if value and value > 0 else value for value in values]
    # A number that is not even itself is none.
    return [
        UNKNOWN
        if fraction is None or fraction != fraction
        else 0
        if fraction <= 0
        else _FINEST
        if fraction >= 1
        else int(fraction * 255)
        for fraction in values
    ]


def level(step: int) -> int:
    """The level of a step."""
    return UNKNOWN if step == UNKNOWN else step * LEVELS // (_FINEST + 1)


def _steady(old: int, step: int) -> int:
    """The level of a step after another level: the old one within half a level of it."""
    new = level(step)
    if UNKNOWN in (old, new) or old >= LEVELS:
        return new
    width = (_FINEST + 1) / LEVELS
    return old if (old - 0.5) * width <= step < (old + 1.5) * width else new


NEXT = bytes(_steady(old, step) for old in range(256) for step in range(256))
"""The level that comes after level `old` with `step`, at ``old << 8 | step``."""
FIRST = bytes(level(step) for step in range(256))
"""The level of a step without one before, at the step."""
