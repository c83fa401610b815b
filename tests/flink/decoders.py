"""The two decoders in the JVM that PyFlink starts, without a job around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.harness.histories import BASE_MS, usage_key
from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.schemas.events import Event, SchemaVersion, released
from vacancy.schemas.usage import DECODED_COLUMNS
from vacancy.topology.graph import DECODERS, SchemaRegistry, java_decoder

USAGE_COLUMNS = ("reason", *DECODED_COLUMNS)
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
    "disk_id",
    "disk_pool",
)
AMOUNTS = {"reporting_interval_ms", *USAGE_COLUMNS} - {"reason", "host_id", "boot_id", "recent_consumers", "uncertain"}


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

    def row(self, *record: str | bytes | None, append_ms: int = BASE_MS) -> dict[str, Any]:
        """The row, by column, of a key and a payload without headers, or of a payload under its right key."""
        row = self._eval(*record, append_ms=append_ms)
        assert row.getArity() == len(self._columns)
        return {name: self._field(row, index) for index, name in enumerate(self._columns)}

    def _field(self, row: Any, index: int) -> Any:
        name = self._columns[index]
        if row.isNullAt(index):
            return None
        if name == "retired":
            return row.getBoolean(index)
        return row.getLong(index) if name in AMOUNTS else row.getString(index).toString()

    def digest(self, *record: str | bytes | None) -> int:
        """What tells a record's row from others: one call over gets it, where :meth:`row` needs two a column."""
        return int(self._eval(*record).hashCode())

    def _eval(self, *record: str | bytes | None, append_ms: int = BASE_MS) -> Any:
        if len(record) == 1:
            (payload,) = record
            assert not isinstance(payload, str)
            record = usage_key(payload), payload
        from pyflink.java_gateway import get_gateway

        time = get_gateway().jvm.org.apache.flink.table.data.TimestampData.fromEpochMillis(append_ms)
        return self._function.eval(*map(_in_java, record), None, time)


def _in_java(value: str | bytes | None) -> Any:
    """Text as Flink's own; bytes and None travel by themselves."""
    if not isinstance(value, str):
        return value
    from pyflink.java_gateway import get_gateway

    return get_gateway().jvm.org.apache.flink.table.data.StringData.fromString(value)
