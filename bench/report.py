"""Writes the five figures of the README, the table of docs/benchmarks.md and the plots in docs/ from bench/results.

    python -m bench.report

Every figure comes from a result; the tables have nothing that no benchmark has measured. A test checks both pages.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.common import CONSOLE, RESULTS

ROOT = RESULTS.parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"
_FIVE = re.compile(r"(<!-- five figures: python -m bench\.report -->\n).*?(<!-- end of five figures -->)", re.DOTALL)
_BLOCK = re.compile(r"(<!-- figures: python -m bench\.report -->\n).*?(<!-- end of figures -->)", re.DOTALL)
Result = dict[str, Any]


def main() -> None:
    """Writes the figures into both pages and draws the plots."""
    README.write_text(with_five(README.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    from bench import claims_plot, plots  # the table can be checked without the plotting library

    for file in (claims_plot.draw(RESULTS / "claims.json"), *plots.draw(RESULTS, DOCS)):
        CONSOLE.print(file)


def with_five(readme: str) -> str:
    """The README with its five figures of the current results."""
    lines = ["| measured | |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in five())]
    return _FIVE.sub(lambda block: block[1] + "\n".join(lines) + "\n" + block[2], readme)


def five() -> Iterator[tuple[str, str]]:
    """What a reader asks first, and its figure."""
    ingest, claims, many, looks, agent = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("ingest", "claims", "many_claims", "looks_500000", "agent_cost")
    )
    run = ingest["sustained"][0]
    yield (
        f"event → committed row, {run['hosts']:,} hosts at 1 Hz, p50 / p99",
        f"{run['latency_s']['p50']:.2f} / {run['latency_s']['p99']:.2f} s",
    )
    held = max(run["hosts"] for run in ingest["knee"] if run["held"] and run["emit"] == ingest["sustained"][0]["emit"])
    new = f"{looks['hosts']:,} that send what is new, tolerance {looks['runs'][0]['tolerance']:g}"
    yield "hosts at 1 Hz that are kept up with", f"{held:,}; {new}"
    pair = max(claims["beside_placement"], key=lambda pair: pair["hosts"])
    ours = next(
        run
        for run in claims["runs"]
        if run["clients"] == 8 and run["writer_rows_per_s"] is None and run["hosts"] == pair["hosts"]
    )
    rates = many_rates(many)
    *_, way = rates
    yield (
        f"durable claims a second, {pair['hosts']:,} hosts",
        f"{_round(ours['claims_per_s'])}; {way} {_round(rates[way])}; OpenStack Placement {_placement_per_s(pair):.1f}",
    )
    race = claims["race"]
    yield (
        "four schedulers race for a last slot: more than one won in",
        f"{race['vacancy']['more_than_one']} of {race['vacancy']['rounds']:,}; "
        f"Placement {race['placement']['more_than_one']} of {race['placement']['rounds']:,}",
    )
    cost = agent["agent"]
    yield (
        f"the agent, an event each {agent['interval']}",
        f"{cost['cpu_percent_of_one_core']:.2f} % of a core, {cost['rss_mib']:.0f} MiB",
    )


def with_table(page: str) -> str:
    """The page of benchmarks with the figures of the current results."""
    lines = ["| what | Vacancy | instead |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows())]
    return _BLOCK.sub(lambda block: block[1] + "\n".join(lines) + "\n" + block[2], page)


def rows() -> Iterator[Sequence[str]]:
    """The table's rows: what is measured, Vacancy's figure, the figure of the alternative."""
    for name, rows_of in _ROWS.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            yield from rows_of(json.loads(file.read_text(encoding="utf-8")))


def _round(figure: float) -> str:
    """A number rounded to its significant digits."""
    return f"{float(f'{figure:.3g}'):,.0f}"


def _ingest(result: Result) -> Iterator[Sequence[str]]:
    for run in result["sustained"]:
        yield (
            f"{run['hosts']:,} hosts at 1 Hz for {run['seconds'] / 60:g} min, emit {run['emit']} (`bench.ingest`): "
            "append → committed row, p50 / p99",
            f"{run['latency_s']['p50']:.2f} / {run['latency_s']['p99']:.2f} s, "
            f"{'lag flat' if run['held'] else 'not kept up with all the time'}",
            "",
        )
    for emit in dict.fromkeys(run["emit"] for run in result["knee"]):
        runs = [run for run in result["knee"] if run["emit"] == emit]
        held = [run for run in runs if run["held"]]
        beyond = [run for run in runs if not run["held"]]
        if held:
            yield (
                f"the most hosts at 1 Hz that are kept up with there, emit {emit}",
                f"{held[-1]['hosts']:,}, p99 {held[-1]['latency_s']['p99']:.2f} s",
                f"not {beyond[0]['hosts']:,}" if beyond else "",
            )


def _looks(result: Result) -> Iterator[Sequence[str]]:
    for run in result["runs"]:
        what = f"{result['hosts']:,} hosts looked at each second, "
        what += f"tolerance {run['tolerance']:g}, silence {result['max_silence']}" if run["tolerance"] else "each sent"
        what += " (`bench.looks`): append → committed row, p50 / p99"
        if "ended" in run:
            yield what, f"not kept up with: {run['ended']}", ""
            continue
        latency, changes = run["latency_s"], run["instance_changes_s"]
        yield (
            what,
            f"{latency['p50']:.2f} / {latency['p99']:.2f} s, {'lag flat' if run['held'] else 'not kept up with'}; "
            f"{run['events_per_s']:,} events/s; instances p99 {changes['p99']:.2f} s",
            "",
        )


def _freshness(result: Result) -> Iterator[Sequence[str]]:
    for run in result["runs"]:
        job, baseline = run["job"]["latency_s"], run.get("baseline", {}).get("latency_s")
        yield (
            f"append → committed row, {run['hosts']:,} hosts, emit {run['emit']} (`bench.freshness`): p50 / p99",
            f"{job['p50']:.2f} / {job['p99']:.2f} s",
            f"{baseline['p50']:.2f} / {baseline['p99']:.2f} s for a batch writer in Python, without a window"
            if baseline
            else "",
        )


def _catch_up(result: Result) -> Iterator[Sequence[str]]:
    cases = {case["case"]: case for case in result["cases"]}
    production = cases["production"]
    for name, what in (
        ("into a blackhole", "into a blackhole"),
        ("Flink's avro format, no dead letters", "with Flink's own Avro format, which stops at a bad record"),
        ("a batch writer in Python", "a batch writer in Python, one thread, no window"),
        ("Quix Streams", "Quix Streams, a process a core"),
    ):
        if name in cases:
            yield (
                f"events/s through a backlog of {result['events']:,} (`bench.catch_up`)",
                _round(production["events_per_s"]),
                f"{_round(cases[name]['events_per_s'])} {what}",
            )
    for name, what in (
        ("100,000 hosts, window 10 s", "100,000 hosts against 1,000"),
        ("1,000 hosts, window 300 s", "window 300 s against 10 s"),
    ):
        if name in cases:
            yield f"CPU an event: {what}", f"{cases[name]['cpu_ratio']:.2f} times", ""


def _catch_up_10m(result: Result) -> Iterator[Sequence[str]]:
    yield (
        f"events/s through a backlog of {result['events']:,}, to committed rows (`bench.catch_up`)",
        _round(result["cases"][0]["events_per_s"]),
        "",
    )


def _sink(result: Result) -> Iterator[Sequence[str]]:
    size = result["sizes"][-1]
    ours, theirs = size["ways"]["arrays"], size["ways"]["batch"]
    yield (
        f"rows/s into the table, one connection, {size['hosts']:,} hosts (`bench.sink`)",
        f"{_round(ours['rows_per_s'])}; {ours['server_cpu_us_per_row']:.1f} µs of the server and "
        f"{ours['wal_bytes_per_row']:.0f} bytes of WAL a row, {ours['hot_share']:.0%} HOT",
        f"{_round(theirs['rows_per_s'])}, {theirs['server_cpu_us_per_row']:.1f} µs, "
        f"{theirs['wal_bytes_per_row']:.0f} bytes as Flink's JDBC connector writes",
    )


def _poison(result: Result) -> Iterator[Sequence[str]]:
    yield (
        f"good events/s through the graph, rows into a blackhole: {_names(result)} (`bench.poison`)",
        " / ".join(_round(mix["good_per_s"]) for mix in result["mixes"]),
        "Flink's Avro formats stop at the first bad one",
    )


def _decode(result: Result) -> Iterator[Sequence[str]]:
    yield (
        f"decoding, one core: {_names(result)} (`bench.decode`)",
        " / ".join(f"{_round(mix['per_s'])}/s" for mix in result["mixes"]),
        "195,000/s with pyruhvro in Python ([why not](decisions/0003-decode-in-the-jvm.md))",
    )


def _names(result: Result) -> str:
    return " / ".join(mix["mix"] for mix in result["mixes"])


def _claims(result: Result) -> Iterator[Sequence[str]]:
    for writer in (False, True):
        runs = [
            run
            for run in result["runs"]
            if run["clients"] == 8 and (run["writer_rows_per_s"] is not None) == writer and run["latency_ms"]
        ]
        beside = [pair for pair in result["beside_placement"] if not writer]
        shares = " / ".join(f"{run['to_floor']:.2f}" for run in runs)
        yield (
            _claims_title(runs, writer=writer),
            f"{' / '.join(_round(run['claims_per_s']) for run in runs)}; "
            f"p99 {max(run['latency_ms']['p99'] for run in runs):.0f} ms"
            + ("" if writer else f"; {shares} of the floor"),
            "".join(
                f"Placement, 4 clients, {pair['hosts']:,} hosts: {_placement_per_s(pair):.1f}. " for pair in beside
            ).strip(),
        )
    race = result["race"]
    if "vacancy" in race and "placement" in race:
        yield (
            "four schedulers race for a last slot: more than one won in",
            f"{race['vacancy']['more_than_one']} of {race['vacancy']['rounds']:,}",
            f"Placement: {race['placement']['more_than_one']} of {race['placement']['rounds']:,}",
        )


def _claims_title(runs: Sequence[Result], *, writer: bool) -> str:
    hosts = " / ".join(f"{run['hosts']:,}" for run in runs)
    if writer:
        rows_per_s = max(run["writer_rows_per_s"] for run in runs)
        return f"the same while up to {_round(rows_per_s)} rows a second are rewritten"
    return f"claims/s, durable, 8 schedulers (`bench.claims`, [plot](claims.svg)): {hosts} hosts"


def _placement_per_s(pair: Result) -> float:
    rates = [turn["claims_per_s"] for turn in pair["placement"]]
    return float(sum(rates) / len(rates))


def many_rates(result: Result) -> dict[str, float]:
    """Claims a second, by how many requests are in a call: one by one first."""
    return {way: statistics.median(run["claims_per_s"] for run in runs) for way, runs in result["runs"].items()}


def _many_claims(result: Result) -> Iterator[Sequence[str]]:
    (_, alone), (way, together) = many_rates(result).items()
    to_floor = statistics.median(run["to_floor"] for run in result["runs"][way])
    yield (
        f"claims, {result['clients']} clients, {result['hosts']:,} hosts, {way} of `claim_many` (`bench.claims many`)",
        f"{_round(together)}/s, {to_floor:.2f} of as many durable inserts of one row",
        f"{_round(alone)}/s one by one",
    )


def _live_claims(result: Result) -> Iterator[Sequence[str]]:
    events_per_s = _round(result["live"]["events_per_s"])
    looks = f" of {result['hosts']:,} hosts {_sent(result)}" if "tolerance" in result else ""
    yield (
        f"claims/s, 8 schedulers, while {events_per_s} events/s{looks} stream in (`bench.live_claims`)",
        _round(result["live"]["claims_per_s"]),
        f"{_round(result['idle']['claims_per_s'])} on the same table at rest",
    )


def _agent(result: Result) -> Iterator[Sequence[str]]:
    agent, bare = result["agent"], result["bare producer"]
    yield (
        f"the agent, an event each {result['interval']} (`bench.agent_cost`)",
        f"{agent['cpu_percent_of_one_core']:.2f} % of a core, {agent['rss_mib']:.0f} MiB",
        f"{bare['cpu_percent_of_one_core']:.2f} %, {bare['rss_mib']:.0f} MiB for the least producer with psutil",
    )


def _simulate(result: Result) -> Iterator[Sequence[str]]:
    yield (
        "a simulated fleet at 30,000 events/s (`bench.simulate_rate`)",
        f"{result['told_30000_per_s']['cores_busy']:.1f} of a core",
        "",
    )


def _first_command(result: Result) -> Iterator[Sequence[str]]:
    first, second = result["runs"]
    yield (
        f"`./up.sh --hosts {result['hosts']}` in a fresh clone (`bench.first_command`): fleet page / all rows after",
        f"{first['page_s']:.0f} / {first['all_hosts_s']:.0f} s; the next time {second['page_s']:.0f} / "
        f"{second['all_hosts_s']:.0f} s",
        "",
    )


def _web_browser(result: Result) -> Iterator[Sequence[str]]:
    yield (
        f"the fleet page, {_fleet(result)} (`bench.web browser`): map painted / work a frame, p95 / longest gap",
        f"{result['map_painted_ms']['median'] / 1000:.1f} s / {result['work_a_frame_ms']['p95']:.0f} ms / "
        f"{result['gaps_ms']['max']:.0f} ms",
        "",
    )


def _web_cost(result: Result) -> Iterator[Sequence[str]]:
    alone, beside = result["no_browser"], result["20_browsers"]
    yield (
        "its server, without a browser / with 20 (`bench.web cost`)",
        f"{100 * alone['server_cores']:.1f} / {100 * beside['server_cores']:.1f} % of a core, and "
        f"{100 * max(alone['database_cores'], beside['database_cores']):.1f} % of one in the database",
        "",
    )


def _web_questions(result: Result) -> Iterator[Sequence[str]]:
    fits = result["what_fits_ms"]
    yield (
        f"what fits a plain request, {_fleet(result)} / why one host is out / a host, whole (`bench.web questions`)",
        f"{fits['plain'] / 1000:.1f} s / {result['why_one_host_ms']['plain']:.0f} ms / {result['a_host_ms']:.0f} ms",
        "",
    )


def _web_beside(result: Result) -> Iterator[Sequence[str]]:
    if "rows_at_the_rate" in result:
        yield (
            "claims/s / rows/s at their rate, beside the page as a share of those without it (`bench.web beside`)",
            f"{result['claims']['ratio_median']:.2f} / {result['rows_at_the_rate']['ratio_median']:.2f}",
            "",
        )


def _web_live(result: Result) -> Iterator[Sequence[str]]:
    pixel = result["event_to_pixel_s"]
    yield (
        f"append of an event → its pixel, {result['hosts']:,} hosts {_sent(result)} (`bench.web live`): p50 / p99",
        f"{pixel['p50']:.2f} / {pixel['p99']:.2f} s",
        "",
    )


def _sent(result: Result) -> str:
    return f"looked at each second, tolerance {result['tolerance']:g}" if result.get("tolerance") else "at 1 Hz"


def _fleet(result: Result) -> str:
    return f"{result['hosts']:,} hosts, {result['rows_per_s']:,} rows rewritten a second"


_ROWS: dict[str, Callable[[Result], Iterator[Sequence[str]]]] = {
    "ingest": _ingest,
    "looks_100000": _looks,
    "looks_500000": _looks,
    "looks_1000000": _looks,
    "freshness": _freshness,
    "catch_up_10m": _catch_up_10m,
    "catch_up": _catch_up,
    "sink": _sink,
    "poison": _poison,
    "decode": _decode,
    "claims": _claims,
    "many_claims": _many_claims,
    "live_claims": _live_claims,
    "live_claims_30000": _live_claims,
    "live_claims_100000": _live_claims,
    "agent_cost": _agent,
    "simulate_rate": _simulate,
    "web_browser": _web_browser,
    "web_cost": _web_cost,
    "web_questions": _web_questions,
    "web_beside": _web_beside,
    "web_live": _web_live,
    "web_live_tolerance": _web_live,
    "first_command": _first_command,
}


if __name__ == "__main__":
    main()
