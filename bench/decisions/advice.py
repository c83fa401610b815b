"""What `vacancy advise` knows: of each way of reporting what hosts send, and where placements land."""

from __future__ import annotations

from typing import Any

from bench.decisions.arms import BUSY, NOVA, SILENCES, changes, interval
from bench.decisions.summary import Runs, of_arm
from bench.decisions.world import Load

_INTERVALS = (1, 5, 10, 30, 60, 300)
_SETTINGS = {"job.emit": "1s", "job.window": "1min", "scheduler.sample": "24"}


def advice_of(runs: Runs) -> dict[str, Any]:
    """By the runs with the most hosts of which there are two seeds or more for the first arm, under measured loads."""
    base = interval(1).name
    sizes = {run["hosts"] for run in runs if run["source"] == "traces"}
    hosts = max(size for size in sizes if of_arm(runs, base, "busy_0.8", hosts=size, source="traces").seeds > 1)
    ways: list[tuple[str, dict[str, str] | None]] = [(NOVA.name, None)]
    ways += [
        (interval(seconds).name, {"agent.interval": f"{seconds}s", "scheduler.max_age": f"{max(30, 3 * seconds)}s"})
        for seconds in _INTERVALS
    ]
    ways += [
        (
            changes(tolerance, silence_s).name,
            {
                "agent.interval": "1s",
                "agent.tolerance": f"{tolerance:g}",
                "agent.max_silence": f"{silence_s}s",
                "scheduler.max_age": f"{max(30, 3 * silence_s)}s",
            },
        )
        for tolerance, silence_s in SILENCES
    ]
    measured = []
    for name, settings in ways:
        events = of_arm(runs, name, "events_a_host_s", hosts=hosts, source="traces")
        if not events.seeds:
            continue
        busy = {limit: of_arm(runs, name, f"busy_{limit:g}", hosts=hosts, source="traces") for limit in BUSY}
        measured.append(
            {
                "name": name,
                "settings": settings,
                "events_a_host_s": round(events.mean, 4),
                "busy": {
                    f"{limit:g}": [round(share.mean, 4), round(share.half, 4) if share.seeds > 1 else None]
                    for limit, share in busy.items()
                },
                "hosts": hosts,
                "seeds": events.seeds,
            }
        )
    return {
        "measured_by": "python -m bench.decisions; bench/results/decisions.csv",
        "settings": _SETTINGS,
        "boots_a_host_s": Load().requests_per_s,
        "most_boots_a_host_s": 4 * Load().requests_per_s,
        "fleet_cpu": round(of_arm(runs, base, "fleet_cpu", hosts=hosts, source="traces").mean, 2),
        "ways": measured,
    }
