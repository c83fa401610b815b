"""The sink of PostgreSQL's tables, in jobs of its own: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from tests.harness.pgbouncer import running_pgbouncer
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.flink.edges import jdbc_url, with_clause
from vacancy.connectors.kafka import dead_letters
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.flink.job_jars import flink_jars

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer
    from vacancy.jobs.local.postgres_server import PostgresServer

TABLE = """
CREATE SCHEMA test;
CREATE TABLE test.seen (
  id text PRIMARY KEY, observed_at timestamptz NOT NULL, many bigint, few integer, share double precision, flag boolean,
  consumers uuid[], shape jsonb, topic_partition integer, topic_offset bigint, latest_at timestamptz,
  clock_ahead boolean, CHECK (few < 1000)
);
CREATE INDEX ON test.seen ((shape ->> 'text'));
"""
COLUMNS = {
    "id": "STRING NOT NULL",
    "observed_at": "TIMESTAMP_LTZ(3) NOT NULL",
    "topic_partition": "INT NOT NULL",
    "topic_offset": "BIGINT NOT NULL",
    "many": "BIGINT",
    "few": "INT",
    "share": "DOUBLE",
    "flag": "BOOLEAN",
    "consumers": "STRING",
    "shape": "STRING",
}
CONSUMER = uuid.UUID(int=7)
Run = Callable[..., None]


@pytest.fixture
def table(database: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        connection.cursor().execute(TABLE)
        yield connection


@pytest.fixture
def kafka(kafka_broker: KafkaServer) -> KafkaSettings:
    """Where refused rows go."""
    settings = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(settings)
    return settings


@pytest.fixture
def run(database: str, table: Connection, kafka: KafkaSettings) -> Run:  # noqa: ARG001  # the table is there
    """Runs a bounded job that inserts a query's rows."""
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from vacancy.topology.graph import configuration
    from vacancy.topology.settings import JobSettings

    def insert(
        query: str,
        columns: Mapping[str, str] = COLUMNS,
        key: str | None = "id",
        source: str | None = None,
        dsn: str = database,
        **options: str,
    ) -> None:
        flink = configuration(JobSettings(parallelism=1))
        flink.set_string("pipeline.jars", ";".join(jar.as_uri() for jar in flink_jars()))
        flink.set_string("pipeline.auto-generate-uids", "true")
        flink.set_string("restart-strategy.type", "none")
        environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
        url, username, password = jdbc_url(SecretStr(dsn))
        declared = [f"`{name}` {kind}" for name, kind in columns.items()]
        declared += [f"PRIMARY KEY ({key}) NOT ENFORCED"] if key else []
        connector = {
            "connector": "postgres",
            "url": url,
            "username": username,
            "password": password,
            "table-name": "test.seen",
            "interval": "20 ms",
            "dead-letters.topic": kafka.dead_letter_topic,
            "dead-letters.properties.bootstrap.servers": kafka.bootstrap_servers,
        } | {name.replace("_", "-"): value for name, value in options.items()}
        if source:
            environment.execute_sql(source)
        environment.execute_sql(f"CREATE TEMPORARY TABLE seen ({', '.join(declared)}) WITH ({with_clause(connector)})")
        environment.execute_sql(f"INSERT INTO seen {query}").wait()

    return insert


def rows(table: Connection) -> list[tuple[Any, ...]]:
    with table.cursor() as cursor:
        cursor.execute("SELECT id, observed_at, many, few, share, flag, consumers, shape FROM test.seen ORDER BY id")
        return list(cursor.fetchall())


def row(key: str, second: int, *values: str) -> str:
    """A row of VALUES, at an offset of as many seconds; what is left out at the end is null."""
    filled = [*values, *(f"CAST(NULL AS {kind})" for kind in list(COLUMNS.values())[4 + len(values) :])]
    return f"('{key}', TO_TIMESTAMP_LTZ({1000 * second + 123}, 3), 0, CAST({second} AS BIGINT), {', '.join(filled)})"


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC).replace(microsecond=123_000)


def test_each_type_goes_in_and_so_does_null(run: Run, table: Connection) -> None:
    full = ("CAST(9000000000 AS BIGINT)", "-3", "0.25E0", "TRUE", f"'{{{CONSUMER}}}'", """'{"a": [1, null]}'""")
    run(f"VALUES {row('full', 1, *full)}, {row('void', 2)}")
    assert rows(table) == [
        ("full", at(1), 9_000_000_000, -3, 0.25, True, f"{{{CONSUMER}}}", json.loads('{"a": [1, null]}')),
        ("void", at(2), None, None, None, None, None, None),
    ]


