"""Reads Ceilometer's samples of instances as its notifier publisher sends them; other meters are ignored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

CPU, RESIDENT = "cpu_busy_ns", "memory_mb"
METERS: Mapping[str, str] = {
    "cpu": CPU,
    "memory.resident": RESIDENT,
    "disk.device.read.bytes": "disk_read_bytes",
    "disk.device.write.bytes": "disk_write_bytes",
    "disk.device.read.requests": "disk_read_ops",
    "disk.device.write.requests": "disk_write_ops",
    "network.incoming.bytes": "net_rx_bytes",
    "network.outgoing.bytes": "net_tx_bytes",
    "network.incoming.packets": "net_rx_packets",
    "network.outgoing.packets": "net_tx_packets",
}
"""Ceilometer's meter name to the field of HostUsage that the meter contributes to, or to RESIDENT."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of an instance, or of one of its disks or interfaces.

    Attributes:
        at: when it was measured, in seconds since 1970.
        instance: the instance's UUID.
        resource: Ceilometer's id of the instance, disk or interface.
        figure: a value of METERS.
        value: in the unit of the meter, which is also the unit of the figure.
    """

    at: float
    instance: str
    resource: str
    figure: str
    value: int


def read(payload: Any, refused: Callable[[str], None]) -> list[Sample]:
    """The samples in a message.

    Args:
        payload: what Ceilometer's publisher has sent.
        refused: called with the reason for each malformed sample.
    """
    found = []
    for message in payload if isinstance(payload, list) else [payload]:
        try:
            if (figure := METERS.get(message["counter_name"])) is None:
                continue
            found.append(_sample(figure, message))
        except KeyError as error:
            refused(f"{error} is missing")
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            refused(str(error))
    return found


def _sample(figure: str, message: Mapping[str, Any]) -> Sample:
    at = datetime.fromisoformat(message["timestamp"])
    metadata = message["resource_metadata"]
    resource = str(message["resource_id"])
    return Sample(
        at=(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(),
        # The resource id of a disk or an interface only starts or ends with the instance's UUID.
        instance=str(metadata.get("instance_id") or resource),
        resource=resource,
        figure=figure,
        value=math.floor(message["counter_volume"]),
    )
