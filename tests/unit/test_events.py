"""The released schemas are found by fingerprint, documented, and able to read each other."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.compatibility import begins_with, incompatibilities
from vacancy.schemas.events import READS_AS_HEADER, Event, SchemaVersion, fingerprint, kafka_headers, newest, released

VERSIONS = [version for event in Event for version in released(event)]
PAIRS = [pair for event in Event for pair in itertools.product(released(event), repeat=2)]


def _name(version: SchemaVersion) -> str:
    return f"{version.event.value}-v{version.version}"


@pytest.mark.parametrize(
    ("schema", "crc"),
    [
        # From Avro's own test data, share/test/data/schema-tests.txt.
        ('"null"', 0x63DD24E7CC258F8A),
        ('"int"', 0x7275D51A3F395C8F),
        ('{"type": "string"}', 0x8F014872634503C7),
    ],
)
def test_fingerprint_is_crc_64_avro(schema: str, crc: int) -> None:
    assert fingerprint(schema) == crc.to_bytes(8, "little")


def test_fingerprint_ignores_docs_defaults_and_logical_types() -> None:
    bare = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}'
    dressed = (
        '{"name": "R", "type": "record", "doc": "d", "fields":'
        ' [{"doc": "f", "name": "a", "default": 0, "type": {"type": "long", "logicalType": "timestamp-millis"}}]}'
    )
    assert fingerprint(bare) == fingerprint(dressed)


@pytest.mark.parametrize("event", Event)
def test_versions_are_numbered_from_one_without_gaps(event: Event) -> None:
    assert [version.version for version in released(event)] == list(range(1, len(released(event)) + 1))


@pytest.mark.parametrize("version", VERSIONS, ids=_name)
def test_every_version_is_found_by_its_header_alone(version: SchemaVersion) -> None:
    assert version.header == b"\xc3\x01" + fingerprint(version.text)
    assert [other for other in VERSIONS if other.header == version.header] == [version]


@pytest.mark.parametrize("version", VERSIONS, ids=_name)
def test_every_record_and_field_has_a_doc(version: SchemaVersion) -> None:
    undocumented = [name for name, doc in _docs(version.document) if not doc.strip()]
    assert undocumented == []


@pytest.mark.parametrize(("reader", "writer"), PAIRS, ids=_name)
def test_any_two_versions_read_each_other(reader: SchemaVersion, writer: SchemaVersion) -> None:
    assert incompatibilities(reader.text, writer.text) == []


@pytest.mark.parametrize("event", Event)
def test_data_begin_with_those_of_each_version_before(event: Event) -> None:
    """This is the promise of READS_AS_HEADER."""
    added = _with_fields(newest(event), lambda fields: [*fields, {"name": "added", "type": "long", "default": 0}])
    versions = [version.text for version in released(event)] + [added]
    assert [pair for pair in itertools.pairwise(versions) if not begins_with(*reversed(pair))] == []
    assert not begins_with(_with_fields(newest(event), lambda fields: fields[::-1]), newest(event).text)
    assert not begins_with(_with_fields(newest(event), lambda fields: fields[:-1]), newest(event).text)


def _with_fields(version: SchemaVersion, change: Callable[[list[Any]], list[Any]]) -> str:
    return json.dumps(version.document | {"fields": change(version.document["fields"])})


def test_a_record_says_as_which_versions_it_may_be_read() -> None:
    first, second, third = (SchemaVersion(Event.USAGE, number, "", bytes([number]) * 8) for number in (1, 2, 3))
    assert kafka_headers([first]) == {}
    assert kafka_headers([first, second, third]) == {READS_AS_HEADER: second.fingerprint + first.fingerprint}


@pytest.mark.parametrize("event", Event)
def test_a_field_without_a_default_is_refused(event: Event) -> None:
    document = copy.deepcopy(newest(event).document)
    document["fields"].append({"name": "added", "type": "long", "doc": "No default."})
    assert incompatibilities(json.dumps(document), newest(event).text) != []
    assert incompatibilities(newest(event).text, json.dumps(document)) == []


def test_a_changed_type_is_refused() -> None:
    document = copy.deepcopy(newest(Event.USAGE).document)
    next(field for field in document["fields"] if field["name"] == "seq")["type"] = "string"
    assert incompatibilities(json.dumps(document), newest(Event.USAGE).text) != []
    assert incompatibilities(newest(Event.USAGE).text, json.dumps(document)) != []


def _docs(schema: Any) -> Iterator[tuple[str, str]]:
    """Name and doc of every record, enum and field in a schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _docs(branch)
    if isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            yield schema["name"], schema.get("doc", "")
        for field in schema.get("fields", []):
            yield f"{schema['name']}.{field['name']}", field.get("doc", "")
            yield from _docs(field["type"])
        for inner in ("type", "items", "values"):
            if isinstance(schema.get(inner), dict | list):
                yield from _docs(schema[inner])
