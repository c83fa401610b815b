"""Bytes from the inventory topic to columns, and null records to retirements.

Shapes: n keys and n payloads in, n rows out, in their order; a row with a reason is bad and its other columns are None.
Inventory is rare (a host sends it every few minutes), so each record is decoded on its own; what comes out fits the
tables as the usage decoder's rows do: texts without NUL, JSON without NaN, amounts that make sense.
"""

from __future__ import annotations

import functools
import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import fastavro

from schemas.events import Event, SchemaVersion, released
from topology.framing import DATUM_ERRORS, BadPayloadError, Framing, RegistryLookup

TEXTS = (
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
)
COLUMNS = ("reason", "host_id", "retired", *TEXTS, "reporting_interval_ms", "agent_version")
"""traits and aggregates are PostgreSQL array literals; inventories, numa_cells and pci_pools are JSON."""

_ID = re.compile(r"[\x21-\x7e]{1,255}")
_RESOURCE_CLASS = re.compile(r"[A-Z0-9_]{1,255}")


class InventoryDecoder:
    """Decodes the records of the inventory topic.

    Args:
        versions: the versions to know, the reader's last; every released one unless a test says otherwise.
        registry: looks up Confluent schema ids; None where no registry is configured.
    """

    def __init__(self, versions: Sequence[SchemaVersion] | None = None, registry: RegistryLookup | None = None) -> None:
        known = released(Event.INVENTORY) if versions is None else versions
        self._reader = _parsed(known[-1].text)
        self._framing = Framing(known, registry)

    def decode(self, keys: Sequence[str | None], payloads: Sequence[bytes | None]) -> list[dict[str, Any]]:
        """A row of :data:`COLUMNS` for each record; never raises for what is in one."""
        rows = []
        for key, payload in zip(keys, payloads, strict=True):
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            try:
                row |= self._columns(key, payload)
            except BadPayloadError as bad:
                row["reason"] = str(bad)
            rows.append(row)
        return rows

    def _columns(self, key: str | None, payload: bytes | None) -> dict[str, Any]:
        if key is None or not _ID.fullmatch(key):
            raise BadPayloadError("invalid: the key is not printable ASCII")
        if payload is None:
            return {"host_id": key, "retired": True}
        event = self._event(payload)
        if event["host_id"] != key:
            raise BadPayloadError("invalid: host_id is not the record's key")
        _check(event)
        return {
            "host_id": key,
            "retired": False,
            "reporting_interval_ms": event["reporting_interval_ms"],
            "agent_version": event["agent_version"],
            **{name: event[name] for name in ("boot_id", "name", "zone", "status", "status_reason")},
            **{name: _array_literal(event[name]) for name in ("traits", "aggregates")},
            **{name: json.dumps(event[name]) for name in ("inventories", "numa_cells", "pci_pools")},
        }

    def _event(self, payload: bytes) -> dict[str, Any]:
        writer, datum = self._framing.unframe(payload)
        stream = io.BytesIO(datum)
        try:
            event = fastavro.schemaless_reader(stream, _parsed(writer), self._reader)
        except DATUM_ERRORS as error:
            raise BadPayloadError(f"undecodable: {error or type(error).__name__}") from None
        if rest := len(datum) - stream.tell():
            raise BadPayloadError(f"undecodable: {rest} bytes left over")
        assert isinstance(event, dict)  # noqa: S101  # the reader's schema is a record; for mypy
        return event


@functools.cache
def _parsed(schema_text: str) -> Any:
    return fastavro.parse_schema(json.loads(schema_text))


def _check(event: dict[str, Any]) -> None:
    """Refuses what the tables could not hold or a scheduler could not reckon with."""
    if not _ID.fullmatch(event["boot_id"]):
        raise BadPayloadError("invalid: boot_id is not printable ASCII")
    if event["reporting_interval_ms"] < 1:
        raise BadPayloadError("invalid: reporting_interval_ms is less than 1")
    if "\\u0000" in json.dumps(event, default=str):
        raise BadPayloadError("invalid: a text holds a NUL character")
    for resource_class, inventory in event["inventories"].items():
        if not _RESOURCE_CLASS.fullmatch(resource_class):
            raise BadPayloadError("invalid: a resource class is not upper-case letters, digits and underscores")
        least = {"total": 0, "reserved": 0, "min_unit": 1, "max_unit": 1, "step_size": 1}
        for name, amount in least.items():
            if inventory[name] < amount:
                raise BadPayloadError(f"invalid: {name} of {resource_class} is less than {amount}")
        if not (math.isfinite(inventory["allocation_ratio"]) and inventory["allocation_ratio"] > 0):
            raise BadPayloadError(f"invalid: allocation_ratio of {resource_class} is not above 0")


def _array_literal(texts: Sequence[str]) -> str:
    """Texts as a PostgreSQL array literal."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"