def test_the_newest_row_of_a_key_stands(run: Run, table: Connection) -> None:
    run(f"VALUES {row('a', 5, '1')}, {row('b', 5, '1')}, {row('c', 5, '1')}")
    # Older, as old, newer; and one that is not there yet beside them.
    run(f"VALUES {row('a', 4, '2')}, {row('b', 5, '2')}, {row('c', 6, '2')}, {row('d', 1, '2')}")
    assert [(key, time, many) for key, time, many, *_ in rows(table)] == [
        ("a", at(5), 1),
        ("b", at(5), 1),
        ("c", at(6), 2),
        ("d", at(1), 2),
    ]


def scans(table: Connection) -> tuple[int, int]:
    """How often the table was read in full, and by an index."""
    with table.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")  # of this connection, which has made the indexes
        cursor.execute("SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relid = 'test.seen'::regclass")
        ((full, by_index),) = cursor.fetchall()
    return full, by_index


def test_more_rows_than_a_statement_takes(run: Run, table: Connection) -> None:
    """Of each key the last row stands, in however many flushes they came.

    The statements are planned once, while the table is empty; and they do not read all rows for each batch later.
    """
    full_before, _ = scans(table)
    keys, times = 9_000, 3
    source = (
        "CREATE TEMPORARY TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', "
        f"'fields.n.start' = '0', 'fields.n.end' = '{keys * times - 1}')"
    )
    nothing = ", ".join(f"CAST(NULL AS {kind})" for kind in list(COLUMNS.values())[5:])
    run(
        f"SELECT CAST(n % {keys} AS STRING), TO_TIMESTAMP_LTZ(n, 3), 0, n, n / {keys}, {nothing} FROM numbers",
        source=source,
    )
    wait_until(lambda: scans(table)[1] >= keys, 30, lambda: f"scans of the table: {scans(table)}")
    assert scans(table)[0] == full_before
    found = rows(table)
    assert len(found) == keys
    assert {many for _, _, many, *_ in found} == {times - 1}


def test_rows_that_are_there_are_updated_not_inserted(run: Run, table: Connection) -> None:
    run(f"VALUES {row('a', 1)}, {row('b', 1)}")
    table.cursor().execute(
        "CREATE FUNCTION test.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'an INSERT'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON test.seen EXECUTE FUNCTION test.refuse()"
    )
    run(f"VALUES {row('a', 2)}, {row('b', 2)}")
    assert {time for _, time, *_ in rows(table)} == {at(2)}
    run(f"VALUES {row('a', 3)}, {row('new', 3)}")
    assert [(key, time) for key, time, *_ in rows(table)] == [("a", at(3)), ("b", at(2))]


REFUSED = {
    "out-of-range": ("1", "CAST(1000 AS INT)", "0.5E0", "TRUE", "'{}'", "'{}'"),
    "no-uuid": ("1", "1", "0.5E0", "TRUE", "'{x}'", "'{}'"),
    "no-json": ("1", "1", "0.5E0", "TRUE", "'{}'", "'{'"),
    "nul": ("1", "1", "0.5E0", "TRUE", "'{}'", '\'{"a": "\\u0000"}\''),
    "long": ("1", "1", "0.5E0", "TRUE", "'{}'", f"""'{{"text": "{random.Random(0).randbytes(5000).hex()}"}}'"""),
}
"""Rows that break a check, that no type takes, or that no index does."""


