"""`vacancy disable`: an operator takes hosts out for now."""

from __future__ import annotations

from pathlib import Path

import click

from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.whole_host import host_id_of
from vacancy.jobs.commands.connections import owner_connection
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.terminal import say
from vacancy.schemas.errors import VacancyError

_LONGEST_REASON = 255


@click.command("disable")
@settings_options
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--reason", required=True, metavar="TEXT", help="Why; people see it wherever the host is out.")
def command(config: Path | None, data_dir: Path | None, hosts: tuple[str, ...], reason: str) -> None:
    """Take hosts out for now: nothing is claimed there until `vacancy enable`, whatever the hosts say.

    HOST is a name or an id, of a host or a storage pool. Instances and claims that are there stay. Needs
    postgres.owner_dsn. A host of Nova is better disabled there (`openstack compute service set --disable`).

    \b
    Example:  vacancy disable compute-17 --reason 'new disks on Monday'
    """
    reason = reason.strip()
    if not 0 < len(reason) <= _LONGEST_REASON:
        raise click.UsageError(f"--reason has 1 to {_LONGEST_REASON} characters")
    settings = load(config, data_dir)
    with (
        owner_connection(settings) as connection,
        explained(settings.postgres.owner_dsn),
        connection.cursor() as cursor,
    ):
        found = [(host, host_id_of(connection, host)) for host in hosts]
        for host, host_id in found:
            cursor.execute("SELECT vacancy.disable_host(%s, %s)", (host_id, reason))
            if cursor.fetchall() != [(True,)]:
                raise VacancyError(f"{host} has been retired meanwhile; nothing is disabled there")
            say(f"{host} is disabled: {reason}")
