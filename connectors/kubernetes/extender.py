"""The scheduler extender: filters and ranks nodes for kube-scheduler by their measured load.

An example of another scheduler that uses the table (docs/other-schedulers.md). It speaks the scheduler extender's
protocol, k8s.io/kube-scheduler/extender/v1 over HTTP: ``POST /filter`` and ``POST /prioritize``. A node is the host of
the same name. Kubernetes binds the pod; nothing is claimed here.

What always holds: a node without a fresh row in the table passes and ranks in the middle; so do all nodes when the
table cannot be read.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import SecretStr

from vacancy.connectors.postgres.connection import UnreachableError, connect, explained
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.scheduler.ranking import Amount, Limits, Measured, fullness, knows_load, over_limit
from vacancy.schemas.errors import VacancyError

READ_TIMEOUT = timedelta(seconds=2)
"""How long a request waits for the table; kube-scheduler gives an extender 5 s if its httpTimeout does not say more."""
PAUSE = timedelta(seconds=1)
"""After a failure requests are answered without the table for so long, and do not wait behind each other."""
MAX_PRIORITY = 10
"""extenderv1.MaxExtenderPriority"""
_LONGEST_BODY = 64 * 1024 * 1024
_LOG = logging.getLogger("vacancy.extender")
_UNITS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
_NODES = """
SELECT name, date_part('epoch', age), cpu_utilization, cpu_steal, cpu_pressure, memory_pressure, io_pressure,
  memory_mb_available, coalesce(vcpus_claimed, 0), (inventories->'VCPU'->>'total')::float8,
  (inventories->'MEMORY_MB'->>'total')::float8