def test_a_refused_row_is_put_aside_alone(run: Run, table: Connection, kafka: KafkaSettings) -> None:
    """Whether it is there already or new, first, last or in between; the others of its batch are written."""
    table.cursor().execute("INSERT INTO test.seen SELECT 'no-json', now() - interval '99 years'")
    good = [f"good-{number:03}" for number in range(200)]
    values = [row(key, 1, "7") for key in good]
    for number, (key, columns) in enumerate(REFUSED.items()):
        values.insert(50 * number, row(key, 1, *columns))
    run(f"VALUES {', '.join(values)}")
    table.cursor().execute("DELETE FROM test.seen WHERE observed_at < 'epoch'")
    assert [(key, many) for key, _, many, *_ in rows(table)] == [(key, 7) for key in good]
    letters = {letter.key: letter for letter in dead_letters.read(kafka)}
    assert letters.keys() == REFUSED.keys()
    for key, complaint in {
        "out-of-range": 'violates check constraint "seen_few_check"',
        "no-uuid": 'invalid input syntax for type uuid: "x"',
        "no-json": "invalid input syntax for type json",
        "nul": "unsupported Unicode escape sequence",
        "long": "index row requires",
    }.items():
        letter = letters[key]
        assert letter.table == "test.seen"
        assert letter.append_time == "1970-01-01T00:00:01.123Z"
        assert (letter.reason or "").startswith("refused: ERROR: ")
        assert complaint in (letter.reason or "")
        assert json.loads(letter.payload)["id"] == key
        assert letter.payload_bytes == len(letter.payload)
        assert letter.payload_sha256 == hashlib.sha256(letter.payload).hexdigest()


def test_what_is_about_us_and_not_about_a_row_fails_the_job(run: Run, table: Connection) -> None:
    """So that it is tried again: a right that is missing comes back, and no row is given up for it."""
    table.cursor().execute(
        "CREATE FUNCTION test.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no right' USING ERRCODE = 'insufficient_privilege'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON test.seen EXECUTE FUNCTION test.refuse()"
    )
    with pytest.raises(Exception, match=r"test\.seen cannot be written: ERROR: no right"):
        run(f"VALUES {row('a', 3)}")


def test_text_beyond_a_statement_goes_in_several(run: Run, table: Connection) -> None:
    columns = ("1", "1", "0.5E0", "TRUE", "'{}'", """'{"list": "' || REPEAT('x', 1000000) || '"}'""")
    values = [row(f"{key:02}", 1, *columns) for key in range(18)]  # a statement takes 16 MiB
    run(f"VALUES {', '.join(values)}")
    assert len(rows(table)) == len(values)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"key": None}, "a table of connector postgres has a primary key of one column"),
        ({"columns": {("later" if name == "observed_at" else name): kind for name, kind in COLUMNS.items()}},
         r"connector postgres: test\.seen has no column observed_at"),
        ({"columns": COLUMNS | {"few": "DECIMAL(3, 1)"}}, r"connector postgres knows no DECIMAL\(3, 1\)"),
        ({"columns": {("fewer" if name == "few" else name): kind for name, kind in COLUMNS.items()}},
         r"test\.seen cannot be written: table test\.seen has no column fewer"),
        ({"table_name": "test.unseen"}, r'relation "test\.unseen" does not exist'),
        ({"password": "wrong"}, "password authentication failed"),
        ({"url": "jdbc:mysql://127.0.0.1:1/x"}, "not a URL of PostgreSQL: jdbc:mysql://127.0.0.1:1/x"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(changes: Mapping[str, Any], complaint: str, run: Run) -> None:
    query = f"VALUES {row('a', 1)}"
    if "DECIMAL(3, 1)" in str(changes):
        query = query.replace("CAST(NULL AS INT)", "CAST(NULL AS DECIMAL(3, 1))")
    with pytest.raises(Exception, match=complaint):
        run(query, **changes)


def test_of_two_servers_behind_poolers_it_writes_to_the_one_that_takes_writes(
    run: Run, table: Connection, postgres_server: PostgresServer, database: str
) -> None:
    """In transaction mode, in which each transaction may meet another server process."""
    name = database.rpartition("/")[2]
    with (
        running_pgbouncer(
            postgres_server, "session", connect_query="SET default_transaction_read_only = on"
        ) as standby,
        running_pgbouncer(postgres_server, "transaction", default_pool_size="3") as primary,
    ):
        ports = [parse_dsn(dsn)["port"] for dsn in (standby, primary)]
        both = make_dsn(primary, host="127.0.0.1,127.0.0.1", port=",".join(ports), dbname=name)
        run(f"VALUES {row('a', 1)}, {row('b', 1, '1', '5000')}, {row('c', 1)}", dsn=both)
        run(f"VALUES {row('a', 2)}, {row('d', 2)}", dsn=both)
        assert [(found[0], found[1].second) for found in rows(table)] == [("a", 2), ("c", 1), ("d", 2)]
        for _ in range(5):
            with closing(psycopg2.connect(make_dsn(primary, dbname=name))) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*), current_setting('statement_timeout') FROM pg_prepared_statements")
                assert cursor.fetchall() == [(0, "0")]
