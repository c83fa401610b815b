"""What a schema says of its fields' values beyond their types, for whoever makes or checks values in Python.

The words are JSON Schema's and stand beside ``doc``, where neither Avro's parsing canonical form nor a fingerprint sees
them: ``minimum``, ``maximum``, ``minLength``, ``maxLength``, ``format``, ``maxItems``, ``uniqueItems``,
``maxProperties`` and, for a map's keys, ``propertyNames``. Those of an array's items or a map's values stand in their
type. Three are ours: ``notAbove`` (another field of the record), ``subsetOf`` (another list of it) and ``uniqueBy``
(what no two items of a list have alike). topology/java/vacancy/Bounds.java checks them where an event enters.

What always holds: a number has a minimum and a maximum, a text a maxLength or a format, a list maxItems, a map
maxProperties; and the doc of a field ends with :func:`in_words`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

FORMATS = {
    "printable-ascii": "printable ASCII characters without blanks",
    "resource-class": "upper-case letters, digits and underscores",
    "pci-id": "four lower-case hex digits",
    "uuid": "the 36 characters of a UUID",
}
"""What a format means; Bounds.java knows the same."""
MAX_EVENT_BYTES = 65_536
"""The largest event: the job takes none that is larger, and the agent sends none."""
COUNTER_END = 2**62 - 1
"""The maximum of every counter; schemas/fitting.py says what becomes of one that is larger."""

_PRIMITIVE = ("boolean", "int", "long", "float", "double", "string", "bytes", "null")


class Value(NamedTuple):
    """Where a schema has a value.

    Attributes:
        path: the names that lead to it; ``[]`` stands for an item of a list or a value of a map.
        type: what it is, without null: a name of Avro's, or "enum", "array", "map", "record".
        nullable: whether it may be null.
        bounds: what the schema says of it.
        siblings: the fields of its record, by name; empty for an item.
    """

    path: tuple[str, ...]
    type: str
    nullable: bool
    bounds: Mapping[str, Any]
    siblings: Mapping[str, Any]


def values(schema: Mapping[str, Any]) -> Iterator[Value]:
    """Every value of a record's schema, the outer ones first."""
    yield from _of_record(schema, ())


def plain(kind: Any) -> tuple[Any, bool]:
    """A type without null, as its name or its document, and whether null was in it."""
    if isinstance(kind, list):
        (one,) = [each for each in kind if each != "null"]
        return one, True
    return kind, False


def type_name(kind: Any) -> str:
    """The name of a type that is not a union."""
    return str(kind if isinstance(kind, str) else kind["type"])


def in_words(field: Mapping[str, Any]) -> str:
    """The bounds of a field, as its doc ends with them; empty if there are none."""
    kind = plain(field["type"])[0]
    own = {**(kind if isinstance(kind, dict) else {}), **field}
    parts = []
    if "minimum" in own:
        parts.append(f"{own['minimum']} to {own['maximum']}")
    parts += _text(own)
    if "maxItems" in own:
        parts.append(f"at most {own['maxItems']} items{_each(kind['items'])}")
    if "maxProperties" in own:
        parts.append(f"at most {own['maxProperties']} entries{_each(kind['values'])}")
    if names := own.get("propertyNames"):
        parts.append(f"keys are {', '.join(_text(names))}")
    if own.get("uniqueItems"):
        parts.append("no two alike")
    if "uniqueBy" in own:
        parts.append(f"no two with the same {', '.join(own['uniqueBy'])}")
    if "notAbove" in own:
        parts.append(f"not above {own['notAbove']}")
    if "subsetOf" in own:
        parts.append(f"all of them in {own['subsetOf']}")
    return f" Range: {'; '.join(parts)}." if parts else ""


def _text(own: Mapping[str, Any]) -> list[str]:
    meaning = FORMATS.get(own.get("format", ""))
    if "maxLength" in own:
        return [f"{own.get('minLength', 0)} to {own['maxLength']} {meaning or 'characters'}"]
    return [meaning] if meaning else []


def _each(kind: Any) -> str:
    if not isinstance(kind, dict) or kind["type"] not in _PRIMITIVE:
        return ""
    words = f"{kind['minimum']} to {kind['maximum']}" if "minimum" in kind else ", ".join(_text(kind))
    return f", each of {words}"


def _of_record(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Value]:
    siblings = {field["name"]: field for field in schema["fields"]}
    for name, field in siblings.items():
        kind, nullable = plain(field["type"])
        bounds = {**(kind if isinstance(kind, dict) else {}), **field}
        yield from _of_value(Value((*path, name), type_name(kind), nullable, bounds, siblings), kind)


def _of_value(value: Value, kind: Any) -> Iterator[Value]:
    yield value
    inner = (*value.path, "[]")
    if value.type == "record":
        yield from _of_record(kind, value.path)
    elif value.type in ("array", "map"):
        items = kind["items" if value.type == "array" else "values"]
        if type_name(items) == "record":
            yield from _of_record(items, inner)
        else:
            bounds = items if isinstance(items, dict) else {}
            yield Value(inner, type_name(items), False, bounds, {})
