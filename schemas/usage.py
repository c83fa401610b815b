"""What the job reads of a usage event, and the columns of table ``host`` that it makes of it.

Both follow from the newest schema of HostUsage. A pair ``<resource>_capacity`` and ``<resource>_allocated`` gives
``<resource>_free`` and ``<resource>_free_min``. A field with ``column`` is a gauge, which is shown as it stands. A
field with ``rate`` and ``per`` is a counter. UsageColumns.java, among the functions of topology/, reads the same schema
by the same rules.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from vacancy.schemas.events import Event, newest

CAPACITY, ALLOCATED = "_capacity", "_allocated"


class Counter(NamedTuple):
    """A counter of which the job makes a rate.

    Attributes:
        field: of HostUsage.
        rate: the column of table ``host``.
        per: what its growth is divided by: seconds, the time that has passed, or that time by the CPUs.
    """

    field: str
    rate: str
    per: Literal["second", "time", "cpu_time"]


class Gauge(NamedTuple):
    """A figure that table ``host`` shows as the newest event says it; type is Flink's."""

    field: str
    column: str
    type: str


_FIELDS: list[dict[str, Any]] = newest(Event.USAGE).document["fields"]
RESOURCES = tuple(field["name"].removesuffix(CAPACITY) for field in _FIELDS if field["name"].endswith(CAPACITY))
GAUGES = tuple(
    Gauge(field["name"], field["column"], "INT" if field["type"] == "int" else "BIGINT")
    for field in _FIELDS
    if "column" in field
)
COUNTERS = tuple(Counter(field["name"], field["rate"], field["per"]) for field in _FIELDS if "rate" in field)

DECODED_COLUMNS: dict[str, str] = {
    "host_id": "STRING",
    "boot_id": "STRING",
    "monotonic_ns": "BIGINT",
    "cpu_count": "BIGINT",
    **{f"{resource}{suffix}": "BIGINT" for resource in RESOURCES for suffix in (CAPACITY, ALLOCATED)},
    **{gauge.field: "BIGINT" for gauge in GAUGES},
    **{counter.field: "BIGINT" for counter in COUNTERS},
    "recent_consumers": "STRING",
    "uncertain": "STRING",
}
"""The columns that ``decode_usage`` gives behind ``reason``, with Flink's types. A counter that is null is -1."""

HOST_COLUMNS: dict[str, str] = {
    "host_id": "STRING NOT NULL",
    "observed_at": "TIMESTAMP_LTZ(3) NOT NULL",
    "window_start": "TIMESTAMP_LTZ(3) NOT NULL",
    "window_end": "TIMESTAMP_LTZ(3) NOT NULL",
    "samples": "BIGINT NOT NULL",
    **{f"{resource}{suffix}": "BIGINT" for resource in RESOURCES for suffix in (CAPACITY, "_free", "_free_min")},
    **{gauge.column: gauge.type for gauge in GAUGES},
    **{counter.rate: "DOUBLE" for counter in COUNTERS},
    "anomalies": "INT NOT NULL",
    "topic_partition": "INT NOT NULL",
    "topic_offset": "BIGINT NOT NULL",
    "recent_consumers": "STRING",
    "uncertain": "STRING",
}
"""The columns of table ``host`` that the job writes, with Flink's types. An array is text that the server casts."""
