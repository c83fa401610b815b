"""What the weigher and the filter share: one read of the table for a request, and what it has picked so far.

Nova calls filters and weighers once for each instance of a request, in one thread, with the same request spec and the
same host states. The first call reads the table; later ones go by that and by what was picked since.
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
    """A request as far as it has come.

    Attributes:
        spec: the request spec that it belongs to.
        asked: the hosts that were asked for.
        read_at: when, in monotonic seconds.
        rows: what the table says of them; none where it could not be read.
        picked: what the request has put on each host so far.
    """

    spec: weakref.ref[Any]
    asked: frozenset[str]
    read_at: float
    rows: dict[str, Measured]
    picked: dict[str, Amount] = dataclasses.field(default_factory=dict)

    def fresh(self, max_age_s: float) -> dict[str, tuple[Measured, float]]:
        """The rows that are young enough by now, each with its age in seconds."""
        since_s = time.monotonic() - self.read_at
        aged = ((host, row, max(row.age_s, 0.0) + since_s) for host, row in self.rows.items())
        # An age that is no number is no age: the comparison does not hold.
        return {host: (row, age_s) for host, row, age_s in aged if age_s < max_age_s}

    def needs(self, host: str, one: Amount) -> Amount:
        """What the host has to have for one more instance: that, and what the request has put there before."""
        before = self.picked.get(host)
        return one + before if before else one


class Requests:
    """Requests under way, one a thread. All weighers and filters of a process share one."""

    def __init__(self) -> None:
        section = options.registered(nova.conf.CONF)
        self.limits: Limits = options.limits(section)
        self.max_age_s: float = section.max_age
        self.table = Table(section.dsn, section.timeout)
        self._pick_ttl_s: float = section.pick_ttl
        self._of_thread = threading.local()

    def of(self, spec: Any, host_states: Sequence[Any]) -> Request:
        """The request of a spec, read now if it is new. Watches the host states for what is picked."""
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
        """This thread's request, if it is that of the spec."""
        request: Request | None = getattr(self._of_thread, "request", None)
        return request if request is not None and request.spec() is spec else None

    def picked(self, host: str, spec: Any) -> None:
        """Nova has claimed this host in Placement for the spec's instance."""
        request = self.current(spec)
        if request is None or utils.request_is_rebuild(spec):
            return
        needs = amount(spec)
        request.picked[host] = request.needs(host, needs)
        # Without an answer to the read the database is not to be waited for.
        if self._pick_ttl_s and request.rows:
            self.table.note(str(spec.instance_uuid), host, needs, self._pick_ttl_s)


class _WatchedHostState(host_manager.HostState):  # type: ignore[misc]  # nova has no annotations
    """A host state that says when Nova takes from it, which is right after the claim in Placement.

    Nova tells a weigher nothing of what became of its weights, and other schedulers nothing at all.
    """

    def consume_from_request(self, spec_obj: Any) -> Any:
        answer = super().consume_from_request(spec_obj)
        try:
            shared().picked(str(self.uuid), spec_obj)
        except Exception:  # noqa: BLE001  # the instance is placed, whatever we make of it
            LOG.exception("the pick of %s could not be noted", self.uuid)
        return answer


def amount(spec: Any) -> Amount:
    """What a request takes of a host's CPUs and memory; huge pages come out of a pool apart."""
    topology = spec.numa_topology if "numa_topology" in spec else None
    huge = topology is not None and any(cell.pagesize for cell in topology.cells)
    return Amount(spec.vcpus, 0 if huge else spec.memory_mb)


def total(host_state: Any) -> Amount:
    """What a host's machine has."""
    return Amount(host_state.vcpus_total, host_state.total_usable_ram_mb)


_LOCK = threading.Lock()
_SHARED: list[Requests] = []


def shared() -> Requests:
    """This process's; made when it is first asked for, since Nova's settings are read after its modules."""
    with _LOCK:
        if not _SHARED:
            _SHARED.append(Requests())
        return _SHARED[0]


def forget() -> None:
    """Lets the next one be made from Nova's settings as they are then."""
    with _LOCK:
        while _SHARED:
            _SHARED.pop().table.close()
