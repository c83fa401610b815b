"""Nova's own loaders find the filter and the weigher, and its handlers rank 1,000 hosts by the table."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import pytest

from tests.nova.conftest import Databases, Nova
from tests.nova.fleet import GRADED, rows

HOSTS = 1000


@pytest.fixture(scope="module")
def database(databases: Databases) -> str:
    return databases.make(HOSTS, GRADED)


@pytest.fixture(scope="module")
def seen(nova: Nova, database: str) -> dict[str, Any]:
    seen: dict[str, Any] = nova.run("ranking", dsn=database, hosts=HOSTS, latencies=[100, HOSTS])
    return seen


def test_the_names_in_nova_conf_suffice(seen: dict[str, Any]) -> None:
    assert seen["filters"][-1] == "VacancyFilter"
    assert seen["weighers"][-1] == "VacancyWeigher"
    assert {"CPUWeigher", "RAMWeigher"} < set(seen["weighers"])
    assert seen["at_start"] == {}  # nothing connects or reads before the first request


def test_the_filter_vetoes_whom_the_table_says_beyond_a_limit(seen: dict[str, Any]) -> None:
    assert seen["passed"] == [number for number in range(1, HOSTS + 1) if number % 10]


def test_the_order_follows_the_table(seen: dict[str, Any]) -> None:
    order = seen["order"]
    assert sorted(order) == seen["passed"]
    # The aggregate of the first has a multiplier of 0.
    assert [number for number in order if number != 1] == seen["passed"][1:]
    print(f"\n1,000 hosts by Nova's handlers: {len(seen['passed'])} pass, first {order[:5]}, last {order[-5:]}")


def test_a_request_reads_the_table_once_for_its_filter_and_its_weigher(seen: dict[str, Any]) -> None:
    assert seen["reads"] == 1
    assert seen["multi_create"]["reads"] == 1


def test_an_aggregate_has_its_own_multiplier(seen: dict[str, Any]) -> None:
    assert seen["multiplier"] == {"compute-1": 0.0, "compute-2": 10.0}


def test_the_instances_of_one_request_do_not_all_go_to_the_best_host(seen: dict[str, Any]) -> None:
    picked = seen["multi_create"]["picked"]
    assert len(set(picked)) >= 18
    assert max(picked) < 500  # and none of them moves to a busy host


def test_a_rebuild_stays_where_it_is_and_reads_nothing(seen: dict[str, Any]) -> None:
    assert seen["rebuild"] == {"passed": HOSTS, "weights": [0.0], "reads": 0}


def test_a_forced_host_is_not_vetoed(seen: dict[str, Any]) -> None:
    assert seen["forced"] == [10]


def test_what_a_moved_instance_takes_counts_where_it_goes(seen: dict[str, Any], database: str) -> None:
    instance, (source, destination) = seen["moved"]["instance"], seen["moved"]["where"]
    assert source != destination
    [(where, vcpus, memory_mb, disk_gb)] = rows(
        database, "SELECT host_id, vcpus, memory_mb, disk_gb FROM vacancy.claim WHERE consumer = %s", instance
    )
    assert (where, vcpus, memory_mb, disk_gb) == (destination, 4, 8192, 0)


def test_the_next_scheduler_passes_over_what_was_picked(seen: dict[str, Any]) -> None:
    assert not set(seen["again"]) & {number for number in seen["multi_create"]["picked"] if number > 10}


def test_a_canary_changes_nothing_and_logs_whom_it_would_pick(seen: dict[str, Any]) -> None:
    assert seen["canary"]["order"] == list(
        range(HOSTS - 9, HOSTS + 1)
    )  # Nova's own order, in which all hosts are equal
    [line] = seen["canary"]["log"]
    assert "10 hosts: " in line
    assert "compute-991 (" in line
    assert ", by vacancy compute-" in line


def test_nothing_failed_and_all_picks_were_noted(seen: dict[str, Any], database: str) -> None:
    assert not {"errors", "timeout", "unreachable", "refused", "garbage", "notes_lost"} & set(seen["counts"])
    assert rows(database, "SELECT count(*) FROM vacancy.claim") == [(21,)]  # 20, and one that moved


def test_added_latency(seen: dict[str, Any]) -> None:
    for count, took in seen["latency_ms"].items():
        cuts = quantiles(took, n=100)
        print(
            f"\nadded to a request with {count} surviving hosts:"
            f" p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(took):.1f} ms"
        )
    assert len(seen["latency_ms"]) == 2


def test_a_login_in_the_schedulers_role_has_the_rights(
    nova: Nova, databases: Databases, scheduler_login: Callable[[str], str]
) -> None:
    dsn = databases.make(10, GRADED)
    [worker] = nova.run("workers", dsn=scheduler_login(dsn), hosts=10, workers=1, requests=3)
    assert worker["counts"] == {"reads": 3, "notes": 3, "hosts_missing": 0, "hosts_garbage": 0}
    assert rows(dsn, "SELECT count(*) FROM vacancy.claim") == [(3,)]


def test_the_options_are_in_a_sample_configuration(nova: Nova) -> None:
    generator = [str(nova.python), "-m", "oslo_config.generator", "--namespace", "vacancy"]
    sample = subprocess.run(generator, env=nova.variables(), capture_output=True, text=True, check=True).stdout
    assert "[vacancy]" in sample
    assert "#dsn = <None>" in sample
    assert "#weight_multiplier = 10.0" in sample


def test_our_distribution_has_one_import_name(nova: Nova) -> None:
    assert {path.name for path in nova.site.iterdir() if path.suffix != ".dist-info"} - {"bin"} == {"vacancy"}


def test_nothing_is_done_at_import(nova: Nova) -> None:
    program = (
        "import sys, vacancy.connectors.nova.table, vacancy.connectors.nova.options;"
        "import vacancy.connectors.scheduler.ranking;"
        "from oslo_config import cfg;"
        "assert 'vacancy' not in cfg.CONF;"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [str(nova.python), "-c", program], env=nova.variables(), capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not {"pydantic", "click", "rich", "platformdirs", "nova", "vacancy.jobs", "vacancy.topology"} & loaded


def test_under_eventlet_other_green_threads_run_while_one_waits(nova: Nova) -> None:
    program = (
        "import eventlet; eventlet.monkey_patch();"
        "import socket; from vacancy.connectors.nova.table import Fault, Table;"
        "silent = socket.create_server(('127.0.0.1', 0));"
        "table = Table(f'host=127.0.0.1 port={silent.getsockname()[1]} user=u dbname=d', 0.2);"
        "ticks = []\n"
        "def tick():\n"
        "    while True: ticks.append(1); eventlet.sleep(0.01)\n"
        "eventlet.spawn(tick)\n"
        "try: table.read(['host'])\n"
        "except Fault as fault: print(fault.kind, len(ticks))\n"
    )
    done = subprocess.run(
        [str(nova.python), "-W", "ignore", "-c", program],
        env=nova.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    kind, ticks = done.stdout.split()
    assert kind == "timeout"
    assert int(ticks) > 3
