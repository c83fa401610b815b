"""Nova's whole decision with its claim in a real Placement: how many picks land on hosts that are really busy."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from bench.placement import environment
from tests.nova.conftest import Databases, Nova
from tests.nova.fleet import BUSY, is_busy, rows
from vacancy.jobs.local.postgres_server import PostgresServer

HOSTS, PICKS = 120, 40
INSTANCES = [random.Random(34).randint(5, 15) for _ in range(HOSTS)]
OURS = """
UPDATE resource_providers SET uuid = '00000000-0000-4000-8000-' || lpad(id::text, 12, '0');
INSERT INTO resource_provider_traits (created_at, updated_at, trait_id, resource_provider_id)
SELECT now(), now(), traits.id, resource_providers.id FROM traits, resource_providers WHERE traits.name = 'OWNER_NOVA';
"""
"""Additions for Nova to bench/placement/fleet.sql: a provider has its compute node's UUID, and Nova owns it."""


@contextmanager
def placement(nova: Nova, directory: Path, dsn: str) -> Iterator[str]:
    """Runs Placement over HTTP with its tables in the given database; returns its URL."""
    environment.configure(directory, dsn.replace("postgresql://", "postgresql+psycopg2://"))
    server = subprocess.Popen(
        nova.command("placement_server"),
        env=nova.variables(OS_PLACEMENT_CONFIG_DIR=str(directory)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    try:
        port = server.stdout.readline().strip()
        assert port, (directory / "placement.log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stdin.close()
        server.wait(30)
        server.stdout.close()


@pytest.fixture(scope="module")
def seen(
    nova: Nova, databases: Databases, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    del postgres_server
    table, providers = databases.make(HOSTS, BUSY), databases.make(0)
    seen: dict[str, Any] = {}
    with placement(nova, tmp_path_factory.mktemp("placement"), providers) as url:
        fleet = (environment.ROOT / "bench" / "placement" / "fleet.sql").read_text(encoding="utf-8")
        with closing(psycopg2.connect(providers)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(fleet, {"hosts": HOSTS})
            cursor.execute(OURS)
            cursor.execute("DELETE FROM allocations")
        for who, dsn in (("nova alone", None), ("with vacancy", table)):
            seen[who] = nova.run("decisions", placement=url, instances=INSTANCES, picks=PICKS, dsn=dsn)
    seen["allocations"] = rows(providers, "SELECT count(DISTINCT consumer_id) FROM allocations")[0][0]
    return seen


def test_every_pick_is_claimed_in_placement(seen: dict[str, Any]) -> None:
    assert seen["allocations"] == 2 * PICKS
    assert "VacancyWeigher" not in seen["nova alone"]["weighers"]
    assert "VacancyWeigher" in seen["with vacancy"]["weighers"]


def test_busy_hosts_are_avoided(seen: dict[str, Any]) -> None:
    share = {who: sum(map(is_busy, seen[who]["picked"])) / PICKS for who in ("nova alone", "with vacancy")}
    print(
        f"\nshare of {PICKS} picks on {HOSTS} hosts that landed on a busy host: {share}; a third of the hosts is busy"
    )
    assert share["nova alone"] > 0.15
    assert share["with vacancy"] <= share["nova alone"] / 10
