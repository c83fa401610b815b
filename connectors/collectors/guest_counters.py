"""Sums over devices that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

_Device = TypeVar("_Device")
Row = tuple[int | None, ...]
"""A device's counters; None for one that it does not tell."""


class Sums(Generic[_Device]):
    """Sums that go on when devices come and go, each of which has counters of its own.

    A sum is what all devices have counted since the first reading, those that were there then with all that they had.
    What a device had counted when it was last seen stays in the sums after it has gone: so a guest that ends voids no
    rate of its host, and what it counted after the last reading is all that is missing. A device that comes may have
    begun with no count, as a guest's does, or bring what it counted elsewhere, as a card does that comes back from
    another namespace: of that one only counts what it counts from then on.

    Args:
        width: counters a device.
    """

    def __init__(self, width: int) -> None:
        self._sums = [0] * width
        self._last: dict[_Device, Row] = {}
        self._is_first = True

    def take(
        self,
        read: Mapping[_Device, Row],
        is_there: Callable[[_Device], bool] = lambda _: False,
        began: Callable[[_Device], bool] = lambda _: True,
    ) -> Row:
        """The sums now; None for those of which a device does not tell its part, or told more before.

        Args:
            read: each device's counters.
            is_there: of those that were read before and not now: whether one is there still, and counts as it did.
            began: of those that were not read before, and those that have gone back: whether one is new and began with
                no count.
        """
        unknown: set[int] = set()
        for device in [device for device in self._last if device not in read and not is_there(device)]:
            del self._last[device]
        for device, now in read.items():
            before = self._last.get(device)
            is_another = before is None or _went_back(before, now)
            if is_another and (self._is_first or began(device)):
                before = (0,) * len(now)
            unknown |= self._add(device, before or (None,) * len(now), now)
        self._is_first = False
        return tuple(None if index in unknown else total for index, total in enumerate(self._sums))

    def _add(self, device: _Device, before: Row, now: Row) -> set[int]:
        """Adds what a device has counted since; which of its counters do not say that."""
        unknown = set()
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            if new is None or (old is not None and new < old):
                unknown.add(index)
            elif old is not None:
                self._sums[index] += new - old
        self._last[device] = tuple(old if new is None else new for old, new in zip(before, now, strict=True))
        return unknown


def _went_back(before: Row, now: Row) -> bool:
    return any(old is not None and new is not None and new < old for old, new in zip(before, now, strict=True))
