"""`vacancy enable`: takes hosts back that an operator had taken out."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.whole_host import host_id_of
from vacancy.jobs.commands.connections import owner_connection
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say


@click.command("enable")
@settings_options
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
def command(config: Path | None, data_dir: Path | None, hosts: tuple[str, ...]) -> None:
    """Take back hosts that `vacancy disable` has taken out. What they report themselves counts again.

    This command needs postgres.owner_dsn.

    \b
    Example:  vacancy enable compute-17
    """
    settings = load(config, data_dir)
    with (
        owner_connection(settings) as connection,
        explained(settings.postgres.owner_dsn),
        connection.cursor() as cursor,
    ):
        for host, host_id in [(host, host_id_of(connection, host)) for host in hosts]:
            cursor.execute("SELECT vacancy.enable_host(%s)", (host_id,))
            ((was_disabled,),) = cursor.fetchall()
            cursor.execute("SELECT reason FROM vacancy.schedulable_host WHERE host_id = %s", (host_id,))
            ((reason,),) = cursor.fetchall() or [("retired",)]
            what = "is enabled" if was_disabled else "was not disabled by `vacancy disable`"
            say(f"{host} {what}" + (f"; it is still out: {reason}" if reason else ""))
