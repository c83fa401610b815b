"""Whether one version of an event's schema can read what another wrote, by the rules of the Avro specification."""

from __future__ import annotations

import json

import avro.schema
import fastavro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType


def incompatibilities(reader_text: str, writer_text: str) -> list[str]:
    """Why a reader's schema (JSON text) cannot read a writer's data; empty if it can."""
    result = ReaderWriterCompatibilityChecker().get_compatibility(  # type: ignore[no-untyped-call]  # avro annotates the rest
        avro.schema.parse(reader_text), avro.schema.parse(writer_text)
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages)


def begins_with(newer_text: str, older_text: str) -> bool:
    """Whether data of one version of a record begin with all that an older version would have written."""
    newer, older = (fastavro.schema.to_parsing_canonical_form(json.loads(text)) for text in (newer_text, older_text))
    # The canonical form of a record ends with its fields.
    return str(newer).startswith(str(older).removesuffix("]}"))
