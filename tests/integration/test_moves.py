"""Claiming again with another request: refused, or moved in one step."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.harness.waiting import wait_until, wait_until_time
from vacancy.connectors.postgres.connection import UnreachableError
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import ContendedError, ContradictionError, NoHostFitsError
from vacancy.connectors.scheduler.request import Numa, Pci, Request
from vacancy.connectors.settings import SchedulerSettings

UNIT = {"reserved": 0, "min_unit": 1, "max_unit": 10**6, "step_size": 1, "allocation_ratio": 1.0}
INVENTORIES = json.dumps(
    {
        name: {"total": total} | UNIT
        for name, total in {"VCPU": 64, "MEMORY_MB": 262_144, "DISK_GB": 4_000, "CUSTOM_FPGA": 4, "VGPU": 8}.items()
    }
)
CELLS = json.dumps(
    [
        {
            "id": cell,
            "cpus": list(range(16 * cell, 16 * cell + 16)),
            "free_cpus": list(range(16 * cell, 16 * cell + 16)),
            "memory_mb": 131_072,
            "pages": [{"size_kb": 2048, "total": 1024, "free": 1024}],
        }
        for cell in (0, 1)
    ]
)
GPUS = json.dumps([{"vendor_id": "10de", "product_id": "20b5", "numa_node": 0, "tags": {}, "total": 2, "free": 2}])
ZONES = {"a": "one", "b": "two", "c": "two"}


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    """A scheduler on three hosts: 32 VCPUs are free on each."""
    for name in ZONES:
        show(owner, name)
    made = Scheduler(database)
    yield made
    made.close()


def show(owner: Connection, name: str, *consumers: uuid.UUID, **usage: Any) -> None:
    """A host reports."""
    now = datetime.now(UTC)
    upsert_inventory(
        owner, host_id=f"id-{name}", name=name, observed_at=now, inventories=INVENTORIES, zone=ZONES[name],
        numa_cells=CELLS, pci_pools=GPUS, allocated='{"CUSTOM_FPGA": 0, "VGPU": 0}',
    )  # fmt: skip
    listed = "{" + ",".join(map(str, consumers)) + "}"
    upsert_usage(owner, **{"host_id": f"id-{name}", "observed_at": now, "recent_consumers": listed} | usage)


def free(scheduler: Scheduler) -> dict[str, int]:
    """VCPUs by host."""
    return {host.name: int(host.vcpus_free or 0) for host in scheduler.hosts()}


def differs(scheduler: Scheduler, request: Request, *consumers: uuid.UUID) -> list[list[str]]:
    """In what the consumers' claims are not true to a request, as the error says."""
    before = free(scheduler)
    with pytest.raises(ContradictionError) as caught:
        scheduler.claim(request, consumers)
    assert free(scheduler) == before
    assert str(caught.value.contradictions[0].consumer) in str(caught.value)
    return [one.differs for one in caught.value.contradictions]


