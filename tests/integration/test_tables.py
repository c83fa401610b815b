"""What always holds for the tables: nothing goes back in time, the retired stay out, updates stay HOT."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import LIMIT_SECONDS, at, query, retire, upsert_inventory, upsert_usage
from tests.harness.servers import new_database
from tests.harness.waiting import wait_until
from vacancy.connectors.postgres.migrations import migrate

HOST_ROWS = "SELECT host_id, samples FROM vacancy.host ORDER BY host_id"
HOSTS = 10_000
UPDATES = 1_000_000


def test_older_usage_changes_nothing_and_equal_times_are_let_through(owner: Connection) -> None:
    upsert_usage(owner, observed_at=at(2), samples=2)
    upsert_usage(owner, observed_at=at(1), samples=1)
    assert query(owner, HOST_ROWS) == [("host-1", 2)]
    upsert_usage(owner, observed_at=at(2), samples=3)
    assert query(owner, HOST_ROWS) == [("host-1", 3)]


def test_older_inventory_changes_nothing_and_equal_times_are_let_through(owner: Connection) -> None:
    names = "SELECT name FROM vacancy.host_inventory"
    upsert_inventory(owner, observed_at=at(2), name="second")
    upsert_inventory(owner, observed_at=at(1), name="first")
    assert query(owner, names) == [("second",)]
    upsert_inventory(owner, observed_at=at(2), name="third")
    assert query(owner, names) == [("third",)]


def test_retirement_takes_the_host_out_of_both_tables_and_the_view(owner: Connection) -> None:
    for host in ("host-1", "host-2"):
        upsert_inventory(owner, host_id=host)
        upsert_usage(owner, host_id=host)
    retire(owner, observed_at=at(1))
    assert query(owner, HOST_ROWS) == [("host-2", 60)]
    assert query(owner, "SELECT host_id FROM vacancy.schedulable_host") == [("host-2",)]
    assert query(owner, "SELECT retired FROM vacancy.host_inventory WHERE host_id = 'host-1'") == [(True,)]


def test_late_usage_does_not_bring_a_retired_host_back(owner: Connection) -> None:
    upsert_inventory(owner)
    retire(owner, observed_at=at(1))
    upsert_usage(owner, observed_at=at(100))
    assert query(owner, HOST_ROWS) == []


def test_a_host_that_never_sent_inventory_can_be_retired(owner: Connection) -> None:
    upsert_usage(owner)
    retire(owner)
    upsert_usage(owner, observed_at=at(1))
    assert query(owner, HOST_ROWS) == []


def test_a_retirement_older_than_the_inventory_changes_nothing(owner: Connection) -> None:
    upsert_inventory(owner, observed_at=at(2))
    upsert_usage(owner)
    retire(owner, observed_at=at(1))
    assert query(owner, HOST_ROWS) == [("host-1", 60)]
    assert query(owner, "SELECT name FROM vacancy.schedulable_host") == [("compute-1",)]


def test_a_newer_inventory_revives_a_host_and_an_older_one_does_not(owner: Connection) -> None:
    retire(owner, observed_at=at(2))
    upsert_inventory(owner, observed_at=at(1))
    upsert_usage(owner, observed_at=at(3))
    assert query(owner, HOST_ROWS) == []
    upsert_inventory(owner, observed_at=at(3))
    upsert_usage(owner, observed_at=at(3))
    assert query(owner, HOST_ROWS) == [("host-1", 60)]


def test_tombstones_of_more_than_seven_days_go_with_the_next_inventory(owner: Connection) -> None:
    now = datetime.now(UTC)
    with owner.cursor() as cursor:
        cursor.execute("ALTER TABLE vacancy.host_inventory DISABLE TRIGGER delete_old_tombstones")
        retire(owner, host_id="old", observed_at=now - timedelta(days=7, minutes=1))
        retire(owner, host_id="young", observed_at=now - timedelta(days=6, hours=23))
        cursor.execute("ALTER TABLE vacancy.host_inventory ENABLE TRIGGER delete_old_tombstones")
    upsert_inventory(owner, host_id="live", observed_at=now - timedelta(days=30))
    assert query(owner, "SELECT host_id FROM vacancy.host_inventory ORDER BY 1") == [("live",), ("young",)]


def test_only_tombstones_are_in_the_index_that_finds_them(owner: Connection) -> None:
    for index in range(300):
        upsert_inventory(owner, host_id=f"host-{index}")
        upsert_inventory(owner, host_id=f"host-{index}", observed_at=at(1))
    retire(owner, host_id="host-0", observed_at=datetime.now(UTC))
    with owner.cursor() as cursor:
        cursor.execute("ANALYZE vacancy.host_inventory")
    assert query(owner, "SELECT reltuples FROM pg_class WHERE relname = 'host_inventory_tombstones'") == [(1.0,)]


class Write(NamedTuple):
    """One upsert of one host, as the job might send it."""

    kind: str
    second: int


class Model:
    """The guards in a few lines: what the two tables hold of one host, whatever came in whichever order."""

    def __init__(self) -> None:
        self.usage: int | None = None
        self.inventory: Write | None = None

    def write(self, write: Write) -> None:
        if write.kind == "usage":
            if not self.retired:
                self.usage = max(write.second, self.usage or 0)
        elif self.inventory is None or write.second >= self.inventory.second:
            self.inventory = write
            if self.retired:
                self.usage = None

    @property
    def retired(self) -> bool:
        return self.inventory is not None and self.inventory.kind == "retire"

    @property
    def rows(self) -> tuple[datetime | None, datetime | None, bool | None]:
        return (
            None if self.usage is None else at(self.usage),
            None if self.inventory is None else at(self.inventory.second),
            None if self.inventory is None else self.retired,
        )


WRITES = st.lists(
    st.builds(Write, st.sampled_from(["usage", "usage", "inventory", "retire"]), st.integers(1, 12)),
    min_size=1,
    max_size=14,
    # Two events of one host in one partition may share an append time; then the later wins, and order matters.
    unique_by=lambda write: (write.kind == "usage", write.second),
)


@pytest.fixture(scope="module")
def shared(postgres_server: Any) -> Iterator[Connection]:
    """A migrated database that the examples of a property share."""
    with new_database(postgres_server) as dsn:
        migrate(SecretStr(dsn))
        with closing(psycopg2.connect(dsn)) as opened:
            yield opened


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES, seed=st.randoms(use_true_random=False))
def test_any_order_ends_at_the_newest(shared: Connection, writes: list[Write], seed: Any) -> None:
    """Any order of a host's writes leaves what the model says, and replaying all in another order changes nothing more.

    Usage that comes while a tombstone stands is dropped, so the usage row of a revived host is back with its next
    report: hence the last write, again, of the newest usage.
    """
    try:
        _end_at_the_newest(shared, writes, [*writes, *seed.sample(writes, len(writes))])
    finally:
        shared.rollback()


def _end_at_the_newest(shared: Connection, writes: list[Write], order: list[Write]) -> None:
    usage = [write for write in writes if write.kind == "usage"]
    inventory = [write for write in writes if write.kind != "usage"]
    if usage:
        order.append(max(usage, key=lambda write: write.second))
    model = Model()
    newest = datetime.min.replace(tzinfo=UTC)
    for write in order:
        _apply(shared, write)
        model.write(write)
        rows = query(
            shared,
            "SELECT h.observed_at, i.observed_at, i.retired FROM (VALUES (1)) AS one "
            "LEFT JOIN vacancy.host h ON true LEFT JOIN vacancy.host_inventory i ON true",
        )
        assert rows == [model.rows]
        if rows[0][1] is not None:
            assert rows[0][1] >= newest, "the inventory went back in time"
            newest = rows[0][1]
    last = max(inventory, key=lambda write: write.second, default=None)
    retired = last is not None and last.kind == "retire"
    assert model.retired == retired
    assert model.usage == (None if retired or not usage else max(write.second for write in usage))


def _apply(owner: Connection, write: Write) -> None:
    act = {"usage": upsert_usage, "inventory": upsert_inventory, "retire": retire}[write.kind]
    act(owner, observed_at=at(write.second))


def _background(owner: Connection, act: Any, **values: Any) -> threading.Thread:
    """Runs an upsert that has to wait, and commits it."""

    def run() -> None:
        act(owner, **values)
        owner.commit()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _is_waiting(watcher: Connection, waiter: Connection) -> bool:
    return query(watcher, "SELECT pg_blocking_pids(%s) <> '{}'", waiter.info.backend_pid) == [(True,)]


@pytest.mark.parametrize("known", [True, False], ids=["with inventory", "without inventory"])
@pytest.mark.parametrize("first", ["usage", "retire"])
def test_retirement_racing_the_first_usage_row_leaves_none(
    owner: Connection, database: str, first: str, known: bool
) -> None:
    """Whichever transaction is first, the other waits for its commit and then sees it."""
    if known:
        upsert_inventory(owner)
    now = datetime.now(UTC)
    with closing(psycopg2.connect(database)) as usage, closing(psycopg2.connect(database)) as inventory:
        if first == "usage":
            upsert_usage(usage, observed_at=now)
            waiter, thread = inventory, _background(inventory, retire, observed_at=now)
        else:
            retire(inventory, observed_at=now)
            waiter, thread = usage, _background(usage, upsert_usage, observed_at=now)
        wait_until(
            lambda: _is_waiting(owner, waiter), LIMIT_SECONDS, "the second transaction does not wait for the first"
        )
        assert query(owner, HOST_ROWS) == []
        (usage if first == "usage" else inventory).commit()
        thread.join(30)
        assert not thread.is_alive()
    assert query(owner, HOST_ROWS) == []


def test_retiring_in_the_middle_of_a_batch_does_not_deadlock(owner: Connection, database: str) -> None:
    """A batch that holds one host's row and goes on to insert a host that is being retired: no cycle of waits."""
    upsert_usage(owner, host_id="host-2")
    now = datetime.now(UTC)
    with closing(psycopg2.connect(database)) as usage, closing(psycopg2.connect(database)) as inventory:
        upsert_usage(usage, host_id="host-2", observed_at=now)
        thread = _background(inventory, retire, host_id="host-1", observed_at=now)
        wait_until(lambda: _is_waiting(owner, inventory), LIMIT_SECONDS, "retirement does not wait for the batch")
        upsert_usage(usage, host_id="host-1", observed_at=now)
        usage.commit()
        thread.join(30)
        assert not thread.is_alive()
        retire(inventory, host_id="host-2", observed_at=now)
        inventory.commit()
    assert query(owner, HOST_ROWS) == []


