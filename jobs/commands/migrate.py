"""`vacancy migrate`: the tables at this release's version."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say


@click.command("migrate")
@settings_options
def command(config: Path | None, data_dir: Path | None) -> None:
    """Bring the tables to this version.

    Connects as postgres.owner_dsn. Safe to run again, and by several at once.

    \b
    Example:  vacancy migrate --config /etc/vacancy.toml
    """
    settings = load(config, data_dir)
    applied = migrate(settings.postgres.owner_dsn, connect_timeout=settings.postgres.connect_timeout)
    for name in applied:
        say(f"applied {name}")
    if not applied:
        say("the tables are up to date")
