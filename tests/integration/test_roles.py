"""What each role may do, tried as a login role that is a member of it and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg2
import pytest
from psycopg2.errors import (
    InsufficientPrivilege,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedObject,
    UndefinedTable,
)
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.rows import at, query, retire, upsert_inventory, upsert_usage
from vacancy.connectors.postgres.migrations import migrate, schema_state

Login = Callable[[str], str]
UNDEFINED = (UndefinedColumn, UndefinedFunction, UndefinedObject, UndefinedTable)
TABLES = ("vacancy.host", "vacancy.host_inventory", "vacancy.claim")
WRITES = tuple(
    statement.format(table)
    for table in TABLES
    for statement in (
        "DELETE FROM {}",
        "TRUNCATE {}",
        "INSERT INTO {} DEFAULT VALUES",
        "UPDATE {} SET host_id = 'x'",
        "ALTER TABLE {} DISABLE TRIGGER ALL",
        "DROP TABLE {}",
    )
)
DDL = (
    "CREATE TABLE vacancy.mine ()",
    "DROP VIEW vacancy.schedulable_host",
    "UPDATE vacancy.schema_migration SET sha256 = ''",
    "DELETE FROM vacancy.schema_migration",
    "DELETE FROM vacancy.schema_source",
    "CREATE OR REPLACE FUNCTION vacancy.retire_host() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER mine AFTER INSERT ON vacancy.host EXECUTE FUNCTION vacancy.settle_claims()",
)
INNER = (
    "SELECT vacancy.parse_request('{}')",
    "SELECT vacancy.prepare_request('{}')",
    "SELECT vacancy.lock_consumers('{}')",
    "SELECT * FROM vacancy.usage_fit(NULL)",
    "SELECT * FROM vacancy.host_fit(NULL)",
    "SELECT vacancy.random_hosts(1)",
    "SELECT vacancy.best_of_all(NULL, NULL)",
    "SELECT vacancy.pools_of(NULL, NULL, NULL, false)",
    "SELECT * FROM vacancy.pool_room('pool', true)",
    "SELECT vacancy.claim_host(NULL, gen_random_uuid(), 1, false, '{}')",
    "SELECT vacancy.claim_plain('{}', '{}')",
    "SELECT vacancy.sweep_claims()",
    "SELECT * FROM vacancy.host_free",
    "SELECT vacancy.parse_pci('[]')",
    "SELECT vacancy.are_amounts('{}', 0)",
    "SELECT * FROM vacancy.complex_parts_fit(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "SELECT vacancy.requested_pci_kinds('[]')",
    "SELECT vacancy.best_of_sample(NULL, 1, true, true)",
    "SELECT vacancy.plain_ranking('{}', NULL, now(), 0, 0, 0, 0)",
    "SELECT vacancy.plain_fit('host-1', NULL, NULL, now(), 0, 0, 0, 0)",
    "SELECT vacancy.is_complex(NULL)",
    "SELECT vacancy.takes_any_host(NULL)",
    "SELECT vacancy.place_complex_parts('host-1', NULL, NULL, NULL)",
    "SELECT vacancy.complex_fit('host-1', NULL, NULL, NULL)",
    "SELECT vacancy.place_pci('[]', 0, '{}', '{}', '{}')",
    "SELECT vacancy.hosts_that_offer(NULL, 1)",
    "SELECT vacancy.hosts_near('{}', 1)",
    "SELECT vacancy.hosts_named('{}')",
    "SELECT vacancy.hosts_in_zone('zone', 1)",
    "SELECT * FROM vacancy.simple_fit(NULL, NULL)",
    "SELECT vacancy.keep_unshown_amounts('{}')",
)
CLAIMING = (
    "SELECT vacancy.claim(ARRAY[gen_random_uuid()])",
    "SELECT vacancy.claim_many(ARRAY[gen_random_uuid()], ARRAY['{}'::jsonb])",
    "SELECT vacancy.release(ARRAY[gen_random_uuid()])",
    "SELECT vacancy.candidates()",
    "SELECT vacancy.measured('{}')",
    "SELECT vacancy.note_claim(gen_random_uuid(), 'host-1', 1, 1, 1, '1 min')",
)
JOB_MAY = tuple(f"{verb} {table}" for verb in ("INSERT INTO", "UPDATE") for table in TABLES[:2])
FORBIDDEN = {
    "vacancy_job": (
        *(write for write in WRITES if not write.startswith(JOB_MAY)),
        *DDL,
        *INNER,
        *CLAIMING,
        "SELECT vacancy.why()",
        "SELECT * FROM vacancy.claim",
        "SELECT * FROM vacancy.schedulable_host",
        "SELECT * FROM vacancy.schema_migration",
    ),
    "vacancy_scheduler": (
        *WRITES,
        *DDL,
        *INNER,
        *(f"SELECT * FROM {table}" for table in TABLES),
        "SELECT * FROM vacancy.freshness",
        "SELECT * FROM vacancy.schema_migration",
        "SELECT host_id FROM vacancy.host FOR UPDATE",
    ),
    # The fleet page reads host_free, with the reader's login.
    "vacancy_reader": (
        *(*WRITES, *DDL, *(inner for inner in INNER if "host_free" not in inner), *CLAIMING),
        "SELECT host_id FROM vacancy.host FOR UPDATE",
    ),
}


@pytest.fixture
def login(database: str) -> Iterator[Login]:
    """Makes a login role in a group role, and gives its DSN."""
    migrate(SecretStr(database))
    made: list[str] = []
    with closing(psycopg2.connect(database)) as owner:
        owner.autocommit = True
        with owner.cursor() as cursor:

            def make(group: str) -> str:
                name = f"login_{uuid.uuid4().hex}"
                cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE {group}")
                made.append(name)
                return make_dsn(database, user=name, password="secret")

            yield make
            for name in made:
                cursor.execute(f"DROP ROLE {name}")


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        yield connection


def test_the_job_writes_retires_and_revives_through_its_own_rights_alone(login: Login, database: str) -> None:
    with connected(login("vacancy_job")) as job, connected(database) as owner:
        for second in (1, 2):
            upsert_inventory(job, observed_at=at(second))
            upsert_usage(job, observed_at=at(second))
        retire(job, observed_at=at(3))
        assert query(owner, "SELECT count(*) FROM vacancy.host") == [(0,)]
        upsert_usage(job, observed_at=at(4))
        upsert_inventory(job, observed_at=at(5))
        upsert_usage(job, observed_at=at(5))
        assert query(owner, "SELECT reason FROM vacancy.schedulable_host") == [("stale",)]
        retire(job, host_id="long gone", observed_at=at(-10 * 86_400))
        assert query(owner, "SELECT count(*) FROM vacancy.host_inventory WHERE retired") == [(0,)]


def test_a_scheduler_reads_the_view_and_sets_what_stale_means(login: Login, database: str) -> None:
    with connected(database) as owner, connected(login("vacancy_scheduler")) as scheduler:
        upsert_inventory(owner)
        upsert_usage(owner)
        query(scheduler, "SELECT set_config('vacancy.max_age', '10 d', false)")
        assert query(scheduler, "SELECT host_id, reason FROM vacancy.schedulable_host") == [("host-1", None)]


def test_a_scheduler_calls_the_functions(login: Login, database: str) -> None:
    with connected(database) as owner, connected(login("vacancy_scheduler")) as scheduler:
        upsert_inventory(owner)
        upsert_usage(owner)
        (claim,) = query(
            scheduler, 'SELECT host_id FROM vacancy.claim(ARRAY[gen_random_uuid()], \'{"vcpus": 1, "max_age": "9 d"}\')'
        )
        assert claim == ("host-1",)
        query(scheduler, "SELECT * FROM vacancy.release(ARRAY[gen_random_uuid()])")
        query(scheduler, "SELECT * FROM vacancy.candidates()")
        query(scheduler, "SELECT * FROM vacancy.why()")


def test_a_reader_reads_all_of_it(login: Login) -> None:
    dsn = login("vacancy_reader")
    with connected(dsn) as reader:
        query(reader, "SELECT * FROM vacancy.why()")
        views = [
            f"vacancy.{view}" for view in ("schedulable_host", "freshness", "pci_pool", "numa_cell", "resource_class")
        ]
        for relation in (*TABLES, *views, "vacancy.schema_migration", "vacancy.schema_source"):
            query(reader, f"SELECT * FROM {relation}")
    assert not schema_state(SecretStr(dsn)).pending


@pytest.mark.parametrize("group", FORBIDDEN)
def test_what_a_role_must_not_do_is_refused(login: Login, group: str) -> None:
    with connected(login(group)) as connection, connection.cursor() as cursor:
        for statement in FORBIDDEN[group]:
            try:
                cursor.execute(statement)
            except InsufficientPrivilege:
                continue
            pytest.fail(f"{group} may: {statement}")


def test_what_is_refused_is_there(database: str) -> None:
    """Else a name that is gone would be refused for ever, and say nothing."""
    migrate(SecretStr(database))
    with closing(psycopg2.connect(database)) as owner, owner.cursor() as cursor:
        for statement in {each for group in FORBIDDEN.values() for each in group}:
            with suppress(psycopg2.Error):
                try:
                    cursor.execute(statement)
                except UNDEFINED as error:
                    pytest.fail(f"{statement}: {error}")
            owner.rollback()


def test_who_is_in_no_role_may_nothing(database: str) -> None:
    migrate(SecretStr(database))
    name = f"stranger_{uuid.uuid4().hex}"
    with connected(database) as owner, owner.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        try:
            with (
                connected(make_dsn(database, user=name, password="secret")) as stranger,
                pytest.raises(InsufficientPrivilege),
            ):
                query(stranger, "SELECT * FROM vacancy.schedulable_host")
        finally:
            cursor.execute(f"DROP ROLE {name}")


def test_group_roles_do_not_log_in(database: str) -> None:
    migrate(SecretStr(database))
    with connected(database) as owner:
        logins = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND rolcanlogin"
        assert query(owner, logins, list(FORBIDDEN)) == []


def test_functions_with_the_owners_rights_have_a_fixed_search_path(database: str) -> None:
    migrate(SecretStr(database))
    with connected(database) as owner:
        functions = query(
            owner,
            "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc "
            "WHERE pronamespace = 'vacancy'::regnamespace AND prosecdef",
        )
    assert functions
    for name, config, callable_by_all in functions:
        assert "search_path=pg_catalog, pg_temp" in config, name
        assert not callable_by_all, name
