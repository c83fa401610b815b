"""What stands around a datum: which writer's schema it was written with, and where it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.events import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MARKER,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    SchemaVersion,
)

MAX_PAYLOAD_BYTES = 65_536
"""An event is some hundred bytes to some KiB; what is larger than this is none, and must not swell a batch."""

RegistryLookup = Callable[[int], str]
"""Schema id to schema text; raises LookupError if the registry does not know it."""


DATUM_ERRORS = (ArithmeticError, EOFError, LookupError, MemoryError, StopIteration, TypeError, ValueError)
"""What fastavro raises for bytes that are no datum of the schema."""


class BadPayloadError(Exception):
    """Why one payload is not an event: a few words, to be stored with it."""


class Framing:
    """Tells the writer's schema of a payload.

    Args:
        versions: the versions to know, by fingerprint.
        registry: looks up Confluent schema ids; None where no registry is configured.
    """

    def __init__(self, versions: Sequence[SchemaVersion], registry: RegistryLookup | None) -> None:
        self._by_header = {version.header: version.text for version in versions}
        self._registry = registry

    def unframe(self, payload: bytes | None) -> tuple[str, bytes]:
        """The writer's schema text and the datum behind the header.

        Raises:
            BadPayloadError: it is empty or too large, or its header is not one of ours.
        """
        if not payload:
            raise BadPayloadError("empty payload")
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadPayloadError(f"payload of more than {MAX_PAYLOAD_BYTES} bytes")
        if writer := self._by_header.get(payload[:SINGLE_OBJECT_HEADER_BYTES]):
            return writer, payload[SINGLE_OBJECT_HEADER_BYTES:]
        if payload.startswith(SINGLE_OBJECT_MARKER):
            if len(payload) < SINGLE_OBJECT_HEADER_BYTES:
                raise BadPayloadError(f"header cut short after {len(payload)} bytes")
            fingerprint = payload[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES]
            raise BadPayloadError(f"unknown schema fingerprint {fingerprint.hex()}")
        if self._registry is not None and payload.startswith(CONFLUENT_MARKER):
            schema_id = int.from_bytes(payload[len(CONFLUENT_MARKER) : CONFLUENT_HEADER_BYTES], "big")
            try:
                return self._registry(schema_id), payload[CONFLUENT_HEADER_BYTES:]
            except LookupError:
                raise BadPayloadError(f"the schema registry has no schema {schema_id}") from None
        raise BadPayloadError(f"not an Avro single-object encoding: starts with {payload[:2].hex()}")
