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


@click.command(
    help="""Show what was put aside: records that could not be decoded and rows that the database refused.

    Each with where it came from, why, and its bytes.

    \b
    A table:                    vacancy dead-letters
    The newest twenty:          vacancy dead-letters --limit 20
    The bytes of the newest:    vacancy dead-letters --json --limit 1 | jq -r .[].payload | base64 -d
    How many for each reason:   vacancy dead-letters --json | jq 'group_by(.reason)[] | [.[0].reason, length]'

    In JSON the payload is in base64; in the table only its first bytes show, in hex. payload_bytes is its length as a
    whole: of one that is too large for the topic the beginning is there.
    """
)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.  [default: all]")
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
    table = PlainTable()
    table.add_column("append_time", no_wrap=True)
    # Widths that leave something of each column on a terminal of 80.
    table.add_column("topic or table", min_width=8, overflow="fold")
    table.add_column("partition", min_width=5, justify="right", overflow="fold")
    table.add_column("offset", min_width=6, justify="right", overflow="fold")
    table.add_column("key", min_width=6, overflow="fold")
    table.add_column("reason", min_width=13, overflow="fold")
    table.add_column("payload_bytes", min_width=7, justify="right", overflow="fold")
    table.add_column("payload", min_width=8, overflow="fold")
    for letter in letters:
        more = " …" if letter.payload_bytes > _SHOWN_BYTES else ""
        where = (letter.topic or letter.table, letter.partition, letter.offset, letter.key)
        shown = letter.payload[:_SHOWN_BYTES].hex() + more
        cells = (letter.append_time, *where, letter.reason, letter.payload_bytes, shown)
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    console = table_console()
    if table.row_count:
        console.print(table)
    console.print(f"{table.row_count} dead letters")
