"""`vacancy drift`: hosts whose allocations and measurements disagree, and for how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from vacancy.connectors.postgres.connection import UnreachableError, connect, explained
from vacancy.connectors.postgres.documents import documents
from vacancy.connectors.postgres.servers import Connection
from vacancy.jobs.options import DurationType, load, settings_options
from vacancy.jobs.rendering import UNKNOWN, PlainTable, duration, table_console
from vacancy.jobs.settings import Settings
from vacancy.jobs.terminal import say_json

_LOG = logging.getLogger("vacancy")
_ROWS = "SELECT * FROM vacancy.host_drift ORDER BY since, name, kind"
_UNITS = {"memory_missing": ("MiB promised", "MiB there"), "shared_disk": ("GiB promised", "GiB there")}
_SHARED_DISK = (
    "shared disk: these hosts have one disk with others, which `vacancy doctor` names; declare it by agent.disk_pool"
)


@click.command("drift")
@settings_options
@click.option(
    "--watch", is_flag=True, help="Look repeatedly until Ctrl-C, so that the start and end of each drift are recorded."
)
@click.option(
    "--every", type=DurationType(), default="10s", show_default=True, help="Time between two looks of --watch."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array alone; with --watch one a line.")
def command(config: Path | None, data_dir: Path | None, watch: bool, every: timedelta, as_json: bool) -> None:
    """Show hosts whose allocations and measurements disagree, and for how long.

    Each look records which drifts have begun or ended since the last one. The duration of a drift is counted from the
    first look that saw it, so keep one `vacancy drift --watch` running.

    \b
    Examples:
      vacancy drift
      vacancy drift --watch --json >> drift.jsonl
    """
    settings = load(config, data_dir)
    for rows in _looks(settings, every if watch else None):
        if as_json:
            say_json(rows)
        else:
            _show(rows)


def look(connection: Connection) -> list[dict[str, Any]]:
    """Records the drifts, and returns them as rows of the view, by its columns."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT vacancy.record_drift()")
    return list(documents(connection, _ROWS, {}))


def _looks(settings: Settings, every: timedelta | None) -> Iterator[list[dict[str, Any]]]:
    """Yields the result of each look, once or repeatedly; a database that is away does not end repeated looks."""
    while True:
        try:
            with closing(_open(settings)) as connection, explained(settings.postgres.reader_dsn):
                while True:
                    yield look(connection)
                    if every is None:
                        return
                    time.sleep(every.total_seconds())
        except UnreachableError as error:
            if every is None:
                raise
            _LOG.warning("%s; trying again", error)
            time.sleep(every.total_seconds())


def _open(settings: Settings) -> Connection:
    return connect(
        settings.postgres.reader_dsn,
        connect_timeout=settings.postgres.connect_timeout,
        application_name="vacancy drift",
        read_only=False,  # each look writes the drifts that it sees
        max_age=settings.scheduler.max_age,
    )


def _show(rows: list[dict[str, Any]]) -> None:
    table = PlainTable()
    for head in ("host", "drift"):
        table.add_column(head, no_wrap=True)
    for head in ("promised", "measured", "for"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        promised, measured = _UNITS.get(row["kind"], ("VCPUs held", "instances"))
        lasted = UNKNOWN if row["lasted"] is None else duration(timedelta(seconds=row["lasted"]))
        amounts = f"{row['promised']:,} {promised}", f"{row['measured']:,} {measured}"
        table.add_row(row["name"], row["kind"].replace("_", " "), *amounts, lasted)
    console = table_console()
    console.print(table)
    console.print(f"{len(rows):,} drift", style="bold")
    if any(row["kind"] == "shared_disk" for row in rows):
        console.print(_SHARED_DISK, soft_wrap=True)
