"""Placement's side of the benchmark of claims: reads an order from stdin and writes its result to stdout, both JSON.

A decision is what Nova's scheduler asks Placement for one instance: GET /allocation_candidates, parse the JSON, then
PUT /allocations for one of the candidates. The candidate is random, so that clients rarely collide.
"""

from __future__ import annotations

import json
import os
import random
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg2

from bench.closed_loop import Decide, Try, closed_loop, race
from bench.placement.api import OWNER, Api, expect

_LIMIT = 1000
"""The query that Nova sends."""
_LEAVE_ONE_SLOT = """
UPDATE inventories AS i SET reserved = i.total - %s - (
  SELECT sum(a.used) FROM allocations AS a
  WHERE (a.resource_provider_id, a.resource_class_id) = (i.resource_provider_id, i.resource_class_id)
)
WHERE i.resource_class_id = (SELECT id FROM resource_classes WHERE name = 'MEMORY_MB')
"""
_OVERCOMMITTED = """
SELECT count(*)
FROM inventories AS i
JOIN resource_classes AS class ON class.id = i.resource_class_id
WHERE class.name = 'MEMORY_MB' AND (i.total - i.reserved) * i.allocation_ratio < (
  SELECT sum(a.used) FROM allocations AS a
  WHERE (a.resource_provider_id, a.resource_class_id) = (i.resource_provider_id, i.resource_class_id)
)
"""


def load(dsn: str, hosts: int, one_slot_of_mb: int | None) -> dict[str, Any]:
    """Creates the tables and fills them.

    Args:
        dsn: of the database, which the settings name too.
        hosts: number of hosts.
        one_slot_of_mb: MiB of memory to leave free on each host.
    """
    Api()
    with closing(psycopg2.connect(dsn)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(Path(__file__).with_name("fleet.sql").read_text(encoding="utf-8"), {"hosts": hosts})
            if one_slot_of_mb is not None:
                cursor.execute(_LEAVE_ONE_SLOT, [one_slot_of_mb])
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")
    return {name: metadata.version(name) for name in ("openstack-placement", "SQLAlchemy", "psycopg2-binary")}


def claims(clients: int, warm_up_s: float, seconds: float, resources: dict[str, int]) -> dict[str, Any]:
    """Decisions with a claim, by so many clients."""
    return closed_loop(_decider, [resources], clients=clients, warm_up_s=warm_up_s, seconds=seconds)


def race_for_last_slot(dsn: str, racers: int, rounds: int, memory_mb: int) -> dict[str, Any]:
    """The number of claims that got the last slot, by round; each round is about another provider.

    Also, from the tables afterwards: the number of providers with more memory allocated than they have.
    """
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT uuid FROM resource_providers ORDER BY id LIMIT %s", [rounds])
        providers = [row[0] for row in cursor.fetchall()]
        connection.commit()
        won = race(_racer, [providers, memory_mb], racers=racers, rounds=len(providers))
        cursor.execute(_OVERCOMMITTED)
        return {"winners": won, "overcommitted": cursor.fetchall()[0][0]}


def _decider(resources: dict[str, int]) -> Decide:
    api = Api()
    amounts = ",".join(f"{name}:{amount}" for name, amount in resources.items())
    path = f"/allocation_candidates?resources={amounts}&limit={_LIMIT}"
    chance = random.Random(os.getpid())  # noqa: S311  # no secret

    def decide() -> str | None:
        requests = json.loads(expect(api("GET", path), 200))["allocation_requests"]
        if not requests:
            return "no candidates"
        chosen = chance.choice(requests)
        body = {**chosen, "consumer_generation": None, **OWNER}
        status, _ = api("PUT", f"/allocations/{uuid.uuid4()}", body)
        return None if status == 204 else f"PUT answered {status}"

    return decide


def _racer(providers: list[str], memory_mb: int) -> Try:
    api = Api()

    def attempt(number: int) -> bool:
        status, _ = api.allocate(str(uuid.uuid4()), providers[number], {"MEMORY_MB": memory_mb})
        return status == 204

    return attempt


def main() -> None:
    """Carries out the order."""
    order = json.load(sys.stdin)
    functions: dict[str, Callable[..., Any]] = {"load": load, "claims": claims, "race": race_for_last_slot}
    json.dump(functions[order.pop("do")](**order), sys.stdout)


if __name__ == "__main__":
    main()
