"""The decoders take what is on each bound of each value, and refuse what is beyond, by its name."""

from __future__ import annotations

import pytest

from tests.flink.decoders import Decoder
from tests.harness.poison import HOST, Case, at_the_bounds, beyond_the_bounds, good
from vacancy.schemas.bounds import values
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event, newest


@pytest.fixture(scope="module")
def decoders() -> dict[Event, Decoder]:
    return {event: Decoder(event) for event in Event}


def cases(each: list[Case]) -> list[object]:
    return [pytest.param(case, id=f"{case.event.value}: {case.what}") for case in each]


def test_there_is_a_case_for_each_value() -> None:
    beyond = {(case.event, case.what.partition(":")[0]) for case in beyond_the_bounds()}
    for event in Event:
        for value in values(newest(event).document):
            if value.type != "enum":  # whose unknown symbols read as its default
                assert (event, ".".join(value.path)) in beyond or value.bounds.get("type") == "record", value.path


@pytest.mark.parametrize("event", Event)
def test_the_event_that_all_are_made_from_is_good(decoders: dict[Event, Decoder], event: Event) -> None:
    assert decoders[event].row(HOST, Encoder(event).encode(good(event)))["reason"] is None


@pytest.mark.parametrize("case", cases(list(at_the_bounds())))
def test_what_is_on_a_bound_is_taken(decoders: dict[Event, Decoder], case: Case) -> None:
    assert decoders[case.event].row(HOST, case.payload)["reason"] is None


@pytest.mark.parametrize("case", cases(list(beyond_the_bounds())))
def test_what_is_beyond_a_bound_is_refused_by_its_name(decoders: dict[Event, Decoder], case: Case) -> None:
    row = decoders[case.event].row(HOST, case.payload)
    reason = str(row.pop("reason"))
    assert reason.startswith("invalid: "), reason
    assert case.name in reason
    assert reason.replace("…", "").isascii()
    assert reason.isprintable()
    assert len(reason) < 1000
    assert set(row.values()) == {None}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("append_ms", [-(2**63), -1, 253_402_300_800_000, 2**63 - 1])
def test_a_time_that_no_table_can_show_is_refused(decoders: dict[Event, Decoder], event: Event, append_ms: int) -> None:
    """Neither Python nor many others know a year 10000; a tombstone's time counts as well."""
    payloads: list[bytes | None] = [Encoder(event).encode(good(event)), b""]
    for payload in payloads if event is Event.USAGE else [*payloads, None]:
        row = decoders[event].row(HOST, payload, append_ms=append_ms)
        assert row.pop("reason") == f"invalid: append_time is {append_ms}, not 0 to 253402300799999"
        assert set(row.values()) == {None}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("append_ms", [0, 253_402_300_799_999])
def test_a_time_on_the_bounds_is_taken(decoders: dict[Event, Decoder], event: Event, append_ms: int) -> None:
    assert decoders[event].row(HOST, Encoder(event).encode(good(event)), append_ms=append_ms)["reason"] is None
