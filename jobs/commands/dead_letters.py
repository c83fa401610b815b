"""`vacancy dead-letters`: what was put aside, from the beginning of the dead-letter topic to its present end."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from vacancy.connectors.kafka.dead_letters import DeadLetter, read
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import PlainTable, table_console
from vacancy.jobs.terminal import dumps

_SHOWN_BYTES = 8
_WIDE = 120
"""Columns of a terminal that the payload fits on as well."""


@click.command(
    help="""Show what was put aside: records that could not be decoded and rows that the database refused.

    Each is shown with where it came from, the reason, and its bytes.

    \b
    A table:                    vacancy dead-letters
    The newest twenty:          vacancy dead-letters --limit 20
    The bytes of the newest:    vacancy dead-letters --json --limit 1 | jq -r .[].payload | base64 -d
    How many for each reason:   vacancy dead-letters --json | jq 'group_by(.reason)[] | [.[0].reason, length]'

    A record's place is topic/partition/offset; a row's is the table that refused it. A terminal of 120 columns or more
    also shows the payload's length and its first bytes in hex. JSON has the payload in base64, and its whole length in
    payload_bytes: of a payload that is too large for the topic only the beginning is kept.
    """
)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON array.")
@click.option("--limit", type=click.IntRange(min=1), help="Show only this many, the newest.  [default: all]")
def command(config: Path | None, data_dir: Path | None, as_json: bool, limit: int | None) -> None:
    """Prints the dead letters."""
    letters: Iterable[DeadLetter] = read(load(config, data_dir).kafka)
    if limit is not None:
        letters = reversed(heapq.nlargest(limit, letters, key=lambda letter: letter.written))
    if as_json:
        _print_json(letters)
    else:
        _print_table(letters)


def _print_json(letters: Iterable[DeadLetter]) -> None:
    """One array, an element a line, each printed as it comes: a topic of dead letters may be large."""
    before = "[\n "
    for letter in letters:
        sys.stdout.write(before + dumps(letter.as_json()))
        before = ",\n "
    sys.stdout.write("[]\n" if before.startswith("[") else "\n]\n")


def _print_table(letters: Iterable[DeadLetter]) -> None:
    console = table_console()
    table = render(letters, console.width)
    if table.row_count:
        console.print(table)
    console.print(f"{table.row_count} dead letters")


def render(letters: Iterable[DeadLetter], width: int) -> PlainTable:
    """The dead letters as a table of that width; a narrow one leaves the payload to ``--json``. No text is cut off."""
    narrow = width < _WIDE
    table = PlainTable()
    table.add_column("append time", no_wrap=True)
    table.add_column("from", min_width=12, overflow="fold")
    table.add_column("key", min_width=8, overflow="fold")
    table.add_column("reason", min_width=12, overflow="fold")
    if not narrow:
        table.add_column("bytes", justify="right", no_wrap=True)
        table.add_column("payload", no_wrap=True)
    for letter in letters:
        origin = letter.table if letter.topic is None else f"{letter.topic}/{letter.partition}/{letter.offset}"
        time = letter.append_time or ""
        cells = [time[:19] if narrow else time, origin or "", letter.key or "", letter.reason or ""]
        if not narrow:
            more = " …" if letter.payload_bytes > _SHOWN_BYTES else ""
            cells += [str(letter.payload_bytes), letter.payload[:_SHOWN_BYTES].hex() + more]
        table.add_row(*cells)
    return table