def test_another_size_or_host_is_refused_and_the_same_is_not(scheduler: Scheduler) -> None:
    consumer, asked = uuid.uuid4(), Request(vcpus=4, memory_mb=8192, include=("a",))
    (claim,) = scheduler.claim(asked, [consumer])
    for request, parts in {
        Request(vcpus=8, memory_mb=8192, include=("a",)): ["vcpus"],
        Request(vcpus=4, memory_mb=4096, disk_gb=1): ["memory_mb", "disk_gb"],
        Request(vcpus=4, memory_mb=8192, include=("b",)): ["include"],
        Request(vcpus=4, memory_mb=8192, avoid=("id-a",)): ["avoid"],
        Request(vcpus=4, memory_mb=8192, zone="two"): ["zone"],
        Request(vcpus=4, memory_mb=8192, aggregates=(str(uuid.uuid4()),)): ["aggregates"],
        Request(vcpus=4, memory_mb=8192, required=("CUSTOM_X",)): ["required"],
        Request(vcpus=4, memory_mb=8192, any_of=(("CUSTOM_X", "CUSTOM_Y"),)): ["any_of"],
        Request(vcpus=4, memory_mb=8192, forbidden=("HW_CPU_X86_AVX2",)): ["forbidden"],
        Request(vcpus=4, memory_mb=8192, resources={"VGPU": 1}): ["resources"],
        Request(vcpus=4, memory_mb=8192, numa=Numa(cpus=4)): ["numa"],
        Request(vcpus=4, memory_mb=8192, pci=(Pci(vendor_id="10de"),)): ["pci"],
    }.items():
        assert differs(scheduler, request, consumer) == [parts], request
    # What the claim is true to, and how to choose, make no difference.
    for request in (
        asked,
        Request(vcpus=4, memory_mb=8192),
        Request(vcpus=4, memory_mb=8192, include=("id-a", "b"), avoid=("c",), zone="one"),
        Request(vcpus=4, memory_mb=8192, required=("HW_CPU_X86_AVX2",), strategy="pack", max_cpu_steal=0.0, sample=3),
        Request(vcpus=4, memory_mb=8192, claim_ttl=timedelta(hours=1), min_memory_mb_available=100),
    ):
        for move in (False, True):
            (again,) = scheduler.claim(request, [consumer], move=move)
            assert (again.already, again.host_id, again.expires_at) == (True, "id-a", claim.expires_at)


def test_the_very_same_request_gets_the_same_claim_whatever_became_of_its_host(
    owner: Connection, scheduler: Scheduler
) -> None:
    consumer, asked = uuid.uuid4(), Request(vcpus=4, zone="one", required=("HW_CPU_X86_AVX2",))
    scheduler.claim(asked, [consumer])
    upsert_inventory(owner, host_id="id-a", name="a", observed_at=datetime.now(UTC), zone="elsewhere", traits="{}")
    (again,) = scheduler.claim(asked, [consumer], move=True)
    assert (again.already, again.host_id) == (True, "id-a")
    assert differs(scheduler, Request(vcpus=4, zone="one"), consumer) == [["zone"]]
    query(owner, "UPDATE vacancy.host_inventory SET retired = true WHERE host_id = 'id-a' RETURNING 1")
    (again,) = scheduler.claim(asked, [consumer])
    assert (again.already, again.host_id) == (True, "id-a")
    assert differs(scheduler, Request(vcpus=4), consumer) == [["host"]]


def test_a_move_counts_once_and_a_refused_one_changes_nothing(owner: Connection, scheduler: Scheduler) -> None:
    consumer = uuid.uuid4()
    scheduler.claim(Request(vcpus=20, include=("a",)), [consumer])
    # What it holds itself is free for it: 30 of the 32 that it holds 20 of.
    (resized,) = scheduler.claim(Request(vcpus=30, include=("a",)), [consumer], move=True)
    assert (resized.already, resized.host_name, free(scheduler)) == (False, "a", {"a": 2, "b": 32, "c": 32})
    (again,) = scheduler.claim(Request(vcpus=30, include=("a",)), [consumer], move=True)
    assert (again.already, again.claimed_at) == (True, resized.claimed_at)
    before = query(owner, "SELECT * FROM vacancy.claim")
    with pytest.raises(NoHostFitsError) as refused:
        scheduler.claim(Request(vcpus=33, include=("a",)), [consumer], move=True)
    assert refused.value.refusal.dimension == "vcpus_free"
    assert query(owner, "SELECT * FROM vacancy.claim") == before
    scheduler.claim(Request(vcpus=30, include=("b",)), [consumer], move=True)
    assert free(scheduler) == {"a": 32, "b": 2, "c": 32}
    assert scheduler.release(consumer) == [consumer]
    assert free(scheduler) == {"a": 32, "b": 32, "c": 32}
    (fresh,) = scheduler.claim(Request(vcpus=1), [uuid.uuid4()], move=True)  # nothing to move is no error
    assert not fresh.already


