"""The table of hosts on a terminal: once, or live."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from vacancy.connectors.postgres.connection import UnreachableError, explained
from vacancy.connectors.postgres.schedulable_hosts import ALL, HostRow, Selection, count, fetch, fetch_columns
from vacancy.jobs.rendering import FILE_WIDTH, UNKNOWN, PlainTable, counted, duration, one_line, percent, size
from vacancy.jobs.terminal import safe

_CHROME_LINES = 8
"""Lines of the live view without hosts and totals: the parts, the table's head and rules, a message, the cursor."""


@dataclass(frozen=True)
class Summary:
    """Totals over all hosts of the view; the amounts count schedulable hosts only."""

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
    duplicate_id: int = 0
    clock_ahead: int = 0


_SUMMARY = """
WITH disk_pools AS (SELECT DISTINCT disk_pool FROM vacancy.schedulable_host WHERE disk_pool IS NOT NULL)
SELECT
  count(*) FILTER (WHERE NOT shares),
  count(*) FILTER (WHERE reason IS NULL),
  count(*) FILTER (WHERE reason LIKE 'disabled%' AND NOT shares),
  count(*) FILTER (WHERE reason = 'no usage yet' AND NOT shares),
  count(*) FILTER (WHERE reason = 'stale' AND NOT shares),
  max(age),
  greatest(least(coalesce(sum(vcpus_free) FILTER (WHERE reason IS NULL), 0), 9e18), -9e18)::bigint,
  greatest(least(coalesce(sum(memory_mb_free) FILTER (WHERE reason IS NULL), 0), 9e18), -9e18)::bigint,
  -- The storage pools of hosts as well, each once.
  greatest(least(coalesce(sum(disk_gb_free) FILTER (
    WHERE reason IS NULL OR shares AND status = 'ENABLED' AND reason NOT IN ('no usage yet', 'stale', 'duplicate id')
      AND (name IN (SELECT disk_pool FROM disk_pools) OR host_id IN (SELECT disk_pool FROM disk_pools))
  ), 0), 9e18), -9e18)::bigint,
  count(*) FILTER (WHERE shares),
  count(*) FILTER (WHERE reason = 'duplicate id' AND NOT shares),
  count(*) FILTER (WHERE reason = 'clock ahead' AND NOT shares)
FROM vacancy.schedulable_host
"""


def summarize(connection: Connection) -> Summary:
    """Reads the totals of the view."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY)
        return Summary(*cursor.fetchall()[0])


_POOL_CHARACTERS = 24
"""Most of the name of a storage pool, which stands in the place of a host's disk."""


class _Column(NamedTuple):
    """A column of the table, shown if the terminal has at least this many columns."""

    head: str
    cell: Callable[[HostRow], str]
    least_width: int = 0


_COLUMNS = (
    _Column("VCPUs free\n(least) / all", lambda row: amounts(row.vcpus_free, row.vcpus_free_min, row.vcpus_capacity)),
    _Column(
        "memory, GiB\n(least) / all",
        lambda row: amounts(*map(_gib, (row.memory_mb_free, row.memory_mb_free_min, row.memory_mb_capacity))),
    ),
    _Column("\navailable", lambda row: _text(_gib(row.memory_mb_available)), 110),
    _Column(
        "disk, GiB\n(least) / all",
        lambda row: (
            amounts(row.disk_gb_free, row.disk_gb_free_min, row.disk_gb_capacity)
            if row.disk_pool is None
            else shortened(row.disk_pool, _POOL_CHARACTERS)
        ),
        100,
    ),
    _Column("\navailable", lambda row: _text(row.disk_gb_available) if row.disk_pool is None else "of a pool", 136),
    _Column("inst.", lambda row: _text(row.instances), 136),
    _Column("CPU", lambda row: percent(row.cpu_utilization)),
    _Column("disk/s\nread", lambda row: size(row.disk_read_bytes_per_s), 176),
    _Column("disk/s\nwritten", lambda row: size(row.disk_write_bytes_per_s), 176),
    _Column("net/s\nin", lambda row: size(row.net_rx_bytes_per_s), 176),
    _Column("net/s\nout", lambda row: size(row.net_tx_bytes_per_s), 176),
    _Column("age", lambda row: duration(row.age)),
)


