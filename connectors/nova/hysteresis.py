"""Which hosts become hot and which cool, seldom enough for a trait.

What always holds: a host flips only after it has been at a limit, or below the mark, for a while without a break; no
host flips more than so many times in an hour; no more than a share of the hosts is hot; what is not known changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Flip:
    """A change of one host's trait, and the fullness that it is for."""

    host: str
    hot: bool
    fullness: float


@dataclass
class Hysteresis:
    """Remembers how long each host has been where it is.

    Attributes:
        hot_for_s: how long a host is at a limit before it is hot, and below the mark before it is not.
        cool_below: the mark; fullness 1 is at a limit.
        flips_per_hour: of one host, at most.
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
        """What to change now.

        Args:
            now_s: monotonic seconds.
            fullness: of the hosts whose rows are fresh.
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
        """Counts a flip that was made."""
        self._flips.setdefault(flip.host, []).append(now_s)

    def _may_flip(self, host: str, now_s: float) -> bool:
        recent = [at for at in self._flips.pop(host, []) if now_s - at < _HOUR_S]
        if recent:
            self._flips[host] = recent
        return len(recent) < self.flips_per_hour
