"""Which values of an event are out of the bounds that its schema says; shares no code with the job's own check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vacancy.schemas.bounds import plain, type_name
from vacancy.schemas.events import Event, newest


def out_of_range(event: Event, record: Mapping[str, Any]) -> list[str]:
    """The names and values of what is out of bounds in an event; a field with a default may be missing."""
    return list(_of_record(newest(event).document, record, ""))


def _of_record(schema: Mapping[str, Any], record: Mapping[str, Any], path: str) -> Iterator[str]:
    for field in schema["fields"]:
        name = field["name"]
        if record.get(name) is not None:
            yield from _of_value(field["type"], field, record[name], path + name)
            other = field.get("notAbove")
            if other and record[name] > record[other]:
                yield f"{path}{name} is {record[name]}, above {other}"
            other = field.get("subsetOf")
            if other and not set(record[name]) <= set(record[other]):
                yield f"{path}{name} has more than {other}"


def _of_value(kind: Any, beside: Mapping[str, Any], value: Any, name: str) -> Iterator[str]:
    kind, _ = plain(kind)
    bounds = {**(kind if isinstance(kind, Mapping) else {}), **beside}
    match type_name(kind):
        case "int" | "long" | "double":
            if not bounds["minimum"] <= value <= bounds["maximum"]:
                yield f"{name} is {value}"
        case "string":
            if not bounds.get("minLength", 0) <= len(value) <= bounds.get("maxLength", 36):
                yield f"{name} is {value!r}"
        case "array":
            if len(value) > bounds["maxItems"]:
                yield f"{name} has {len(value)} items"
            keys = [tuple(str(item.get(key)) for key in bounds["uniqueBy"]) for item in value if "uniqueBy" in bounds]
            if len(set(keys)) < len(keys) or (bounds.get("uniqueItems") and len(set(value)) < len(value)):
                yield f"{name} has an item twice"
            for item in value:
                yield from _of_value(kind["items"], {}, item, f"{name}[]")
        case "map":
            if len(value) > bounds["maxProperties"]:
                yield f"{name} has {len(value)} entries"
            for entry in value.values():
                yield from _of_value(kind["values"], {}, entry, f"{name}[]")
        case "record":
            yield from _of_record(kind, value, f"{name}.")
