"""The cost of undecodable records: the job's throughput with 0, 1 and 10 % of them added to the same good records.

The production graph reads Kafka topics to their end with decoder, windows and dead letters in Kafka; only the rows go
to Flink's blackhole. The three topics have the same good records plus bad ones. The order of the mixes is reversed in
every other round, so that a slow minute of the machine affects all of them.

    python -m bench.poison
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.table import Table

from bench.backlog import Record, Run, broker, fill, fleet_events, records_of, run_job
from bench.common import CONSOLE, OTHERS, cpu_seconds, save
from vacancy.jobs.flink.mini_cluster import prepare_java
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import SINGLE_OBJECT_HEADER_BYTES as HEADER_BYTES
from vacancy.topology.settings import JobSettings

HOSTS = 10_000
BIG_EVERY = 2_000
"""One in this many bad records has 1 MiB."""
BIG_BYTES = 1 << 20


class Mix(NamedTuple):
    """A topic's bad records, as a share of the good ones."""

    name: str
    share: float

    @property
    def topic(self) -> str:
        """Its topic."""
        return f"bench.{self.share:g}"


MIXES = (Mix("good alone", 0.0), Mix("1 % bad", 0.01), Mix("10 % bad", 0.1))


@click.command()
@click.option("--records", type=click.IntRange(HOSTS), default=1_200_000, show_default=True, help="Good ones.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(records: int, rounds: int, saved: bool) -> None:
    """Measures each mix in each round; prints a table, writes bench/results/poison.json."""
    runs: dict[Mix, list[Run]] = {mix: [] for mix in MIXES}
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        prepare_java(Path(name) / "logs")
        cpu, start_s = cpu_seconds(), time.monotonic()
        with broker(Path(name)) as kafka:
            with CONSOLE.status(f"filling {len(MIXES)} topics"):
                count = fill(kafka, [mix.topic for mix in MIXES], _records(records // HOSTS))
            good = count[MIXES[0].topic]
            with CONSOLE.status("warming up"):  # for Java, which all runs share
                run_job(kafka, MIXES[0].topic, good, JobSettings())
            for number in range(rounds):
                for mix in MIXES if number % 2 == 0 else reversed(MIXES):
                    letters = records_of(kafka, kafka.dead_letter_topic)
                    with CONSOLE.status(f"round {number + 1} of {rounds}: {mix.name}"):
                        run = run_job(kafka, mix.topic, good, JobSettings())
                    letters = records_of(kafka, kafka.dead_letter_topic) - letters
                    if letters != count[mix.topic] - good:
                        raise VacancyError(
                            f"{mix.name}: {letters} dead letters of {count[mix.topic] - good} bad records"
                        )
                    runs[mix].append(run)
                    CONSOLE.print(f"{mix.name:>10}: {run.events_per_s:>9,.0f} good records/s")
            others = cpu_seconds(cpu)[OTHERS] / (time.monotonic() - start_s)
    alone = runs[MIXES[0]]
    figures = [
        {
            "mix": mix.name,
            "bad_records": count[mix.topic] - good,
            "good_per_s": round(statistics.median(run.events_per_s for run in of_mix)),
            "good_per_s_of_rounds": [round(run.events_per_s) for run in of_mix],
            # Ratios are taken within a round, since the machine's speed changes from minute to minute.
            "to_good_alone": round(
                statistics.median(
                    run.events_per_s / base.events_per_s for run, base in zip(of_mix, alone, strict=True)
                ),
                3,
            ),
            "cpu_s_per_million_good": round(statistics.median(run.cpu_s_per_million for run in of_mix), 1),
        }
        for mix, of_mix in runs.items()
    ]
    CONSOLE.print(_table(figures))
    if saved:
        CONSOLE.print(save("poison", {"good_records": good, "others_cores_busy": round(others, 2), "mixes": figures}))


def _records(fleet_rounds: int) -> Iterator[tuple[str, Record]]:
    """Records with their topics: the same good records for each topic, plus its bad ones."""
    chance = random.Random(0)  # noqa: S311  # no secret
    bad = dict.fromkeys(MIXES, 0)
    for event in fleet_events(HOSTS, fleet_rounds):
        for mix in MIXES:
            yield mix.topic, event
            if chance.random() < mix.share:
                bad[mix] += 1
                yield mix.topic, event._replace(value=bad_payload(chance, event.value, bad[mix]))


def bad_payload(chance: random.Random, good: bytes, number: int) -> bytes:
    """A bad record; all kinds are equally likely."""
    if number % BIG_EVERY == 0:
        return chance.randbytes(BIG_BYTES)
    kind = number % 5
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 2 * len(good)))
    if kind == 1:
        return good[: chance.randrange(1, len(good))]
    if kind == 2:  # with an unknown schema
        return good[:2] + chance.randbytes(HEADER_BYTES - 2) + good[HEADER_BYTES:]
    if kind == 3:  # the first string claims a length of 1 GiB
        return good[:HEADER_BYTES] + b"\x80\x80\x80\x80\x08" + good[HEADER_BYTES + 1 :]
    return b""


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table(title=f"The job's throughput, {os.cpu_count()} cores")
    for column in ("", "bad records", "good records/s", "to good alone", "CPU s per million"):
        table.add_column(column, justify="right")
    for row in figures:
        table.add_row(
            row["mix"],
            f"{row['bad_records']:,}",
            f"{row['good_per_s']:,}",
            f"{row['to_good_alone']:.2f}",
            f"{row['cpu_s_per_million_good']:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
