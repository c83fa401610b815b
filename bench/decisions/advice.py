"""What `vacancy advise` knows: what each way of reporting sends, where placements land, and that under other loads."""

from __future__ import annotations

from typing import Any

from bench.common import RESULTS
from bench.decisions.arms import BUSY, NOVA, SILENCES, changes, interval
from bench.decisions.summary import Runs, difference, of_arm
from bench.decisions.world import Load

ADVICE = RESULTS.parents[1] / "jobs" / "advice.json"
_INTERVALS = (1, 5, 10, 30, 60, 300)
_OTHER_LOADS = {
    "70 % of the VCPUs promised": "roomy",
    "95 % of the VCPUs promised": "nearly full",
    "four times the boots": "four times the boots",
    "loads that move three times as much from second to second": "noise 0.15",
}
_SETTINGS = {"job.emit": "1s", "job.window": "1min", "scheduler.sample": "24"}


def advice_of(runs: Runs) -> dict[str, Any]:
    """By the runs under measured loads, fleets of all sizes together."""
    ways: list[tuple[str, int, dict[str, str] | None]] = [(NOVA.name, 60, None)]
    ways += [(interval(seconds).name, seconds, {"agent.interval": f"{seconds}s"}) for seconds in _INTERVALS]
    ways += [
        (
            changes(tolerance, silence_s).name,
            silence_s,
            {"agent.interval": "1s", "agent.tolerance": f"{tolerance:g}", "agent.max_silence": f"{silence_s}s"},
        )
        for tolerance, silence_s in SILENCES
    ]
    measured = []
    for name, silence_s, settings in ways:
        events = of_arm(runs, name, "events_a_host_s")
        if not events.seeds:
            continue
        measured.append(
            {
                "name": name,
                "silence_s": silence_s,
                "settings": settings,
                "events_a_host_s": round(events.mean, 4),
                "busy": _busy(runs, name),
                "fleets": events.seeds,
            }
        )
    one, sixty = (interval(seconds).name for seconds in (1, 60))
    return {
        "measured_by": "python -m bench.decisions; bench/results/decisions.csv",
        "settings": _SETTINGS,
        "hosts": sorted({run["hosts"] for run in runs if run["source"] == "traces"}),
        "boots_a_host_s": Load().requests_per_s,
        "most_boots_a_host_s": 4 * Load().requests_per_s,
        "events_a_boot": round(
            difference(runs, f"{sixty}, and each instance", sixty, "events_a_host_s").mean / Load().requests_per_s, 1
        ),
        "fleet_cpu": round(of_arm(runs, interval(1).name, "fleet_cpu").mean, 2),
        "other_loads": [
            {"name": name, "each_60s": _busy(runs, f"{sixty}, {arm}"), "each_1s": _busy(runs, f"{one}, {arm}")}
            for name, arm in _OTHER_LOADS.items()
            if of_arm(runs, f"{sixty}, {arm}", "busy_0.8").seeds and of_arm(runs, f"{one}, {arm}", "busy_0.8").seeds
        ],
        "ways": measured,
    }


def _busy(runs: Runs, arm: str) -> dict[str, list[float | None]]:
    """By limit: the share of placements on busy hosts, and half of its interval."""
    shares = {limit: of_arm(runs, arm, f"busy_{limit:g}") for limit in BUSY}
    return {
        f"{limit:g}": [round(share.mean, 4), round(share.half, 4) if share.seeds > 1 else None]
        for limit, share in shares.items()
    }
