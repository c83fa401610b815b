"""`vacancy simulate`, which also writes down what some of its hosts see at each look, whether it is sent or not.

    python -m bench.witness HOSTS SETTINGS_FILE WITNESSED FILE

The first line of FILE has the ids of these hosts. Each other one is a look: the wall clock in seconds, and the fields
of a usage event.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TextIO

import numpy as np

from vacancy.jobs.logs import configure
from vacancy.jobs.settings import load_settings
from vacancy.jobs.signals import StopSignal
from vacancy.jobs.simulator import simulation as simulation_module
from vacancy.jobs.simulator.fleet import PRESSURE, Fleet, Report
from vacancy.jobs.simulator.simulation import build_simulation
from vacancy.jobs.terminal import say

SEED = 0


class Witness:
    """Writes down the looks of some rows of a fleet, evenly chosen."""

    def __init__(self, fleet: Fleet, hosts: int, file: TextIO) -> None:
        self._fleet = fleet
        self._advance = fleet.advance
        self._file = file
        self._witnessed = np.zeros(len(fleet), np.bool_)
        self._witnessed[np.linspace(0, len(fleet) - 1, min(hosts, len(fleet))).astype(np.int64)] = True
        file.write(json.dumps(fleet.host_id[self._witnessed].tolist()) + "\n")
        file.flush()

    def advance(self, now_ms: int) -> Report:
        """Stands for the fleet's."""
        report = self._advance(now_ms)
        rows = report.looks[self._witnessed[report.looks]]
        looks = self._fleet.look(rows, self._fleet.tick_at_ns(self._fleet.ticks - 1))
        columns = {name: values.tolist() for name, values in looks.items()}
        for position, has_pressure in enumerate(self._fleet.pressure[rows].tolist()):
            event = {name: values[position] for name, values in columns.items()}
            event |= {} if has_pressure else dict.fromkeys(PRESSURE)
            self._file.write(json.dumps([now_ms / 1000, event]) + "\n")
        return report


def main(hosts: int, config: Path, witnessed: int, file: Path) -> None:
    """Runs until SIGTERM."""
    settings = load_settings(config)
    configure(settings.log.format, job="simulate")
    # A million hosts would take five minutes to begin.
    simulation_module.INVENTORY_PER_S = max(simulation_module.INVENTORY_PER_S, hosts // 120)
    with StopSignal() as stop, file.open("w", encoding="utf-8") as out:
        simulation = build_simulation(settings, hosts, SEED)
        simulation.fleet.advance = Witness(simulation.fleet, witnessed, out).advance  # type: ignore[method-assign]
        gc.freeze()
        totals = simulation.run(None, stop.is_set, lambda progress: say(str(progress), err=True))
    say(str(totals))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
