"""`vacancy advise`: how often hosts should report, what that costs and what it buys.

What it buys was measured by bench.decisions and stands in ``jobs/advice.json``, a record a way of reporting. What it
costs is the arithmetic of docs/scaling.md. Both are of fleets of other sizes than the one asked about, and the
answer says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any

import click

from vacancy.jobs.options import DurationType
from vacancy.jobs.rendering import PlainTable, percent, size, table_console
from vacancy.jobs.settings import load_settings
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import format_duration

_JOB_US, _POSTGRES_US, _BROKER_US, _CLAIM_US = 17, 10, 3, 1_000
"""CPU time of an event in the job, of a row and a claim in PostgreSQL, and of an event in a broker, of one replica."""
_WAL_BYTES, _LOG_BYTES, _ROW_BYTES = 283, 206, 630
_EMIT_S = 1.0
_GOOD_ENOUGH = 0.01
"""The cheapest way is recommended whose share of placements on busy hosts is at most so far above the least one."""


_EVENTS_A_MAX_AGE = 3


Share = tuple[float, float | None]
"""A mean over fleets, and half of its 95 % confidence interval; None with one fleet."""


@dataclass(frozen=True)
class Way:
    """A way of reporting, and what was measured of it.

    Attributes:
        name: as in the results.
        settings: what to set; None where it is another scheduler's way.
        events_a_host_s: usage events of a host each second.
        busy: the share of placements on hosts that were busy beyond a limit in the next minute, by limit: mean and half
            of its 95 % confidence interval over seeds (None with one seed).
        silence_s: how long a host that is well may be silent.
        fleets: how many were measured.
    """

    name: str
    settings: Mapping[str, str] | None
    events_a_host_s: float
    busy: Mapping[float, Share]
    silence_s: int
    fleets: int

    @property
    def possible(self) -> bool:
        """Whether this release takes the settings together."""
        if self.settings is None:
            return False
        nested: dict[str, dict[str, str]] = {}
        for setting, value in self.settings.items():
            section, _, name = setting.partition(".")
            nested.setdefault(section, {})[name] = value
        try:
            load_settings(None, nested)
        except ConfigError:
            return False
        return True

    def busy_beyond(self, limit: float) -> Share:
        """The share at a limit."""
        return beyond(self.busy, limit)


def beyond(busy: Mapping[float, Share], limit: float) -> Share:
    """The share at a limit; between two measured limits on a straight line."""
    limits = sorted(busy)
    above = next(known for known in limits if known >= limit)
    below = max(known for known in limits if known <= limit)
    if above == below:
        return busy[above]
    part = (limit - below) / (above - below)
    (low, low_half), (high, high_half) = busy[below], busy[above]
    half = None if low_half is None or high_half is None else max(low_half, high_half)
    return low + part * (high - low), half


@dataclass(frozen=True)
class Cost:
    """What a fleet's reports need."""

    events_per_s: float
    rows_per_s: float
    cores: float
    wal_bytes_per_s: float
    log_bytes_per_s: float


def cost(hosts: int, events_a_host_s: float, boots_per_s: float) -> Cost:
    """By the figures of docs/scaling.md; each boot is a claim."""
    events_per_s = hosts * events_a_host_s
    rows_per_s = min(events_per_s, hosts / _EMIT_S)
    cores = (events_per_s * (_JOB_US + _BROKER_US) + rows_per_s * _POSTGRES_US + boots_per_s * _CLAIM_US) / 1e6
    return Cost(events_per_s, rows_per_s, cores, rows_per_s * _WAL_BYTES, events_per_s * _LOG_BYTES)


def known_ways() -> tuple[list[Way], dict[str, Any]]:
    """The ways that were measured, and the rest of the document."""
    document = json.loads(resources.files("vacancy.jobs").joinpath("advice.json").read_text(encoding="utf-8"))
    ways = [Way(**{**way, "busy": _by_limit(way["busy"])}) for way in document.pop("ways")]
    return ways, document


def _by_limit(busy: Mapping[str, Sequence[Any]]) -> dict[float, Share]:
    return {float(limit): (mean, half) for limit, (mean, half) in busy.items()}


def recommended(ways: Sequence[Way], limit: float, max_age_s: float) -> Way:
    """The cheapest of those that are nearly as good as the best, and whose hosts are not stale after two lost events.

    Raises:
        click.UsageError: there is none.
    """
    ours = [way for way in ways if way.possible and _EVENTS_A_MAX_AGE * way.silence_s <= max_age_s]
    if not ours:
        raise click.UsageError(f"no way that was measured fits --max-age {max_age_s:g} s; 3 s or more do")
    least = min(way.busy_beyond(limit)[0] for way in ours)
    good = [way for way in ours if way.busy_beyond(limit)[0] <= least + _GOOD_ENOUGH]
    return min(good, key=lambda way: way.events_a_host_s)


