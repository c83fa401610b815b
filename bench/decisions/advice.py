"""What `vacancy advise` knows: of each way of reporting what hosts send, and where placements land."""

from __future__ import annotations

from typing import Any

from bench.decisions.arms import BUSY, NOVA, SILENCES, changes, interval
from bench.decisions.summary import Runs, of_arm
from bench.decisions.world import Load

_INTERVALS = (1, 5, 10, 30, 60, 300)
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
        busy = {limit: of_arm(runs, name, f"busy_{limit:g}") for limit in BUSY}
        measured.append(
            {
                "name": name,
                "silence_s": silence_s,
                "settings": settings,
                "events_a_host_s": round(events.mean, 4),
                "busy": {
                    f"{limit:g}": [round(share.mean, 4), round(share.half, 4) if share.seeds > 1 else None]
                    for limit, share in busy.items()
                },
                "fleets": events.seeds,
            }
        )
    return {
        "measured_by": "python -m bench.decisions; bench/results/decisions.csv",
        "settings": _SETTINGS,
        "hosts": sorted({run["hosts"] for run in runs if run["source"] == "traces"}),
        "boots_a_host_s": Load().requests_per_s,
        "most_boots_a_host_s": 4 * Load().requests_per_s,
        "fleet_cpu": round(of_arm(runs, interval(1).name, "fleet_cpu").mean, 2),
        "ways": measured,
    }
