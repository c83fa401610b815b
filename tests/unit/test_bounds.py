"""The newest schemas say the range of each value, to programs and to people."""

from __future__ import annotations

import itertools

import pytest

from vacancy.schemas.bounds import COUNTER_END, FORMATS, MAX_EVENT_BYTES, Value, in_words, values
from vacancy.schemas.events import Event, newest

VALUES = [pytest.param(value, id=".".join(value.path)) for event in Event for value in values(newest(event).document)]


@pytest.mark.parametrize("value", VALUES)
def test_each_value_has_a_range_that_its_doc_says(value: Value) -> None:
    bounds = value.bounds
    if value.type in ("int", "long", "double"):
        assert bounds["minimum"] <= bounds["maximum"]
        assert bounds["maximum"] <= (2**31 - 1 if value.type == "int" else COUNTER_END)
    elif value.type == "string":
        assert "maxLength" in bounds or bounds["format"] in ("uuid", "pci-id")
        assert bounds.get("format") in (None, *FORMATS)
    elif value.type == "array":
        assert 0 < bounds["maxItems"] <= MAX_EVENT_BYTES
    elif value.type == "map":
        assert 0 < bounds["maxProperties"] <= MAX_EVENT_BYTES
        assert "maxLength" in bounds["propertyNames"]
    else:
        assert value.type == "enum"
    if value.path[-1] != "[]" and value.type != "enum":
        assert bounds["doc"].endswith(in_words(bounds)), in_words(bounds)
    for other in (bounds.get("notAbove"), bounds.get("subsetOf")):
        assert other is None or other in value.siblings


def test_the_schemas_say_how_large_an_event_may_be() -> None:
    for event in Event:
        assert f"at most {MAX_EVENT_BYTES} bytes" in newest(event).document["doc"]


def test_what_a_resource_has_more_of_is_as_wide() -> None:
    """What is free is capacity less allocated: both are of one range, so that it is of a range as well."""
    fields = {field["name"]: field for field in newest(Event.USAGE).document["fields"]}
    pairs = [name for name in fields if name.endswith("_capacity")]
    assert len(pairs) == 3
    for capacity, bound in itertools.product(pairs, ("minimum", "maximum")):
        assert fields[capacity][bound] == fields[capacity.replace("capacity", "allocated")][bound]