def test_readers_do_not_wait_for_a_retirement(owner: Connection, database: str) -> None:
    upsert_inventory(owner)
    upsert_usage(owner)
    with closing(psycopg2.connect(database)) as inventory:
        retire(inventory, observed_at=at(1))
        with owner.cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        assert query(owner, "SELECT count(*) FROM vacancy.schedulable_host") == [(1,)]


def test_the_reason_is_the_first_that_applies(owner: Connection) -> None:
    now = datetime.now(UTC)
    cases: list[tuple[str, dict[str, Any], timedelta | None]] = [
        ("fresh", {}, timedelta()),
        ("stale", {}, timedelta(minutes=1)),
        ("ahead", {}, timedelta(minutes=-1)),
        ("a little ahead", {}, timedelta(seconds=-2)),
        ("silent", {}, None),
        ("disabled", {"status": "DISABLED", "status_reason": "kernel update"}, timedelta(minutes=1)),
        ("disabled, no word", {"status": "DISABLED"}, None),
    ]
    for host, values, age in cases:
        upsert_inventory(owner, host_id=host, **values)
        if age is not None:
            upsert_usage(owner, host_id=host, observed_at=now - age)
    for host, anomalies in (("cloned", 5), ("odd", 6)):
        upsert_inventory(owner, host_id=host)
        upsert_usage(owner, host_id=host, observed_at=now, anomalies=anomalies)
    reasons = dict(query(owner, "SELECT host_id, reason FROM vacancy.schedulable_host"))
    assert reasons == {
        "fresh": None,
        "stale": "stale",
        "ahead": "clock ahead",
        "a little ahead": None,
        "silent": "no usage yet",
        "disabled": "disabled: kernel update",
        "disabled, no word": "disabled",
        "cloned": "duplicate id",
        "odd": None,
    }


