"""The same request to the same host: Placement and we say the same.

Placement itself is asked, the released package with its own tables on SQLite, and Scheduler.claim on a real PostgreSQL.
Hosts' figures are made as agents make them: capacity by Inventory.capacity, free as the job computes it, capacity less
what is allocated. What the kernel measures, which Placement does not know, is set too large to decide.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pydantic import SecretStr

from bench.placement import environment
from tests.harness.rows import upsert_inventory, upsert_pool, upsert_usage
from vacancy.connectors.collectors.collector import Inventory
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer

PLENTY = 1 << 40
MOST = 2**31 - 1  # of an amount, to Placement
AMOUNTS = {"VCPU": "vcpus", "MEMORY_MB": "memory_mb", "DISK_GB": "disk_gb"}
AVX2, AVX512, SSD, GOLD = "HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F", "STORAGE_DISK_SSD", "CUSTOM_GOLD"
RACK_1, RACK_2, RACK_3 = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))


@dataclass(frozen=True)
class Pool:
    """A storage pool of the host: how much of it is used, and whether the host is in its aggregate."""

    inventory: Inventory
    used: int = 0
    is_shared: bool = True


@dataclass(frozen=True)
class Case:
    """A host and a request to it, amounts by resource class."""

    inventories: dict[str, Inventory]
    resources: dict[str, int]
    used: dict[str, int] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    any_of: tuple[tuple[str, ...], ...] = ()
    forbidden: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    pool: Pool | None = None

    @property
    def by_amounts_alone(self) -> bool:
        is_elsewhere = self.pool is not None and not self.pool.is_shared
        return not (self.required or self.any_of or self.forbidden or self.member_of or is_elsewhere)


def vcpus(requested: int, *, used: int = 0, total: int = 16, max_unit: int = MOST, **inventory: Any) -> Case:
    """A request for VCPUs alone."""
    limits = {"reserved": 0, "allocation_ratio": 1.0} | inventory
    return Case({"VCPU": Inventory(total=total, max_unit=max_unit, **limits)}, {"VCPU": requested}, {"VCPU": used})


def host(resources: dict[str, int] | None = None, **more: Any) -> Case:
    """A request to a host of 16 VCPUs, 64 GiB and 100 GB, empty; it fits by its amounts unless it says otherwise."""
    inventories = {
        "VCPU": Inventory(16, 0, 16, 4.0),
        "MEMORY_MB": Inventory(65_536, 512, 65_536, 1.0),
        "DISK_GB": Inventory(100, 0, 100, 1.0),
    }
    return Case(inventories, resources or {"VCPU": 4, "MEMORY_MB": 8192, "DISK_GB": 40}, **more)


def pooled(
    requested: int, *, used: int = 0, total: int = 100, max_unit: int = MOST, is_shared: bool = True, **inventory: Any
) -> Case:
    """A request for 4 of 16 VCPUs and for disk, to a host whose disk comes from a pool of 100 GB."""
    limits = {"reserved": 0, "allocation_ratio": 1.0} | inventory
    resources = {"VCPU": 4} | ({"DISK_GB": requested} if requested else {})
    shared = Pool(Inventory(total=total, max_unit=max_unit, **limits), used, is_shared)
    return Case({"VCPU": Inventory(16, 0, 16, 1.0)}, resources, pool=shared)


# By rule: the host and the request, and whether Placement's documented formula lets it fit:
# used + n <= (total - reserved) * allocation_ratio, min_unit <= n <= max_unit, n a multiple of step_size.
NAMED: dict[str, tuple[Case, bool]] = {
    "the last one": (vcpus(4, used=12), True),
    "one too many": (vcpus(5, used=12), False),
    "all of an empty one": (vcpus(16), True),
    "more than all of it": (vcpus(17), False),
    "ratio: the last one": (vcpus(4, used=60, allocation_ratio=4.0), True),
    "ratio: one too many": (vcpus(5, used=60, allocation_ratio=4.0), False),
    "more than the total, within the ratio": (vcpus(17, allocation_ratio=4.0), True),
    "ratio below 1: 16 * 0.9 = 14.4": (vcpus(14, allocation_ratio=0.9), True),
    "ratio below 1: 15 of 14.4": (vcpus(15, allocation_ratio=0.9), False),
    "half of one is none": (vcpus(1, total=1, allocation_ratio=0.5), False),
    "fraction, rounded down: 5 * 1.5 = 7.5": (vcpus(7, total=5, allocation_ratio=1.5), True),
    "fraction, not rounded up: 5 * 1.5 = 7.5": (vcpus(8, total=5, allocation_ratio=1.5), False),
    "99.99 is not 100": (vcpus(1, used=99, total=9_999, allocation_ratio=0.01), False),
    # Binary fractions: 100 * 0.29 is 28.999999999999996, and 3 * 1.1 is 3.3000000000000003.
    "28.999999999999996 is not 29": (vcpus(29, total=100, allocation_ratio=0.29), False),
    "28.999999999999996 holds 28": (vcpus(28, total=100, allocation_ratio=0.29), True),
    "30 * 1.1 is 33 and a bit": (vcpus(33, total=30, allocation_ratio=1.1), True),
    "a third of 9": (vcpus(3, total=9, allocation_ratio=1 / 3), True),
    "a big ratio": (vcpus(160_000, allocation_ratio=10_000.0), True),
    "the most there can be": (vcpus(MOST, total=MOST), True),
    "reserved: the last one": (vcpus(4, used=8, reserved=4), True),
    "reserved: one too many": (vcpus(5, used=8, reserved=4), False),
    "reserved before the ratio: (16 - 4) * 2 = 24": (vcpus(24, reserved=4, allocation_ratio=2.0), True),
    "reserved before the ratio: 25 of 24": (vcpus(25, reserved=4, allocation_ratio=2.0), False),
    "reserved = total": (vcpus(1, reserved=16), False),
    "reserved = total, with a ratio": (vcpus(1, reserved=16, allocation_ratio=16.0), False),
    "full": (vcpus(1, used=16), False),
    "more used than there is": (vcpus(1, used=20), False),
    "min_unit: as much": (vcpus(4, min_unit=4), True),
    "min_unit: less": (vcpus(3, min_unit=4), False),
    "max_unit: as much": (vcpus(8, max_unit=8), True),
    "max_unit: more": (vcpus(9, max_unit=8), False),
    "max_unit within the ratio": (vcpus(17, max_unit=16, allocation_ratio=4.0), False),
    "step_size: a multiple": (vcpus(12, step_size=4), True),
    "step_size: none": (vcpus(10, step_size=4), False),
    "step_size counts from 0, not from min_unit": (vcpus(6, min_unit=3, step_size=4), False),
    "step_size and min_unit": (vcpus(8, min_unit=6, step_size=4), True),
    "step_size: what is used need not be one": (vcpus(4, used=3, step_size=4), True),
    "all of several classes": (host(), True),
    "all there is of several classes": (host({"VCPU": 16, "MEMORY_MB": 65_024, "DISK_GB": 100}), True),
    "one of several classes short": (host({"VCPU": 4, "MEMORY_MB": 65_025, "DISK_GB": 40}), False),
    "the last of several classes short": (host({"VCPU": 4, "MEMORY_MB": 8192, "DISK_GB": 101}), False),
    "a class that is full and not asked for": (host({"VCPU": 4}, used={"MEMORY_MB": 65_024}), True),
    "a class the host does not have": (
        Case({"VCPU": Inventory(16, 0, 16, 1.0)}, {"VCPU": 4, "DISK_GB": 1}),
        False,
    ),
    "a class the host does not have, alone": (Case({"VCPU": Inventory(16, 0, 16, 1.0)}, {"MEMORY_MB": 1}), False),
    "a class the host does not have and nobody asks for": (
        Case({"VCPU": Inventory(16, 0, 16, 1.0)}, {"VCPU": 4}),
        True,
    ),
    "pool: the last of it": (pooled(40, used=60), True),
    "pool: one too many": (pooled(41, used=60), False),
    "pool: all of it": (pooled(100), True),
    "pool: more used than there is": (pooled(1, used=120), False),
    "pool: reserved": (pooled(41, reserved=10, used=50), False),
    "pool: ratio, rounded down": (pooled(150, total=101, allocation_ratio=1.5, used=1), True),
    "pool: ratio, one too many": (pooled(151, total=101, allocation_ratio=1.5, used=1), False),
    "pool: min_unit": (pooled(3, min_unit=4), False),
    "pool: max_unit": (pooled(9, max_unit=8), False),
    "pool: step_size": (pooled(12, step_size=4), True),
    "pool: no multiple of step_size": (pooled(10, step_size=4), False),
    "pool: of another aggregate": (pooled(40, is_shared=False), False),
    "pool: full, and not asked": (pooled(0, used=100), True),
    "pool: of another aggregate, and not asked": (pooled(0, is_shared=False), True),
    "pool: it has room and the host has none": (replace(pooled(40), used={"VCPU": 13}), False),
    "required: has it": (host(traits=(AVX2, SSD), required=(AVX2,)), True),
    "required: has not": (host(traits=(SSD,), required=(AVX2,)), False),
    "required: has both": (host(traits=(AVX2, GOLD, SSD), required=(AVX2, GOLD)), True),
    "required: has one of two": (host(traits=(AVX2,), required=(AVX2, GOLD)), False),
    "required: has none at all": (host(required=(AVX2,)), False),
    "forbidden: has it": (host(traits=(AVX2,), forbidden=(AVX2,)), False),
    "forbidden: has another": (host(traits=(AVX2,), forbidden=(SSD,)), True),
    "forbidden: has one of two": (host(traits=(AVX2,), forbidden=(SSD, AVX2)), False),
    "in: has one": (host(traits=(AVX512,), any_of=((AVX2, AVX512),)), True),
    "in: has none": (host(traits=(SSD,), any_of=((AVX2, AVX512),)), False),
    "in: of each group one": (host(traits=(AVX512, GOLD), any_of=((AVX2, AVX512), (SSD, GOLD))), True),
    "in: of one group none": (host(traits=(AVX512,), any_of=((AVX2, AVX512), (SSD, GOLD))), False),
    "required, in: and forbidden": (
        host(traits=(AVX2, SSD), required=(AVX2,), any_of=((SSD, GOLD),), forbidden=(AVX512,)),
        True,
    ),
    "fits by its traits and not by its amounts": (host({"DISK_GB": 101}, traits=(AVX2,), required=(AVX2,)), False),
    "member_of: in it": (host(aggregates=(RACK_1,), member_of=(RACK_1,)), True),
    "member_of: in one of two": (host(aggregates=(RACK_2, RACK_3), member_of=(RACK_1, RACK_2)), True),
    "member_of: in another": (host(aggregates=(RACK_3,), member_of=(RACK_1, RACK_2)), False),
    "member_of: in none": (host(member_of=(RACK_1,)), False),
}


def generated(seed: int, count: int) -> list[Case]:
    """Cases about the bounds: what is used leaves as much as is asked for, one more or one less."""
    rnd = random.Random(seed)

    def amounts() -> tuple[Inventory, int, int]:
        total = rnd.choice([rnd.randint(1, 64), rnd.randint(1, 10_000), rnd.randint(1, MOST)])
        inventory = Inventory(
            total=total,
            reserved=rnd.choice([0, 0, 0, 0, rnd.randint(0, total), rnd.randint(0, total), total]),
            max_unit=rnd.choice([MOST, MOST, total, rnd.randint(1, total)]),
            allocation_ratio=rnd.choice(
                [1.0, 1.5, 4.0, 16.0, 0.9, 1 / 3, round(rnd.uniform(0.01, 20), 2), rnd.random()]
            ),
            min_unit=rnd.choice([1, 1, 1, 2, 4]),
            step_size=rnd.choice([1, 1, 1, 2, 4, 8]),
        )
        room = min(math.floor((total - inventory.reserved) * inventory.allocation_ratio), MOST)
        most = min(room, inventory.max_unit)
        requested = rnd.choice([most, rnd.randint(0, most), inventory.min_unit])
        requested -= requested % inventory.step_size
        used = rnd.choice([0, room - requested, room - requested])
        if rnd.random() < 0.2:
            requested += rnd.choice([-1, 1])
        elif rnd.random() < 0.1:
            used += 1
        return inventory, min(max(1, requested), MOST), min(max(0, used), MOST)

    def some(things: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(rnd.sample(things, rnd.randint(0, len(things) - 1)))

    def case() -> Case:
        of = {name: amounts() for name in AMOUNTS}
        # Fewer classes are likelier to fit, and few hosts miss one.
        asked = rnd.choice([("VCPU",), ("MEMORY_MB",), ("VCPU", "MEMORY_MB"), tuple(AMOUNTS)])
        if asked == tuple(AMOUNTS) and rnd.random() < 0.5:
            inventory, _, used = of["DISK_GB"]
            others = [name for name in AMOUNTS if name != "DISK_GB"]
            return Case(
                inventories={name: of[name][0] for name in others},
                resources={name: of[name][1] for name in AMOUNTS},
                used={name: of[name][2] for name in others},
                pool=Pool(inventory, used),
            )
        there = [name for name in AMOUNTS if rnd.random() < 0.95] or ["VCPU"]
        amounts_alone = Case(
            inventories={name: of[name][0] for name in there},
            resources={name: of[name][1] for name in asked},
            used={name: of[name][2] for name in there},
        )
        if rnd.random() < 0.7:
            return amounts_alone
        wanted = some((AVX2, AVX512, SSD, GOLD))
        return replace(
            amounts_alone,
            traits=some((AVX2, AVX512, SSD, GOLD)),
            aggregates=some((RACK_1, RACK_2, RACK_3)),
            required=wanted[:1],
            any_of=tuple(rnd.sample([(AVX2, GOLD), (SSD, AVX512), (GOLD, SSD, AVX2)], rnd.randint(0, 2))),
            forbidden=wanted[1:2],  # one: Placement calls a request that contradicts itself malformed
            member_of=some((RACK_1, RACK_2, RACK_3)),
        )

    return [case() for _ in range(count)]


GENERATED = generated(seed=2013, count=200)


@dataclass(frozen=True)
class Verdicts:
    """Whether a request fits: Placement's candidates, its allocation, our candidates, our claim."""

    candidate: bool
    allocated: bool
    our_candidate: bool
    claimed: bool


