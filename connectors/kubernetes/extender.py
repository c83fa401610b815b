"""The scheduler extender: filters and ranks nodes for kube-scheduler by their measured load.

An example of another scheduler that uses the table (docs/other-schedulers.md). It speaks the scheduler extender's
protocol, k8s.io/kube-scheduler/extender/v1; ``server`` has its HTTP. A node is the host of the same name. Kubernetes
binds the pod; nothing is claimed here.

What always holds: a node without a fresh row in the table passes and ranks in the middle; so do all nodes when the
table cannot be read in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.kubernetes.requests import pod_needs
from vacancy.connectors.scheduler.ranking import Amount, Limits, Measured, fullness, over_limit, with_typical
from vacancy.schemas.errors import VacancyError

MAX_PRIORITY = 10
"""extenderv1.MaxExtenderPriority"""
_LOG = logging.getLogger("vacancy.extender")
_Rows = dict[str, tuple[Measured, Amount]]


class Extender:
    """The two verbs: ExtenderArgs in, their results out.

    Args:
        nodes: reads the table.
        limits: beyond which a node is full.

    Attributes:
        on_unread: is called whenever an answer has to do without the table.

    Each verb takes the time, by time.monotonic(), by which the table must have been read (None: as `nodes` says), and
    raises KeyError, TypeError, AttributeError or ValueError if its arguments are no ExtenderArgs.
    """

    def __init__(self, nodes: Nodes, limits: Limits | None = None) -> None:
        self.nodes = nodes
        self.on_unread: Callable[[], object] = lambda: None
        self._limits = limits or Limits()
        self._reads = True

    def filter(self, arguments: dict[str, Any], by: float | None = None) -> dict[str, Any]:
        """ExtenderFilterResult: the nodes that are within all limits, and for every other node the limit it exceeds."""
        names, needs = node_names(arguments), pod_needs(arguments)
        failed = {}
        for name, (row, machine) in self._known(names, by).items():
            if too_much := [what for what in Amount._fields if 0 < getattr(machine, what) < getattr(needs, what)]:
                failed[name] = f"vacancy: the machine has fewer {' and '.join(too_much)} than the pod requests"
            elif beyond := over_limit(row, needs, self._limits, 0):
                failed[name] = f"vacancy: {beyond} is beyond its limit"
        result: dict[str, Any] = {"Nodes": None, "NodeNames": None, "FailedNodes": failed, "Error": ""}
        if arguments.get("NodeNames") is not None:
            result["NodeNames"] = [name for name in names if name not in failed]
        else:
            nodes = arguments["Nodes"]
            items = [node for node in nodes["items"] or [] if node["metadata"]["name"] not in failed]
            result["Nodes"] = nodes | {"items": items}
        return result

    def prioritize(self, arguments: dict[str, Any], by: float | None = None) -> list[dict[str, Any]]:
        """HostPriorityList: 10 for an empty node, 0 for one at a limit."""
        names, needs = node_names(arguments), pod_needs(arguments)
        nodes = self._known(names, by)
        rows = with_typical([row for row, _ in nodes.values()])
        known: dict[str, int] = {}
        for (name, (_, machine)), row in zip(nodes.items(), rows, strict=True):
            full = fullness(row, needs, machine, self._limits)
            if full is not None:
                known[name] = round(MAX_PRIORITY * (1 - min(full[0], 1.0)))
        middle = sorted(known.values())[len(known) // 2] if known else 0
        return [{"Host": name, "Score": known.get(name, middle)} for name in names]

    def _known(self, names: list[str], by: float | None) -> _Rows:
        try:
            rows = self.nodes.read(names, by)
        except VacancyError as error:
            self.on_unread()
            if self._reads:
                _LOG.warning("all nodes pass, and rank the same, until the table can be read: %s", error)
            self._reads = False
            return {}
        if not self._reads:
            _LOG.info("the table can be read again")
        self._reads = True
        return rows


def node_names(arguments: dict[str, Any]) -> list[str]:
    """The candidates' names; kube-scheduler sends names if the extender is ``nodeCacheCapable``, else whole nodes."""
    names = arguments.get("NodeNames")
    if names is None:
        names = [node["metadata"]["name"] for node in arguments["Nodes"]["items"] or []]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("the nodes are no list of names")
    return names
