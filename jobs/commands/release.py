"""`vacancy release`: releases claims."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from vacancy.jobs.commands.connections import open_scheduler
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import VacancyError


@click.command("release")
@settings_options
@click.argument("consumers", type=click.UUID, nargs=-1, required=True, metavar="CONSUMER...")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON: an array of the consumers that had a claim.")
def command(config: Path | None, data_dir: Path | None, consumers: tuple[uuid.UUID, ...], as_json: bool) -> None:
    """Give claims back, so that they no longer count against their hosts.

    If a consumer has no claim (never made, released or expired) the status is 1; the others are released all the same.

    \b
    Example:  vacancy release 5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11
    """
    settings = load(config, data_dir)
    with open_scheduler(settings) as scheduler:
        released = scheduler.release(*consumers)
    if as_json:
        say_json([str(consumer) for consumer in released])
    else:
        for consumer in released:
            say(f"{consumer}  released")
    if missing := [str(consumer) for consumer in consumers if consumer not in released]:
        raise VacancyError(f"no claim of {', '.join(missing)}: never made, released or expired (see `vacancy claims`)")
