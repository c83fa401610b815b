"""Nova's own choice, as a baseline: the weighers of Nova 34 with their defaults over Placement's candidates.

A model of the arithmetic, since the real scheduler takes a second a decision; tests/nova/test_weighing.py holds it
against Nova's own handler. What it leaves out weighs the same for all hosts here: PCI devices, server groups, failed
builds, cells, hypervisor versions, image properties.
"""

from __future__ import annotations

import numpy as np

from bench.decisions.world import Flags, Integers, Reals

CANDIDATES = 1_000
"""`[scheduler] max_placement_results`."""


def weights(free_ram_mb: Reals, free_vcpus: Reals, free_disk_mb: Reals, building: Reals) -> Reals:
    """Each host's weight: each weigher's figure as a share of the most (less than 0 is 0), times the multiplier."""
    total = np.zeros(len(free_ram_mb))
    for multiplier, figure in ((1.0, free_ram_mb), (1.0, free_vcpus), (1.0, free_disk_mb), (-1.0, building)):
        most = figure.max()
        if most > 0:
            total += multiplier * np.maximum(figure, 0) / most
    return total


def choose(fits: Flags, free: Integers, used_ram_mb: Reals, memory_mb: Reals, building: Integers) -> int | None:
    """The host that Nova picks, or None.

    Args:
        fits: on which hosts Placement has room.
        free: VCPUs, MiB and GB that Nova's records of the compute nodes have free.
        used_ram_mb: what instances were promised; Nova weighs by the memory without its ratio.
        memory_mb: the hosts' memory.
        building: instances that are being built.
    """
    candidates = np.flatnonzero(fits)[:CANDIDATES]
    if not len(candidates):
        return None
    weight = weights(
        (memory_mb - used_ram_mb)[candidates],
        free[candidates, 0].astype(np.float64),
        free[candidates, 2] * 1024.0,
        building[candidates].astype(np.float64),
    )
    return int(candidates[weight.argmax()])
