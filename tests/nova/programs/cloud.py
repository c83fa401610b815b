"""A cloud that carries out orders, one line at a time: Placement and Nova's API over HTTP, and notifications.

Databases, objects, notifications and both APIs are Nova's and Placement's own. nova-compute needs a hypervisor, so this
program writes what nova-compute would write, and calls Nova's functions that send notifications. Stubs:

- Keystone: every caller is the administrator.
- Messages to RabbitMQ pass ``hold`` first, so that they can be lost, repeated and reordered.
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

from nova import config, context, objects, rpc
from nova.api import auth
from nova.api.openstack.compute import APIRouterV21
from nova.compute import utils
from nova.db import migration
from nova.network import model
from oslo_log import log

from bench.placement.api import Api, expect
from tests.nova.programs.placement_server import Quiet, Server
from tests.nova.programs.stage import flavor, host_id

PROJECT = "vacancy"
VCPUS, MEMORY_MB, DISK_GB = 16, 32_768, 500
"""The size of each compute node."""


class Cloud:
    """One cell, with its databases in a directory."""

    def __init__(self, directory: Path, transport_url: str) -> None:
        file = directory / "nova.conf"
        databases = {name: f"sqlite:///{directory / name}.db" for name in ("api", "cell0", "cell1")}
        file.write_text(
            f"[DEFAULT]\ntransport_url = {transport_url}\nhost = controller\nlog_file = {directory / 'nova.log'}\n"
            f"[api_database]\nconnection = {databases['api']}\n[database]\nconnection = {databases['cell1']}\n"
            "[notifications]\nnotification_format = versioned\n[oslo_messaging_notifications]\ndriver = messagingv2\n",
            encoding="utf-8",
        )
        config.parse_args(["nova-api", "--config-file", str(file)])
        log.setup(config.CONF, "nova")
        objects.register_all()
        admin = context.RequestContext("admin", PROJECT, is_admin=True)
        migration.db_sync(database="api")
        for number, name in enumerate(("cell0", "cell1")):
            id_ = str(uuid.UUID(int=number))
            cell = objects.CellMapping(
                admin, uuid=id_, name=name, database_connection=databases[name], transport_url=transport_url
            )
            cell.create()
            with context.target_cell(admin, cell) as inside:
                migration.db_sync(context=inside)
        context.set_target_cell(admin, cell)
        self._cell = cell
        self._admin = admin
        self._placement = Api()
        self._held: list[tuple[Any, ...]] | None = None
        self._sent: list[tuple[Any, ...]] = []
        self._send = rpc.NOTIFICATION_TRANSPORT._send_notification
        rpc.NOTIFICATION_TRANSPORT._send_notification = self._take
        self._instances: dict[str, Any] = {}
        self._consumers: dict[str, int | None] = {}
        self._aggregates: dict[str, Any] = {}
        self.ports = {"placement": _serve(self._placement._application), "compute": _serve(self._compute())}

    def add_hosts(self, first: int, last: int) -> None:
        """Creates compute nodes by number, each with a nova-compute that has just reported."""
        for number in range(first, last + 1):
            name = _name(number)
            service = objects.Service(
                self._admin, host=name, binary="nova-compute", topic="compute", report_count=1, disabled=False
            )
            service.create()
            node = objects.ComputeNode(
                self._admin, host=name, hypervisor_hostname=_node(number), uuid=host_id(number), vcpus=VCPUS,
                memory_mb=MEMORY_MB, local_gb=DISK_GB, vcpus_used=0, memory_mb_used=0, local_gb_used=0,
                hypervisor_type="QEMU", hypervisor_version=8_002_002, free_ram_mb=MEMORY_MB, free_disk_gb=DISK_GB,
                current_workload=0, running_vms=0, cpu_info="{}", disk_available_least=DISK_GB, host_ip="127.0.0.1",
                cpu_allocation_ratio=4.0, ram_allocation_ratio=1.0, disk_allocation_ratio=1.0,
            )  # fmt: skip
            node.create()
            objects.HostMapping(self._admin, cell_mapping=self._cell, host=name).create()
            self._ask("POST", "/resource_providers", {"name": _node(number), "uuid": host_id(number)})
            inventories = {
                "VCPU": {"total": VCPUS, "max_unit": VCPUS, "allocation_ratio": 4.0},
                "MEMORY_MB": {"total": MEMORY_MB, "reserved": 512, "max_unit": MEMORY_MB},
                "DISK_GB": {"total": DISK_GB, "max_unit": DISK_GB},
            }
            self._put(number, "inventories", inventories=inventories)
            self._put(number, "traits", traits=["HW_CPU_X86_AVX2"])

    def beat(self, numbers: list[int]) -> None:
        """Makes nova-compute report, as it does every report_interval."""
        for number in numbers:
            service = objects.Service.get_by_compute_host(self._admin, _name(number))
            service.report_count += 1
            service.save()

    def boot(
        self, uuid_: str, number: int, vcpus: int, memory_mb: int, disk_gb: int, in_a_volume: bool = False
    ) -> None:
        """Starts an instance on a host; its root disk may be a volume."""
        kind = flavor(vcpus, memory_mb, disk_gb)
        amounts = {"VCPU": vcpus, "MEMORY_MB": memory_mb} | ({} if in_a_volume else {"DISK_GB": disk_gb})
        self._allocate(uuid_, number, amounts)
        cache = objects.InstanceInfoCache(instance_uuid=uuid_, network_info=model.NetworkInfo())
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        instance = objects.Instance(
            self._admin, id=len(self._instances) + 1, uuid=uuid_, user_id="admin", project_id=PROJECT,
            host=_name(number), node=_node(number), reservation_id="r-1", display_name="x", display_description="x",
            hostname="x", os_type=None, architecture=None, availability_zone="nova", image_ref="", key_name=None,
            kernel_id="", ramdisk_id="", created_at=now, launched_at=None, terminated_at=None, deleted_at=None,
            updated_at=None, vm_state="building", power_state=0, task_state="spawning", progress=0, metadata={},
            locked=False, auto_disk_config=False, flavor=kind, info_cache=cache, system_metadata={}, trusted_certs=None,
            keypairs=objects.KeyPairList(objects=[]), tags=objects.TagList(objects=[]),
        )  # fmt: skip
        self._instances[uuid_] = instance
        utils.notify_about_instance_create(self._admin, instance, _name(number), phase="start", bdms=[])
        instance.vm_state, instance.task_state, instance.power_state = "active", None, 1
        utils.notify_about_instance_create(self._admin, instance, _name(number), phase="end", bdms=[])

    def act(self, uuid_: str, action: str, phase: str = "end") -> None:
        """Notifies about an instance without changing it, for example ``power_on``."""
        instance = self._instances[uuid_]
        utils.notify_about_instance_action(self._admin, instance, instance.host, action, phase=phase, bdms=[])

    def delete(self, uuid_: str) -> None:
        """Ends an instance."""
        instance = self._instances.pop(uuid_)
        self._allocate(uuid_, None, {})
        instance.vm_state, instance.power_state = "deleted", 0
        utils.notify_about_instance_action(self._admin, instance, instance.host, "delete", phase="end", bdms=[])

    def move(self, uuid_: str, number: int) -> None:
        """Live-migrates an instance to another host."""
        instance = self._instances[uuid_]
        amounts = {"VCPU": instance.flavor.vcpus, "MEMORY_MB": instance.flavor.memory_mb}
        self._allocate(uuid_, number, amounts | {"DISK_GB": instance.flavor.root_gb})
        instance.host, instance.node = _name(number), _node(number)
        utils.notify_about_instance_action(
            self._admin, instance, instance.host, "live_migration_post_dest", phase="end", bdms=[]
        )

    def switch(self, number: int, disabled: bool, reason: str | None, forced_down: bool = False) -> None:
        """Disables, enables or forces down a nova-compute."""
        service = objects.Service.get_by_compute_host(self._admin, _name(number))
        service.disabled, service.disabled_reason, service.forced_down = disabled, reason, forced_down
        service.save()

    def aggregate(self, name: str, zone: str, numbers: list[int]) -> str:
        """Creates a host aggregate, with its mirror in Placement; returns its UUID."""
        made = objects.Aggregate(self._admin, name=name, metadata={"availability_zone": zone})
        made.create()
        self._aggregates[name] = made
        for number in numbers:
            made.add_host(_name(number))
            self._put(number, "aggregates", aggregates=[made.uuid])
            utils.notify_about_aggregate_action(self._admin, made, "add_host", "end")
        return str(made.uuid)

    def measure(self, number: int, user_ns: int, kernel_ns: int, idle_ns: int, iowait_ns: int) -> None:
        """Sends a host's metrics, as Nova does with compute_monitors = cpu.virt_driver."""
        now = datetime.datetime.now(datetime.UTC)
        values = {"user": user_ns, "kernel": kernel_ns, "idle": idle_ns, "iowait": iowait_ns}
        metrics = [
            objects.MonitorMetric(name=f"cpu.{name}.time", value=value, timestamp=now, source="libvirt.LibvirtDriver")
            for name, value in values.items()
        ]
        utils.notify_about_metrics_update(
            self._admin, _name(number), "127.0.0.1", _node(number), objects.MonitorMetricList(objects=metrics)
        )

    def retire(self, number: int) -> None:
        """Deletes a compute node and its provider."""
        objects.ComputeNode.get_by_host_and_nodename(self._admin, _name(number), _node(number)).destroy()
        objects.Service.get_by_compute_host(self._admin, _name(number)).destroy()
        self._ask("DELETE", f"/resource_providers/{host_id(number)}")

    def vcpus(self, number: int) -> int:
        """The amounts of a host that are allocated in Placement."""
        usages = json.loads(self._ask("GET", f"/resource_providers/{host_id(number)}/usages"))
        return int(usages["usages"]["VCPU"])

    def hold(self) -> None:
        """From now on notifications are held back."""
        self._held = []

    def held(self) -> int:
        """How many are."""
        return len(self._held or [])

    def send(self, numbers: list[int]) -> None:
        """Sends these of the notifications held back, in this order, and stops holding back."""
        held, self._held = self._held or [], None
        for number in numbers:
            self._send(*held[number][0], **held[number][1])

    def burst(self, number: int, count: int) -> float:
        """Sends so many metrics of a host as fast as possible; returns the time taken in seconds."""
        began = time.monotonic()
        for step in range(count):
            self.measure(number, step * 10_000, step, 0, 0)
        return time.monotonic() - began

    def _take(self, *arguments: Any, **more: Any) -> None:
        if self._held is None:
            self._send(*arguments, **more)
        else:
            # Copied in their current state: Nova may change the objects later.
            self._held.append((arguments, more))

    def _allocate(self, consumer: str, number: int | None, amounts: dict[str, int]) -> None:
        allocations = {} if number is None else {host_id(number): {"resources": amounts}}
        before = json.loads(self._ask("GET", f"/allocations/{consumer}"))
        body = {
            "allocations": allocations, "consumer_generation": before.get("consumer_generation"), "project_id": PROJECT,
            "user_id": PROJECT, "consumer_type": "INSTANCE",
        }  # fmt: skip
        self._ask("PUT", f"/allocations/{consumer}", body)

    def _put(self, number: int, what: str, **body: Any) -> None:
        path = f"/resource_providers/{host_id(number)}"
        generation = json.loads(self._ask("GET", path))["generation"]
        self._ask("PUT", f"{path}/{what}", {"resource_provider_generation": generation, **body})

    def _ask(self, method: str, path: str, body: Any = None) -> bytes:
        return expect(self._placement(method, path, body), 200, 201, 204)

    def _compute(self) -> Callable[..., Any]:
        """Nova's API without Keystone's middleware: every caller is the administrator."""
        application = auth.NovaKeystoneContext(APIRouterV21())

        def administrator(environ: dict[str, Any], start_response: Any) -> Any:
            environ |= {"HTTP_X_USER_ID": "admin", "HTTP_X_PROJECT_ID": PROJECT, "HTTP_X_ROLES": "admin,member,reader"}
            return application(environ, start_response)

        return administrator


def _name(number: int) -> str:
    """The host name of a nova-compute; its hypervisor's hostname has a domain too."""
    return f"compute-{number}"


def _node(number: int) -> str:
    return f"compute-{number}.example"


def _serve(application: Any) -> int:
    server = make_server("127.0.0.1", 0, application, server_class=Server, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


def main() -> None:
    """Reads the settings from the first line, then lists of orders, one per line; writes a line of answers for each."""
    given = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as directory:
        cloud = Cloud(Path(directory), given["transport_url"])
        print(json.dumps(cloud.ports), flush=True)
        for line in sys.stdin:
            answers = [getattr(cloud, name)(**arguments) for name, arguments in json.loads(line)]
            print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
