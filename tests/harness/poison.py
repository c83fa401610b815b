"""Events that a schema allows just so, and those just beyond: one at least for each value and each of its bounds.

They are made from the newest schemas alone, by :mod:`vacancy.schemas.bounds`: a new field or bound has its own at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vacancy.schemas.bounds import Value, plain, type_name, values
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event, newest

HOST = "poison"
"""The host that all of them speak for; it is their key as well."""
_ENCODERS = {event: Encoder(event) for event in Event}
_TEXTS = {
    "printable-ascii": HOST,
    "resource-class": "CUSTOM_A",
    "pci-id": "8086",
    "uuid": "6fdb7a3e-8a1c-4d3a-9c80-0f6d0b0a3f01",
}
_FOREIGN = {"printable-ascii": "a b", "resource-class": "custom_a", "pci-id": "80g6", "uuid": _TEXTS["uuid"][:-1] + "g"}
"""Texts of the right length with a character that is not of the format."""


class Case(NamedTuple):
    """An event, what is special about it, and the name of what is out of bounds; that is "" where nothing is."""

    event: Event
    what: str
    payload: bytes
    name: str


def good(event: Event) -> dict[str, Any]:
    """An event in which each value is there and as small as it may be."""
    return _record(newest(event).document, 0)


def at_the_bounds() -> Iterator[Case]:
    """An event for each bound of each value, which is on it."""
    for event, value in _values():
        if value.path == ("host_id",):
            continue  # another one would not be the key
        for what, replaced in _inside(value):
            yield _case(event, value, what, replaced, name="")


def beyond_the_bounds() -> Iterator[Case]:
    """An event for each bound of each value, which is one step beyond it."""
    for event, value in _values():
        name = next(part for part in reversed(value.path) if part != "[]")
        for what, replaced in _outside(value):
            yield _case(event, value, what, replaced, name)


def _values() -> Iterator[tuple[Event, Value]]:
    for event in Event:
        for value in values(newest(event).document):
            yield event, value


def _case(event: Event, value: Value, what: str, replaced: Any, name: str) -> Case:
    record = copy.deepcopy(good(event))
    _set(record, value, replaced)
    return Case(event, f"{'.'.join(value.path)}: {what}", _ENCODERS[event].encode(record), name)


def _inside(value: Value) -> Iterator[tuple[str, Any]]:
    bounds = value.bounds
    if value.nullable:
        yield "null", None
    if "minimum" in bounds:
        yield "minimum", bounds["minimum"]
        yield "maximum", bounds["maximum"]
    if value.type == "string" and "maxLength" in bounds:
        yield "minLength", _text(bounds, bounds.get("minLength", 0))
        yield "maxLength", _text(bounds, bounds["maxLength"])
        if "format" not in bounds:
            yield "maxLength of four bytes each", "\U0001f600" * bounds["maxLength"]
    yield from _counted(value, 0)


def _outside(value: Value) -> Iterator[tuple[str, Any]]:
    bounds = value.bounds
    if "minimum" in bounds:
        if value.type == "double":
            ratios = (bounds["minimum"] / 2, 0.0, -1.0, 5e-324, bounds["maximum"] * 1.001, 1e308)
            yield from ((str(ratio), ratio) for ratio in (*ratios, float("inf"), float("nan")))
        else:
            end = 2**31 if value.type == "int" else 2**63
            steps = (bounds["minimum"] - 1, -end, bounds["maximum"] + 1, end - 1)
            yield from ((str(step), step) for step in steps)
    if value.type == "string":
        if bounds.get("minLength"):
            yield "empty", ""
        if "maxLength" in bounds:
            yield "too long", _text(bounds, bounds["maxLength"] + 1)
        if "format" in bounds:
            text = _TEXTS[bounds["format"]]
            yield "foreign", _FOREIGN[bounds["format"]]
            yield from ((f"with {character!r}", text[:-1] + character) for character in ("\0", "\n", "é", "\x1b"))
            if "maxLength" not in bounds:
                yield "too short", text[:-1]
                yield "too long", text + text[-1]
    yield from _counted(value, 1)
    if value.type == "map":
        names = bounds["propertyNames"]
        inner = _value(plain(bounds["type"])[0]["values"], names, 0)
        yield "a key too long", {_text(names, names["maxLength"] + 1): inner}
        if names.get("minLength"):
            yield "an empty key", {"": inner}
        if "format" in names:
            yield "a foreign key", {_FOREIGN[names["format"]]: inner}
    if bounds.get("uniqueItems"):
        yield "an item twice", [0, 0]
    if "uniqueBy" in bounds:
        item = _value(plain(bounds["type"])[0]["items"], {}, 0)
        yield "an item twice", [item, item]
    if "notAbove" in bounds:
        yield "above the other", value.siblings[bounds["notAbove"]]["minimum"] + 1
    if "subsetOf" in bounds:
        yield "an item more", [0, 1]


def _counted(value: Value, more: int) -> Iterator[tuple[str, Any]]:
    """As many items or entries as may be, and so many more."""
    if "maxItems" in value.bounds:
        items = plain(value.bounds["type"])[0]["items"]
        count = value.bounds["maxItems"] + more
        yield f"{count} items", [_value(items, {}, number) for number in range(count)]
    if "maxProperties" in value.bounds:
        kind = plain(value.bounds["type"])[0]["values"]
        names = value.bounds["propertyNames"]
        count = value.bounds["maxProperties"] + more
        entries = {
            f"{_text(names, max(1, names.get('minLength', 0)))}{number}": _value(kind, {}, number)
            for number in range(count)
        }
        yield f"{count} entries", entries


def _set(record: dict[str, Any], value: Value, replaced: Any) -> None:
    """Puts a value at a path, and beside it what has to go with it."""
    *outer, last = value.path
    place: Any = record
    for part in outer:
        place = _first(place) if part == "[]" else place[part]
    if last == "[]":
        if isinstance(place, list):
            place[:] = [replaced]
        else:
            place[next(iter(place))] = replaced
        if outer[-1] == "cpus":
            _parent(record, outer)["free_cpus"] = []
        if outer[-1] == "free_cpus" and value.bounds["minimum"] <= replaced <= value.bounds["maximum"]:
            _parent(record, outer)["cpus"] = [replaced]
        return
    place[last] = replaced
    if last == "cpus":
        place["free_cpus"] = []
    if last == "free_cpus" and replaced != [0, 1] and len(replaced) <= value.bounds["maxItems"]:
        place["cpus"] = sorted(set(replaced))
    other = value.bounds.get("notAbove")
    if other and replaced != 1 and value.siblings[other]["minimum"] <= replaced <= value.siblings[other]["maximum"]:
        place[other] = replaced


def _parent(record: dict[str, Any], path: list[str]) -> Any:
    place: Any = record
    for part in path[:-1]:
        place = _first(place) if part == "[]" else place[part]
    return place


def _first(container: Any) -> Any:
    return container[0] if isinstance(container, list) else next(iter(container.values()))


def _record(schema: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {field["name"]: _value(field["type"], field, number) for field in schema["fields"]}


def _value(kind: Any, beside: Mapping[str, Any], number: int) -> Any:
    """The number-th value of a type: as small as may be, but for what tells items of a list apart."""
    kind, _ = plain(kind)
    bounds = {**(kind if isinstance(kind, Mapping) else {}), **beside}
    match type_name(kind):
        case "int" | "long":
            apart = beside.get("name") in ("id", "size_kb") or not beside
            return bounds["minimum"] + (number if apart else 0)
        case "double":
            return bounds["minimum"]
        case "string":
            return f"{number:04x}" if beside.get("name") == "product_id" else _text(bounds, bounds.get("minLength", 0))
        case "enum":
            return kind["symbols"][0]
        case "array":
            # Each CPU in one cell: those of the number-th begin where the others are not.
            return [_value(kind["items"], {}, number if beside.get("subsetOf") or beside.get("uniqueItems") else 0)]
        case "map":
            names = bounds["propertyNames"]
            return {_text(names, max(1, names.get("minLength", 0))): _value(kind["values"], {}, 0)}
        case "record":
            return _record(kind, number)
        case other:
            raise AssertionError(f"no value of type {other}")


def _text(bounds: Mapping[str, Any], length: int) -> str:
    if "format" not in bounds:
        return "x" * length
    text = _TEXTS[bounds["format"]]
    if "maxLength" not in bounds:
        return text
    return text if length == bounds.get("minLength") and text == HOST else (text * length)[:length]