@pytest.fixture(scope="module")
def verdicts(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdicts]:
    """Of the named cases by their names, of the generated ones by their numbers."""
    cases = {name: case for name, (case, _) in NAMED.items()} | {str(n): case for n, case in enumerate(GENERATED)}
    theirs = _by_placement(tmp_path_factory.mktemp("placement"), list(cases.values()))
    ours = _by_us(postgres_server, list(cases.values()))
    return {name: Verdicts(**their, **our) for name, their, our in zip(cases, theirs, ours, strict=True)}


@pytest.mark.parametrize("name", NAMED)
def test_each_rule_as_placement(verdicts: dict[str, Verdicts], name: str) -> None:
    case, fits = NAMED[name]
    seen = verdicts[name]
    assert (seen.candidate, seen.our_candidate, seen.claimed) == (fits, fits, fits)
    assert seen.allocated == fits or not case.by_amounts_alone


def test_generated_cases_as_placement(verdicts: dict[str, Verdicts]) -> None:
    different = [
        (case, seen)
        for number, case in enumerate(GENERATED)
        if (seen := verdicts[str(number)])
        and (
            not seen.candidate == seen.our_candidate == seen.claimed
            or (case.by_amounts_alone and seen.allocated != seen.claimed)
        )
    ]
    assert different == []
    fitting = sum(verdicts[str(number)].candidate for number in range(len(GENERATED)))
    # Else the cases would say little.
    assert 0.2 < fitting / len(GENERATED) < 0.8


