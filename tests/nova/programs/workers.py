"""Concurrent scheduler workers on one table, forked like those of nova-scheduler.

In: dsn; hosts; workers, their number; requests, the number for each. Out: the numbers of the picked hosts, by worker.
"""

from __future__ import annotations

import json
import multiprocessing
from typing import Any

from tests.nova.programs import stage
from vacancy.connectors.nova import reading


def work(hosts: Any, count: int, number: int, barrier: Any, results: Any) -> None:
    """Picks for one request after another, each with its own host states, as stale as the compute nodes' records."""
    picked = []
    barrier.wait(60)
    for _ in range(number):
        spec = stage.spec()
        states = [stage.light_state(number) for number in range(1, count + 1)]
        best = hosts.get_weighed_hosts(states, spec)[0].obj
        best.consume_from_request(spec)
        picked.append(int(best.uuid[-12:]))
    results.put({"picked": picked, "counts": dict(reading.shared().table.counts)})
    reading.forget()


def main() -> None:
    """Prints the picks."""
    given = stage.arguments()
    sections = stage.vacancy(given["dsn"], max_age=1000)
    # Nova's own weighers that do not need complete host states.
    own = ", ".join(
        f"nova.scheduler.weights.{name}" for name in ("cpu.CPUWeigher", "ram.RAMWeigher", "disk.DiskWeigher")
    )
    sections["filter_scheduler"]["weight_classes"] = f"{own}, {stage.WEIGHER}"
    stage.configure(sections)
    hosts = stage.hosts_of(stage.Fleet(1))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(given["workers"]), context.Queue()
    processes = [
        context.Process(target=work, args=(hosts, given["hosts"], given["requests"], barrier, results), daemon=True)
        for _ in range(given["workers"])
    ]
    for process in processes:
        process.start()
    seen = [results.get(timeout=200) for _ in processes]
    for process in processes:
        process.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