def test_several_consumers_move_together_or_not_at_all(owner: Connection, scheduler: Scheduler) -> None:
    one, two, three, new = (uuid.uuid4() for _ in range(4))
    scheduler.claim(Request(vcpus=4, include=("a",)), [one, two])
    scheduler.claim(Request(vcpus=8, include=("b",)), [three])
    eight = Request(vcpus=8, include=("b", "c"))
    assert differs(scheduler, eight, new, one, three, two) == [["vcpus", "include"], ["vcpus", "include"]]
    claims = scheduler.claim(eight, [new, one, three, two], move=True)
    assert [claim.consumer for claim in claims] == [new, one, three, two]
    assert [claim.already for claim in claims] == [False, False, True, False]
    assert free(scheduler)["a"] == 32
    before = query(owner, "SELECT * FROM vacancy.claim ORDER BY consumer")
    with pytest.raises(NoHostFitsError) as refused:  # two fit on the host, and the third does not
        scheduler.claim(Request(vcpus=12, include=("a",)), [one, two, three], move=True)
    assert (refused.value.refusal.claimable, refused.value.refusal.count) == (2, 3)
    assert query(owner, "SELECT * FROM vacancy.claim ORDER BY consumer") == before
    assert len(scheduler.claim(Request(vcpus=4), count=3, move=True)) == 3


def test_distinct_hosts_is_a_part_of_the_request(scheduler: Scheduler) -> None:
    one, two = uuid.uuid4(), uuid.uuid4()
    scheduler.claim(Request(vcpus=1, include=("a",)), [one, two])
    apart = Request(vcpus=1, distinct_hosts=True)
    assert differs(scheduler, apart, one, two) == [["distinct_hosts"]]
    (first, second) = scheduler.claim(apart, [one, two], move=True)
    assert (first.host_name, first.already, second.already) == ("a", True, False)
    assert second.host_name != "a"
    assert [claim.already for claim in scheduler.claim(apart, [one, two])] == [True, True]
    each = Request(vcpus=2, distinct_hosts=True, include=("b",))
    for consumer in (three := uuid.uuid4(), four := uuid.uuid4()):
        scheduler.claim(each, [consumer])
    assert differs(scheduler, each, three, four) == [["distinct_hosts"]]


def test_devices_cells_and_classes_move_as_well(owner: Connection, scheduler: Scheduler) -> None:
    consumer = uuid.uuid4()

    def asked(devices: int, cpus: int, pages: int, fpgas: int, host: str) -> Request:
        return Request(
            vcpus=8, memory_mb=4096, include=(host,), numa=Numa(cpus=cpus, pages={2048: pages}),
            pci=(Pci(vendor_id="10de", count=devices, same_cell=True),), resources={"CUSTOM_FPGA": fpgas},
        )  # fmt: skip

    def held() -> dict[str, int]:
        [(amounts,)] = query(owner, "SELECT held FROM vacancy.claim")
        return {name.partition(" {")[0]: amount for name, amount in amounts.items()}

    scheduler.claim(asked(2, 8, 512, 4, "a"), [consumer])
    for request, part in ((asked(1, 8, 512, 4, "a"), "pci"), (asked(2, 4, 512, 4, "a"), "numa"),
                          (asked(2, 8, 256, 4, "a"), "numa"), (asked(2, 8, 512, 3, "a"), "resources"),
                          (asked(2, 8, 512, 4, "b"), "include")):  # fmt: skip
        assert differs(scheduler, request, consumer) == [[part]]
    assert scheduler.claim(asked(2, 8, 512, 4, "a"), [consumer])[0].already
    # All of each is taken by the old claim itself, and free for the new one.
    scheduler.claim(asked(2, 16, 1024, 4, "a"), [consumer], move=True)
    assert held() == {
        "pci": 2,
        "numa 0 cpus": 16,
        "numa 0 memory_mb": 2048,
        "numa 0 pages 2048": 1024,
        "CUSTOM_FPGA": 4,
    }
    with pytest.raises(NoHostFitsError):
        scheduler.claim(asked(3, 16, 1024, 4, "a"), [consumer], move=True)
    scheduler.claim(asked(2, 16, 1024, 4, "b"), [consumer], move=True)
    assert query(owner, "SELECT host_id FROM vacancy.claim") == [("id-b",)]
    other = uuid.uuid4()
    assert scheduler.claim(asked(2, 16, 1024, 4, "a"), [other])[0].host_name == "a"
    # The order in which devices are named is none of the request.
    pair = (Pci(vendor_id="10de"), Pci(product_id="20b5"))
    scheduler.claim(Request(vcpus=1, pci=pair, include=("c",)), [third := uuid.uuid4()])
    assert scheduler.claim(Request(vcpus=1, pci=pair[::-1], include=("c",)), [third])[0].already


