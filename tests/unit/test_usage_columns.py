"""The lists that name the fields of a usage event agree with its schema."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.harness import oracle
from tests.harness.histories import usage_event
from vacancy.connectors.collectors.collector import UsageReading
from vacancy.jobs.simulator.fleet import NS_PER_S, PRESSURE, Fleet
from vacancy.schemas.events import Event, newest
from vacancy.schemas.usage import COUNTERS, GAUGES, HOST_COLUMNS, RESOURCES

FIELDS: dict[str, dict[str, Any]] = {field["name"]: field for field in newest(Event.USAGE).document["fields"]}
THE_AGENTS = {"host_id", "seq", "agent_time", "unknown"}
"""The fields that the agent adds to a collector's reading."""


def test_a_reading_has_the_fields_of_the_schema_and_its_defaults() -> None:
    fields = {field.name: field for field in dataclasses.fields(UsageReading)}
    assert fields.keys() == FIELDS.keys() - THE_AGENTS
    for name, field in fields.items():
        default = None if field.default is dataclasses.MISSING else field.default
        assert (field.default is not dataclasses.MISSING) == ("default" in FIELDS[name]), name
        assert (list(default) if isinstance(default, tuple) else default) == FIELDS[name].get("default"), name


def test_the_simulator_gives_fields_of_the_schema_and_all_that_have_no_default() -> None:
    fleet = Fleet(1, NS_PER_S, 0, 0)
    given = next(report.usage.keys() for report in (fleet.advance(0) for _ in range(fleet.slices)) if len(report.rows))
    assert given <= FIELDS.keys()
    assert FIELDS.keys() - given <= {name for name, field in FIELDS.items() if "default" in field}
    assert set(PRESSURE) <= {name for name, field in FIELDS.items() if isinstance(field["type"], list)}


def test_the_oracle_knows_the_counters_and_resources() -> None:
    """The oracle has its own lists, so that it shares no mistake; a column missing there would not be checked."""
    assert {counter.field: counter.rate for counter in COUNTERS} == oracle.COUNTERS
    assert {counter.field for counter in COUNTERS if counter.per == "cpu_time"} == set(oracle.CPU_FRACTIONS)
    assert RESOURCES == oracle.RESOURCES


def test_a_column_has_one_source() -> None:
    columns = [gauge.column for gauge in GAUGES] + [counter.rate for counter in COUNTERS]
    assert len(columns) == len(set(columns))
    assert set(columns) <= HOST_COLUMNS.keys()
    assert usage_event().keys() == FIELDS.keys()