def _by_placement(directory: Path, cases: list[Case]) -> list[dict[str, bool]]:
    """All in one batch: its start takes longer than many cases."""
    environment.configure(directory, "sqlite://")
    program = subprocess.run(
        environment.command("verdicts"),
        input=json.dumps([asdict(case) for case in cases]),
        env=environment.variables(directory),
        capture_output=True,
        text=True,
        check=False,
    )
    assert program.returncode == 0, f"{program.stderr}\n{(directory / 'placement.log').read_text()[-3000:]}"
    answers: list[dict[str, bool]] = json.loads(program.stdout)
    return answers


def _by_us(server: PostgresServer, cases: list[Case]) -> Iterator[dict[str, bool]]:
    """A host a case, and a request that may go there alone."""
    with closing(psycopg2.connect(server.owner_dsn)) as owner:
        owner.autocommit = True
        owner.cursor().execute("CREATE DATABASE parity")
        dsn = f"{server.owner_dsn.rpartition('/')[0]}/parity"
        try:
            migrate(SecretStr(dsn))
            with closing(psycopg2.connect(dsn)) as connection, connection:
                for number, case in enumerate(cases):
                    _insert(connection, f"host-{number}", case)
            settings = SchedulerSettings(max_age=timedelta(hours=1), claim_ttl=timedelta(hours=1))
            with closing(Scheduler(dsn, settings)) as scheduler:
                for number, case in enumerate(cases):
                    request = Request(
                        **{AMOUNTS[name]: amount for name, amount in case.resources.items()},
                        required=case.required,
                        any_of=case.any_of,
                        forbidden=case.forbidden,
                        aggregates=case.member_of,
                        include=(f"host-{number}",),
                    )
                    our_candidate = scheduler.candidates(request) != []
                    try:
                        claimed = scheduler.claim(request)[0].host_id == f"host-{number}"
                    except NoHostFitsError:
                        claimed = False
                    yield {"our_candidate": our_candidate, "claimed": claimed}
        finally:
            owner.cursor().execute("DROP DATABASE parity WITH (FORCE)")