def test_what_runs_stays_counted_where_it_runs_and_the_new_place_as_well(
    owner: Connection, scheduler: Scheduler
) -> None:
    consumer = uuid.uuid4()
    scheduler.claim(Request(vcpus=4, include=("a",)), [consumer])
    show(owner, "a", consumer, vcpus_free=28)  # it runs
    assert scheduler.claim(Request(vcpus=4), [consumer])[0].already
    assert differs(scheduler, Request(vcpus=4, include=("b",)), consumer) == [["include"]]
    with pytest.raises(NoHostFitsError):
        scheduler.claim(Request(vcpus=64), [consumer], move=True)
    assert (free(scheduler)["a"], scheduler.claim(Request(vcpus=4), [consumer])[0].already) == (28, True)
    scheduler.claim(Request(vcpus=4, include=("b",)), [consumer], move=True)  # a migration begins
    assert free(scheduler) == {"a": 28, "b": 28, "c": 32}
    show(owner, "b", consumer, vcpus_free=28)  # and ends
    show(owner, "a", vcpus_free=32)
    assert free(scheduler) == {"a": 32, "b": 28, "c": 32}


def test_a_running_instance_that_is_resized_counts_in_full_until_its_host_lists_it_anew(
    owner: Connection, scheduler: Scheduler
) -> None:
    consumer, other = uuid.uuid4(), uuid.uuid4()
    scheduler.claim(Request(vcpus=4, include=("a",)), [consumer])
    show(owner, "a", consumer, vcpus_free=28)
    scheduler.claim(Request(vcpus=8, include=("a",)), [consumer], move=True)
    assert free(scheduler)["a"] == 20  # 4 that run, 8 that are on their way
    show(owner, "a", consumer, other, vcpus_free=27)  # it is listed still, for its former size
    assert free(scheduler)["a"] == 19
    show(owner, "a", other, vcpus_free=27)  # no longer
    assert free(scheduler)["a"] == 19
    show(owner, "a", other, consumer, vcpus_free=23)  # it has grown
    assert free(scheduler)["a"] == 23
    # The same where it had been listed already when it was claimed, so that it was never settled.
    fast = uuid.uuid4()
    show(owner, "b", fast, vcpus_free=28)
    scheduler.claim(Request(vcpus=4, include=("b",)), [fast])
    scheduler.claim(Request(vcpus=8, include=("b",)), [fast], move=True)
    show(owner, "b", vcpus_free=28)
    assert free(scheduler)["b"] == 20


def test_a_noted_claim_is_compared_by_what_is_known_of_it(scheduler: Scheduler, owner: Connection) -> None:
    consumer = uuid.uuid4()
    query(owner, "SELECT vacancy.note_claim(%s, 'id-a', 4, 0, 0, '1 min')", str(consumer))
    assert scheduler.claim(Request(vcpus=4), [consumer])[0].already
    assert differs(scheduler, Request(vcpus=5), consumer) == [["vcpus"]]
    assert differs(scheduler, Request(vcpus=4, resources={"VGPU": 1}), consumer) == [["resources"]]
    (moved,) = scheduler.claim(Request(vcpus=5, include=("c",)), [consumer], move=True)
    assert (moved.host_name, free(scheduler)["a"]) == ("c", 32)


