"""Scheduler workers at once on one table, forked as nova-scheduler forks them.

In: dsn; hosts; workers and requests, how many each. Out: the numbers of the hosts that were picked, by worker.
"""

from __future__ import annotations

import json
import multiprocessing
from typing import Any

from connectors.nova import requests
from tests.nova.programs import stage


def work(hosts: Any, fleet: Any, number: int, barrier: Any, results: Any) -> None:
    """Picks for one request after another, each with host states of its own, as stale as the compute nodes' records."""
    picked = []
    barrier.wait(60)
    for _ in range(number):
        spec = stage.spec()
        best = hosts.get_weighed_hosts(fleet.states(hosts), spec)[0].obj
        best.consume_from_request(spec)
        picked.append(int(best.uuid[-12:]))
    results.put({"picked": picked, "counts": dict(requests.shared().table.counts)})
    requests.forget()


def main() -> None:
    """Prints the picks."""
    given = stage.arguments()
    stage.configure(stage.vacancy(given["dsn"], max_age=1000, **given.get("options", {})))
    fleet = stage.Fleet(given["hosts"])
    hosts = stage.hosts_of(fleet)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(given["workers"]), context.Queue()
    processes = [
        context.Process(target=work, args=(hosts, fleet, given["requests"], barrier, results))
        for _ in range(given["workers"])
    ]
    for process in processes:
        process.start()
    seen = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
