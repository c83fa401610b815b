"""Decides which hosts become hot and which cool, rarely enough for a trait.

What always holds: a host flips only after it has been at a limit, or below ``cool_below``, for ``hot_for_s`` without a
break. No host flips more than ``flips_per_hour`` times an hour. At most ``max_hot`` of the hosts are hot. A host whose
fullness is unknown does not flip.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Flip:
    """A change of one host's trait, and the fullness that caused it."""

    host: str
    hot: bool
    fullness: float


@dataclass
class Hysteresis:
    """Remembers since when each host has been at a limit or below ``cool_below``.

    Attributes:
        hot_for_s: how long a host must be at a limit to become hot, and below ``cool_below`` to cool.
        cool_below: the fullness below which a hot host cools; 1 is at a limit.
        flips_per_hour: the most flips of one host in an hour.
        max_hot: fraction of the known hosts that may be hot.
    """

    hot_for_s: float
    cool_below: float
    flips_per_hour: int
    max_hot: float
    _above: dict[str, float] = field(default_factory=dict)
    _below: dict[str, float] = field(default_factory=dict)
    _flips: dict[str, list[float]] = field(default_factory=dict)

    def flips(self, now_s: float, fullness: Mapping[str, float], hot: Set[str]) -> list[Flip]:
        """The changes to make now.

        Args:
            now_s: monotonic seconds.
            fullness: the fullness of each host whose row is fresh.
            hot: hosts that have the trait.
        """
        self._above = {host: self._above.get(host, now_s) for host, full in fullness.items() if full >= 1}
        self._below = {host: self._below.get(host, now_s) for host, full in fullness.items() if full < self.cool_below}
        cooling = [
            Flip(host, False, fullness[host])
            for host, since in self._below.items()
            if host in hot and now_s - since >= self.hot_for_s and self._may_flip(host, now_s)
        ]
        room = int(self.max_hot * len(fullness)) - len(hot) + len(cooling)
        heating = sorted(
            (
                Flip(host, True, fullness[host])
                for host, since in self._above.items()
                if host not in hot and now_s - since >= self.hot_for_s and self._may_flip(host, now_s)
            ),
            key=lambda flip: -flip.fullness,
        )
        return cooling + heating[: max(0, room)]

    def done(self, flip: Flip, now_s: float) -> None:
        """Records that a flip was made."""
        self._flips.setdefault(flip.host, []).append(now_s)

    def _may_flip(self, host: str, now_s: float) -> bool:
        recent = [at for at in self._flips.pop(host, []) if now_s - at < _HOUR_S]
        if recent:
            self._flips[host] = recent
        return len(recent) < self.flips_per_hour
