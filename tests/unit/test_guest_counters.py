"""Sums over guests' devices never decrease, whichever guests and devices come and go."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.guest_counters import Sums

DEVICES = st.sampled_from(["vda", "vdb", "vnet0", "vnet1"])
STEPS = st.lists(st.dictionaries(DEVICES, st.tuples(st.integers(0, 50), st.integers(0, 50))), max_size=30)


def test_a_device_that_goes_keeps_what_it_counted() -> None:
    sums = Sums[str](1)
    assert sums.take({"vda": (5,), "vdb": (7,)}) == (12,)
    assert sums.take({"vda": (6,)}) == (13,)
    assert sums.take({}) == (13,)
    assert sums.take({"vdb": (2,)}) == (15,)


def test_a_device_that_begins_anew_adds_to_what_it_had_counted() -> None:
    sums = Sums[str](2)
    assert sums.take({"vda": (5, 5)}) == (5, 5)
    assert sums.take({"vda": (9, 4)}) == (14, 9)


def test_a_device_that_is_there_and_tells_nothing_counts_once() -> None:
    sums = Sums[str](1)
    assert sums.take({"vda": (5,)}) == (5,)
    assert sums.take({}, lambda _: True) == (5,)
    assert sums.take({"vda": (6,)}) == (6,)


@given(STEPS, st.sets(DEVICES))
def test_sums_never_go_back(steps: list[dict[str, tuple[int, int]]], silent: set[str]) -> None:
    sums = Sums[str](2)
    before: tuple[int, ...] = (0, 0)
    for step in steps:
        now = sums.take(step, silent.__contains__)
        known = tuple(value for value in now if value is not None)
        assert len(known) == 2
        assert all(new >= old for new, old in zip(known, before, strict=True))
        before = known


@given(st.lists(st.tuples(DEVICES, st.integers(0, 50), st.booleans()), max_size=40))
def test_what_devices_count_between_two_readings_is_what_the_sum_grows_by(steps: list[tuple[str, int, bool]]) -> None:
    """A device keeps counting, or starts again after a reading that did not find it."""
    sums, counts, total = Sums[str](1), defaultdict[str, int](int), 0
    for device, amount, goes in steps:
        if goes and device in counts:
            del counts[device]
            assert sums.take({name: (count,) for name, count in counts.items()}) == (total,)
        counts[device] += amount
        total += amount
        assert sums.take({name: (count,) for name, count in counts.items()}) == (total,)


def test_a_device_that_brings_what_it_counted_elsewhere_adds_what_it_counts_here() -> None:
    sums = Sums[str](1)
    assert sums.take({"eth0": (5,)}, began=lambda _: False) == (5,)
    assert sums.take({"eth0": (6,), "eth1": (10**12,)}, began=lambda _: False) == (6,)
    assert sums.take({"eth0": (6,), "eth1": (10**12 + 4,)}, began=lambda _: False) == (10,)


def test_one_counter_that_goes_back_or_is_not_told_is_not_known_and_costs_no_other() -> None:
    sums = Sums[str](2)
    assert sums.take({"eth0": (100, 10**12)}) == (100, 10**12)
    assert sums.take({"eth0": (99, 10**12 + 1)}, began=lambda _: False) == (None, 10**12 + 1)
    assert sums.take({"eth0": (None, 10**12 + 2)}, began=lambda _: False) == (None, 10**12 + 2)
    assert sums.take({"eth0": (109, 10**12 + 3)}, began=lambda _: False) == (110, 10**12 + 3)


@given(st.lists(st.dictionaries(DEVICES, st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))), max_size=12))
def test_no_known_sum_grows_by_more_than_devices_that_stayed_have(
    steps: list[dict[str, tuple[int, int]]],
) -> None:
    """Whatever comes, goes, and goes back."""
    sums = Sums[str](2)
    before: dict[str, tuple[int, int]] = {}
    most = [0, 0]
    for number, step in enumerate(steps):
        now = sums.take(step, began=lambda _: False)
        for index, value in enumerate(now):
            least = most[index]
            for name, row in step.items():
                former = before[name][index] if name in before else row[index] if number else 0
                most[index] += max(0, row[index] - former)
            assert value is None or least <= value <= most[index]
        before = step
