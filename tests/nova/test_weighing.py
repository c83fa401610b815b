"""The model of Nova's weighers that bench.decisions compares with gives the weights that Nova's own handler gives."""

from __future__ import annotations

import numpy as np
import pytest

from bench.decisions.nova import weights
from tests.nova.conftest import Nova

FLEETS, HOSTS = 5, 40


def test_the_model_weighs_like_nova(nova: Nova) -> None:
    chance = np.random.default_rng(1)
    fleets = [
        {
            "free_ram_mb": chance.integers(-50_000, 400_000, HOSTS),
            "vcpus": chance.choice([224, 336, 448], HOSTS),
            "vcpus_used": chance.integers(0, 220, HOSTS),
            "free_disk_mb": chance.integers(0, 5_000_000, HOSTS),
            "building": chance.integers(0, 1 + 3 * (number > 0), HOSTS),  # the first fleet builds nothing
        }
        for number in range(FLEETS)
    ]
    given = [[{name: int(figures[name][host]) for name in figures} for host in range(HOSTS)] for figures in fleets]
    seen = nova.run("weighing", fleets=given)
    assert {"RAMWeigher", "CPUWeigher", "DiskWeigher", "IoOpsWeigher"} <= set(seen["weighers"])
    for figures, theirs in zip(fleets, seen["weights"], strict=True):
        ours = weights(
            figures["free_ram_mb"].astype(float),
            (figures["vcpus"] - figures["vcpus_used"]).astype(float),
            figures["free_disk_mb"].astype(float),
            figures["building"].astype(float),
        )
        # What other weighers add is the same for all of these hosts.
        assert np.array(theirs) - ours == pytest.approx(np.full(HOSTS, theirs[0] - ours[0]))
        assert ours.argmax() == np.argmax(theirs)
