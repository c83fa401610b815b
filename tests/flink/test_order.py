"""Which of a host's rows stands: the sink's own statements, run on PostgreSQL, whatever the brokers' clocks say."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from vacancy.jobs.flink.job_jars import flink_home, functions_jar, java_home, java_sources
from vacancy.jobs.jars import ensure_jars

SOURCE = Path(__file__).parent / "java" / "vacancy" / "postgres" / "UpsertStatements.java"
TABLE = """
CREATE SCHEMA test;
CREATE TABLE test.placed (
  id text PRIMARY KEY, observed_at timestamptz NOT NULL, topic_partition integer, topic_offset bigint, event bigint,
  latest_at timestamptz, clock_ahead boolean
);
"""
BASE_MS = round(time.time() * 1000) - 3_600_000
AHEAD_MS = 2 * 3_600_000
"""From an hour ago a time that is in the future for as long as the test runs."""


class Event(NamedTuple):
    """An event where it stands, and when its broker says that it was appended."""

    number: int
    partition: int
    offset: int
    append_ms: int

    @property
    def ahead(self) -> bool:
        return self.append_ms >= BASE_MS + AHEAD_MS


class Sink:
    """Writes rows of one host as the job's sink does."""

    def __init__(self, connection: Connection, statements: Sequence[str]) -> None:
        self._cursor = connection.cursor()
        self._statements = [statement.replace("%", "%%").replace("?", "%s") for statement in statements]

    def write(self, event: Event) -> int:
        """Writes an event's row; the event that stands then."""
        values = (["host"], [event.append_ms], [event.partition], [event.offset], [event.number])
        for statement in self._statements:
            self._cursor.execute(statement, values)
            if self._cursor.rowcount == 1:
                break
        return self.stands()

    def stands(self) -> int:
        self._cursor.execute("SELECT event FROM test.placed")
        ((event,),) = self._cursor.fetchall()
        return int(event)

    def forget(self) -> None:
        self._cursor.execute("TRUNCATE test.placed")

    def is_ahead(self) -> bool:
        self._cursor.execute("SELECT clock_ahead FROM test.placed")
        ((ahead,),) = self._cursor.fetchall()
        return bool(ahead)

    def set(self, assignments: str) -> None:
        """Changes the row by hand."""
        self._cursor.execute(f"UPDATE test.placed SET {assignments}")


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sink's UPDATE and INSERT."""
    sources = dict(java_sources()) | {"vacancy/postgres/UpsertStatements.java": SOURCE.read_bytes()}
    jar = functions_jar(sources, tmp_path_factory.mktemp("jar"))
    class_path = os.pathsep.join(map(str, [jar, *ensure_jars("flink"), flink_home() / "lib" / "*"]))
    command = [str(java_home() / "bin" / "java"), "-cp", class_path, "vacancy.postgres.UpsertStatements"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def sink(database: str, statements: list[str]) -> Iterator[Sink]:
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        connection.cursor().execute(TABLE)
        yield Sink(connection, statements)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """A host's events in their true order: it moves between partitions, topics are made anew, clocks are ahead.

    Between two partitions only time tells what was first: so the clocks of their brokers agree there, or say a time
    that is in the future. Within the first partition they are behind now and then as well.
    """
    events: list[Event] = []
    partition, offset, now_ms = 0, 0, BASE_MS
    moves = 0
    for number in range(draw(st.integers(2, 14))):
        now_ms += draw(st.integers(1, 5_000))
        if number and draw(st.integers(0, 4)) == 0:
            moves += 1
            anew = draw(st.booleans())
            partition, offset = (partition, 0) if anew else (partition + 1, draw(st.integers(0, 3)))
        error_ms = draw(st.sampled_from((0, 0, 0, AHEAD_MS, *(() if moves else (-20_000,)))))
        events.append(Event(number, partition, offset, now_ms + error_ms))
        offset += draw(st.integers(1, 3))
    return events


def merged(data: st.DataObject, events: Sequence[Event]) -> list[Event]:
    """The events without some that another of their partition follows: the sink merges those of an interval."""
    return [
        event
        for event, following in zip(events, [*events[1:], None], strict=True)
        if following is None or not same_log(event, following) or data.draw(st.booleans())
    ]


def same_log(event: Event, following: Event) -> bool:
    return event.partition == following.partition and event.offset < following.offset


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_in_one_partition_the_last_stands_whatever_the_clocks_say(sink: Sink, data: st.DataObject) -> None:
    """The job reads on, is started again from any event before, and once more from the first; and writes come late."""
    errors_ms = data.draw(st.lists(st.sampled_from((0, -30_000, 30_000, AHEAD_MS)), min_size=1, max_size=12))
    events = [Event(number, 3, 5 * number, BASE_MS + number * 1_000 + error) for number, error in enumerate(errors_ms)]
    sink.forget()
    newest = -1
    for event in events:
        assert sink.write(event) == event.number
    for start in data.draw(st.lists(st.integers(0, len(events) - 1), max_size=3)):
        for event in events[start:]:
            newest = sink.write(event)
            assert newest == events[-1].number  # what was written once changes nothing any more
    assert sink.is_ahead() == events[-1].ahead


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_last_stands_through_moves_new_topics_and_replays(sink: Sink, data: st.DataObject) -> None:
    events = data.draw(histories())
    sink.forget()
    for event in merged(data, events):
        stands = sink.write(event)
    last = stands
    # With right times in the end it is the newest event, and else the newest that could be told.
    if not events[-1].ahead:
        assert last == events[-1].number
    right = all(event.append_ms < later.append_ms for event, later in pairwise(events)) and not events[-1].ahead
    # What can be read again is the topic as it is now: of each partition what was made anew last.
    logs: dict[int, list[Event]] = {}
    for event in events:
        log = logs.setdefault(event.partition, [])
        if log and not same_log(log[-1], event):
            log.clear()
        log.append(event)
    while any(logs.values()):  # read from the beginning, the partitions as they come
        log = data.draw(st.sampled_from([log for log in logs.values() if log]))
        stands = sink.write(log.pop(0))
        assert stands == last or not right
    if not events[-1].ahead:
        assert stands == events[-1].number


def test_a_row_of_a_release_without_places_is_replaced(sink: Sink) -> None:
    sink.write(Event(0, 0, 10, BASE_MS))
    sink.set("topic_partition = NULL, topic_offset = NULL, latest_at = NULL, clock_ahead = false")
    assert sink.write(Event(1, 0, 9, BASE_MS)) == 0
    assert sink.write(Event(2, 0, 11, BASE_MS + 1)) == 2
    # One that such a release holds in the future, as the migration leaves it.
    sink.set("topic_partition = NULL, observed_at = now() + interval '1 h', latest_at = 'epoch'")
    assert sink.write(Event(3, 0, 12, BASE_MS + 2)) == 3