def _insert(connection: Any, host_id: str, case: Case) -> None:
    """The host's rows; of a class that it does not have it has no capacity."""
    now = datetime.now(UTC)
    figures: dict[str, int] = {}
    for resource_class, name in AMOUNTS.items():
        inventory = case.inventories.get(resource_class)
        capacity = inventory.capacity if inventory else 0
        free = capacity - case.used.get(resource_class, 0)
        figures |= {f"{name}_capacity": capacity, f"{name}_free": free, f"{name}_free_min": free}
    upsert_usage(
        connection,
        host_id=host_id,
        observed_at=now,
        memory_mb_available=PLENTY,
        disk_gb_available=PLENTY,
        recent_consumers="{}",
        **figures,
    )
    upsert_inventory(
        connection,
        host_id=host_id,
        name=host_id,
        observed_at=now,
        inventories=json.dumps({name: asdict(inventory) for name, inventory in case.inventories.items()}),
        traits=list(case.traits),
        aggregates=[*case.aggregates, f"scope of {host_id}"],
        disk_pool=f"pool of {host_id}" if case.pool else None,
    )
    if case.pool:
        inventory, capacity = case.pool.inventory, case.pool.inventory.capacity
        upsert_pool(
            connection,
            f"pool of {host_id}",
            now,
            gb=capacity,
            free_gb=capacity - case.pool.used,
            available_gb=PLENTY,
            inventories=json.dumps({"DISK_GB": asdict(inventory)}),
            aggregates=[f"scope of {host_id}" if case.pool.is_shared else "another"],
        )
