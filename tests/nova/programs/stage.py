"""nova-scheduler without its cell database and its message bus.

Stubs, all of them:

- ``CellMappingList.get_all`` and ``AggregateList.get_all`` (the API database);
- ``HostManager._init_instance_info`` and ``_get_computes_for_cells`` (the cell database);
- ``request_filter._should_filter_by_owner``: always true, as if all computes of the cell database were new enough;
- ``transport_url = fake://`` (the message bus).

Filters, weighers, host states, the scheduler manager and its claims in Placement are Nova's own.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import nova.conf
from nova import config, context, objects
from nova.scheduler import host_manager, manager, request_filter
from oslo_log import log

CELL = "11111111-1111-4111-8111-111111111111"
WEIGHER = "vacancy.nova.VacancyWeigher"
FILTER = "vacancy.nova.VacancyFilter"
VCPUS, MEMORY_MB, DISK_GB = 4, 8192, 40
"""Of a request."""


def host_id(number: int) -> str:
    """The UUID of compute node `number`, which is its host's id in the table."""
    return f"00000000-0000-4000-8000-{number:012d}"


def configure(sections: Mapping[str, Mapping[str, Any]], *, log_file: Path | None = None) -> Any:
    """Nova's settings from a nova.conf with these sections; an option with a list of values appears several times."""
    settings = {name: dict(values) for name, values in sections.items()}
    settings.setdefault("DEFAULT", {}).update(transport_url="fake://", host="scheduler", service_down_time=86_400)
    if log_file:
        settings["DEFAULT"]["log_file"] = log_file
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "nova.conf")
        lines = []
        for section, options in settings.items():
            lines.append(f"[{section}]")
            for option, value in options.items():
                lines += [f"{option} = {one}" for one in (value if isinstance(value, list) else [value])]
        file.write_text("\n".join(lines), encoding="utf-8")
        config.parse_args(["nova-scheduler", "--config-file", str(file)], configure_db=False)
    log.setup(nova.conf.CONF, "nova")
    objects.register_all()
    return nova.conf.CONF


def vacancy(dsn: str, **options: Any) -> dict[str, dict[str, Any]]:
    """The sections for Vacancy's weigher and Nova's own; by default the time-out is long enough for a busy machine."""
    options = {"timeout": 5.0} | options
    return {
        "filter_scheduler": {"weight_classes": f"nova.scheduler.weights.all_weighers, {WEIGHER}"},
        "vacancy": {"dsn": dsn, **options},
    }


def admin() -> Any:
    """A request's context."""
    return context.RequestContext("user", "project", is_admin=True)


def flavor(vcpus: int, memory_mb: int, disk_gb: int) -> Any:
    """A flavor of this size."""
    return objects.Flavor(
        id=1, flavorid="1", name="m1", vcpus=vcpus, memory_mb=memory_mb, root_gb=disk_gb, ephemeral_gb=0, swap=0,
        rxtx_factor=1.0, is_public=True, disabled=False, extra_specs={}, vcpu_weight=0, description=None,
    )  # fmt: skip


def spec(**attributes: Any) -> Any:
    """A request for one instance of the usual size."""
    image = objects.ImageMeta(
        id=str(uuid.uuid4()), name="image", min_disk=0, min_ram=0, size=1, properties=objects.ImageMetaProps()
    )
    values = {
        "project_id": "project", "user_id": "user", "flavor": flavor(VCPUS, MEMORY_MB, DISK_GB), "image": image,
        "num_instances": 1,
        "instance_uuid": str(uuid.uuid4()), "ignore_hosts": None, "force_hosts": None, "force_nodes": None,
        "requested_destination": None, "retry": None, "limits": None, "instance_group": None, "numa_topology": None,
        "pci_requests": objects.InstancePCIRequests(requests=[]), "availability_zone": None, "scheduler_hints": {},
        "is_bfv": False, "security_groups": objects.SecurityGroupList(objects=[]), "requested_resources": [],
        "request_level_params": objects.RequestLevelParams(),
    }  # fmt: skip
    made = objects.RequestSpec(admin(), **values | attributes)
    made.obj_reset_changes()
    return made


