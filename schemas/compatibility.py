"""Whether one version of an event's schema can read what another wrote, by the rules of the Avro specification."""

from __future__ import annotations

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType


def incompatibilities(reader_text: str, writer_text: str) -> list[str]:
    """Why a reader's schema (JSON text) cannot read a writer's data; empty if it can."""
    result = ReaderWriterCompatibilityChecker().get_compatibility(  # type: ignore[no-untyped-call]  # avro annotates the rest
        avro.schema.parse(reader_text), avro.schema.parse(writer_text)
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages)
