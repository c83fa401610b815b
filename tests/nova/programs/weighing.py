"""Nova's own weighers over hosts with given figures.

In: fleets, a list of fleets; of each a list of hosts' figures: free_ram_mb, vcpus, vcpus_used, free_disk_mb,
building. Out: of each fleet the weight of each host.
"""

from __future__ import annotations

import json
from typing import Any

from nova.scheduler import host_manager

from tests.nova.programs import stage


def main() -> None:
    """Prints the weights."""
    given = stage.arguments()
    stage.configure({})
    hosts = stage.hosts_of(stage.Fleet(1))
    found = []
    for fleet in given["fleets"]:
        states = [_state(number, figures) for number, figures in enumerate(fleet)]
        weighed = hosts.weight_handler.get_weighed_objects(hosts.weighers, states, stage.spec())
        weights = {one.obj.nodename: one.weight for one in weighed}
        found.append([weights[state.nodename] for state in states])
    print(json.dumps({"weights": found, "weighers": [type(one).__name__ for one in hosts.weighers]}))


def _state(number: int, figures: dict[str, float]) -> Any:
    made = host_manager.HostState(f"compute-{number}", f"compute-{number}", stage.CELL)
    made.uuid = stage.host_id(number)
    made.free_ram_mb, made.free_disk_mb = figures["free_ram_mb"], figures["free_disk_mb"]
    made.vcpus_total, made.vcpus_used, made.cpu_allocation_ratio = figures["vcpus"], figures["vcpus_used"], 1.0
    made.num_io_ops = figures["building"]
    made.hypervisor_version = 8_002_002
    return made


if __name__ == "__main__":
    main()
