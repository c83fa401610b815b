"""`vacancy up`: the whole system on this machine, with the table live on the terminal."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status

from vacancy.connectors.postgres.schedulable_hosts import Selection
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.commands.host_table import LiveTable
from vacancy.jobs.commands.job_watch import JobWatch
from vacancy.jobs.commands.part_watch import PartWatch
from vacancy.jobs.flink.address import local_url, with_cluster
from vacancy.jobs.local.files import exclusive
from vacancy.jobs.local.stack import STEPS, Fleet, Report, Stack
from vacancy.jobs.options import DurationType
from vacancy.jobs.rendering import line_console
from vacancy.jobs.reporters.identity import host_id_of
from vacancy.jobs.settings import CONFIG_NAME, Settings, default_data_dir, find_config, load_settings
from vacancy.jobs.signals import Stop, ignore_signals, stopped_by_signals
from vacancy.jobs.terminal import safe
from vacancy.schemas.errors import VacancyError

REDRAW_SECONDS = 1.0
LINE_SECONDS = 10.0
WATCH_SECONDS = 0.2


@click.command(name="up")
@click.option(
    "--hosts", type=click.IntRange(min=0), default=0, help="Number of simulated hosts in addition to this machine."
)
@click.option(
    "--interval",
    type=DurationType(),
    default="1s",
    show_default=True,
    help="Time between two events of a simulated host.",
)
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0), help="End after showing the live table for this many seconds."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the stack.  [default: the platform's state directory]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML).  [default: vacancy.toml, if it exists]",
)
@click.option("--emit", type=DurationType(), help="How often a host's row may be rewritten, as job.emit.")
@click.option("--window", type=DurationType(), help="Time span of the rates, as job.window.")
def command(
    hosts: int,
    interval: timedelta,
    seconds: float | None,
    data_dir: Path | None,
    config: Path | None,
    emit: timedelta | None,
    window: timedelta | None,
) -> int:
    """Run the whole system on this machine, with the table live.

    It runs Kafka, PostgreSQL, Flink, the agent of this machine and, with --hosts, simulated hosts. Ctrl-C ends them
    all; the next `vacancy up` on the same data directory resumes.

    \b
    vacancy up
    vacancy up --hosts 1000 --interval 1s
    vacancy up --for 60 --data-dir /tmp/vacancy
    """
    flags = {name: value for name, value in (("emit", emit), ("window", window)) if value is not None}
    directory = (data_dir or default_data_dir()).absolute()
    settings = load_settings(find_config(config, None) if config else _file_here(directory), {"job": flags})
    try:
        return up(directory, settings, Fleet(hosts, interval) if hosts else None, seconds, line_console())
    except OSError as error:
        raise VacancyError(f"{error.filename or directory}: {error.strerror or error}") from None


def _file_here(directory: Path) -> Path | None:
    """The settings file in the working directory, unless it is the one that `up` writes for the stack."""
    file = Path(CONFIG_NAME).absolute()
    return file if file.is_file() and file.parent.resolve() != directory.resolve() else None


def up(directory: Path, settings: Settings, fleet: Fleet | None, seconds: float | None, console: Console) -> int:
    """Runs a stack until a signal comes, its parent process dies or its time is over; returns the exit status.

    Raises:
        VacancyError: the stack could not be started or kept running.
    """
    # Other users may traverse the directory but not list it: PostgreSQL may run as another user.
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    with exclusive(directory):
        stack = Stack(directory, settings, fleet)
        ready = False
        try:
            with stopped_by_signals():
                try:
                    _start(stack, console)
                    ready = True
                    _show(stack, console, seconds)
                finally:
                    _end(stack, console)
        except (Stop, KeyboardInterrupt) as stop:
            return 130 if isinstance(stop, KeyboardInterrupt) and not ready else 0
        return 0


def _start(stack: Stack, console: Console) -> None:
    for name, step in STEPS:
        began = time.monotonic()
        with console.status(f"{name} ...") as status:
            detail = step(stack, _reporter(name, status))
        _line(console, f"{name:<15} {detail}  ({time.monotonic() - began:.1f} s)")
    found = stack.directory == default_data_dir().absolute()
    finds = "every other command finds it" if found else f"for every other command: --data-dir {stack.directory}"
    _line(console, f"{'Settings file':<15} {stack.config_file}; {finds}")


def _reporter(name: str, status: Status) -> Report:
    return lambda text: status.update(f"{name}: {text} ...")


def _end(stack: Stack, console: Console) -> None:
    """Ends all parts, in order and within time limits; further signals are ignored."""
    try:
        ignore_signals()
        _line(console, "Ending all parts ...")
    finally:  # a last signal may have come in between, and the terminal may be gone
        stack.stop()
    _line(console, "All parts have ended.")


def _show(stack: Stack, console: Console, seconds: float | None) -> None:
    """Shows the table until the time is over, and supervises the parts."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    redraw_at, message = 0.0, None
    this_machine = Selection(first=host_id_of(stack.settings.agent, default_data_dir()))
    with (
        JobWatch(stack.settings, local=True) as job,
        _part_watch(stack.settings) if console.is_terminal else nullcontext() as parts,
        LiveTable(
            lambda: open_reader(stack.settings),
            console,
            selection=this_machine,
            trouble=lambda: job.trouble,
            head=parts.line if parts else lambda: None,
        ) as table,
    ):
        while time.monotonic() < end:
            for event in stack.watch():
                message = f"{time.strftime('%H:%M:%S')} {event}"
                if not console.is_terminal:
                    _line(console, message)
            if time.monotonic() >= redraw_at:
                redraw_at = time.monotonic() + (REDRAW_SECONDS if console.is_terminal else LINE_SECONDS)
                table.refresh(message if console.is_terminal else None)
            time.sleep(WATCH_SECONDS)


def _part_watch(settings: Settings) -> PartWatch:
    """A watch of the stack's own parts, though the settings name a cluster."""
    url = local_url(settings)
    return PartWatch(with_cluster(settings, url) if url else settings)


def _line(console: Console, text: str) -> None:
    console.print(safe(text), markup=False, soft_wrap=True)
