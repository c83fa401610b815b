"""How figures become the levels that the map paints: 16 a dimension, 255 for what is not known.

A level has half a level of hysteresis, so that a figure that moves a little around a border does not change it each
second: that is what keeps the frames small and the map quiet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vacancy.jobs.web.table import UNKNOWN_INTEGER

Levels = npt.NDArray[np.uint8]
LEVELS = 16
UNKNOWN = 255
_STEPS, _FINEST = 255, 254

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


def steps(name: str, columns: Mapping[str, Any]) -> Levels:
    """A painted figure of many hosts in 255 steps; 255: not known.

    Args:
        name: one of :data:`PAINTED`.
        columns: the figures by their names, a host each, as :class:`~vacancy.jobs.web.table.Usage` has them.
    """
    values = columns[name]
    if name in _SHARE_OF:
        capacity = columns[_SHARE_OF[name]]
        known = (values != UNKNOWN_INTEGER) & (capacity > 0)
        whole = np.where(known, capacity, 1).astype(np.float64)
        shares = np.where(known, values, 0).astype(np.float64) * _STEPS / whole
    else:
        known = ~np.isnan(values)
        shares = np.where(known, values, 0.0).clip(0, 1)
        shares = (np.sqrt(shares) if name in _RARE else shares) * _STEPS
    return np.where(known, shares.clip(0, _FINEST), UNKNOWN).astype(np.uint8)


def level(step: int) -> int:
    """The level of a step."""
    return UNKNOWN if step == UNKNOWN else step * LEVELS // _STEPS


def _steady(old: int, step: int) -> int:
    """The level of a step after another level: the old one within half a level of it."""
    new = level(step)
    if UNKNOWN in (old, new) or old >= LEVELS:
        return new
    width = _STEPS / LEVELS
    return old if (old - 0.5) * width <= step < (old + 1.5) * width else new


NEXT: Levels = np.array([_steady(old, step) for old in range(256) for step in range(256)], np.uint8)
"""The level that comes after level `old` with `step`, at ``old << 8 | step``."""
FIRST: Levels = np.array([level(step) for step in range(256)], np.uint8)
"""The level of a step without one before, at the step."""