def test_an_expired_claim_contradicts_nothing(scheduler: Scheduler) -> None:
    consumer = uuid.uuid4()
    scheduler.claim(Request(vcpus=32, include=("a",), claim_ttl=timedelta(milliseconds=1)), [consumer])
    wait_until(lambda: free(scheduler)["a"] == 32, 10, "it has expired")
    assert not scheduler.claim(Request(vcpus=1, include=("b",)), [consumer])[0].already


REQUESTS = st.builds(
    Request,
    vcpus=st.integers(1, 40),
    memory_mb=st.sampled_from([0, 1024]),
    include=st.sampled_from([(), ("a",), ("b",), ("a", "c")]),
    distinct_hosts=st.booleans(),
    resources=st.sampled_from([{}, {"CUSTOM_FPGA": 3}]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(REQUESTS, st.sets(st.integers(0, 4), min_size=1), st.booleans()), max_size=6))
def test_any_sequence_of_claims_and_moves(
    scheduler: Scheduler, owner: Connection, calls: list[tuple[Request, set[int], bool]]
) -> None:
    """A model of who has what: refusals and contradictions change nothing, and all else is as asked for."""
    consumers = [uuid.uuid4() for _ in range(5)]
    model: dict[uuid.UUID, tuple[int, str]] = {}
    for request, members, move in calls:
        chosen = [consumers[number] for number in sorted(members)]
        try:
            claims = scheduler.claim(request, chosen, move=move)
        except (NoHostFitsError, ContradictionError):
            claims = []
        for claim in claims:
            if not claim.already:
                assert move or claim.consumer not in model
                model[claim.consumer] = (request.vcpus, claim.host_id)
            assert model[claim.consumer] == (request.vcpus, claim.host_id)
            assert not request.include or claim.host_name in request.include
        assert not (request.distinct_hosts and len({claim.host_id for claim in claims}) < len(claims))
        rows = query(owner, "SELECT consumer::text, vcpus, host_id FROM vacancy.claim")
        assert {uuid.UUID(consumer): (vcpus, host) for consumer, vcpus, host in rows} == model
        for name, vcpus_free in free(scheduler).items():
            assert vcpus_free == 32 - sum(vcpus for vcpus, host in model.values() if host == f"id-{name}") >= 0
    scheduler.release(*consumers)


# With 16 movers that are killed: nobody is ever without a claim or has two, and no host has less than 0.

MOVERS = 16
SECONDS = float(os.environ.get("VACANCY_TEST_MOVES_S", "5"))
OF_MOVERS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vacancy scheduler'"
LEDGER = """
CREATE TABLE public.change (xid xid8 DEFAULT pg_current_xact_id(), consumer uuid, host_id text, vcpus integer);
CREATE FUNCTION public.note_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO public.change (consumer, host_id, vcpus) VALUES (NEW.consumer, NEW.host_id, NEW.vcpus);
  ELSE
    INSERT INTO public.change (consumer, host_id, vcpus) VALUES (OLD.consumer, OLD.host_id, -OLD.vcpus);
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER note_change AFTER INSERT OR DELETE ON vacancy.claim FOR EACH ROW EXECUTE FUNCTION public.note_change();
"""


def move_on(database: str, diary: Path, seed: int, consumers: list[str]) -> None:
    """Moves its consumers' claims until it is killed; the diary has each call before it is made, and its answer."""
    draw = random.Random(seed)
    patient = SchedulerSettings(connections=1, statement_timeout=timedelta(seconds=30), claim_ttl=timedelta(days=1))
    scheduler = Scheduler(database, patient)
    with diary.open("a", encoding="utf-8") as said:
        while True:
            chosen = draw.sample(consumers, draw.randint(1, len(consumers)))
            request = Request(vcpus=draw.randint(1, 4), include=draw.choice([(), ("a",), ("b",), ("a", "c")]))
            print(json.dumps(["asks", chosen, request.vcpus, None]), file=said, flush=True)
            try:
                claims = scheduler.claim(request, chosen, move=True)
            except (NoHostFitsError, ContendedError, UnreachableError) as error:
                print(json.dumps(["refused", chosen, type(error).__name__, None]), file=said, flush=True)
            else:
                hosts = [claim.host_id for claim in claims]
                print(json.dumps(["has", chosen, request.vcpus, hosts]), file=said, flush=True)


