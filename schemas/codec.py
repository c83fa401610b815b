"""Encodes single events for the agent, and decodes them for tools and tests; the job decodes in Java.

What always holds: an event is encoded with the newest version of its schema, and its frame identifies that version
(:mod:`vacancy.schemas.events` describes the two frames).
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro

from vacancy.schemas.events import (
    CONFLUENT_MARKER,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    Event,
    SchemaVersion,
    newest,
    released,
)


@dataclass(frozen=True)
class Decoded:
    """One event, read into the newest version of its schema.

    Attributes:
        event: the kind of event.
        writer: the schema version that it was written with.
        record: the fields by name; ``agent_time`` is a datetime in UTC.
    """

    event: Event
    writer: int
    record: dict[str, Any]


class Encoder:
    """Encodes one kind of event.

    Args:
        event: the kind of event.
        schema_id: the newest version's id in the schema registry; None for the single-object encoding.
        versions: the known versions, the writer's last; None: every released one.
    """

    def __init__(
        self, event: Event, schema_id: int | None = None, versions: Sequence[SchemaVersion] | None = None
    ) -> None:
        known = released(event) if versions is None else versions
        self._schema = _parsed(known[-1].text)
        self._header = known[-1].header if schema_id is None else CONFLUENT_MARKER + schema_id.to_bytes(4, "big")

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """The framed bytes of a record; a field that has a default may be left out.

        Raises:
            ValueError: a field is missing, not in the schema, or not of its type.
        """
        stream = io.BytesIO(self._header)
        stream.seek(len(self._header))
        try:
            fastavro.schemaless_writer(stream, self._schema, record, strict_allow_default=True)
        except (TypeError, AttributeError, OverflowError) as error:
            # fastavro raises these for a value of another type.
            raise ValueError(str(error)) from error
        return stream.getvalue()


def decode(payload: bytes) -> Decoded:
    """Decodes a payload in the single-object encoding, of any released version.

    Raises:
        ValueError: the payload is not exactly one event; the message says why.
    """
    if version := _by_header().get(payload[:SINGLE_OBJECT_HEADER_BYTES]):
        record = _read(payload[SINGLE_OBJECT_HEADER_BYTES:], version.text, version.event)
        return Decoded(version.event, version.version, record)
    if payload.startswith(SINGLE_OBJECT_MARKER):
        fingerprint = payload[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES]
        raise ValueError(f"unknown schema fingerprint {fingerprint.hex()}")
    raise ValueError(f"not an Avro event: starts with {payload[:2].hex() or 'nothing'}")


@functools.cache
def _by_header() -> dict[bytes, SchemaVersion]:
    return {version.header: version for event in Event for version in released(event)}


@functools.cache
def _parsed(text: str) -> Any:
    return fastavro.parse_schema(json.loads(text))


def _read(datum: bytes, writer_text: str, event: Event) -> dict[str, Any]:
    stream = io.BytesIO(datum)
    try:
        record: Any = fastavro.schemaless_reader(stream, _parsed(writer_text), _parsed(newest(event).text))
    except (EOFError, IndexError, OverflowError, StopIteration, ValueError) as error:
        # fastavro raises these for bytes that the writer's schema does not fit.
        raise ValueError(f"undecodable: {error or type(error).__name__}") from None
    if rest := len(datum) - stream.tell():
        raise ValueError(f"undecodable: {rest} bytes left over")
    return dict(record)
