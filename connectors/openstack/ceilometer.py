"""What Ceilometer's samples of instances say, as its notifier publisher sends them; other meters are passed over."""

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
"""By Ceilometer's names: the field of HostUsage that the meter is a part of, or RESIDENT."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of an instance, or of a disk or interface of it.

    Attributes:
        at: when it was read, in seconds since 1970.
        instance: its UUID.
        resource: the instance, disk or interface.
        figure: a value of METERS.
        value: in the figure's unit, which is the meter's.
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
        refused: told of each that is not as Ceilometer makes them, and why.
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
        # Of a disk or an interface the resource's own id only begins or ends with the instance's.
        instance=str(metadata.get("instance_id") or resource),
        resource=resource,
        figure=figure,
        value=math.floor(message["counter_volume"]),
    )