def compute_row(number: int, instances: int) -> dict[str, Any]:
    """A row of compute_nodes like that of a libvirt node: 64 CPUs, 256 GiB, 2000 GB, and so many instances."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    name = f"compute-{number}"
    vcpus, memory_mb, disk_gb = VCPUS * instances, MEMORY_MB * instances, DISK_GB * instances
    return {
        "id": number, "created_at": now, "updated_at": now, "deleted_at": None, "deleted": 0, "service_id": None,
        "host": name, "uuid": host_id(number), "vcpus": 64, "memory_mb": 262_144, "local_gb": 2000,
        "vcpus_used": vcpus, "memory_mb_used": memory_mb, "local_gb_used": disk_gb, "hypervisor_type": "QEMU",
        "hypervisor_version": 8_002_002, "hypervisor_hostname": name, "free_ram_mb": 262_144 - memory_mb,
        "free_disk_gb": 2000 - disk_gb, "current_workload": 0, "running_vms": instances,
        "cpu_info": json.dumps({"arch": "x86_64"}), "disk_available_least": 2000 - disk_gb, "host_ip": "127.0.0.1",
        "supported_instances": json.dumps([["x86_64", "kvm", "hvm"]]), "metrics": "[]", "pci_stats": None,
        "extra_resources": None, "stats": json.dumps({"num_instances": str(instances), "failed_builds": "0"}),
        "numa_topology": None, "ram_allocation_ratio": 1.0, "cpu_allocation_ratio": 4.0,
        "disk_allocation_ratio": 1.0, "mapped": 1,
    }  # fmt: skip


def light_state(number: int) -> Any:
    """A host state with what most weighers need: Nova takes a second to create 1,000 complete ones."""
    name = f"compute-{number}"
    made = host_manager.HostState(name, name, CELL)
    made.uuid, made.vcpus_total, made.cpu_allocation_ratio = host_id(number), 64, 4.0
    made.total_usable_ram_mb = made.free_ram_mb = 262_144
    made.total_usable_disk_gb, made.free_disk_mb = 2000, 2000 * 1024
    return made


def service(name: str) -> Any:
    """The nova-compute service of a host, which has just reported."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    row = {
        "id": 1, "uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "host": name, "binary": "nova-compute",
        "topic": "compute", "report_count": 1, "disabled": False, "disabled_reason": None, "last_seen_up": now,
        "forced_down": False, "version": 74, "created_at": now, "updated_at": now, "deleted": False,
        "deleted_at": None,
    }  # fmt: skip
    return objects.Service._from_db_object(admin(), objects.Service(), row)


class Fleet:
    """Compute nodes 1 to `hosts`, each with the number of instances that `instances` gives."""

    def __init__(self, hosts: int, instances: Sequence[int] | int = 8) -> None:
        self.instances = list(instances) if not isinstance(instances, int) else [instances] * hosts
        self.services = {name: service(name) for name in (f"compute-{n}" for n in range(1, hosts + 1))}

    def computes(self, numbers: Iterable[int]) -> list[Any]:
        """Their records, created anew for each request."""
        rows = (compute_row(number, self.instances[number - 1]) for number in numbers)
        return [objects.ComputeNode._from_db_object(admin(), objects.ComputeNode(), row) for row in rows]

    def states(self, hosts: Any) -> list[Any]:
        """Their host states from Nova's host manager, in the order of their numbers."""
        computes = {CELL: self.computes(range(1, len(self.instances) + 1))}
        made = hosts._get_host_states(admin(), computes, self.services)
        return sorted(made, key=lambda state: int(state.nodename.removeprefix("compute-")))

    def by_uuids(self, ctxt: Any, cells: Any, compute_uuids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Replaces ``HostManager._get_computes_for_cells``."""
        del ctxt, cells
        return {CELL: self.computes(int(uuid_[-12:]) for uuid_ in compute_uuids)}, self.services


@contextmanager
def without_databases(aggregates: Sequence[Any] = ()) -> Iterator[None]:
    """The stubs while a HostManager or a SchedulerManager is created."""
    cell = objects.CellMapping(
        admin(),
        id=2,
        uuid=CELL,
        name="cell1",
        disabled=False,
        transport_url="fake:///",
        database_connection="sqlite://",
    )
    with (
        mock.patch.object(objects.CellMappingList, "get_all", return_value=objects.CellMappingList(objects=[cell])),
        mock.patch.object(
            objects.AggregateList, "get_all", return_value=objects.AggregateList(objects=list(aggregates))
        ),
        mock.patch.object(host_manager.HostManager, "_init_instance_info"),
    ):
        yield


def hosts_of(fleet: Fleet, aggregates: Sequence[Any] = ()) -> Any:
    """Nova's host manager over a fleet, with the filters and weighers that the settings name."""
    with without_databases(aggregates):
        made = host_manager.HostManager()
    _know_instances(made, fleet)
    return made


def scheduler_of(fleet: Fleet) -> Any:
    """Nova's scheduler manager over a fleet."""
    request_filter._should_filter_by_owner = mock.Mock(return_value=True)
    with without_databases():
        made = manager.SchedulerManager()
    _know_instances(made.host_manager, fleet)
    made.host_manager._get_computes_for_cells = fleet.by_uuids
    return made


def _know_instances(hosts: Any, fleet: Fleet) -> None:
    """Makes every compute node look synced, so that no request reads instances."""
    hosts._instance_info = {name: {"updated": True, "instances": {}} for name in fleet.services}


class Kept(logging.Handler):
    """Keeps all log records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a line."""
        self.lines.append(record.getMessage())


def arguments() -> dict[str, Any]:
    """The program's input: JSON on stdin."""
    given: dict[str, Any] = json.load(sys.stdin)
    return given
