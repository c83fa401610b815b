"""Claims, releases, expiries and the sink's writes in any order, against a plain model, on a real PostgreSQL.

What must hold after each step, on each host: free = capacity - what its instances hold - what is claimed and neither
shown, released nor expired. So nothing is claimed that is not free, nothing counts twice, and no claim is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from connectors.migrations import migrate
from connectors.scheduler import Claim, NoHostFitsError, Request, Scheduler, Weights
from connectors.settings import SchedulerSettings
from tests.integration.upserts import query, upsert_inventory, upsert_usage

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


@pytest.fixture
def owner(database: str) -> Iterator[Connection]:
    """A migrated database, with the hosts' inventories."""
    migrate(SecretStr(database))
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        yield connection


class SeededScheduler(Scheduler):
    """Picks the same hosts again after :meth:`seed`, having one connection."""

    def seed(self) -> None:
        self._call(lambda cursor: cursor.fetchall(), "SELECT setseed(0)")


@pytest.fixture
def scheduler(database: str) -> Iterator[SeededScheduler]:
    settings = SchedulerSettings(claim_ttl=timedelta(days=1), sample=2, max_age=timedelta(days=9), connections=1)
    made = SeededScheduler(database, settings)
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_free_is_capacity_less_instances_less_claims_in_flight(owner: Connection, scheduler: SeededScheduler) -> None:
    amounts = st.fixed_dictionaries(
        {"vcpus": st.integers(0, 3), "memory_mb": st.integers(1, 1500), "disk_gb": st.integers(0, 30)}
    )

    class Machine(RuleBasedStateMachine):
        @initialize()
        def empty(self) -> None:
            self.hosts = {host: ModelHost() for host in HOSTS}
            self.claims: dict[uuid.UUID, ModelClaim] = {}
            self.consumers = 0
            # A run can be repeated only if the hosts picked are the same again.
            query(owner, "SELECT setseed(0)")
            scheduler.seed()
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

        @precondition(lambda self: self.claims)
        @rule(data=st.data(), amounts=amounts)
        def claim_again(self, data: st.DataObject, amounts: Amounts) -> None:
            known = data.draw(st.lists(st.sampled_from(list(self.claims)), min_size=1, max_size=3, unique=True))
            claims = scheduler.claim(self.request(amounts), known)
            assert [(claim.host_id, claim.already) for claim in claims] == [
                (self.claims[consumer].host, True) for consumer in known
            ]

        @precondition(lambda self: self.claims)
        @rule(data=st.data(), amounts=amounts)
        def claim_some_again(self, data: st.DataObject, amounts: Amounts) -> None:
            known, new = data.draw(st.sampled_from(list(self.claims))), self.new_consumer()
            try:
                claims = scheduler.claim(self.request(amounts), [new, known])
            except NoHostFitsError:
                assert not [host for host in HOSTS if self.fits(host, amounts)]
                return
            assert [claim.already for claim in claims] == [False, True]
            self.note(claims[:1], amounts)

        @precondition(lambda self: self.claims)
        @rule(data=st.data())
        def release(self, data: st.DataObject) -> None:
            consumer = data.draw(st.sampled_from(list(self.claims)))
            assert scheduler.release(consumer, self.new_consumer()) == [consumer]
            assert scheduler.release(consumer) == []
            del self.claims[consumer]

        @precondition(lambda self: self.claims)
        @rule(data=st.data())
        def expire(self, data: st.DataObject) -> None:
            consumer = data.draw(st.sampled_from(list(self.claims)))
            moved = "UPDATE vacancy.claim SET expires_at = now() - interval '1 ms' WHERE consumer = %s RETURNING 1"
            assert query(owner, moved, str(consumer)) == [(1,)]
            del self.claims[consumer]

        @precondition(lambda self: any(claim.in_flight for claim in self.claims.values()))
        @rule(data=st.data())
        def start_and_show(self, data: st.DataObject) -> None:
            """The host starts some of the instances that were claimed on it; its next row counts and lists them."""
            waiting = [consumer for consumer, claim in self.claims.items() if claim.in_flight]
            host = self.claims[data.draw(st.sampled_from(waiting))].host
            there = [consumer for consumer in waiting if self.claims[consumer].host == host]
            started = data.draw(st.sets(st.sampled_from(there), min_size=1))
            for consumer in started:
                self.hosts[host].running[consumer] = self.claims[consumer].amounts
                self.claims[consumer].in_flight = False
            self.write(host, started | self.hosts[host].listed)

        @rule(host=st.sampled_from(HOSTS), data=st.data())
        def show_fewer(self, host: str, data: st.DataObject) -> None:
            """A row that lists only some of the recent ones, for their minutes are over; they go on counting."""
            listed = self.hosts[host].listed
            self.write(host, data.draw(st.sets(st.sampled_from(sorted(listed)))) if listed else set())

        @rule(host=st.sampled_from(HOSTS))
        def show_late(self, host: str) -> None:
            """A row from before the newest one, as a job writes after a restart: it changes nothing."""
            self.upsert(host, {}, set(), -1)

        @precondition(lambda self: any(host.running for host in self.hosts.values()))
        @rule(data=st.data())
        def end_instance(self, data: st.DataObject) -> None:
            host = data.draw(st.sampled_from([name for name, host in self.hosts.items() if host.running]))
            del self.hosts[host].running[data.draw(st.sampled_from(list(self.hosts[host].running)))]
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
            return Request(**amounts, distinct_hosts=distinct, weights=Weights(age=0))

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
