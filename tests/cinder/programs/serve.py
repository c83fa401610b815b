"""Cinder's API and scheduler in one process, until stdin ends. Runs in Cinder's environment.

All of it is Cinder's own code: the API (without Keystone) as WSGI, the scheduler's manager with its host manager behind
RPC, the database (SQLite). The message bus is oslo.messaging's `fake`, which works within a process. There are no
volume services: their reports come from stdin and take the same path as real ones.

Prints its port; then a line for each line on stdin, all JSON:

- ``{"report": {"host": …, "capabilities": …}}``: a volume service's report;
- ``{"down": host}``: the volume service stops reporting;
- ``{"fits": {pool: [size, …]}}``: whether Cinder's capacity filter accepts a volume of each size for the pool.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import oslo_messaging
from cinder import context, objects, rpc
from cinder.common import constants
from cinder.db import migration
from cinder.objects import base
from cinder.wsgi import wsgi
from oslo_config import cfg
from oslo_serialization import jsonutils

objects.register_all()
from cinder.scheduler import manager, rpcapi  # noqa: E402  # it needs the objects to be registered first

CONF = cfg.CONF
LIMIT_S = 30.0


class AsOnTheBus(base.CinderObjectSerializer):  # type: ignore[misc]  # it is in another environment
    """Passes answers through JSON, as every message bus except the `fake` one does."""

    def serialize_entity(self, context: Any, entity: Any) -> Any:
        """The value that arrives at the other end."""
        return jsonutils.loads(jsonutils.dumps(super().serialize_entity(context, entity)))


class Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at once."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs nothing, since Cinder logs requests itself."""

    def log_message(self, *args: object) -> None:
        """Not to stderr."""


def configure(directory: Path) -> None:
    """Cinder's settings: its defaults except for these."""
    file = directory / "cinder.conf"
    file.write_text(
        "\n".join(
            [
                "[DEFAULT]",
                "auth_strategy = noauth",
                "transport_url = fake:/",
                f"state_path = {directory}",
                f"log_file = {directory / 'cinder.log'}",
                f"api_paste_config = {Path(sys.prefix) / 'etc' / 'cinder' / 'api-paste.ini'}",
                "service_down_time = 86400",
                "[database]",
                f"connection = sqlite:///{directory / 'cinder.sqlite'}",
                "[coordination]",
                f"backend_url = file://{directory}",
            ]
        ),
        encoding="utf-8",
    )
    sys.argv = ["cinder", "--config-file", str(file)]


def main() -> None:
    """Serves."""
    directory = Path(sys.argv[1])
    configure(directory)
    CONF(sys.argv[1:], project="cinder")
    migration.db_sync()
    application = wsgi.initialize_application()
    admin = context.get_admin_context()
    scheduler = manager.SchedulerManager(host="scheduler")
    target = oslo_messaging.Target(topic=constants.SCHEDULER_TOPIC, server="scheduler")
    rpc_server = rpc.get_server(target, [scheduler], serializer=AsOnTheBus())
    rpc_server.start()
    hosts = scheduler.driver.host_manager

    def report(host: str, capabilities: dict[str, Any]) -> None:
        if not objects.ServiceList.get_all(admin, {"host": host}).objects:
            service = objects.Service(
                admin, host=host, binary="cinder-volume", topic=constants.VOLUME_TOPIC, report_count=1, disabled=False
            )
            service.create()
        before = hosts.service_states.get(host)
        rpcapi.SchedulerAPI().update_service_capabilities(admin, "volume", host, capabilities, None)
        deadline = time.monotonic() + LIMIT_S
        while hosts.service_states.get(host) is before:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the report of {host} has not reached the scheduler within {LIMIT_S:g} s")
            time.sleep(0.01)

    def down(host: str) -> None:
        for service in objects.ServiceList.get_all(admin, {"host": host}).objects:
            service.disabled = True
            service.save()

    def fits(sizes: dict[str, list[int]]) -> dict[str, list[bool]]:
        def verdict(pool: Any, size: int) -> bool:
            given = {"size": size, "volume_type": {}, "context": admin}
            return bool(hosts.get_filtered_backends([pool], given, ["CapacityFilter"]))

        pools = {pool.host: pool for pool in hosts.get_all_backend_states(admin)}
        return {name: [verdict(pools[name], size) for size in asked] for name, asked in sizes.items()}

    with make_server("127.0.0.1", 0, application, server_class=Server, handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps(server.server_port), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            answer: Any = None
            if "report" in asked:
                report(**asked["report"])
            elif "down" in asked:
                down(asked["down"])
            else:
                answer = fits(asked["fits"])
            print(json.dumps(answer), flush=True)
        server.shutdown()
    rpc_server.stop()


if __name__ == "__main__":
    main()
