"""Claims, releases, expiries and the sink's writes in any order, against a plain model, on a real PostgreSQL.

What must hold after each step, on each host: free = capacity - what its instances hold - what is claimed and neither
shown, released nor expired. So nothing is claimed that is not free, nothing counts twice, and no claim is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import query, upsert_inventory, upsert_usage
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import Claim, ContradictionError, NoHostFitsError
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings

CAPACITY = {"vcpus": 8, "memory_mb": 4096, "disk_gb": 100}
HOSTS = ("host-a", "host-b", "host-c")
START = datetime.now(UTC)

Amounts = dict[str, int]


@dataclass
class ModelHost:
    """What a host runs, and what its newest row says of it."""

    running: dict[uuid.UUID, Amounts] = field(default_factory=dict)
    written: dict[uuid.UUID, Amounts] = field(default_factory=dict)
    listed: set[uuid.UUID] = field(default_factory=set)
    second: int = 0


@dataclass
class ModelClaim:
    """A claim that counts, or that is settled and still known."""

    host: str
    amounts: Amounts
    in_flight: bool = True


def subset(names: Iterable[uuid.UUID], chosen: int) -> list[uuid.UUID]:
    """Some of the names in order: those whose bits are set in a number; further ones share bits."""
    return [name for index, name in enumerate(sorted(names)) if chosen >> index % 12 & 1]


@pytest.fixture
def scheduler(database: str) -> Iterator[Scheduler]:
    settings = SchedulerSettings(claim_ttl=timedelta(days=1), sample=2, max_age=timedelta(days=9))
    made = Scheduler(database, settings)
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_free_is_capacity_less_instances_less_claims_in_flight(owner: Connection, scheduler: Scheduler) -> None:
    amounts = st.fixed_dictionaries(
        {"vcpus": st.integers(0, 3), "memory_mb": st.integers(1, 1500), "disk_gb": st.integers(0, 30)}
    )

    # What is drawn depends on no host that was picked: the server picks among equals at random, and so may pick another
    # when a run is repeated.
    some = st.integers(0, 2**12 - 1)

    class Machine(RuleBasedStateMachine):
        @initialize()
        def empty(self) -> None:
            self.hosts = {host: ModelHost() for host in HOSTS}
            self.claims: dict[uuid.UUID, ModelClaim] = {}
            self.consumers = 0
            with owner.cursor() as cursor:
                cursor.execute("TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim")
            for host in HOSTS:
                upsert_inventory(owner, host_id=host, name=f"name of {host}", observed_at=START)
                self.write(host, set())

        @rule(amounts=amounts, count=st.integers(1, 3), distinct=st.booleans())
        def claim(self, amounts: Amounts, count: int, distinct: bool) -> None:
            consumers = [self.new_consumer() for _ in range(count)]
            try:
                claims = scheduler.claim(self.request(amounts, distinct), consumers)
            except NoHostFitsError:
                # Of several, the first ones may have taken what the last one needs.
                assert count > 1 or not [host for host in HOSTS if self.fits(host, amounts)]
                return
            assert [claim.consumer for claim in claims] == consumers
            assert not any(claim.already for claim in claims)
            if distinct:
                assert len({claim.host_id for claim in claims}) == count
            self.note(claims, amounts)

        @rule(chosen=some)
        def claim_again(self, chosen: int) -> None:
            for consumer in subset(self.claims, chosen):
                was = self.claims[consumer]
                (claim,) = scheduler.claim(self.request(was.amounts), [consumer])
                assert (claim.host_id, claim.already) == (was.host, True)

        @rule(chosen=some, amounts=amounts)
        def claim_for_something_else(self, chosen: int, amounts: Amounts) -> None:
            known, new = subset(self.claims, chosen), self.new_consumer()
            if other := [consumer for consumer in known if self.claims[consumer].amounts != amounts]:
                with pytest.raises(ContradictionError) as caught:
                    scheduler.claim(self.request(amounts), [new, *known])
                assert [one.consumer for one in caught.value.contradictions] == other

        @rule(chosen=some)
        def claim_some_again(self, chosen: int) -> None:
            if known := subset(self.claims, chosen):
                amounts = self.claims[known[0]].amounts
                known = [consumer for consumer in known if self.claims[consumer].amounts == amounts]
                try:
                    claims = scheduler.claim(self.request(amounts), [self.new_consumer(), *known])
                except NoHostFitsError:
                    assert not [host for host in HOSTS if self.fits(host, amounts)]
                    return
                assert [claim.already for claim in claims] == [False] + [True] * len(known)
                self.note(claims[:1], amounts)

        @rule(chosen=some, amounts=amounts)
        def move(self, chosen: int, amounts: Amounts) -> None:
            """Claims in flight move; those whose instances run have tests of their own (test_moves.py)."""
            listed = {name for host in self.hosts.values() for name in host.listed | host.running.keys()}
            known = [
                name for name in subset(self.claims, chosen)[:2] if self.claims[name].in_flight and name not in listed
            ]
            if not known:
                return
            before = dict(self.claims)
            moving = [name for name in known if self.claims[name].amounts != amounts]
            for name in moving:
                del self.claims[name]
            try:
                claims = scheduler.claim(self.request(amounts), known, move=True)
            except NoHostFitsError:
                # Of two, the first one may have taken what the other one needs.
                assert len(moving) > 1 or not [host for host in HOSTS if self.fits(host, amounts)]
                self.claims = before
                return
            assert [claim.already for claim in claims] == [name not in moving for name in known]
            self.note([claim for claim in claims if not claim.already], amounts)

        @rule(chosen=some)
        def release(self, chosen: int) -> None:
            consumers = subset(self.claims, chosen)
            assert sorted(scheduler.release(*consumers, self.new_consumer())) == consumers
            assert scheduler.release(*consumers) == []
            for consumer in consumers:
                del self.claims[consumer]

        @rule(chosen=some)
        def expire(self, chosen: int) -> None:
            for consumer in subset(self.claims, chosen):
                moved = "UPDATE vacancy.claim SET expires_at = now() - interval '1 ms' WHERE consumer = %s RETURNING 1"
                assert query(owner, moved, str(consumer)) == [(1,)]
                del self.claims[consumer]

        @rule(host=st.sampled_from(HOSTS), chosen=some)
        def start_and_show(self, host: str, chosen: int) -> None:
            """The host starts some of the instances that were claimed on it; its next row counts and lists them."""
            waiting = [name for name, claim in self.claims.items() if claim.in_flight and claim.host == host]
            started = subset(waiting, chosen)
            for consumer in started:
                self.hosts[host].running[consumer] = self.claims[consumer].amounts
                self.claims[consumer].in_flight = False
            self.write(host, self.hosts[host].listed | set(started))

        @rule(host=st.sampled_from(HOSTS), chosen=some)
        def show_fewer(self, host: str, chosen: int) -> None:
            """A row that lists only some of the recent ones, for their minutes are over; they go on counting."""
            self.write(host, set(subset(self.hosts[host].listed, chosen)))

        @rule(host=st.sampled_from(HOSTS))
        def show_late(self, host: str) -> None:
            """A row from before the newest one, as a job writes after a restart: it changes nothing."""
            self.upsert(host, {}, set(), -1)

        @rule(host=st.sampled_from(HOSTS), chosen=some)
        def end_instances(self, host: str, chosen: int) -> None:
            for consumer in subset(self.hosts[host].running, chosen):
                del self.hosts[host].running[consumer]
            self.write(host, self.hosts[host].listed & self.hosts[host].running.keys())

        @invariant()
        def free_is_what_the_model_says(self) -> None:
            rows = query(
                owner, "SELECT host_id, vcpus_free, memory_mb_free, disk_gb_free FROM vacancy.schedulable_host"
            )
            free = {host: dict(zip(CAPACITY, figures, strict=True)) for host, *figures in rows}
            assert free == {host: self.free(host) for host in HOSTS}
            assert all(figure >= 0 for figures in free.values() for figure in figures.values())

        @invariant()
        def no_claim_is_lost_or_doubled(self) -> None:
            rows = query(owner, "SELECT consumer::text, host_id FROM vacancy.claim WHERE expires_at > now()")
            assert sorted(rows) == sorted((str(consumer), claim.host) for consumer, claim in self.claims.items())

        def new_consumer(self) -> uuid.UUID:
            self.consumers += 1
            return uuid.UUID(int=self.consumers)

        def request(self, amounts: Amounts, distinct: bool = False) -> Request:
            return Request(**amounts, distinct_hosts=distinct)

        def note(self, claims: list[Claim], amounts: Amounts) -> None:
            for claim in claims:
                assert self.fits(claim.host_id, amounts), claim
                self.claims[claim.consumer] = ModelClaim(claim.host_id, amounts)

        def fits(self, host: str, amounts: Amounts) -> bool:
            free = self.free(host)
            return all(amounts[name] <= free[name] for name in CAPACITY)

        def free(self, host: str) -> Amounts:
            held = list(self.hosts[host].written.values())
            held += [claim.amounts for claim in self.claims.values() if claim.host == host and claim.in_flight]
            return {name: total - sum(amounts[name] for amounts in held) for name, total in CAPACITY.items()}

        def write(self, host: str, listed: set[uuid.UUID]) -> None:
            model = self.hosts[host]
            model.second += 2
            model.written, model.listed = dict(model.running), set(listed)
            self.upsert(host, model.written, model.listed, 0)

        def upsert(self, host: str, written: dict[uuid.UUID, Amounts], listed: set[uuid.UUID], shift: int) -> None:
            figures: dict[str, object] = {}
            for name, total in CAPACITY.items():
                free = total - sum(amounts[name] for amounts in written.values())
                figures |= {f"{name}_capacity": total, f"{name}_free": free, f"{name}_free_min": free}
            upsert_usage(
                owner,
                host_id=host,
                observed_at=START + timedelta(seconds=self.hosts[host].second + shift),
                memory_mb_available=1_000_000,
                disk_gb_available=1_000_000,
                recent_consumers="{" + ",".join(map(str, listed)) + "}",
                **figures,
            )

    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
