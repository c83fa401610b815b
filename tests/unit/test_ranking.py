"""The fullness of a host, and the figure that decides it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vacancy.connectors.scheduler.ranking import (
    Amount,
    Limits,
    Measured,
    fullness,
    makes_sense,
    over_limit,
    with_typical,
)

MACHINE = Amount(64, 262_144)
REQUEST = Amount(4, 8192)
LIMITS = Limits()
IDLE = Measured(1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 262_144, 0)
anything = st.one_of(st.none(), st.floats(), st.integers(-(10**18), 10**18))


def full(**figures: Any) -> tuple[float, str] | None:
    return fullness(IDLE._replace(**figures), REQUEST, MACHINE, LIMITS)


def test_cpus_count_with_what_is_claimed_and_what_is_asked_for() -> None:
    assert full() == (0.25 + 4 / 64, "cpu_utilization")
    assert full(vcpus_claimed=16) == (0.25 + 20 / 64, "cpu_utilization")


def test_memory_counts_once_it_is_scarcer_than_cpus() -> None:
    assert full(memory_mb_available=65_536 + 8192) == (0.75, "memory_mb_available")


@pytest.mark.parametrize(
    ("figure", "value"), [("cpu_steal", 0.05), ("cpu_pressure", 0.25), ("memory_pressure", 0.05), ("io_pressure", 0.25)]
)
def test_half_way_to_a_limit_is_half_full(figure: str, value: float) -> None:
    assert full(**{figure: value}) == (0.5, figure)


def test_what_is_not_known_rules_nothing_out_and_says_nothing() -> None:
    nothing = Measured(1.0)
    assert fullness(nothing, REQUEST, MACHINE, LIMITS) is None
    assert over_limit(nothing, REQUEST, LIMITS, 0) is None
    assert fullness(IDLE, REQUEST, Amount(0, 0), LIMITS) is None


@pytest.mark.parametrize("figure", ["cpu_utilization", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure"])
@pytest.mark.parametrize("unknown", [None, math.nan, -1.0, 7.0])
def test_what_one_host_does_not_know_counts_as_the_others_median(figure: str, unknown: float | None) -> None:
    limit = getattr(LIMITS, figure)
    values: list[dict[str, Any]] = [{figure: value} for value in (unknown, 0.5 * limit, 0.7 * limit, 0.9 * limit)]
    silent, *others = (IDLE._replace(**value) for value in values)
    filled = with_typical([silent, *others])
    assert getattr(filled[0], figure) == 0.7 * limit
    assert filled[1:] == others
    assert fullness(filled[0], REQUEST, MACHINE, LIMITS) == fullness(others[1], REQUEST, MACHINE, LIMITS)
    assert with_typical([silent, silent]) == [silent, silent] or math.isnan(unknown or 0)
    assert with_typical([]) == []


def test_a_host_is_over_a_limit_not_at_it() -> None:
    assert over_limit(IDLE._replace(cpu_steal=0.1), REQUEST, LIMITS, 0) is None
    assert over_limit(IDLE._replace(cpu_steal=0.11), REQUEST, LIMITS, 0) == "cpu_steal"
    assert over_limit(IDLE._replace(memory_mb_available=8192), REQUEST, LIMITS, 0) is None
    assert over_limit(IDLE._replace(memory_mb_available=8192), REQUEST, LIMITS, 1) == "memory_mb_available"


@given(st.builds(Measured, *[anything] * 8))
@example(Measured(1.0, cpu_utilization=0.0, vcpus_claimed=math.inf))
def test_garbage_never_raises_and_never_yields_what_is_no_number(row: Measured) -> None:
    full = fullness(row, REQUEST, MACHINE, LIMITS)
    assert full is None or math.isfinite(full[0])
    over_limit(row, REQUEST, LIMITS, 0)
    makes_sense(row)
