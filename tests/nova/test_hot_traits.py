"""vacancy-hot-traits with a real Placement: hot hosts get the trait, changes are rare, and other traits stay."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pytest

from bench.placement import environment
from tests.nova.conftest import Databases, Nova
from tests.nova.test_decisions import OURS, placement

HOSTS = 20
INVENTORY = """
INSERT INTO vacancy.host_inventory (host_id, observed_at, name, status, inventories, traits, aggregates)
SELECT host_id, now(), host_id, 'ENABLED', '{"VCPU": {"total": 64}, "MEMORY_MB": {"total": 262144}}', '{}', '{}'
FROM vacancy.host
"""


@pytest.fixture(scope="module")
def seen(nova: Nova, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    table, providers = databases.make(HOSTS, {}), databases.make(0)
    with closing(psycopg2.connect(table)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(INVENTORY)
    with placement(nova, tmp_path_factory.mktemp("placement"), providers) as url:
        fleet = (environment.ROOT / "bench" / "placement" / "fleet.sql").read_text(encoding="utf-8")
        with closing(psycopg2.connect(providers)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(fleet, {"hosts": HOSTS})
            cursor.execute(OURS)
        seen: dict[str, Any] = nova.run("hot_traits", dsn=table, placement=url)
    return seen


def test_a_dry_run_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["dry run"] == []


def test_the_trait_comes_and_goes_after_a_while(seen: dict[str, Any]) -> None:
    assert seen["at once"] == []
    assert seen["after a while"] == [1, 2]
    assert seen["cool at once"] == [1, 2]
    assert seen["cool after a while"] == []


def test_another_writers_change_between_look_and_write_is_kept(seen: dict[str, Any]) -> None:
    assert seen["traits"] == ["CUSTOM_OTHER", "CUSTOM_VACANCY_HOT", "OWNER_NOVA"]


def test_no_more_than_a_share_of_the_hosts_is_hot(seen: dict[str, Any]) -> None:
    assert len(seen["all of them hot"]) == HOSTS // 5


def test_a_host_that_flaps_flips_a_few_times_an_hour(seen: dict[str, Any]) -> None:
    assert seen["flips of one host in 28 minutes"] == 4


def test_it_takes_all_of_it_back(seen: dict[str, Any]) -> None:
    assert seen["cleared"] == [2, 0]


def test_a_host_that_placement_does_not_know_is_passed_over(seen: dict[str, Any]) -> None:
    assert seen["no such provider"] == []
