"""A database that is away, silent, slow, empty, stale, incomplete or full of garbage.

No request fails or waits longer than the time-out, and every fault is counted.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from statistics import quantiles
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from tests.nova.conftest import Databases, Nova
from tests.nova.fleet import rows
from vacancy.jobs.ports import free_port

HOSTS, REQUESTS = 100, 30
LIMIT_MS = 60.0
GRADED = {"cpu_utilization": "number / 200.0", "memory_mb_available": "262144"}
FIGURES = "position age_seconds cpu_utilization cpu_steal cpu_pressure memory_pressure io_pressure"
FIGURES += " memory_mb_available vcpus_claimed"
ANSWERING = ["none", "empty", "stale", "half of the hosts missing", "the best hosts' rows old", "garbage in rows"]
AGED = {"observed_at": "now() - CASE WHEN number <= 10 THEN interval '850 s' ELSE interval '0 s' END"}
"""Rows are stale after 1,000 s, so that a slow machine does not make the other rows stale."""
GARBAGE = {
    "cpu_utilization": "CASE number %% 4 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN 'Infinity' WHEN 2 THEN -3 ELSE 0.2 END",
    "cpu_steal": "CASE WHEN number %% 5 = 0 THEN 'NaN'::float8 ELSE 7e300 END",
    "memory_mb_available": "CASE WHEN number %% 2 = 0 THEN -9e17::bigint ELSE 9e17::bigint END",
    "io_pressure": "NULL",
}


@pytest.fixture(scope="module")
def seen(nova: Nova, databases: Databases) -> dict[str, Any]:
    well = databases.make(HOSTS, GRADED)
    slow = databases.make(HOSTS, GRADED)
    with closing(psycopg2.connect(slow)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION vacancy.measured(text[]) RENAME TO really_measured")
        out = ", ".join(f'OUT "{name}" text' for name in FIGURES.split())
        cursor.execute(
            f"CREATE FUNCTION vacancy.measured(hosts text[], {out}) LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.5); END $$"
        )
    half = databases.make(HOSTS // 2, GRADED)
    parts = parse_dsn(well)
    away = f"host=127.0.0.1 port={free_port()} user=nobody dbname=vacancy"
    seen: dict[str, Any] = nova.run(
        "faults",
        databases={
            "none": well,
            "away": away,
            "slow server": slow,
            "no tables": databases.make(0),
            "empty": databases.make(0, {}),
            "stale": databases.make(HOSTS, GRADED | {"observed_at": "now() - interval '1 hour'"}),
            "half of the hosts missing": half,
            "the best hosts' rows old": databases.make(HOSTS, GRADED | AGED),
            "garbage in rows": databases.make(HOSTS, GARBAGE),
            "not a dsn": "hunter2 hunter2",
        },
        answering=ANSWERING,
        hosts=HOSTS,
        requests=REQUESTS,
        behind={"port": int(parts["port"]), "user": parts["user"], "dbname": parts["dbname"]},
    )
    for fault, one in seen.items():
        cuts = quantiles(one["took_ms"], n=100)
        print(
            f"\n{fault}: {len(one['took_ms'])} requests, {one['failed']} failed; added p50 {cuts[49]:.1f} ms,"
            f" max {max(one['took_ms']):.1f} ms; {one['counts']}"
        )
    assert rows(well, "SELECT count(*) FROM vacancy.host") == [(HOSTS,)]
    return seen


FAULTS = ["away", "silent", "slow server", "slow network", "no tables", "not a dsn"]


@pytest.mark.parametrize("fault", [*ANSWERING, *FAULTS])
def test_no_request_fails(seen: dict[str, Any], fault: str) -> None:
    assert seen[fault]["failed"] == 0
    assert len(seen[fault]["best"]) >= REQUESTS


@pytest.mark.timing
@pytest.mark.parametrize("fault", [*ANSWERING, *FAULTS])
def test_the_added_latency_is_bounded(seen: dict[str, Any], fault: str) -> None:
    # One request in this many may wait for a busy core; the time-out itself is 50 ms.
    assert sorted(seen[fault]["took_ms"])[-2] < LIMIT_MS


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("away", {"unreachable"}),
        ("silent", {"timeout"}),
        ("slow server", {"timeout"}),
        ("slow network", {"timeout"}),
        ("no tables", {"refused"}),
        ("not a dsn", {"refused"}),
    ],
)
def test_a_fault_is_counted_and_the_next_requests_do_not_pay_for_it(
    seen: dict[str, Any], fault: str, kinds: set[str]
) -> None:
    counts = Counter(seen[fault]["counts"])
    assert kinds <= set(counts)
    assert counts["reads"] == 0
    assert counts["paused"] + sum(counts[kind] for kind in kinds) == REQUESTS
    assert counts["paused"] > REQUESTS / 2
    assert len({number for number, _ in seen[fault]["best"]}) == 1  # weights of 0 keep Nova's own order
    [line] = seen[fault]["log"]  # the first at once, the others once a minute
    assert line.startswith("1 requests were ranked without the table")
    assert "hunter2" not in line


def best_read(seen: dict[str, Any], fault: str) -> list[int]:
    """The hosts that won in requests that read the table; under load a read may time out."""
    return [number for number, read in seen[fault]["best"] if read]


def test_hosts_without_a_row_or_with_an_old_one_are_counted_and_rank_in_the_middle(seen: dict[str, Any]) -> None:
    counts = {fault: Counter(seen[fault]["counts"]) for fault in ANSWERING}
    half = "half of the hosts missing"
    assert counts["empty"]["hosts_missing"] == HOSTS * counts["empty"]["reads"]
    assert counts["stale"]["hosts_stale"] == HOSTS * counts["stale"]["reads"]
    assert counts[half]["hosts_missing"] == HOSTS // 2 * counts[half]["reads"]
    assert counts["none"]["hosts_missing"] == counts["none"]["hosts_stale"] == 0
    assert max(best_read(seen, half)) <= HOSTS // 2  # hosts known to be emptier than the median come first


def test_the_older_a_row_the_less_it_counts(seen: dict[str, Any]) -> None:
    assert min(best_read(seen, "the best hosts' rows old")) > 10


@pytest.mark.timing  # the best hosts win rarely, so most reads must be in time
def test_the_best_hosts_win_while_their_rows_are_new(seen: dict[str, Any]) -> None:
    assert min(best_read(seen, "none")) <= 10


def test_figures_that_cannot_be_are_counted_and_left_out(seen: dict[str, Any]) -> None:
    counts = seen["garbage in rows"]["counts"]
    assert counts["hosts_garbage"] == HOSTS * counts["reads"]
    assert seen["none"]["counts"]["hosts_garbage"] == 0
