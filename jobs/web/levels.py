"""How figures become the levels that the map paints: 16 a dimension, 255 for what is not known.

A level has half a level of hysteresis, so that a figure that moves a little around a border does not change it each
second: that is what keeps the frames small and the map quiet.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from vacancy.jobs.web.table import FIGURES

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
FIRST_PAINTED = PLACE[PAINTED[0]]

AGES = (0.5, 1, 2, 10, 30, 120, 720, 2880, 20160)
"""Borders of the levels of age, in times max_age. A healthy host is at level 0, so that ages cost no bytes."""
STALE_AGE = 2
"""The level of age from which a host is stale."""

_NUMBER = {name: number for number, name in enumerate(FIGURES)}
_SHARE_NUMBERS = tuple((_NUMBER[name], _NUMBER[capacity]) for name, capacity in _SHARES)
_FRACTION_NUMBERS = tuple(_NUMBER[name] for name in _FRACTIONS)
_RARE_NUMBERS = tuple(_NUMBER[name] for name in _RARE)


def fine(figures: tuple[Any, ...]) -> bytes:
    """The painted figures of a host in 255 steps each, in the order of :data:`PAINTED`; 255: not known."""
    steps = []
    for number, whole in _SHARE_NUMBERS:
        free, capacity = figures[number], figures[whole]
        if free is None or capacity is None or capacity <= 0:
            steps.append(UNKNOWN)
        elif free <= 0:
            steps.append(0)
        else:
            steps.append(_FINEST if free >= capacity else free * 255 // capacity)
    steps.extend([_step(figures[number]) for number in _FRACTION_NUMBERS])
    for number in _RARE_NUMBERS:
        value = figures[number]
        # Most are 0, or not known.
        steps.append(_step(sqrt(value) if value and value > 0 else value))
    return bytes(steps)


def _step(fraction: float | None) -> int:
    if fraction is None or fraction != fraction:  # not even itself: NaN
        return UNKNOWN
    if fraction <= 0:
        return 0
    return _FINEST if fraction >= 1 else int(fraction * 255)


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