def test_the_session_says_what_stale_means(owner: Connection) -> None:
    upsert_inventory(owner)
    upsert_usage(owner, observed_at=datetime.now(UTC) - timedelta(seconds=40))
    reason = "SELECT reason FROM vacancy.schedulable_host"
    assert query(owner, reason) == [("stale",)]
    with owner.cursor() as cursor:
        cursor.execute("SET vacancy.max_age = '10 min'")
        assert query(owner, reason) == [(None,)]
        cursor.execute("RESET vacancy.max_age")
    assert query(owner, reason) == [("stale",)]


def test_a_host_goes_stale_within_a_transaction_too(owner: Connection, database: str) -> None:
    upsert_inventory(owner)
    upsert_usage(owner, observed_at=datetime.now(UTC))
    with closing(psycopg2.connect(database)) as reader:
        query(reader, "SELECT set_config('vacancy.max_age', '200 ms', false)")
        wait_until(
            lambda: query(reader, "SELECT reason FROM vacancy.schedulable_host") == [("stale",)],
            LIMIT_SECONDS,
            "the host never looks stale to a reader in a transaction",
        )


def test_a_million_updates_are_hot_and_the_table_does_not_grow(owner: Connection) -> None:
    """The worst shape a sink can send: each tick all hosts in one transaction, in an order of its own."""
    columns = [
        row[0]
        for row in query(
            owner, "SELECT attname FROM pg_attribute WHERE attrelid = 'vacancy.host'::regclass AND attnum > 0"
        )
    ]
    tick = f"""
    INSERT INTO vacancy.host
    SELECT now(), now(), now(), 60, 64, random() * 64, 1, 257536, random() * 257536, 1, 200000, 4000, random() * 4000,
      1, 3000, random(), CASE WHEN i % 3 > 0 THEN random() END, random(), random() * 1e8, random() * 1e8,
      random() * 1e9, random() * 1e9, random(), random(), random(), 12,
      format('7a0c2f3e-0000-4000-8000-%s', lpad(i::text, 12, '0')),
      CASE WHEN random() < 0.05 THEN ARRAY[gen_random_uuid()] ELSE '{{}}' END
    FROM generate_series(1, {HOSTS}) AS i ORDER BY random()
    ON CONFLICT (host_id) DO UPDATE SET {", ".join(f"{column} = EXCLUDED.{column}" for column in columns)}
    """  # all columns, as the sink does
    size = "SELECT pg_relation_size('vacancy.host')"
    # A tick cannot prune what the last one has replaced while an older transaction is open, be it autovacuum's or in
    # another database of the server (docs/tables.md). So each tick waits until there is none.
    others = (
        "SELECT pid, datname, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)"
    )
    with owner.cursor() as cursor:
        cursor.execute(tick)
        ((loaded_bytes,),) = query(owner, size)
        for _ in range(UPDATES // HOSTS):
            wait_until(lambda: not query(owner, others), LIMIT_SECONDS, "a transaction of somebody else does not end")
            cursor.execute(tick)
        cursor.execute("SELECT pg_stat_force_next_flush()")
        ((updated, hot),) = query(
            owner, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'host'"
        )
        ((updated_bytes,),) = query(owner, size)
        cursor.execute("VACUUM FULL vacancy.host")
        ((live_bytes,),) = query(owner, size)
    assert updated == UPDATES
    assert hot == updated
    assert updated_bytes == loaded_bytes
    assert updated_bytes < 2 * live_bytes
