"""`vacancy hosts`: the table on the terminal or as JSON."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import click
import psycopg2
from psycopg2 import extensions, sql
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from connectors.hosts import ORDER, HostRow, fetch
from connectors.postgres import UnreachableError, connect, explained
from connectors.scheduler import Request
from jobs.options import load, settings_options
from jobs.requests import parse_request, request_options
from jobs.settings import Settings
from jobs.tables import FILE_WIDTH, plain_table, table_console

REFRESH_SECONDS = 1.0
UNKNOWN = "-"
_CHROME_LINES = 7
"""Lines of the live view that are no hosts: the table's head and rules, the summary, a message, the cursor's."""
_ALL = sql.SQL("SELECT * FROM vacancy.schedulable_host")
_WHY = sql.SQL(
    "SELECT name, host_id, reason, ruled_out_by"
    " FROM vacancy.schedulable_host JOIN vacancy.why(%(request)s) USING (host_id)"
)
_ALL_AND_WHY = sql.SQL(
    "SELECT s.*, w.ruled_out_by FROM vacancy.schedulable_host AS s JOIN vacancy.why(%(request)s) AS w USING (host_id)"
)
_UUIDS = extensions.new_array_type((2951,), "uuid[]", psycopg2.STRING)


@dataclass(frozen=True)
class Summary:
    """All hosts of the view at once; the amounts are those of the schedulable ones."""

    hosts: int
    schedulable: int
    disabled: int
    without_usage: int
    stale: int
    oldest_age: timedelta | None
    vcpus_free: int
    memory_mb_free: int
    disk_gb_free: int
    pools: int = 0


_SUMMARY = """
SELECT
  count(*) FILTER (WHERE NOT shares),
  count(*) FILTER (WHERE reason IS NULL),
  count(*) FILTER (WHERE reason LIKE 'disabled%'),
  count(*) FILTER (WHERE reason = 'no usage yet' AND NOT shares),
  count(*) FILTER (WHERE reason = 'stale' AND NOT shares),
  max(age),
  coalesce(sum(vcpus_free) FILTER (WHERE reason IS NULL), 0)::bigint,
  coalesce(sum(memory_mb_free) FILTER (WHERE reason IS NULL), 0)::bigint,
  coalesce(sum(disk_gb_free) FILTER (WHERE reason IS NULL), 0)::bigint,
  count(*) FILTER (WHERE shares)
FROM vacancy.schedulable_host
"""


def summarize(connection: Connection) -> Summary:
    """The whole view in one row."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY)
        return Summary(*cursor.fetchall()[0])


