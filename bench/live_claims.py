"""Claims with a live fleet: the rate of eight schedulers while the fleet's events stream in, and while it is silent.

On one stack the simulator is paused and resumed in turns. Schedulers, simulator, broker, job and database share the
cores, and the schedulers use all that the others leave, so the ratio shows how much the stream takes from them.

    python -m bench.live_claims
    python -m bench.live_claims --hosts 100000 --tolerance 0.02
"""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import Any

import click
import psutil
import psycopg2

from bench.backlog import records_of
from bench.claims import claim_ttl_of, decider, figures, floor
from bench.closed_loop import closed_loop
from bench.common import CONSOLE, OTHERS, cpu_seconds, save
from bench.live import SILENCE, stack_of, wait_until_full, with_tolerance
from vacancy.jobs.local.stack import Stack
from vacancy.jobs.options import DurationType
from vacancy.schemas.units import format_duration

CLIENTS = 8
SETTLE_S = 10.0
"""Pause between the states: pending rows are written, and late events arrive."""


@click.command()
@click.option("--hosts", type=click.IntRange(1), default=30_000, show_default=True, help="Looked at each second.")
@click.option("--tolerance", default=0.0, show_default=True, help="What hosts leave unsent.")
@click.option("--max-silence", type=DurationType(), default="30s", show_default=True, help="With a tolerance.")
@click.option("--emit", type=DurationType(), default="1s", show_default=True)
@click.option("--seconds", default=15.0, show_default=True, help="Length of each turn.")
@click.option("--turns", default=3, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(
    hosts: int, tolerance: float, max_silence: timedelta, emit: timedelta, seconds: float, turns: int, saved: bool
) -> None:
    """Measures both in turns; prints them, writes live_claims.json, with a tolerance live_claims_HOSTS.json."""
    runs: dict[str, list[dict[str, Any]]] = {"live": [], "idle": []}
    with stack_of(hosts, emit, with_tolerance(tolerance, max_silence)) as stack:
        with CONSOLE.status("filling"), psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value()) as table:
            table.autocommit = True
            wait_until_full(table, "vacancy.host", hosts, stack.watch, max_silence if tolerance else SILENCE)
        (simulator,) = (child for child in psutil.Process().children() if "simulate" in child.cmdline())
        for turn in range(turns):
            for state in ("live", "idle") if turn % 2 == 0 else ("idle", "live"):
                simulator.send_signal(signal.SIGCONT if state == "live" else signal.SIGSTOP)
                time.sleep(SETTLE_S)
                with CONSOLE.status(f"turn {turn + 1} of {turns}: {state}"):
                    runs[state].append(_run(stack, hosts, seconds))
                run = runs[state][-1]
                CONSOLE.print(f"{state}: {run['claims_per_s']:,.0f} claims/s beside {run['events_per_s']:,} events/s")
        simulator.send_signal(signal.SIGCONT)
    middle = {
        state: sorted(of_state, key=lambda run: run["claims_per_s"])[turns // 2] for state, of_state in runs.items()
    }
    ratio = round(middle["live"]["claims_per_s"] / middle["idle"]["claims_per_s"], 2)
    CONSOLE.print(f"of its idle rate: {ratio:.0%}")
    if saved:
        result = {"hosts": hosts, "emit": format_duration(emit), "clients": CLIENTS, "ratio": ratio, **middle}
        if tolerance:
            result |= {"tolerance": tolerance, "max_silence": format_duration(max_silence)}
        CONSOLE.print(save(f"live_claims_{hosts}" if tolerance else "live_claims", result | {"turns": runs}))


def _run(stack: Stack, hosts: int, seconds: float) -> dict[str, Any]:
    kafka = stack.settings.kafka
    dsn = stack.settings.postgres.owner_dsn.get_secret_value()
    floor_per_s = floor(dsn, CLIENTS)
    cpu, events, start_s = cpu_seconds(), records_of(kafka, kafka.usage_topic), time.monotonic()
    ttl = claim_ttl_of(hosts)
    seen = closed_loop(decider, [dsn, ttl], clients=CLIENTS, warm_up_s=ttl.total_seconds() + 1, seconds=seconds)
    elapsed_s = time.monotonic() - start_s
    cpu = cpu_seconds(cpu)
    return {
        "floor_per_s": floor_per_s,
        **figures(seen),
        "events_per_s": round((records_of(kafka, kafka.usage_topic) - events) / elapsed_s),
        "cores_busy": {part: round(cpu_s / elapsed_s, 2) for part, cpu_s in cpu.items() if part != OTHERS},
        "others_cores_busy": round(cpu[OTHERS] / elapsed_s, 2),
    }


if __name__ == "__main__":
    main()
