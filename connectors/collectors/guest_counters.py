"""Sums over the devices of guests that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

_Device = TypeVar("_Device")


class Sums(Generic[_Device]):
    """Sums that never go back, of counters that end with their device and begin anew with the next.

    What a device had counted when it was last seen stays in the sums after it has gone: a sum is what all devices have
    counted since the first reading, those that were there then with all that they had. So a guest that ends voids no
    rate of its host, and what it counted after the last reading is all that is missing.

    Args:
        width: counters a device.
    """

    def __init__(self, width: int) -> None:
        self._gone = (0,) * width
        self._last: dict[_Device, tuple[int, ...]] = {}

    def take(
        self, read: Mapping[_Device, tuple[int, ...]], is_there: Callable[[_Device], bool] = lambda _: False
    ) -> tuple[int, ...]:
        """The sums now.

        Args:
            read: each device's counters.
            is_there: of those that were read before and not now: whether one is there still, and counts as it did.
        """
        for device, before in list(self._last.items()):
            now = read.get(device)
            if now is None and is_there(device):
                continue
            if now is None or any(new < old for new, old in zip(now, before, strict=True)):
                # It has gone, or another has taken its place.
                self._gone = _added(self._gone, before)
                del self._last[device]
        self._last.update(read)
        return _added(self._gone, *self._last.values())


def _added(*rows: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))
