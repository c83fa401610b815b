"""`vacancy hosts`: the table on the terminal or as JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from psycopg2 import sql
from rich.console import Group, RenderableType
from rich.text import Text

from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.documents import documents
from vacancy.connectors.postgres.schedulable_hosts import FIGURES, LISTS, Selection, count, fetch, fetch_columns, select
from vacancy.connectors.postgres.whole_host import unknown_hosts
from vacancy.connectors.scheduler.reasons import why_out
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.commands.host_table import LiveTable, render, render_columns, summarize
from vacancy.jobs.commands.job_watch import JobWatch
from vacancy.jobs.commands.request_options import parse_request, request_options
from vacancy.jobs.flink.address import with_remembered
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import PlainTable, one_line, table_console
from vacancy.jobs.settings import find_config
from vacancy.jobs.terminal import safe, say, say_json

REFRESH_SECONDS = 1.0
_REASONS = ("disabled", "no usage yet", "clock ahead", "stale", "duplicate id", "pool")
_ALL = sql.SQL("SELECT * FROM vacancy.schedulable_host")
_WHY = sql.SQL("SELECT ruled_out_by FROM vacancy.schedulable_host JOIN vacancy.why(%(request)s) USING (host_id)")
_ALL_AND_WHY = sql.SQL(
    "SELECT s.*, w.ruled_out_by FROM vacancy.schedulable_host AS s JOIN vacancy.why(%(request)s) AS w USING (host_id)"
)


class ColumnsType(click.ParamType[tuple[str, ...]]):
    """Columns of the view, comma-separated; the shell completes the last one."""

    name = "columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The columns' names, in the order given."""
        names = tuple(name.strip() for name in value.split(","))
        for name in names:
            if name not in FIGURES + LISTS:
                self.fail(f"there is no column {name!r}; there are {', '.join(FIGURES + LISTS)}", param, ctx)
        return tuple(dict.fromkeys(names))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The columns that are not named yet, after those that are."""
        del ctx, param
        before, comma, begun = incomplete.rpartition(",")
        named = before.split(",")
        return [
            CompletionItem(before + comma + name)
            for name in FIGURES + LISTS
            if name.startswith(begun) and name not in named
        ]


def _complete_reason(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [reason for reason in _REASONS if reason.startswith(incomplete)]


@click.command("hosts")
@settings_options
@click.option("--watch", is_flag=True, help="Redraw every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON array.")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most this many hosts.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out this many at the beginning.")
@click.option("--name", "pattern", help="Only hosts whose name matches this pattern, such as 'compute-1*'.")
@click.option("--out", is_flag=True, help="Only hosts that are not schedulable.")
@click.option(
    "--reason",
    shell_complete=_complete_reason,
    help="Only hosts that are out for this reason, such as stale; its first words will do.",
)
@click.option(
    "--columns",
    type=ColumnsType(),
    metavar="COLUMN[,...]",
    help="Show these columns of the view alone, such as name,zone,vcpus_free,age.",
)
@click.option("--sort", type=click.Choice(FIGURES), metavar="COLUMN", help="Sort by a column of the view.")
@click.option("--descending", is_flag=True, help="With --sort: the largest first.")
@click.option("--why", is_flag=True, help="Say for each host what rules it out for the request in the flags below.")
@request_options
def command(
    config: Path | None,
    data_dir: Path | None,
    watch: bool,
    as_json: bool,
    limit: int | None,
    offset: int,
    pattern: str | None,
    out: bool,
    reason: str | None,
    columns: tuple[str, ...] | None,
    sort: str | None,
    descending: bool,
    why: bool,
    **flags: Any,
) -> None:
    """Show the table: free, rates, age, why a host is out.

    \b
    free (least) / all: free now, minimum in the window (job.window), capacity; claims in flight are subtracted.
    available: what the kernel measures, regardless of allocations; claims in flight are subtracted.

    \b
    Examples:
      vacancy hosts
      vacancy hosts --watch
      vacancy hosts --out
      vacancy hosts --zone az-1
      vacancy hosts --name 'rack7-*' --sort vcpus_free --descending --limit 20
      vacancy hosts --columns name,zone,agent_version,age --sort age --descending
      vacancy hosts --json | jq '.[] | select(.reason == null) | .name'
      vacancy hosts --why --vcpus 4 --memory-mb 8192
    """
    request = parse_request(**flags)
    if watch and (as_json or why):
        raise click.UsageError("--watch goes with neither --json nor --why: call `vacancy hosts` as often as needed")
    if columns and why:
        raise click.UsageError("--columns does not go with --why, which has columns of its own")
    zone = None if why else request.zone
    if not why and request != Request(zone=zone):
        raise click.UsageError("what an instance needs goes with --why; --zone alone shows the hosts of a zone")
    selection = Selection(pattern, out, reason, sort, descending, offset, zone)
    settings = load(config, data_dir)
    if watch:
        with (
            JobWatch(with_remembered(settings, find_config(config, data_dir))) as job,
            LiveTable(
                lambda: open_reader(settings),
                table_console(),
                limit,
                selection,
                trouble=lambda: job.trouble,
                columns=columns or (),
            ) as table,
        ):
            try:
                while True:
                    table.refresh()
                    time.sleep(REFRESH_SECONDS)
            except KeyboardInterrupt:
                return
    clauses, values = selection.clauses(limit)
    values["request"] = request.document(settings.scheduler)
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        if as_json:
            query: sql.Composable = _ALL_AND_WHY if why else select(columns) if columns else _ALL
            say_json(list(documents(connection, query + clauses, values)))
        elif why:
            rows = list(documents(connection, _ALL_AND_WHY + clauses, values))
            every, values = Selection(pattern, out, reason).clauses(None)
            firsts = documents(connection, _WHY + every, values | {"request": request.document(settings.scheduler)})
            outs = [row["ruled_out_by"] for row in firsts]
            table_console().print(_render_why(rows, outs, request, settings.scheduler))
            for stranger in unknown_hosts(connection, (*request.include, *request.avoid)):
                say(f"no host is called {stranger}")
        else:
            console = table_console()
            summary = summarize(connection)
            matching = count(connection, selection) if selection.selects else None
            if columns:
                chosen = fetch_columns(connection, columns, limit, selection)
                console.print(render_columns(columns, chosen, summary, matching=matching))
            else:
                shown = fetch(connection, limit, selection)
                console.print(render(shown, summary, width=console.width, matching=matching))


def _render_why(
    rows: Sequence[dict[str, Any]], outs: Sequence[Sequence[str]], request: Request, settings: SchedulerSettings
) -> RenderableType:
    """What rules out each of these hosts, in words; then how many of all hosts each dimension rules out first."""
    table = PlainTable()
    table.add_column("host", overflow="fold")
    table.add_column("ruled out by", overflow="fold")
    for row in rows:
        words = "; ".join(why_out(dimension, row, request, settings) for dimension in row["ruled_out_by"])
        table.add_row(one_line(row["name"]), one_line(words or "fits", "yellow" if words else "green"))
    counts = Counter(out[0] for out in outs if out)
    line = f"{sum(not out for out in outs):,} of {len(outs):,} hosts fit"
    line += "".join(f", {count:,} {dimension}" for dimension, count in counts.most_common())
    return Group(table, Text(safe(line), "bold"))
