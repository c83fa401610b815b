"""The two tables of docs/freshness.md, made of the saved runs; tests/unit/test_figures.py holds the page to them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from bench.common import RESULTS
from bench.decisions.arms import NOVA, SILENCES, changes, interval
from bench.decisions.summary import Estimate, Runs, difference, of_arm

PAGE = RESULTS.parents[1] / "docs" / "freshness.md"
_BLOCK = re.compile(r"(<!-- (arms|differences): python -m bench\.decisions advice -->\n).*?(<!-- end -->)", re.DOTALL)

_WAYS = (
    ("promises only: Nova's weighers, records each 60 s", NOVA.name),
    ("promises only, by `vacancy.claim`", "interval 60 s, promises only"),
    *((f"each {seconds} s", interval(seconds).name) for seconds in (300, 60, 30, 10, 5, 1)),
    ("no age at all", interval(0.1).name),
    *(
        (f"on change: {tolerance:g}, silence {silence_s} s", changes(tolerance, silence_s).name)
        for tolerance, silence_s in sorted(SILENCES, reverse=True)
    ),
    *(
        (f"each {seconds} s, claims not counted", f"interval {seconds} s, claims not counted")
        for seconds in (300, 60, 1)
    ),
)


class Pair(NamedTuple):
    """An arm beside another one with the same fleets; of fleets of one size where `hosts` is given."""

    what: str
    arm: str
    base: str
    hosts: int | None = None
    source: str = "traces"


def _pairs() -> Iterator[Pair]:
    one, sixty, long = (interval(seconds).name for seconds in (1, 60, 300))
    yield Pair("each 300 s, for 60 s", long, sixty)
    yield Pair("each 60 s, for 1 s", sixty, one)
    yield Pair("each 10 s, for 1 s", interval(10).name, one)
    yield Pair("on change 0.02/30 s, for 1 s", changes(0.02, 30).name, one)
    for load, name in (
        ("four times the boots", "four times the boots"),
        ("noise of 15 points", "noise 0.15"),
        ("95 % of VCPUs promised", "nearly full"),
        ("70 % of VCPUs promised", "roomy"),
    ):
        yield Pair(f"{load}: each 60 s, for 1 s", f"{sixty}, {name}", f"{one}, {name}")
    yield Pair("the generator's loads: each 60 s, for 1 s", sixty, one, source="generator")
    yield Pair("the generator's loads: Nova's, for each 60 s", NOVA.name, sixty, source="generator")
    yield Pair("10,000 hosts: each 300 s, for 60 s", long, sixty, 10_000)
    yield Pair("10,000 hosts: each 60 s, for 1 s", sixty, one, 10_000)
    yield Pair("10,000 hosts: Nova's, for each 60 s", NOVA.name, sixty, 10_000)
    for sample in ("2", "8", "100", "all"):
        yield Pair(f"sample {sample}, for 24", f"{sixty}, sample {sample}", sixty)
    for sample in ("2", "8"):
        yield Pair(f"each 300 s: sample {sample}, for 24", f"{long}, sample {sample}", long)
    yield Pair("16 schedulers at once, for 1", f"{sixty}, 16 schedulers", sixty)
    for strategy in ("pack", "random"):
        yield Pair(f"strategy `{strategy}`, for `spread`", f"{sixty}, {strategy}", sixty)
    for weight in ("0.5", "2", "4"):
        yield Pair(f"weight of `load` {weight}, for 1", f"{sixty}, load weight {weight}", sixty)
    yield Pair("`load` alone", f"{sixty}, measures only", sixty)
    for window_s in (15, 300):
        yield Pair(f"window {window_s} s, for 60 s (each 1 s)", f"{one}, window {window_s} s", one)
    yield Pair("60 s and with each instance, for 60 s", f"{sixty}, and each instance", sixty)
    yield Pair("300 s and with each instance, for 300 s", f"{long}, and each instance", long)
    yield Pair("each 300 s: old figures shrunk", f"{long}, old figures shrunk", long)


def with_tables(page: str, runs: Runs) -> str:
    """The page with its tables of these runs."""
    tables = {"arms": _arms(runs), "differences": _differences(runs)}
    return _BLOCK.sub(lambda block: block[1] + "\n".join(tables[block[2]]) + "\n" + block[3], page)


def _arms(runs: Runs) -> Iterator[str]:
    yield (
        "| a host reports | events/s a host | placed on busy hosts, % | turned out full, % | regret, points"
        " | row off, points | fleets |"
    )
    yield "|---|---|---|---|---|---|---|"
    for label, arm in _WAYS:
        busy, full, regret = (of_arm(runs, arm, name) for name in ("busy_0.8", "turned_out_full_share", "regret"))
        events, off = (of_arm(runs, arm, name).mean for name in ("events_a_host_s", "row_error"))
        yield (
            f"| {label} | {events:.3f} | {_points(busy, 1)} | {_points(full, 1)} | {_points(regret, 0)}"
            f" | {100 * off:.1f} | {busy.seeds} |"
        )


def _differences(runs: Runs) -> Iterator[str]:
    yield "| what differs | more placed on busy hosts, points | more regret, points | fleets |"
    yield "|---|---|---|---|"
    for pair in _pairs():
        busy, regret = (
            difference(runs, pair.arm, pair.base, figure, hosts=pair.hosts, source=pair.source)
            for figure in ("busy_0.8", "regret")
        )
        if busy.seeds > 1 or (busy.seeds and pair.hosts):
            yield f"| {pair.what} | {_told(busy)} | {_told(regret)} | {busy.seeds} |"


def _points(value: Estimate, digits: int) -> str:
    half = "" if math.isinf(value.half) else f" ± {100 * value.half:.{digits}f}"
    return f"{100 * value.mean:.{digits}f}{half}"


def _told(value: Estimate) -> str:
    """A difference; bold where it is beyond its interval, and alone where it is of one fleet."""
    text = f"{round(100 * value.mean, 1) + 0.0:+.1f}"  # no -0.0
    if math.isinf(value.half):
        return text
    text += f" ± {100 * value.half:.1f}"
    return f"**{text}**" if abs(value.mean) > value.half else text
