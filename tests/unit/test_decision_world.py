"""The fleet of the experiment with old tables: what is true, and what the table shows of it."""

from __future__ import annotations

import numpy as np
import pytest

from bench.decisions import nova
from bench.decisions.reporting import Reporter, each, each_and_instances, on_change
from bench.decisions.summary import difference, estimate
from bench.decisions.traces import generate
from bench.decisions.world import Load, World

LEVELS = generate(200, 288, seed=1)
SECONDS = 600
ENOUGH = Load(requests_per_s=0.02)


def world(seed: int = 1) -> World:
    return World(60, LEVELS, SECONDS, seed, ENOUGH)


def place_at_random(fleet: World, chance: np.random.Generator) -> None:
    for instance in fleet.requests().tolist():
        fleet.place(instance, int(chance.integers(fleet.hosts)))


def test_promises_are_those_of_the_instances_that_are_there() -> None:
    fleet, chance = world(), np.random.default_rng(2)
    for _ in range(SECONDS):
        fleet.advance()
        place_at_random(fleet, chance)
    there = np.flatnonzero((fleet.counts_from <= fleet.now) & (fleet.now < fleet.leaves_at))
    decided = np.flatnonzero((fleet.host >= 0) & (fleet.now < fleet.leaves_at))
    assert len(there) > 500
    assert len(decided) > len(there)
    for held, instances in ((fleet.counted, there), (fleet.allocated, decided)):
        expected = np.zeros_like(held)
        np.add.at(expected, fleet.host[instances], fleet.amounts[instances])
        assert np.array_equal(held, expected)
    assert (fleet.allocated <= fleet.capacity).all()
    assert fleet.starting.sum() == len(decided) - len(there)


def test_means_are_those_of_the_seconds() -> None:
    fleet, seen = world(), []
    for _ in range(320):
        fleet.advance()
        seen.append(fleet.cpu.copy())
    for seconds in (1, 60, 300):
        assert fleet.mean("cpu", seconds) == pytest.approx(np.mean(seen[-seconds:], axis=0))


def test_arms_with_one_seed_have_the_same_requests_and_the_same_noise() -> None:
    one, other = world(), world()
    for _ in range(260):
        one.advance()
        other.advance()
        asked = one.requests().tolist()
        assert asked == other.requests().tolist()
        for instance in asked:
            one.place(instance, 0)
            other.place(instance, 1)
    untouched = slice(2, None)
    assert np.array_equal(one.cpu[untouched], other.cpu[untouched])
    assert not np.array_equal(one.cpu, other.cpu)
    assert not np.array_equal(one.cpu, world(seed=2).cpu)


def test_rows_of_an_interval_are_at_most_so_old() -> None:
    fleet = world()
    reporter = Reporter(fleet, each(10), window_s=60)
    for _ in range(60):
        fleet.advance()
        reporter.advance()
    ages_s = reporter.ages_s()
    assert ages_s.max() <= 11
    assert ages_s.min() >= 1
    assert len(set(ages_s)) == 10
    assert reporter.reports == 60 * fleet.hosts // 10


def test_reports_on_change_keep_rows_within_the_tolerance() -> None:
    fleet, chance = world(), np.random.default_rng(2)
    reporter = Reporter(fleet, on_change(0.02, 30), window_s=60, lag_s=0)
    for _ in range(400):
        fleet.advance()
        place_at_random(fleet, chance)
        reporter.advance()
        assert np.abs(reporter.shown.cpu_utilization - fleet.mean("used", 60)).max() <= 0.02
        assert np.array_equal(reporter.shown.counted, fleet.counted)
        assert reporter.ages_s().max() <= 31
    assert reporter.reports < 0.4 * 400 * fleet.hosts


def test_an_instance_is_listed_by_the_row_that_counts_it() -> None:
    fleet = world()
    reporter = Reporter(fleet, each_and_instances(60), window_s=60)
    while not len(asked := fleet.requests()):
        fleet.advance()
        reporter.advance()
    instance = int(asked[0])
    before = reporter.shown.counted[3].copy()
    assert fleet.place(instance, 3)
    while fleet.consumer(instance) not in reporter.consumers[3]:
        assert (reporter.shown.counted[3] == before).all()
        fleet.advance()
        reporter.advance()
    assert fleet.now == fleet.counts_from[instance] + 1
    assert (reporter.shown.counted[3] == before + fleet.amounts[instance]).all()


def test_nova_takes_the_host_with_the_most_promised_room_and_no_other() -> None:
    free = np.array([[10, 20_000, 100], [30, 40_000, 300], [20, 60_000, 200]])
    memory = np.full(3, 100_000.0)
    arguments = (free, memory - free[:, 1], memory)
    assert nova.choose(np.array([True, True, True]), *arguments, np.zeros(3, np.int64)) == 1
    assert nova.choose(np.array([True, False, True]), *arguments, np.zeros(3, np.int64)) == 2
    assert nova.choose(np.array([True, True, True]), *arguments, np.array([0, 5, 0])) == 2
    assert nova.choose(np.zeros(3, bool), *arguments, np.zeros(3, np.int64)) is None


def test_intervals_are_over_seeds_and_differences_by_seed() -> None:
    assert estimate([1.0]).half == float("inf")
    assert estimate([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.30 / 3**0.5, 3))
    runs = [
        {"arm": arm, "hosts": 5, "source": "traces", "seed": seed, "busy": base + seed}
        for arm, base in (("a", 1.0), ("b", 3.0))
        for seed in range(3)
    ]
    assert difference(runs, "b", "a", "busy") == (2.0, 0.0, 3)
