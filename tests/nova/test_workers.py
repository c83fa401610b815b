"""Scheduler workers at once on one table do not herd."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.nova.conftest import Databases, Nova

HOSTS, WORKERS, PICKS = 300, 8, 160


def crowding(picked: list[int]) -> float:
    """Picks on the host of a pick, on average: 1 when no host is picked twice."""
    return sum(count**2 for count in Counter(picked).values()) / len(picked)


@pytest.mark.parametrize(
    "columns", [{}, {"cpu_utilization": "0.1 + 0.2 * number / 300.0"}], ids=["equal hosts", "unequal hosts"]
)
def test_workers_spread_picks_as_one_does(nova: Nova, databases: Databases, columns: dict[str, str]) -> None:
    spread, hosts = {}, {}
    for workers in (1, WORKERS):
        dsn = databases.make(HOSTS, columns)
        seen: list[dict[str, Any]] = nova.run(
            "workers", dsn=dsn, hosts=HOSTS, workers=workers, requests=PICKS // workers
        )
        picked = [number for worker in seen for number in worker["picked"]]
        assert len(picked) == PICKS
        spread[workers], hosts[workers] = crowding(picked), len(set(picked))
    print(f"\n{PICKS} picks on {HOSTS} hosts: hosts picked, and picks on a pick's host, by workers: {hosts}, {spread}")
    assert spread[WORKERS] < 1.1 * spread[1]
    assert hosts[WORKERS] > 0.9 * hosts[1]