FROM vacancy.schedulable_host
WHERE name = ANY(%s) AND reason IS NULL
"""


class Nodes:
    """Reads the table for one request after another, over one connection.

    Args:
        dsn: of a login in the role ``vacancy_reader``, or ``vacancy_scheduler``.
        connect_timeout: how long to wait for the server.
        max_age: a host that has not reported for this long counts as unknown.
    """

    def __init__(self, dsn: SecretStr, connect_timeout: timedelta, max_age: timedelta) -> None:
        self._dsn, self._connect_timeout, self._max_age = dsn, connect_timeout, max_age
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._paused_until = 0.0

    def read(self, names: list[str]) -> dict[str, tuple[Measured, Amount]]:
        """The rows of those nodes that have one, and the size of their machines.

        Raises:
            VacancyError: the table cannot be read within READ_TIMEOUT, or could not be a moment ago.
        """
        ends = time.monotonic() + READ_TIMEOUT.total_seconds()
        if not self._lock.acquire(timeout=READ_TIMEOUT.total_seconds()):
            raise VacancyError("the table is being read for other requests; lower the rate of requests")
        try:
            if time.monotonic() < self._paused_until:
                raise VacancyError("the table could not be read a moment ago; see the warnings before this one")
            kept = self._connection is not None
            try:
                try:
                    return self._read(names, ends)
                except UnreachableError:
                    self._forget()
                    if not kept or time.monotonic() >= ends:
                        raise
                    return self._read(names, ends)  # the server may have been started again, or another promoted
            except VacancyError:
                self._forget()
                self._paused_until = time.monotonic() + PAUSE.total_seconds()
                raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            self._forget()

    def _read(self, names: list[str], ends: float) -> dict[str, tuple[Measured, Amount]]:
        if self._connection is None:
            self._connection = connect(
                self._dsn,
                connect_timeout=min(self._connect_timeout, timedelta(seconds=max(0.0, ends - time.monotonic()))),
                application_name="vacancy extender",
                read_only=True,
                max_age=self._max_age,
                statement_timeout=READ_TIMEOUT,
            )
        self._connection.limit_s = max(0.0, ends - time.monotonic())
        with explained(self._dsn), self._connection.cursor() as cursor:
            cursor.execute(_NODES, (names,))
            return {
                name: (Measured(*figures), Amount(vcpus or 0, memory_mb or 0))
                for name, *figures, vcpus, memory_mb in cursor.fetchall()
            }

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Extender:
    """The two verbs: ExtenderArgs in, their results out."""

    def __init__(self, nodes: Nodes, limits: Limits | None = None) -> None:
        self._nodes = nodes
        self._limits = limits or Limits()

    def filter(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """ExtenderFilterResult: the nodes that are within all limits, and for every other node the limit it exceeds."""
        names, needs = node_names(arguments), pod_needs(arguments)
        failed = {}
        for name, (row, _) in self._known(names).items():
            if by := over_limit(row, needs, self._limits, 0):
                failed[name] = f"vacancy: {by} is beyond its limit"
        result: dict[str, Any] = {"Nodes": None, "NodeNames": None, "FailedNodes": failed, "Error": ""}
        if arguments.get("NodeNames") is not None:
            result["NodeNames"] = [name for name in names if name not in failed]
        else:
            nodes = arguments["Nodes"]
            items = [node for node in nodes["items"] if node["metadata"]["name"] not in failed]
            result["Nodes"] = nodes | {"items": items}
        return result

    def prioritize(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """HostPriorityList: 10 for an empty node, 0 for one at a limit."""
        names, needs = node_names(arguments), pod_needs(arguments)
        known: dict[str, int] = {}
        partly: dict[str, int] = {}
        for name, (row, machine) in self._known(names).items():
            full = fullness(row, needs, machine, self._limits)
            if full is not None:
                scores = known if knows_load(row) else partly
                scores[name] = round(MAX_PRIORITY * (1 - min(full[0], 1.0)))
        middle = sorted((known or partly).values())[len(known or partly) // 2] if known or partly else 0
        known |= {name: min(score, middle) for name, score in partly.items()}
        return [{"Host": name, "Score": known.get(name, middle)} for name in names]

    def _known(self, names: list[str]) -> dict[str, tuple[Measured, Amount]]:
        try:
            return self._nodes.read(names)
        except VacancyError as error:
            _LOG.warning("all nodes pass, and rank the same: %s", error)
            return {}


def serve(extender: Extender, address: str, port: int) -> ThreadingHTTPServer:
    """Starts a server that answers in threads until it is shut down.

    Raises:
        OSError: it cannot listen there.
    """
    verbs = {"/filter": extender.filter, "/prioritize": extender.prioritize}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            verb = verbs.get(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            if verb is None or not 0 < length <= _LONGEST_BODY:
                self.close_connection = True
                self._answer(404 if verb is None else 400, {"Error": "POST ExtenderArgs to /filter or /prioritize"})
                return
            try:
                arguments = json.loads(self.rfile.read(length))
                answer: Any = verb(arguments)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._answer(400, {"Error": f"these are no ExtenderArgs: {type(error).__name__}: {error}"})
                return
            self._answer(200, answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name is the base class's
            _LOG.debug(format, *args)

        def _answer(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="extender", daemon=True).start()
    return server


def node_names(arguments: dict[str, Any]) -> list[str]:
    """The candidates' names; kube-scheduler sends names if the extender is ``nodeCacheCapable``, else whole nodes."""
    if (names := arguments.get("NodeNames")) is not None:
        return [str(name) for name in names]
    return [str(node["metadata"]["name"]) for node in arguments["Nodes"]["items"]]


def pod_needs(arguments: dict[str, Any]) -> Amount:
    """What a pod requests: the larger of the sum over its containers and its largest init container."""
    spec = arguments["Pod"]["spec"]
    containers = [_requests(container) for container in spec.get("containers") or []]
    together = Amount(sum(one.vcpus for one in containers), sum(one.memory_mb for one in containers))
    first = [_requests(container) for container in spec.get("initContainers") or []]
    return Amount(
        max([together.vcpus, *(one.vcpus for one in first)]),
        max([together.memory_mb, *(one.memory_mb for one in first)]),
    )


def _requests(container: dict[str, Any]) -> Amount:
    requests = (container.get("resources") or {}).get("requests") or {}
    return Amount(quantity(requests.get("cpu", 0)), quantity(requests.get("memory", 0)) / 2**20)


def quantity(text: object) -> float:
    """A Kubernetes quantity (``1500m``, ``2Gi``, ``1e3``) as a number.

    Raises:
        ValueError: the text is not a quantity.
    """
    number = str(text)
    unit = next((unit for unit in ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei", *"mkMGTPE") if number.endswith(unit)), "")
    try:
        value = float(number.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no quantity")
    return value