def render(
    rows: Sequence[HostRow],
    summary: Summary,
    *,
    width: int = FILE_WIDTH,
    message: str | None = None,
    head: RenderableType | None = None,
    matching: int | None = None,
) -> RenderableType:
    """The table and its totals.

    Args:
        rows: the hosts to show, in order; possibly fewer than exist.
        summary: the totals over all hosts.
        width: columns of the terminal; a narrow one shows no rates.
        message: a text to show below the table.
        head: what to show above the table.
        matching: how many hosts are selected, shown or not; None: all are.
    """
    columns = [column for column in _COLUMNS if width >= column.least_width]
    table = PlainTable()
    # Rich narrows columns that may wrap before the others. Names and reasons are truncated rather than wrapped.
    table.add_column("host")
    table.add_column("state", max_width=32)
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    for row in rows:
        out = row.reason is not None
        state = one_line(row.reason or "ok", "yellow" if out else "green")
        table.add_row(one_line(row.name), state, *(column.cell(row) for column in columns), style="dim" if out else "")
    return _with_totals(table, len(rows), summary, message, head, matching)


def render_columns(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    summary: Summary,
    *,
    message: str | None = None,
    matching: int | None = None,
) -> RenderableType:
    """The table with these columns of the view alone, under their own names; the rest as :func:`render`."""
    table = PlainTable()
    for column in columns:
        figures = any(isinstance(row[column], int | float | timedelta) for row in rows)
        table.add_column(column, justify="right" if figures else "left", no_wrap=figures)
    for row in rows:
        out = row.get("reason") is not None
        table.add_row(*(one_line(_any_text(name, row[name])) for name in columns), style="dim" if out else "")
    return _with_totals(table, len(rows), summary, message, None, matching)


def _with_totals(
    table: PlainTable,
    n_shown: int,
    summary: Summary,
    message: str | None,
    head: RenderableType | None,
    matching: int | None,
) -> RenderableType:
    line = _totals(summary, n_shown, matching)
    lines: list[RenderableType] = [head, table, line] if head else [table, line]
    if message:
        lines.append(Text(safe(message), "bold yellow"))
    return Group(*lines)


def _totals(summary: Summary, n_shown: int, matching: int | None) -> Text:
    """The totals, and how many hosts are not shown."""
    line = Text(summary_line(summary), "bold")
    if matching is not None:
        line.append(f" ({matching:,} match, {n_shown:,} shown)", "dim")
    elif hidden := summary.hosts + summary.pools - n_shown:
        n_out = summary.hosts - summary.schedulable
        which = "the one that is out" if n_out == 1 else f"the {n_out:,} that are out"
        more = f"; `vacancy hosts --out` shows {which}" if n_out else ""
        line.append(f" ({hidden:,} more not shown{more})", "dim")
    return line


def summary_line(summary: Summary) -> str:
    """The number of hosts, how many are not schedulable and why, and what is free."""
    counts = [counted(summary.hosts, "host"), f"{summary.schedulable:,} schedulable"]
    counts += [
        f"{count:,} {what}"
        for count, what in (
            (summary.stale, "stale"),
            (summary.duplicate_id, "with a duplicate id"),
            (summary.clock_ahead, "from the future"),
            (summary.disabled, "disabled"),
            (summary.without_usage, "without usage yet"),
        )
        if count
    ]
    if summary.pools:
        counts.append(counted(summary.pools, "storage pool"))
    if summary.oldest_age is not None:
        counts.append(f"oldest {duration(summary.oldest_age)}")
    free = (
        f"free: {summary.vcpus_free:,} VCPUs, {_gib(summary.memory_mb_free):,} GiB memory, "
        f"{summary.disk_gb_free:,} GiB disk"
    )
    return ", ".join(counts) + "; " + free


