"""`vacancy migrate`: the tables at this release's version."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.options import load, settings_options


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
        click.echo(f"applied {name}")
    if not applied:
        click.echo("the tables are up to date")