@click.command("advise")
@click.option("--hosts", type=click.IntRange(1, 100_000_000), required=True, help="Hosts of the fleet.")
@click.option("--boots-per-minute", type=click.FloatRange(0), help="Boots of the fleet.  [default: as measured]")
@click.option(
    "--limit",
    type=click.FloatRange(0.6, 1.0),
    default=0.8,
    show_default=True,
    help="A host with more CPU demand is busy.",
)
@click.option(
    "--max-age",
    type=DurationType(),
    default="30s",
    show_default=True,
    help="How long a host that has died may be picked: `scheduler.max_age`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
def command(hosts: int, boots_per_minute: float | None, limit: float, max_age: timedelta, as_json: bool) -> None:
    """Say how often hosts should report: what each way costs, and what it buys.

    What a way buys was measured in a simulated fleet under measured loads, by real claims on a real table;
    docs/freshness.md says how, and what this cannot tell. The command needs no database.

    \b
    Examples:
      vacancy advise --hosts 30000
      vacancy advise --hosts 5000 --boots-per-minute 600 --limit 0.9
    """
    load_settings(None)  # says what is wrong in the environment
    ways, measured = known_ways()
    boots_per_s = measured["boots_a_host_s"] * hosts if boots_per_minute is None else boots_per_minute / 60
    best = recommended(ways, limit, max_age.total_seconds())
    remarks = _remarks(ways, measured, hosts, boots_per_s, limit)
    answer: dict[str, Any] = {
        "hosts": hosts,
        "boots_per_minute": 60 * boots_per_s,
        "limit": limit,
        "recommended": best.name,
        "settings": {**(best.settings or {}), "scheduler.max_age": format_duration(max_age), **measured["settings"]},
        "ways": [_as_json(way, hosts, boots_per_s, limit) for way in ways],
        "remarks": remarks,
    }
    if as_json:
        say_json(answer)
        return
    table = PlainTable()
    for column in (
        "reports",
        "events/s",
        "rows/s",
        "cores",
        "WAL/s",
        "log/s",
        f"placed on hosts beyond {percent(limit)}",
    ):
        table.add_column(column, justify="left" if column == "reports" else "right")
    for way in ways:
        needs = cost(hosts, way.events_a_host_s, boots_per_s)
        figures = (f"{needs.events_per_s:,.0f}", f"{needs.rows_per_s:,.0f}", f"{needs.cores:.1f}")
        if way.settings is None:
            figures, rates = ("", "", ""), ("", "")
        else:
            rates = (size(needs.wal_bytes_per_s), size(needs.log_bytes_per_s))
        table.add_row(
            way.name, *figures, *rates, _share(*way.busy_beyond(limit)), style="bold" if way == best else None
        )
    table_console().print(table)
    say(f"recommended: {best.name}")
    for setting, value in answer["settings"].items():
        say(f"  {setting} = {value}" if value.isdigit() else f'  {setting} = "{value}"')
    for remark in remarks:
        say(remark)


def _share(mean: float, half: float | None) -> str:
    return f"{100 * mean:.1f} %" + ("" if half is None else f" ± {100 * half:.1f}")


def _as_json(way: Way, hosts: int, boots_per_s: float, limit: float) -> dict[str, Any]:
    mean, half = way.busy_beyond(limit)
    needs = cost(hosts, way.events_a_host_s, boots_per_s)
    return {
        "name": way.name,
        "settings": way.settings,
        **({} if way.settings is None else vars(needs)),
        "placed_on_busy_hosts": mean,
        "half_of_interval": half,
        "fleets": way.fleets,
    }


def _remarks(
    ways: Sequence[Way], measured: Mapping[str, Any], hosts: int, boots_per_s: float, limit: float
) -> list[str]:
    """What is not measured but concluded."""
    sizes, fleets = measured["hosts"], min(way.fleets for way in ways)
    listed = [f"{count:,}" for count in sizes]
    remarks = [
        f"Measured with {', '.join(listed[:-1])} and {listed[-1]} hosts, {fleets} fleets or more, loads of 2011"
        f" in steps of 5 minutes, and a mean CPU demand of {percent(measured['fleet_cpu'])}."
    ]
    if hosts not in sizes:
        remarks.append(
            f"What it buys is taken over from there to {hosts:,} hosts, since a claim looks at the same number of hosts"
            " in every fleet; what it costs is in proportion to the hosts."
        )
    boots, most = boots_per_s / hosts, measured["most_boots_a_host_s"]
    if not measured["boots_a_host_s"] / 2 <= boots <= most:
        remarks.append(
            f"{60 * boots:.3g} boots a minute and host were not measured ({60 * measured['boots_a_host_s']:.3g} to"
            f" {60 * most:.3g} were)."
        )
    others = []
    for load in measured["other_loads"]:
        slow, quick = (_share(*beyond(_by_limit(load[each]), limit)) for each in ("each_60s", "each_1s"))
        others.append(f"{slow} and {quick} with {load['name']}")
    remarks.append(f"Under other loads, with reports each 60 s and each second: {'; '.join(others)}.")
    remarks.append(
        f"Of hypervisors come {measured['events_a_boot'] * boots_per_s:,.1f} events/s more: an agent sends as well when"
        " an instance starts or ends. With an interval of minutes these alone make placements better."
    )
    if limit not in ways[0].busy:
        remarks.append(f"The shares at {percent(limit)} lie on a straight line between two measured limits.")
    return remarks
