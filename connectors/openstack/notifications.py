"""Translates Nova's versioned notifications into this project's terms; content of no use here is ignored.

What always holds:

- A notification is read or refused with a reason: whatever it contains, only ValueError is raised.
- Only notifications that a host's own nova-compute sends show that the host is alive. The publisher of ``service.*``
  and ``instance.update`` proves nothing: Nova's API and conductor send them in the name of nova-compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_COMPUTE = "nova-compute:"
_GONE_STATES = frozenset({"deleted"})
_MB_PER_GB = 1024
_OVERRIDE = "resources:"


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """An instance, as a notification shows it.

    Attributes:
        uuid: Placement's consumer.
        host: name of its nova-compute; None: it is on no host, or no longer.
        node: name of its hypervisor, which is also the name of the provider in Placement.
        amounts: what its flavor takes, by resource class.
        resizes: whether the notification is about a resize.
    """

    uuid: str
    host: str | None
    node: str | None
    amounts: Mapping[str, int]
    resizes: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A nova-compute service with the operator's settings."""

    host: str
    disabled: bool
    forced_down: bool
    reason: str | None
    zone: str | None


@dataclass(frozen=True, slots=True)
class AggregateSeen:
    """A host aggregate with all its hosts; a deleted aggregate has none."""

    uuid: str
    hosts: frozenset[str]
    zone: str | None


@dataclass(frozen=True, slots=True)
class CpuCounters:
    """CPU time of a host since its boot, in ns over all its CPUs."""

    host: str
    node: str
    busy_ns: int
    iowait_ns: int | None


Told = InstanceSeen | Service | AggregateSeen | CpuCounters


@dataclass(frozen=True, slots=True)
class Notification:
    """What one notification says.

    Attributes:
        at: when it was sent, in seconds since 1970 on its sender's clock.
        told: the object that it describes; None: nothing of use here.
        alive: name of the nova-compute that the notification proves to be alive.
    """

    at: float
    told: Told | None
    alive: str | None


def read(event_type: str, publisher_id: str, timestamp: str, payload: Any) -> Notification:
    """Reads a notification.

    Args:
        event_type: such as ``instance.create.end``.
        publisher_id: such as ``nova-compute:compute-1``.
        timestamp: when it was sent, as oslo.messaging writes it: in UTC, without an offset.
        payload: Nova's payload.

    Raises:
        ValueError: Nova does not send such a notification; the message says why.
    """
    try:
        at = datetime.fromisoformat(timestamp).replace(tzinfo=UTC).timestamp()
        subject, _, action = event_type.partition(".")
        reader = _READERS.get(subject)
        told = None if reader is None else reader(action, _data(payload))
        witness = subject == "metrics" or (subject == "instance" and action != "update")
        alive = publisher_id.removeprefix(_COMPUTE) if witness and publisher_id.startswith(_COMPUTE) else None
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
    except (AttributeError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return Notification(at, told, alive)


def _instance(action: str, data: Mapping[str, Any]) -> InstanceSeen:
    flavor = _data(data["flavor"])
    gone = action in {"delete.end", "create.error"} or data["state"] in _GONE_STATES
    host, node = (None, None) if gone else (_name(data["host"]), _name(data["node"]))
    return InstanceSeen(_text(data["uuid"]), host, node, amounts_of(flavor), action.startswith("resize"))


def _service(action: str, data: Mapping[str, Any]) -> Service | None:
    if data["binary"] != "nova-compute" or action == "delete":
        return None
    reason, zone = _name(data["disabled_reason"]), _name(data["availability_zone"])
    return Service(_text(data["host"]), bool(data["disabled"]), bool(data["forced_down"]), reason, zone)


def _aggregate(action: str, data: Mapping[str, Any]) -> AggregateSeen | None:
    if not action.endswith(".end") or "hosts" not in data:
        return None
    hosts = frozenset() if action == "delete.end" else frozenset(map(_text, data["hosts"] or ()))
    return AggregateSeen(_text(data["uuid"]), hosts, _name((data["metadata"] or {}).get("availability_zone")))


def _metrics(action: str, data: Mapping[str, Any]) -> CpuCounters | None:
    values = {metric["name"]: metric["value"] for metric in map(_data, data["metrics"])}
    user, kernel, iowait = (values.get(f"cpu.{name}.time") for name in ("user", "kernel", "iowait"))
    if action != "update" or user is None or kernel is None:
        return None
    busy_ns = int(user) + int(kernel)
    return CpuCounters(_text(data["host"]), _text(data["nodename"]), busy_ns, None if iowait is None else int(iowait))


_READERS: Mapping[str, Callable[[str, Mapping[str, Any]], Told | None]] = {
    "instance": _instance,
    "service": _service,
    "aggregate": _aggregate,
    "metrics": _metrics,
}


def amounts_of(flavor: Mapping[str, Any]) -> dict[str, int]:
    """What Nova requests from Placement for a flavor, by resource class; a root disk in a volume counts as well."""
    extra = flavor.get("extra_specs") or {}
    cpus = "PCPU" if extra.get("hw:cpu_policy") == "dedicated" else "VCPU"
    disk_gb = (flavor["root_gb"] or 0) + (flavor["ephemeral_gb"] or 0) + math.ceil((flavor["swap"] or 0) / _MB_PER_GB)
    amounts = {cpus: int(flavor["vcpus"]), "MEMORY_MB": int(flavor["memory_mb"]), "DISK_GB": int(disk_gb)}
    for key, value in extra.items():
        if key.startswith(_OVERRIDE):
            amounts[key.removeprefix(_OVERRIDE)] = int(value)
    return {name: amount for name, amount in amounts.items() if amount}


def _data(thing: Any) -> Mapping[str, Any]:
    """The fields of one of Nova's objects."""
    data = thing["nova_object.data"]
    if not isinstance(data, Mapping):
        raise TypeError("nova_object.data is no object")
    return data


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} where there should be a name")
    return value


def _name(value: Any) -> str | None:
    return None if value is None or value == "" else _text(value)
