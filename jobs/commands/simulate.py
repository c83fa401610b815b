"""`vacancy simulate`: emits the events of a simulated fleet."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import click
from rich.live import Live
from rich.spinner import Spinner

from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import DurationType, flags, load, settings_options
from vacancy.jobs.rendering import line_console
from vacancy.jobs.signals import StopSignal
from vacancy.jobs.simulator.simulation import Progress, Simulation, Totals, build_simulation
from vacancy.jobs.terminal import say

_LIVE_S = 0.5
_LOG = logging.getLogger("vacancy.simulate")


_EXAMPLES = """\b
Examples:
  vacancy simulate --hosts 1000                             a small cloud for the local stack
  vacancy simulate --hosts 30000 --interval 60s             nodes that report each minute
  vacancy simulate --hosts 30000 --interval 1s --for 60     30,000 events/s, for a minute
  vacancy simulate --hosts 100000 --tolerance 0.02 --max-silence 30s     a look a second, only what is new is sent
"""


@click.command(epilog=_EXAMPLES)
@click.option("--hosts", type=click.IntRange(1, 1_000_000), required=True, help="How many hosts.")
@click.option(
    "--interval",
    type=DurationType(),
    help="Time between two looks of a host at itself; each is sent, unless there is a tolerance."
    "  [default: agent.interval]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    help="How far a host's row may drift before a look is sent.  [default: agent.tolerance]",
)
@click.option(
    "--max-silence",
    type=DurationType(),
    help="With a tolerance, a look is sent after this time in any case.  [default: agent.max_silence]",
)
@click.option(
    "--pools",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Storage pools that the disk of three quarters of the hosts comes from.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Number that the fleet is drawn from."
)
@click.option("--for", "for_", metavar="SECONDS", type=DurationType(), help="Stop after this time.")
@settings_options
@log_format_option
def command(
    hosts: int,
    interval: timedelta | None,
    tolerance: float | None,
    max_silence: timedelta | None,
    pools: int,
    seed: int,
    for_: timedelta | None,
    config: Path | None,
    data_dir: Path | None,
    log_format: str | None,
) -> None:
    """Emit the events of a simulated fleet.

    Instances come and go, load rises and falls, hosts reboot, fall silent and have wrong clocks. The same seed gives
    the same fleet; a restart looks like a reboot of all its hosts.
    """
    agent = {"interval": interval, "tolerance": tolerance, "max_silence": max_silence}
    settings = load(config, data_dir, flags(agent=agent, log={"format": log_format}))
    as_json = settings.log.format == "json"
    configure(settings.log.format, job="simulate")
    with StopSignal() as stop:
        simulation = build_simulation(settings, hosts, seed, pools)
        # Objects that exist now live until the end, so the garbage collector need not scan them again.
        gc.freeze()
        totals = _run(simulation, None if for_ is None else for_.total_seconds(), stop.is_set, as_json)
    say(str(totals))


def _run(simulation: Simulation, for_s: float | None, stopped: Callable[[], bool], as_json: bool) -> Totals:
    """Runs the simulation; shows a live line on a terminal, elsewhere a line every 10 s."""
    if as_json:
        return simulation.run(for_s, stopped, lambda progress: _LOG.info("%s", progress))
    console = line_console(stderr=True)
    if not console.is_terminal:
        return simulation.run(for_s, stopped, lambda progress: say(str(progress), err=True))
    line = Spinner("dots")
    with Live(line, console=console, auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            line.update(text=str(progress))
            live.refresh()

        return simulation.run(for_s, stopped, show, _LIVE_S)
