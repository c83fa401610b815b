"""`vacancy host`: one host, whole, as the fleet page shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from vacancy.connectors.postgres.connection import explained
from vacancy.connectors.postgres.whole_host import host_id_of, read_host
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import UNKNOWN, PlainTable, duration, one_line, percent, size, table_console
from vacancy.jobs.settings import Settings
from vacancy.jobs.terminal import say_json
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration

_MEANINGS = {
    "no usage yet": "it has said what it is, and never what it has free; does its agent run?",
    "clock ahead": "its newest event is from the future; set the clocks of brokers and database (NTP)",
    "duplicate id": "several nodes report under its id; give each an id of its own (agent.host_id)",
}


@click.command("host")
@settings_options
@click.argument("host", metavar="NAME")
@click.option(
    "--json", "as_json", is_flag=True, help="Print only a JSON object: row, cells, pools, classes, claims, drift."
)
def command(config: Path | None, data_dir: Path | None, host: str, as_json: bool) -> None:
    """Show one host, by name or id: what is promised, measured and claimed, why it is out, what it has.

    `vacancy hosts --why --name NAME` with the flags of a request says what rules the host out for it.

    \b
    Examples:
      vacancy host compute-17
      vacancy host compute-17 --json | jq .row.reason
    """
    settings = load(config, data_dir)
    with closing(open_reader(settings)) as connection, explained(settings.postgres.reader_dsn):
        found = read_host(connection, host_id_of(connection, host))
    if found is None:
        raise VacancyError(f"{host} has been retired meanwhile; `vacancy hosts` lists the others")
    if as_json:
        say_json(found)
    else:
        table_console().print(render(found, settings))


def render(found: dict[str, Any], settings: Settings) -> RenderableType:
    """A host as :func:`read_host` gives it, for people."""
    row = found["row"]
    parts: list[RenderableType] = [
        Text.assemble((str(one_line(row["name"])), "bold"), "  ", str(one_line(row["host_id"]))),
        one_line(_origin(row)),
        _state(row, settings),
    ]
    if row["vcpus_capacity"] is not None:
        parts += [_amounts(row), *(one_line(line) for line in _load(row))]
    if found["claims"]:
        parts.append(_claims(found["claims"]))
    parts += [one_line(line) for line in _lists(found)]
    return Group(*parts)


def _origin(row: dict[str, Any]) -> str:
    words = [f"zone {row['zone']}"] if row["zone"] else []
    words.append(f"from {row['source']}")
    if row["agent_version"]:
        words.append(f"agent {row['agent_version']}")
    if row["age"] is not None:
        words.append(f"{duration(timedelta(seconds=row['age']))} old")
    return ", ".join(words)


def _state(row: dict[str, Any], settings: Settings) -> Text:
    reason = row["reason"]
    if reason is None:
        return Text("schedulable", "green")
    meaning = _MEANINGS.get(reason)
    if reason == "stale":
        meaning = (
            f"its figures are older than scheduler.max_age, {format_duration(settings.scheduler.max_age)}; "
            "does its agent run?"
        )
    return one_line(f"out: {reason}" + (f": {meaning}" if meaning else ""), "yellow")


def _amounts(row: dict[str, Any]) -> PlainTable:
    table = PlainTable()
    table.add_column("")
    for head in ("free", "least free", "capacity", "claimed", "measured"):
        table.add_column(head, justify="right", no_wrap=True)
    for label, name, unit, measured in (
        ("VCPUs", "vcpus", "", None),
        ("memory", "memory_mb", " MiB", row["memory_mb_available"]),
        ("disk", "disk_gb", " GiB", row["disk_gb_available"]),
    ):
        if name == "disk_gb" and row["disk_pool"] is not None:
            table.add_row(label, f"of the storage pool {row['disk_pool']}", "", "", "", "")
            continue
        amounts = (
            row[f"{name}_free"],
            row[f"{name}_free_min"],
            row[f"{name}_capacity"],
            row[f"{name}_claimed"],
            measured,
        )
        table.add_row(label, *(UNKNOWN if amount is None else f"{amount:,}{unit}" for amount in amounts))
    return table


def _load(row: dict[str, Any]) -> Iterator[str]:
    yield (
        f"CPU        {percent(row['cpu_utilization'])} busy, {percent(row['cpu_iowait'])} waiting for I/O, "
        f"{percent(row['cpu_steal'])} stolen"
    )
    yield (
        f"pressure   CPU {percent(row['cpu_pressure'])}, memory {percent(row['memory_pressure'])}, "
        f"I/O {percent(row['io_pressure'])}"
    )
    yield f"disk       {size(row['disk_read_bytes_per_s'])}/s read, {size(row['disk_write_bytes_per_s'])}/s written"
    yield f"network    {size(row['net_rx_bytes_per_s'])}/s in, {size(row['net_tx_bytes_per_s'])}/s out"
    yield f"instances  {UNKNOWN if row['instances'] is None else row['instances']}"


def _claims(claims: list[dict[str, Any]]) -> PlainTable:
    table = PlainTable()
    table.add_column("claims in flight", width=36, overflow="fold")
    table.add_column("holds", overflow="fold")
    table.add_column("expires in", justify="right", no_wrap=True)
    for claim in claims:
        held = "".join(f", {name}: {amount:,}" for name, amount in (claim["held"] or {}).items())
        holds = f"{claim['vcpus']} VCPUs, {claim['memory_mb']:,} MiB, {claim['disk_gb']:,} GiB{held}"
        table.add_row(claim["consumer"], holds, duration(timedelta(seconds=claim["remaining"])))
    return table


def _lists(found: dict[str, Any]) -> Iterator[str]:
    """What it has, a line each: drift, cells, devices, classes, traits, aggregates."""
    for drift in found["drift"]:
        kind = drift["kind"].replace("_", " ")
        yield f"drift      {kind}: promised {drift['promised']:,}, measured {_amount(drift['measured'])}"
    for cell in found["cells"]:
        pages = "".join(
            f", {count:,} pages of {int(size_kb):,} KiB" for size_kb, count in (cell["pages_free"] or {}).items()
        )
        yield f"NUMA cell  {cell['id']}: {_amount(cell['cpus_free'])} CPUs free{pages}"
    for pool in found["pools"]:
        node = "" if pool["numa_node"] is None else f" in cell {pool['numa_node']}"
        tags = "".join(f" {name}={value}" for name, value in (pool["tags"] or {}).items())
        yield (
            f"devices    {pool['vendor_id']}:{pool['product_id']}{node}{tags}: {_amount(pool['free'])} of "
            f"{_amount(pool['total'])} free"
        )
    for one in found["classes"]:
        free = "not known how many are" if one["free"] is None else f"{one['free']:,}"
        yield f"class      {one['resource_class']}: {free} free of {_amount(one['total'])}"
    row = found["row"]
    for label, values in (
        ("traits", row["traits"]),
        ("aggregates", row["aggregates"]),
        ("uncertain", row["uncertain"]),
    ):
        if values:
            yield f"{label:<10} {', '.join(values)}"


def _amount(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
