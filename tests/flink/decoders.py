"""The two decoders in the JVM that PyFlink starts, without a job around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.flink_jars import flink_jars
from schemas.events import Event, SchemaVersion, released
from topology.graph import DECODERS, SchemaRegistry, java_decoder

USAGE_COLUMNS = (
    "reason",
    "host_id",
    "boot_id",
    "cpu_count",
    "monotonic_ns",
    "vcpus_capacity",
    "vcpus_allocated",
    "memory_mb_capacity",
    "memory_mb_allocated",
    "disk_gb_capacity",
    "disk_gb_allocated",
    "memory_mb_available",
    "disk_gb_available",
    "cpu_busy_ns",
    "instances",
    "cpu_iowait_ns",
    "cpu_steal_ns",
    "disk_read_bytes",
    "disk_write_bytes",
    "net_rx_bytes",
    "net_tx_bytes",
    "cpu_pressure_us",
    "memory_pressure_us",
    "io_pressure_us",
    "recent_consumers",
)
INVENTORY_COLUMNS = (
    "reason",
    "host_id",
    "retired",
    "boot_id",
    "name",
    "zone",
    "status",
    "status_reason",
    "inventories",
    "traits",
    "aggregates",
    "numa_cells",
    "pci_pools",
    "reporting_interval_ms",
    "agent_version",
    "allocated",
    "source",
)


class Decoder:
    """A decoder that is open, as Flink opens one for each parallel instance."""

    def __init__(
        self, event: Event, versions: Sequence[SchemaVersion] | None = None, registry: SchemaRegistry | None = None
    ) -> None:
        from pyflink.util.java_utils import add_jars_to_context_class_loader

        add_jars_to_context_class_loader([jar.as_uri() for jar in flink_jars()])
        self._columns = USAGE_COLUMNS if event is Event.USAGE else INVENTORY_COLUMNS
        java_class = next(decoder.java_class for decoder in DECODERS if decoder.event is event)
        self._function = java_decoder(java_class, released(event) if versions is None else versions, registry)
        self._function.open(None)

    def row(self, *record: str | bytes | None) -> dict[str, Any]:
        """The row of a record without headers, by column."""
        row = self._function.eval(*map(_in_java, record), None)
        assert row.getArity() == len(self._columns)
        fields = (row.getField(index) for index in range(len(self._columns)))
        return {
            name: field if field is None or isinstance(field, bool | int) else field.toString()
            for name, field in zip(self._columns, fields, strict=True)
        }

    def text(self, *record: str | bytes | None) -> str:
        """The row of a record as Flink's text, which one call over gets where :meth:`row` needs one a column."""
        return str(self._function.eval(*map(_in_java, record), None).toString())


def _in_java(value: str | bytes | None) -> Any:
    """Text as Flink's own; bytes and None travel by themselves."""
    if not isinstance(value, str):
        return value
    from pyflink.java_gateway import get_gateway

    return get_gateway().jvm.org.apache.flink.table.data.StringData.fromString(value)
