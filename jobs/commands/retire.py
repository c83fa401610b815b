"""`vacancy retire`: takes hosts out for good."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import click

from vacancy.connectors.kafka.host_events import KEEP_S, HostEvents
from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.postgres.whole_host import host_id_of
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import duration
from vacancy.jobs.terminal import say
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event

_READ_SECONDS = 15.0
_POLL_SECONDS = 0.2


@click.command("retire")
@settings_options
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--even-if-reporting", is_flag=True, help="Also a host whose agent still reports.")
def command(config: Path | None, data_dir: Path | None, hosts: tuple[str, ...], even_if_reporting: bool) -> None:
    """Take hosts out for good: their rows go at once, and what they have sent before does not bring them back.

    HOST is a name or an id. Stop the host's agent first: an agent that runs reports the host anew with its next
    inventory. It sends a null record to kafka.inventory_topic, with an agent's rights, and waits until the job has
    read it.

    \b
    Example:  vacancy retire compute-17
    """
    settings = load(config, data_dir)
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        found = {host_id_of(connection, host): host for host in hosts}
        if not even_if_reporting:
            _require_silent(connection, found)
        events = HostEvents(settings.kafka, "vacancy-retire")
        for host_id in found:
            events.send(Event.INVENTORY, host_id, None)
        lost = events.close(KEEP_S) or events.given_up[Event.INVENTORY]
        if lost:
            raise VacancyError(
                f"{lost} of {len(found)} hosts are not retired: the broker at {settings.kafka.bootstrap_servers} takes "
                "no record; `vacancy doctor` says why"
            )
        deadline = time.monotonic() + _READ_SECONDS
        while left := _present(connection, found):
            if time.monotonic() > deadline:
                raise VacancyError(
                    f"the records are in {settings.kafka.inventory_topic}, but the job has not read them in "
                    f"{_READ_SECONDS:.0f} s: {', '.join(left[:5])} will go when it does; `vacancy status` shows "
                    "whether it runs"
                )
            time.sleep(_POLL_SECONDS)
    for host in found.values():
        say(f"{host} is retired")


def _require_silent(connection: Connection, found: dict[str, str]) -> None:
    """Raises VacancyError if one of these hosts has reported lately."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT host_id, age FROM vacancy.schedulable_host WHERE host_id = ANY (%s) AND age <= vacancy.max_age()",
            (list(found),),
        )
        ages: dict[str, timedelta] = dict(cursor.fetchall())
    for host_id, age in ages.items():
        raise VacancyError(
            f"{found[host_id]} has reported {duration(age)} ago, so its agent would bring it back; stop the agent and "
            "wait for scheduler.max_age, or retire it --even-if-reporting"
        )


def _present(connection: Connection, found: dict[str, str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT host_id FROM vacancy.schedulable_host WHERE host_id = ANY (%s)", (list(found),))
        return [found[host_id] for (host_id,) in cursor.fetchall()]
