"""A soak: the whole system under load and 1 % poison, something at random done to it every 20 s, for as long as asked.

    python -m tests.faults.soak --minutes 60 --json soak.json

At the end the table equals the oracle, nothing acknowledged is missing, no row went back; memory and state are level.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import click

from tests.harness.faults import faults_of, go_through
from tests.harness.live import Live
from tests.harness.process import memory_mib
from tests.harness.waiting import wait_until_time
from tests.harness.watch import Outage

EVERY_SECONDS = 20.0
MAX_GROWTH = 1.25


@dataclass(frozen=True)
class Soaked:
    """What a soak came to.

    Attributes:
        seed: it repeats the same faults.
        hosts: of the fleet.
        minutes: how long it went on.
        records: how many the usage topic took.
        poison: how many of them were no events.
        outages: of each fault, how the table went through it.
        memory_mib: of each process, the medians of the three thirds of the time.
        state_bytes: the same of a checkpoint's size.
    """

    seed: int
    hosts: int
    minutes: float
    records: int
    poison: int
    outages: dict[str, list[Outage]]
    memory_mib: dict[str, list[float]]
    state_bytes: list[float]

    def grown(self) -> list[str]:
        """What holds more in the last third than in the one before, by more than it should."""
        levels = {**self.memory_mib, "a checkpoint": self.state_bytes}
        return [
            f"{name} grew from {before:.0f} to {last:.0f}"
            for name, (_, before, last) in levels.items()
            if last > MAX_GROWTH * before
        ]

    def lines(self) -> list[str]:
        """It all, for people."""
        lines = [
            f"{self.minutes:.0f} min, {self.hosts} hosts, {self.records} records, {self.poison} of them poison; "
            f"seed {self.seed}"
        ]
        for fault, outages in sorted(self.outages.items()):
            without = [outage.without_rows_s for outage in outages]
            lines.append(
                f"{fault}: {len(outages)} times, {statistics.median(without):.1f} s without fresh rows in the median, "
                f"{max(without):.1f} s at most"
            )
        for name, thirds in self.memory_mib.items():
            lines.append(f"memory of {name}, MiB, by thirds of the time: {' '.join(f'{each:.0f}' for each in thirds)}")
        lines.append(f"size of a checkpoint, bytes: {' '.join(f'{each:.0f}' for each in self.state_bytes)}")
        return lines


def soak(hosts: int, minutes: float, seed: int, tell: Callable[[str], None]) -> Soaked:
    """Soaks a system of so many hosts at 1 Hz."""
    tell(f"seed {seed}")
    random = Random(seed)
    outages: dict[str, list[Outage]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    state: list[float] = []
    with Live(hosts, poison_per_s=0.01 * hosts) as live:
        start_s = time.monotonic()
        while (begun_s := time.monotonic()) < start_s + 60 * minutes:
            # All of them in each round, in another order.
            done = sum(map(len, outages.values()))
            faults = faults_of(live)
            if done % len(faults) == 0:
                round_ = random.sample(faults, len(faults))
            fault = round_[done % len(faults)]
            outage = go_through(live, fault)
            outages[fault].append(outage)
            tell(f"{time.monotonic() - start_s:.0f} s: {fault}: {outage}")
            live.topic.read()
            live.topic.forget()
            for name, mib in memory_mib(live.processes()).items():
                memory[name].append(mib)
            if checkpoint := live.checkpoints()["latest"]["completed"]:
                state.append(checkpoint["state_size"])
            wait_until_time(begun_s + EVERY_SECONDS)
        live.verify()
        live.verify_at_rest()
        return Soaked(
            seed,
            hosts,
            (time.monotonic() - start_s) / 60,
            live.topic.records,
            len(live.topic.poison),
            dict(outages),
            {name: thirds(values) for name, values in memory.items()},
            thirds(state),
        )


def thirds(values: list[float]) -> list[float]:
    """The medians of the first, the second and the last third."""
    size = max(1, len(values) // 3)
    return [statistics.median(part) for part in (values[:size], values[size : 2 * size] or values, values[-size:])]


def as_json(soaked: Soaked) -> dict[str, Any]:
    """With where it was measured."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), **asdict(soaked)}


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long.")
@click.option("--hosts", type=click.IntRange(min=1), default=2000, show_default=True, help="At 1 Hz.")
@click.option("--seed", type=int, help="The same faults again.  [default: a new one]")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(minutes: float, hosts: int, seed: int | None, file: Path | None) -> None:
    """Soak the whole system on this machine, with faults every 20 s and 1 % poison."""
    soaked = soak(hosts, minutes, seed if seed is not None else Random().getrandbits(32), print)
    print("\n".join(soaked.lines()))
    if file:
        file.write_text(json.dumps(as_json(soaked), indent=1) + "\n", encoding="utf-8")
    if grown := soaked.grown():
        raise click.ClickException("; ".join(grown))


if __name__ == "__main__":
    main()