def amounts(free: int | None, least: int | None, capacity: int | None) -> str:
    """Free now, the minimum in the window, and the capacity."""
    return UNKNOWN if free is None else f"{_short(free)} ({_short(least)}) / {_short(capacity)}"


def shortened(text: str, characters: int) -> str:
    """A text of so many characters at most."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _short(amount: int | None) -> str:
    """An amount in at most nine characters, such as ``1.25e+12``, so that one host's figures do not displace names."""
    return str(amount) if amount is None or abs(amount) < 10_000_000 else f"{amount:.3g}"


def _gib(mib: int | None) -> int | None:
    return None if mib is None else mib // 1024


def _text(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}" if abs(value) < 10_000_000 else _short(value)


def _any_text(column: str, value: Any) -> str:
    """A value of any column of the view, in the unit that its name says where people read that one."""
    match value:
        case None:
            return "ok" if column == "reason" else UNKNOWN
        case bool():
            return "yes" if value else "no"
        case timedelta():
            return duration(value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        case int() | float() if column.endswith("_bytes_per_s"):
            return size(value)
        case int() | float() if column.startswith("cpu_") or column.endswith("_pressure"):
            return percent(value)
        case int():
            return _text(value)
        case list() if all(isinstance(item, str) for item in value):
            return ", ".join(value)
        case list() | dict():
            return json.dumps(value)
    return str(value)


class LiveTable:
    """The table on a terminal, redrawn at each :meth:`refresh`, with as many hosts as fit.

    A context manager; entering it connects, and raises what ``connect_`` raises. If the database goes away later, the
    error is shown below the table, and each refresh tries again. Without a terminal a refresh prints the totals as one
    line.
    """

    def __init__(
        self,
        connect_: Callable[[], Connection],
        console: Console,
        limit: int | None = None,
        selection: Selection = ALL,
        trouble: Callable[[], str | None] = lambda: None,
        head: Callable[[], RenderableType | None] = lambda: None,
        columns: Sequence[str] = (),
    ) -> None:
        """Describes the table.

        Args:
            connect_: opens the connection, and reopens it after it broke.
            console: where to draw.
            limit: most hosts to show; None: as many as fit.
            selection: which hosts, and in which order.
            trouble: says what keeps rows from being written, to be shown above all else; None: nothing.
            head: gives what to show above the table, in one line; None: nothing.
            columns: show these columns of the view alone; none: those that fit.
        """
        self._trouble = trouble
        self._head = head
        self._columns = columns
        self._connect = connect_
        self._console = console
        self._limit = limit
        self._selection = selection
        self._connection: Connection | None = None
        self._rows: Sequence[HostRow] = []
        self._values: Sequence[Mapping[str, Any]] = []
        self._summary: Summary | None = None
        self._matching: int | None = None
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
        """Reads and redraws; shows the message below the table."""
        try:
            self._read()
        except UnreachableError as error:
            self._disconnect()
            message = f"figures stand still: {error}; trying again"
        message = self._trouble() or message
        if self._summary is None:
            return
        if self._console.is_terminal:
            self._live.update(self._picture(self._summary, message), refresh=True)
        else:
            self._console.print(summary_line(self._summary), markup=False)
            if message:
                self._console.print(safe(message), markup=False)

    def _read(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
        with explained(SecretStr(self._connection.dsn)):
            summary = summarize(self._connection)
            n_totals = -(-len(_totals(summary, 0, None)) // self._console.width)
            fits = max(1, self._console.height - _CHROME_LINES - n_totals)
            limit = fits if self._limit is None else min(fits, self._limit)
            if self._columns:
                self._values = fetch_columns(self._connection, self._columns, limit, self._selection)
            else:
                self._rows = fetch(self._connection, limit, self._selection)
            self._matching = count(self._connection, self._selection) if self._selection.selects else None
            self._summary = summary

    def _picture(self, summary: Summary, message: str | None) -> RenderableType:
        if self._columns:
            return render_columns(self._columns, self._values, summary, message=message, matching=self._matching)
        return render(
            self._rows,
            summary,
            width=self._console.width,
            message=message,
            head=self._head(),
            matching=self._matching,
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
