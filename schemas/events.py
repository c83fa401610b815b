"""The event schemas: every released version, found by fingerprint, and the framing around a datum.

What always holds:

- Every released version is in ``schemas/events/<event>/v<N>.avsc``. A reader with this folder decodes all of them, and
  any two versions of an event can read each other (tested).
- A frame is either the single-object encoding of the Avro specification (``C3 01``, then the CRC-64-AVRO fingerprint of
  the writer's schema, little-endian, 8 bytes) or, where a schema registry is configured, Confluent's wire format
  (``00``, then the schema id, big-endian, 4 bytes). The datum follows.
"""

from __future__ import annotations

import enum
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import fastavro.schema

SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10
CONFLUENT_MARKER = b"\x00"
READS_AS_HEADER = "vacancy.reads_as"
"""The Kafka header that lists older versions whose datum is a prefix of this single-object datum: their fingerprints,
newest first, 8 bytes each. Absent if there are none."""


class Event(enum.Enum):
    """The two kinds of event; the value is the folder with the event's schema versions."""

    USAGE = "host_usage"
    INVENTORY = "host_inventory"


@dataclass(frozen=True)
class SchemaVersion:
    """One released version of an event's schema.

    Attributes:
        event: the kind of event that it describes.
        version: 1 for the first release.
        text: the schema as JSON text, as released.
        fingerprint: CRC-64-AVRO of its parsing canonical form, 8 bytes, little-endian as on the wire.
    """

    event: Event
    version: int
    text: str
    fingerprint: bytes

    @property
    def header(self) -> bytes:
        """The 10 bytes in front of every single-object datum of this version."""
        return SINGLE_OBJECT_MARKER + self.fingerprint

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The schema as parsed JSON."""
        document: dict[str, Any] = json.loads(self.text)
        return document


def kafka_headers(versions: Sequence[SchemaVersion]) -> dict[str, str | bytes | None]:
    """The headers of every record in the single-object encoding that is written with the last of these versions."""
    former = b"".join(version.fingerprint for version in reversed(versions[:-1]))
    return {READS_AS_HEADER: former} if former else {}


def fingerprint(schema_text: str) -> bytes:
    """CRC-64-AVRO of a schema's parsing canonical form, 8 bytes, little-endian."""
    # The avro package is not used: its canonical form writes {"type":"long"} for a logical type, while the
    # specification and Avro's Java library, which other readers use, write "long".
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(schema_text))
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


@functools.cache
def released(event: Event) -> tuple[SchemaVersion, ...]:
    """Every released version of an event, oldest first."""
    versions = []
    for entry in resources.files("vacancy.schemas").joinpath("events", event.value).iterdir():
        if match := re.fullmatch(r"v(\d+)\.avsc", entry.name):
            text = entry.read_text(encoding="utf-8")
            versions.append(SchemaVersion(event, int(match[1]), text, fingerprint(text)))
    return tuple(sorted(versions, key=lambda version: version.version))


def newest(event: Event) -> SchemaVersion:
    """The version that this release writes, and into which it reads all versions."""
    return released(event)[-1]