def test_movers_that_are_killed_leave_everybody_with_one_claim(
    owner: Connection, scheduler: Scheduler, database: str, tmp_path: Path
) -> None:
    scheduler.close()  # the hosts have to be there
    query(owner, f"{LEDGER} SELECT 1")
    draw = random.Random(16)
    groups = [[str(uuid.uuid4()) for _ in range(2)] for _ in range(MOVERS)]
    diaries = [tmp_path / f"{number}.diary" for number in range(MOVERS)]

    def start(number: int) -> ForkProcess:
        arguments = (database, diaries[number], draw.getrandbits(32), groups[number])
        process = get_context("fork").Process(target=move_on, args=arguments, daemon=True)
        process.start()
        return process

    movers = [start(number) for number in range(MOVERS)]
    had: set[str] = set()
    kills = cuts = 0
    ends = time.monotonic() + SECONDS
    try:
        while time.monotonic() < ends:
            # One snapshot: what each host has left, and who has a claim.
            [(least, claimed)] = query(
                owner,
                "SELECT (SELECT min(32 - sum) FROM (SELECT sum(vcpus) FROM vacancy.claim GROUP BY host_id) AS of_host),"
                " (SELECT array_agg(consumer::text) FROM vacancy.claim)",
            )
            assert (least or 0) >= 0, "a host is over-committed"
            assert had <= set(claimed or []), "somebody had a claim, and has none"
            had = set(claimed or [])
            if draw.random() < 0.3:
                number = draw.randrange(MOVERS)
                process = movers[number]
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                movers[number] = start(number)
                kills += 1
            elif draw.random() < 0.3:
                cuts += len(query(owner, f"SELECT pg_terminate_backend(pid) {OF_MOVERS} ORDER BY random() LIMIT 1"))
            wait_until_time(time.monotonic() + 0.05)
    finally:
        for process in movers:
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    busy = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vacancy scheduler'"
    )
    wait_until(lambda: not query(owner, busy), 30, "the server has ended what the killed ones began")
    rows = query(owner, "SELECT consumer::text, vcpus, host_id FROM vacancy.claim")
    has = {consumer: (vcpus, host) for consumer, vcpus, host in rows}
    moves = 0
    for diary, group in zip(diaries, groups, strict=True):
        may: dict[str, set[Any]] = {consumer: {None} for consumer in group}
        asked: tuple[list[str], int] | None = None
        for line in diary.read_text(encoding="utf-8").splitlines():
            what, chosen, vcpus, hosts = json.loads(line)
            if what == "asks":
                if asked:  # it was killed before it had the answer
                    for consumer in asked[0]:
                        may[consumer].add(asked[1])
                asked = (chosen, vcpus)
            elif what == "has":
                moves, asked = moves + 1, None
                for consumer, host in zip(chosen, hosts, strict=True):
                    may[consumer] = {(vcpus, host)}
            elif vcpus != "UnreachableError":  # refused, and as it was
                asked = None
        for consumer in asked[0] if asked else []:
            may[consumer].add(asked[1] if asked else None)
        for consumer, possible in may.items():
            now = has.get(consumer)
            assert now in possible or (now and now[0] in possible), f"{consumer} has {now}, and may have {possible}"
    # In each transaction by itself: who had a claim has one after it, and only one.
    torn = query(
        owner,
        "SELECT xid, consumer, sum(sign(vcpus)) FROM public.change GROUP BY xid, consumer HAVING sum(sign(vcpus)) < 0"
        " OR sum(sign(vcpus)) > 1",
    )
    assert torn == []
    assert kills > 2, "no mover was killed"
    assert moves > 30, f"{moves} moves, {kills} kills, {cuts} cut connections"
    print(f"{moves} moves, {kills} movers killed, {cuts} connections cut")
