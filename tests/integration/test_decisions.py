"""The experiment with old tables: the real table says what its arm says, and the claims are the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from bench.decisions.arms import interval, run
from bench.decisions.reporting import Reporter, each
from bench.decisions.table import Table, sessions
from bench.decisions.traces import generate
from bench.decisions.world import FLAVOURS, Load, World
from tests.harness.rows import query
from vacancy.connectors.postgres.migrations import migrate

LEVELS = generate(200, 288, seed=1)
REQUEST = {"max_age": "60 s", "claim_ttl": "1 d"}
HOSTS = 50


@pytest.fixture
def connections(database: str) -> Iterator[list[Connection]]:
    migrate(SecretStr(database))
    with sessions(database, 4) as made:
        yield made


@pytest.fixture
def fleet() -> World:
    return World(HOSTS, LEVELS, 400, 1, Load(filled=0.5, requests_per_s=0.02))


def prepared(fleet: World, connections: list[Connection], seconds: int, **options: Any) -> tuple[Table, Reporter]:
    table, reporter = Table(connections, fleet, REQUEST, **options), Reporter(fleet, each(10), window_s=60)
    for _ in range(seconds):
        fleet.advance()
        reporter.advance()
    table.write(reporter)
    return table, reporter


def test_the_table_says_what_the_arm_says(fleet: World, connections: list[Connection]) -> None:
    _, reporter = prepared(fleet, connections, 100)
    rows = query(
        connections[0],
        "SELECT extract(epoch FROM age)::float8, vcpus_free, memory_mb_available, cpu_utilization, reason"
        " FROM vacancy.schedulable_host ORDER BY host_id",
    )
    ages_s, vcpus, available, utilization, reasons = map(np.array, zip(*rows, strict=True))
    assert (np.abs(ages_s - reporter.ages_s()) < 5).all()  # the clock of the server went on
    assert np.array_equal(vcpus, (fleet.capacity - reporter.shown.counted)[:, 0])
    assert np.array_equal(available, reporter.shown.memory_mb_available.astype(int))
    assert utilization == pytest.approx(reporter.shown.cpu_utilization)
    assert set(reasons) == {None}


def test_a_shrunk_figure_is_nearer_to_the_mean_by_its_age(fleet: World, connections: list[Connection]) -> None:
    _, reporter = prepared(fleet, connections, 100, shrunk=True)
    rows = query(connections[0], "SELECT cpu_utilization FROM vacancy.host ORDER BY host_id")
    shown, mean = reporter.shown.cpu_utilization, reporter.shown.cpu_utilization.mean()
    kept = 1 - 0.28 * reporter.ages_s() / 300
    assert [utilization for (utilization,) in rows] == pytest.approx(mean + (shown - mean) * kept)
    assert kept.min() < 0.992 < kept.max()


def test_a_claim_counts_until_the_row_lists_its_instance(fleet: World, connections: list[Connection]) -> None:
    table, reporter = prepared(fleet, connections[:1], 100)
    while not len(asked := fleet.requests()):
        fleet.advance()
        reporter.advance()
    [(instance, host), *_] = list(table.decide(asked.tolist()[:1]))
    assert host is not None
    assert fleet.place(instance, host)
    in_flight = "SELECT count(*) FROM vacancy.claim WHERE settled_at IS NULL"
    began = fleet.now
    while query(connections[0], in_flight) != [(0,)]:
        assert fleet.now <= began + 40
        fleet.advance()
        reporter.advance()
        table.write(reporter)
    assert reporter.shown.reported_at[host] >= fleet.counts_from[instance]


def test_a_burst_that_is_not_counted_goes_to_one_host(fleet: World, connections: list[Connection]) -> None:
    hosts = {}
    for counted in (True, False):
        table = Table(connections[:1], fleet, REQUEST | {"sample": 1000}, counted=counted)
        reporter = Reporter(fleet, each(10), window_s=60)
        fleet.advance()
        table.write(reporter)
        fleet.amounts[fleet.first_request : fleet.first_request + 20] = FLAVOURS[3]
        burst = range(fleet.first_request, fleet.first_request + 20)
        hosts[counted] = [host for _, host in table.decide(burst)]
    assert len(set(hosts[False])) == 1
    assert len(set(hosts[True])) > 3


def test_schedulers_of_a_round_do_not_see_each_other_and_all_get_a_host(
    fleet: World, connections: list[Connection]
) -> None:
    table, _ = prepared(fleet, connections, 20)
    burst = list(range(fleet.first_request, fleet.first_request + 10))
    answers = dict(table.decide(burst))
    assert sorted(answers) == burst
    assert None not in answers.values()
    assert query(connections[0], "SELECT count(*) FROM vacancy.claim") == [(10,)]


def test_an_old_table_is_further_off_and_claims_that_count_never_overfill(database: str) -> None:
    migrate(SecretStr(database))
    load = Load(filled=0.9, requests_per_s=0.02)
    fresh, old, uncounted = (
        run(arm, database, HOSTS, LEVELS, 3, 120)
        for arm in (
            interval(1, load=load),
            interval(60, load=load),
            interval(60, "claims not counted", load=load, counted=False),
        )
    )
    assert fresh["asked"] == old["asked"] == uncounted["asked"] > 30
    assert fresh["turned_out_full"] == old["turned_out_full"] == 0
    assert old["row_error"] > 2 * fresh["row_error"]
    assert fresh["events_a_host_s"] == pytest.approx(1, abs=0.01)
    assert old["events_a_host_s"] == pytest.approx(1 / 60, abs=0.005)
