"""Runs Vacancy's filter and weigher in Nova's loaders, host manager, filter handler and weight handler.

In: dsn, hosts. The table has the hosts of ``tests.nova.fleet.GRADED``.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

import nova.conf
from nova import objects

from tests.nova.programs import stage
from vacancy.connectors.nova import reading


def ranked(hosts: Any, states: list[Any], spec: Any) -> list[int]:
    """The numbers of the hosts in the order in which Nova would try them."""
    return [int(weighed.obj.uuid[-12:]) for weighed in hosts.get_weighed_hosts(states, spec)]


def main() -> None:
    """Prints the observations by check."""
    given = stage.arguments()
    sections = stage.vacancy(given["dsn"], max_age=1000)
    sections["filter_scheduler"] |= {
        "available_filters": ["nova.scheduler.filters.all_filters", stage.FILTER],
        "enabled_filters": "ComputeFilter, ComputeCapabilitiesFilter, ImagePropertiesFilter, VacancyFilter",
    }
    stage.configure(sections)
    fleet = stage.Fleet(given["hosts"])
    quiet = objects.Aggregate(id=1, name="quiet", hosts=["compute-1"], metadata={"vacancy_weight_multiplier": "0"})
    hosts = stage.hosts_of(fleet, [quiet])
    counts = reading.shared().table.counts
    seen: dict[str, Any] = {
        "filters": [type(one).__name__ for one in hosts.enabled_filters],
        "weighers": [type(one).__name__ for one in hosts.weighers],
        "at_start": dict(counts),
    }

    spec = stage.spec(flavor=stage.flavor(0, 0, 0))  # hosts that differ by less than a request are ranked at random
    states = fleet.states(hosts)
    filtered = list(hosts.get_filtered_hosts(states, spec))
    seen["passed"] = sorted(int(state.uuid[-12:]) for state in filtered)
    seen["order"] = ranked(hosts, filtered, spec)
    seen["reads"] = counts["reads"]
    [ours] = [one for one in hosts.weighers if type(one).__name__ == "VacancyWeigher"]
    seen["multiplier"] = {state.nodename: ours.weight_multiplier(state) for state in filtered[:2]}

    # One instance of a request after the other, like SchedulerManager._schedule.
    picked = []
    spec = stage.spec(num_instances=20)
    before = counts["reads"]
    states = list(hosts.get_filtered_hosts(fleet.states(hosts), spec))
    for _ in range(20):
        spec.instance_uuid = str(uuid.uuid4())
        best = hosts.get_weighed_hosts(states, spec)[0].obj
        best.consume_from_request(spec)
        picked.append(int(best.uuid[-12:]))
    seen["multi_create"] = {"picked": picked, "reads": counts["reads"] - before}

    rebuild = stage.spec(scheduler_hints={"_nova_check_type": ["rebuild"]})
    states = fleet.states(hosts)
    before = counts["reads"]
    seen["rebuild"] = {
        "passed": len(list(hosts.get_filtered_hosts(states, rebuild))),
        "weights": sorted(set(ours.weigh_objects(_weighed(states[:3]), rebuild))),
    }
    states[0].consume_from_request(rebuild)
    seen["rebuild"]["reads"] = counts["reads"] - before

    forced = stage.spec(
        force_hosts=["compute-10"]
    )  # a host that the filter would veto: the operator's choice takes precedence
    seen["forced"] = ranked(hosts, list(hosts.get_filtered_hosts(fleet.states(hosts), forced)), forced)

    # A live migration or a resize: the instance leaves its host, which is the best one.
    instance = str(uuid.uuid4())
    where = []
    source: list[str] = []
    for _ in range(2):
        spec = stage.spec(instance_uuid=instance, ignore_hosts=source)
        states = list(hosts.get_filtered_hosts(fleet.states(hosts), spec))
        best = hosts.get_weighed_hosts(states, spec)[0].obj
        best.consume_from_request(spec)
        where.append(best.uuid)
        source = [best.nodename]
    seen["moved"] = {"instance": instance, "where": where}

    # Another scheduler's next request sees this scheduler's picks.
    reading.forget()
    seen["again"] = ranked(hosts, fleet.states(hosts), stage.spec(flavor=stage.flavor(0, 0, 0)))[:20]

    nova.conf.CONF.set_override("weight_multiplier", 0.0, "vacancy")
    nova.conf.CONF.set_override("compare_multiplier", 10.0, "vacancy")
    log = stage.Kept()
    logging.getLogger("vacancy.nova").addHandler(log)
    logging.getLogger("vacancy.nova").setLevel(logging.INFO)
    watching = ranked(hosts, fleet.states(hosts)[-10:], stage.spec())
    seen["canary"] = {"order": watching, "log": log.lines}
    nova.conf.CONF.clear_override("compare_multiplier", "vacancy")

    seen["latency_ms"] = {count: _latency(ours, hosts, count) for count in given["latencies"]}
    seen["counts"] = dict(reading.shared().table.counts)
    reading.forget()
    print(json.dumps(seen))


def _weighed(states: list[Any]) -> list[Any]:
    from nova.scheduler import weights

    return [weights.WeighedHost(state, 0.0) for state in states]


def _latency(ours: Any, hosts: Any, count: int) -> list[float]:
    """The time in ms that the weigher adds to each request with so many hosts."""
    fleet = stage.Fleet(count)
    took = []
    states = fleet.states(hosts)
    for _ in range(40):
        weighed, spec = _weighed(states), stage.spec()
        began = time.perf_counter()
        ours.weigh_objects(weighed, spec)
        took.append(1e3 * (time.perf_counter() - began))
    return took


if __name__ == "__main__":
    main()
