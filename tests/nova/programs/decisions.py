"""Nova's whole decision, ``SchedulerManager.select_destinations``, with a claim in Placement, repeated.

In: placement, its URL; instances, the number on each host; picks, the number of decisions; dsn, for Vacancy's weigher,
or null for Nova's own weighers. Out: the numbers of the claimed hosts.
"""

from __future__ import annotations

import json
import time

from tests.nova.programs import stage


def main() -> None:
    """Prints the picks."""
    given = stage.arguments()
    url = given["placement"]
    sections = stage.vacancy(given["dsn"], max_age=1000) if given["dsn"] else {}
    sections["placement"] = {
        "auth_type": "admin_token",
        "endpoint": url,
        "token": "admin",
        "endpoint_override": url,
    }
    stage.configure(sections)
    fleet = stage.Fleet(len(given["instances"]), given["instances"])
    scheduler = stage.scheduler_of(fleet)
    picked, took_ms = [], []
    for _ in range(given["picks"]):
        spec = stage.spec()
        began = time.perf_counter()
        [[selection, *_]] = scheduler.select_destinations(
            stage.admin(), spec_obj=spec, instance_uuids=[spec.instance_uuid], return_objects=True,
            return_alternates=True,
        )  # fmt: skip
        took_ms.append(1e3 * (time.perf_counter() - began))
        number = int(selection.compute_node_uuid[-12:]) if "compute_node_uuid" in selection else 0
        number = number or int(selection.nodename.removeprefix("compute-"))
        picked.append(number)
        fleet.instances[number - 1] += 1  # like the report of the host's resource tracker
    weighers = [type(one).__name__ for one in scheduler.host_manager.weighers]
    print(json.dumps({"picked": picked, "weighers": weighers, "took_ms": took_ms}))


if __name__ == "__main__":
    main()
