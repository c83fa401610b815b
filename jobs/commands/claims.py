"""`vacancy claims`: the claims in flight."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.documents import documents
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import PlainTable, counted, table_console
from vacancy.jobs.terminal import say_json

_CLAIMS = """
SELECT c.consumer, c.host_id, i.name AS host_name, c.vcpus, c.memory_mb, c.disk_gb, c.held,
  c.claimed_at, c.expires_at,
  statement_timestamp() - c.claimed_at AS age
FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
WHERE c.settled_at IS NULL AND c.expires_at > statement_timestamp()
ORDER BY c.claimed_at, c.consumer LIMIT %(limit)s
"""


@click.command("claims")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON array.")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most this many.")
def command(config: Path | None, data_dir: Path | None, as_json: bool, limit: int | None) -> None:
    """List the claims in flight, oldest first: those not yet reported by their host, released or expired.

    \b
    Examples:
      vacancy claims
      vacancy claims --json | jq -r '.[] | select(.age > 60) | .consumer'
    """
    settings = load(config, data_dir)
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        rows = list(documents(connection, _CLAIMS, {"limit": limit}))
    if as_json:
        say_json(rows)
        return
    table = PlainTable()
    # `vacancy release` needs the whole of a consumer's name: a UUID fits the line, and a longer one is folded.
    table.add_column("consumer", width=36, overflow="fold")
    table.add_column("host", min_width=10, overflow="fold")
    for head in ("VCPUs", "memory\nMiB", "disk\nGiB", "age"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        amounts = (f"{row[name]:,}" for name in ("vcpus", "memory_mb", "disk_gb"))
        table.add_row(row["consumer"], row["host_name"] or row["host_id"], *amounts, f"{row['age']:.1f} s")
    console = table_console()
    console.print(table)
    console.print(f"{counted(len(rows), 'claim')} in flight", style="bold")