def documents(connection: Connection, query: str | sql.Composable, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A query's rows as JSON objects: columns as keys, times ISO 8601 in UTC, ages in seconds."""
    with connection.cursor() as cursor:
        extensions.register_type(_UUIDS, cursor)
        cursor.execute(query, values)
        names = [column.name for column in cursor.description or ()]
        for row in cursor:
            yield dict(zip(names, map(json_value, row), strict=True))


def json_value(value: Any) -> Any:
    """A value of a column as JSON has it."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case uuid.UUID():
            return str(value)
        case float() if not math.isfinite(value):
            return None  # JSON has no such number
    return value


class _Column(NamedTuple):
    """One column of the table, shown where the terminal has at least this many columns."""

    head: str
    cell: Callable[[HostRow], str]
    least_width: int = 0


_COLUMNS = (
    _Column("VCPUs free\n(least) / all", lambda row: amounts(row.vcpus_free, row.vcpus_free_min, row.vcpus_capacity)),
    _Column(
        "memory, GiB\n(least) / all",
        lambda row: amounts(*map(_gib, (row.memory_mb_free, row.memory_mb_free_min, row.memory_mb_capacity))),
    ),
    _Column("\navailable", lambda row: _text(_gib(row.memory_mb_available)), 104),
    _Column(
        "disk, GiB\n(least) / all",
        lambda row: amounts(row.disk_gb_free, row.disk_gb_free_min, row.disk_gb_capacity),
        90,
    ),
    _Column("\navailable", lambda row: _text(row.disk_gb_available), 124),
    _Column("inst.", lambda row: _text(row.instances), 124),
    _Column("CPU", lambda row: percent(row.cpu_utilization)),
    _Column("disk/s\nread", lambda row: size(row.disk_read_bytes_per_s), 156),
    _Column("disk/s\nwritten", lambda row: size(row.disk_write_bytes_per_s), 156),
    _Column("net/s\nin", lambda row: size(row.net_rx_bytes_per_s), 156),
    _Column("net/s\nout", lambda row: size(row.net_tx_bytes_per_s), 156),
    _Column("age", lambda row: duration(row.age)),
)


def render(
    rows: Sequence[HostRow], summary: Summary, *, width: int = FILE_WIDTH, message: str | None = None
) -> RenderableType:
    """The table and what it sums up to.

    Args:
        rows: the hosts to show, in order; may be fewer than there are.
        summary: all hosts.
        width: columns of the terminal; a narrow one gets no rates.
        message: what else to say, below.
    """
    columns = [column for column in _COLUMNS if width >= column.least_width]
    table = plain_table()
    # Rich narrows columns that may wrap before those that may not; names and reasons are cut rather than wrapped.
    table.add_column("host")
    table.add_column("state", max_width=32)
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    for row in rows:
        out = row.reason is not None
        state = _cut(row.reason or "ok", "yellow" if out else "green")
        table.add_row(_cut(row.name), state, *(column.cell(row) for column in columns), style="dim" if out else "")
    line = Text(summary_line(summary), "bold")
    if hidden := summary.hosts + summary.pools - len(rows):
        line.append(f" ({hidden:,} more hosts not shown)", "dim")
    lines: list[RenderableType] = [table, line]
    if message:
        lines.append(Text(message, "bold yellow"))
    return Group(*lines)


def summary_line(summary: Summary) -> str:
    """How many hosts there are, how many are out and why, and what is free."""
    counts = [f"{summary.hosts:,} hosts", f"{summary.schedulable:,} schedulable"]
    counts += [
        f"{count:,} {what}"
        for count, what in (
            (summary.stale, "stale"),
            (summary.disabled, "disabled"),
            (summary.without_usage, "without usage yet"),
            (summary.pools, "storage pools"),
        )
        if count
    ]
    if summary.oldest_age is not None:
        counts.append(f"oldest {duration(summary.oldest_age)}")
    free = (
        f"free: {summary.vcpus_free:,} VCPUs, {_gib(summary.memory_mb_free):,} GiB memory, "
        f"{summary.disk_gb_free:,} GiB disk"
    )
    return ", ".join(counts) + "; " + free


def amounts(free: int | None, least: int | None, capacity: int | None) -> str:
    """What is free now, least in the window, and in all."""
    return UNKNOWN if free is None else f"{free} ({least}) / {capacity}"


def percent(fraction: float | None) -> str:
    """A fraction as whole percent."""
    return UNKNOWN if fraction is None else f"{fraction:.0%}"


def size(n_bytes: float | None) -> str:
    """Bytes in the unit that leaves at most three digits before the point: ``12.3 MB``."""
    if n_bytes is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 999.5:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def duration(age: timedelta | None) -> str:
    """An age in the unit that fits it: ``0.8 s``, ``12 min``, ``3 h``, ``5 d``."""
    if age is None:
        return UNKNOWN
    seconds = age.total_seconds()
    for unit, unit_seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:.1f} s"


def _gib(mib: int | None) -> int | None:
    return None if mib is None else mib // 1024


def _text(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _cut(text: str, style: str = "") -> Text:
    """One line of what a node or an operator wrote; nothing in it steers the terminal."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return Text(printable, style, no_wrap=True, overflow="ellipsis")


class LiveTable:
    """The table on a terminal, redrawn at each :meth:`refresh`, with as many hosts as fit.

    A context manager; entering connects, and raises what :func:`connectors.postgres.connect` raises. After that a
    database that goes away is said below the table, and tried again at each refresh.
    Where there is no terminal a refresh prints the summary as a line.
    """

    def __init__(self, connect_: Callable[[], Connection], console: Console, limit: int | None = None) -> None:
        """Describes the table.

        Args:
            connect_: opens the connection, and opens it again when it broke.
            console: where to draw.
            limit: hosts to show at most; None: as many as fit.
        """
        self._connect = connect_
        self._console = console
        self._limit = limit
        self._connection: Connection | None = None
        self._rows: list[HostRow] = []
        self._summary: Summary | None = None
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._connection = self._connect()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        self._disconnect()

    def refresh(self, message: str | None = None) -> None:
        """Reads and redraws; says message below the table."""
        try:
            self._read()
        except UnreachableError as error:
            self._disconnect()
            message = f"figures stand still: {error}; trying again"
        if self._summary is None:
            return
        if self._console.is_terminal:
            width = self._console.width
            self._live.update(render(self._rows, self._summary, width=width, message=message), refresh=True)
        else:
            self._console.print(summary_line(self._summary), markup=False)
            if message:
                self._console.print(message, markup=False)

    def _read(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
        fits = max(1, self._console.height - _CHROME_LINES)
        with explained(SecretStr(self._connection.dsn)):
            summary = summarize(self._connection)
            self._rows = fetch(self._connection, fits if self._limit is None else min(fits, self._limit))
            self._summary = summary

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def open_reader(settings: Settings) -> Connection:
    """A connection as the reader, with the settings' maximal age."""
    return connect(
        settings.postgres.reader_dsn,
        connect_timeout=settings.postgres.connect_timeout,
        application_name="vacancy hosts",
        read_only=True,
        max_age=settings.scheduler.max_age,
    )


@click.command("hosts")
@settings_options
@click.option("--watch", is_flag=True, help="Redraw each second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array alone.")
@click.option("--limit", type=click.IntRange(min=1), help="Show this many hosts at most.")
@click.option(
    "--why", is_flag=True, help="Say of each host what rules it out, for the request that the flags below make."
)
@request_options
def command(
    config: Path | None, data_dir: Path | None, watch: bool, as_json: bool, limit: int | None, why: bool, **flags: Any
) -> None:
    """Show the table: free, rates, age, why a host is out.

    \b
    free (least) / all: free now, least free in the window (job.window), the capacity; less the claims in flight.
    available: what the kernel measures, whatever instances were promised; less the claims in flight.

    \b
    Examples:
      vacancy hosts
      vacancy hosts --watch
      vacancy hosts --json | jq '.[] | select(.reason == null) | .name'
      vacancy hosts --why --vcpus 4 --memory-mb 8192
    """
    request = parse_request(**flags)
    if watch and (as_json or why):
        raise click.UsageError("--watch goes with neither --json nor --why: call `vacancy hosts` as often as needed")
    if not why and request != Request():
        raise click.UsageError("what an instance needs goes with --why")
    settings = load(config, data_dir)
    if watch:
        with LiveTable(lambda: open_reader(settings), table_console(), limit) as table:
            try:
                while True:
                    table.refresh()
                    time.sleep(REFRESH_SECONDS)
            except KeyboardInterrupt:
                return
    values = {"limit": limit, "request": request.document(settings.scheduler)}
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        if as_json:
            query = _ALL_AND_WHY if why else _ALL
            click.echo(json.dumps(list(documents(connection, query + ORDER, values)), ensure_ascii=False))
        elif why:
            rows = list(documents(connection, _WHY + ORDER, values | {"limit": None}))
            table_console().print(_render_why(rows, limit))
        else:
            console = table_console()
            console.print(render(fetch(connection, limit), summarize(connection), width=console.width))


def _render_why(rows: Sequence[dict[str, Any]], limit: int | None) -> RenderableType:
    """The first hosts and what rules each out, then how many of all each dimension rules out first."""
    table = plain_table()
    table.add_column("host")
    table.add_column("ruled out by")
    for row in rows[:limit]:
        out = row["ruled_out_by"]
        table.add_row(_cut(row["name"]), _cut(", ".join(out) or "fits", "yellow" if out else "green"))
    counts = Counter(row["ruled_out_by"][0] for row in rows if row["ruled_out_by"])
    line = f"{sum(not row['ruled_out_by'] for row in rows):,} of {len(rows):,} hosts fit"
    line += "".join(f", {count:,} {dimension}" for dimension, count in counts.most_common())
    return Group(table, Text(line, "bold"))
