"""What the weigher and the filter share: one read of the table per request, and the hosts picked for it so far.

Nova calls filters and weighers once for each instance of a request, in one thread, with the same request spec and the
same host states. The first call reads the table; later calls use that reading and the picks since then.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import nova.conf
from nova.scheduler import host_manager, utils

from vacancy.connectors.nova import options
from vacancy.connectors.nova.table import LOG, Fault, Table
from vacancy.connectors.scheduler.ranking import Amount, Limits, Measured


@dataclasses.dataclass
class Request:
    """A request that is being scheduled.

    Attributes:
        spec: the request spec that it belongs to.
        asked: ids of the hosts whose rows were asked for.
        read_at: when the table was read, in monotonic seconds.
        rows: the hosts' rows; empty if the table could not be read.
        picked: the amounts that the request has placed on each host so far.
    """

    spec: weakref.ref[Any]
    asked: frozenset[str]
    read_at: float
    rows: dict[str, Measured]
    picked: dict[str, Amount] = dataclasses.field(default_factory=dict)

    def fresh(self, max_age_s: float) -> dict[str, tuple[Measured, float]]:
        """The rows that are still younger than max_age_s, each with its age in seconds."""
        since_s = time.monotonic() - self.read_at
        aged = ((host, row, max(row.age_s, 0.0) + since_s) for host, row in self.rows.items())
        # An age of NaN counts as too old: the comparison is false.
        return {host: (row, age_s) for host, row, age_s in aged if age_s < max_age_s}

    def needs(self, host: str, one: Amount) -> Amount:
        """The amount that one more instance needs on the host, plus what the request has already placed there."""
        before = self.picked.get(host)
        return one + before if before else one


class Requests:
    """The requests being scheduled, one per thread. All weighers and filters of a process share one object."""

    def __init__(self) -> None:
        section = options.registered(nova.conf.CONF)
        self.limits: Limits = options.limits(section)
        self.max_age_s: float = section.max_age
        self.table = Table(section.dsn, section.timeout)
        self._pick_ttl_s: float = section.pick_ttl
        self._of_thread = threading.local()

    def of(self, spec: Any, host_states: Sequence[Any]) -> Request:
        """The request of a spec; reads the table if the request is new. Watches the host states for picks."""
        asked = frozenset(str(state.uuid) for state in host_states)
        request = self.current(spec)
        if request is None or not asked <= request.asked:
            read_at = time.monotonic()
            try:
                rows = self.table.read(list(asked))
            except Fault:  # counted and logged where it was raised
                rows = {}
            picked = request.picked if request else {}
            request = Request(weakref.ref(spec), asked, read_at, rows, picked)
            self._of_thread.request = request
            for state in host_states:
                if type(state) is host_manager.HostState:
                    state.__class__ = _WatchedHostState
        return request

    def current(self, spec: Any) -> Request | None:
        """This thread's request, if it belongs to this spec."""
        request: Request | None = getattr(self._of_thread, "request", None)
        return request if request is not None and request.spec() is spec else None

    def picked(self, host: str, spec: Any) -> None:
        """Records that Nova has claimed this host in Placement for the spec's instance."""
        request = self.current(spec)
        if request is None or utils.request_is_rebuild(spec):
            return
        needs = amount(spec)
        request.picked[host] = request.needs(host, needs)
        # If the read failed, waiting for the database again would delay the request.
        if self._pick_ttl_s and request.rows:
            self.table.note(str(spec.instance_uuid), host, needs, self._pick_ttl_s)


class _WatchedHostState(host_manager.HostState):  # type: ignore[misc]  # nova has no annotations
    """A host state that reports when Nova consumes resources from it, which is right after the claim in Placement.

    Nova tells a weigher nothing about the host that it picked in the end, and other schedulers nothing at all.
    """

    def consume_from_request(self, spec_obj: Any) -> Any:
        answer = super().consume_from_request(spec_obj)
        try:
            shared().picked(str(self.uuid), spec_obj)
        except Exception:  # noqa: BLE001  # the instance is already placed, so a failure here must not fail it
            LOG.exception("the pick of %s could not be noted", self.uuid)
        return answer


def amount(spec: Any) -> Amount:
    """The CPUs and memory that a request takes from a host; huge pages come from a separate pool."""
    topology = spec.numa_topology if "numa_topology" in spec else None
    huge = topology is not None and any(cell.pagesize for cell in topology.cells)
    return Amount(spec.vcpus, 0 if huge else spec.memory_mb)


def total(host_state: Any) -> Amount:
    """The CPUs and memory of a host's machine."""
    return Amount(host_state.vcpus_total, host_state.total_usable_ram_mb)


_LOCK = threading.Lock()
_SHARED: list[Requests] = []


def shared() -> Requests:
    """This process's requests; created at the first call, since Nova imports modules before it reads its settings."""
    with _LOCK:
        if not _SHARED:
            _SHARED.append(Requests())
        return _SHARED[0]


def forget() -> None:
    """Closes the shared requests; the next call of :func:`shared` creates them from Nova's settings at that time."""
    with _LOCK:
        while _SHARED:
            _SHARED.pop().table.close()
