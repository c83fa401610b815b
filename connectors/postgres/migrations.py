"""Brings the tables, functions and views to this release's version.

What always holds:

- One transaction does all of it: the pending migrations, then every function and view, if a migration was pending or
  one of their files differs from what was applied. A crash, a failure or a dry run changes nothing.
- One runner at a time per database: it holds an advisory lock, which the server releases when the runner dies.
- Other sessions are not blocked: while they lock a table or view, the runner gives up after :data:`_LOCK_TIMEOUT` and
  tries again.
- A released migration never changes: its SHA-256 is recorded, and a different one is an error.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import dial, explained, where
from vacancy.connectors.postgres.servers import Connection, Cursor, set_local
from vacancy.schemas import tables
from vacancy.schemas.errors import VacancyError

_LOCK = int.from_bytes(hashlib.sha256(b"vacancy.schema_migration").digest()[:8], "big", signed=True)
_TIMEOUT = timedelta(seconds=5)
_RUNNER_TIMEOUT = timedelta(seconds=60)
"""How long to wait for another runner, and for sessions that lock the tables."""
_LOCK_TIMEOUT = timedelta(milliseconds=500)
"""Shorter than PostgreSQL's deadlock_timeout (1 s), so that in a deadlock the runner gives up and no other session's
statement is cancelled. It also limits how long statements of other sessions wait behind the runner."""
_PAUSE_SECONDS = 0.5
_LONGEST_STATEMENT = timedelta(hours=1)
"""A migration may rewrite a large table; a network that falls silent ends the wait sooner."""
_RECORDS = """
CREATE SCHEMA IF NOT EXISTS vacancy;
CREATE TABLE IF NOT EXISTS vacancy.schema_migration (
  name text PRIMARY KEY,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS vacancy.schema_source (
  name text PRIMARY KEY,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE vacancy.schema_migration IS 'One row a migration that was applied.';
COMMENT ON TABLE vacancy.schema_source IS 'One row a file of functions or views, as it was last applied.';
"""


@dataclass(frozen=True)
class SchemaState:
    """A database compared with this release; each attribute holds names in order.

    Attributes:
        applied: migrations recorded in the database.
        pending: migrations of this release that the database does not have.
        unknown: migrations of the database that this release does not have: a newer release has run there.
        changed: migrations applied with a text that differs from this release's.
        replaced: applied migrations that a pending migration replaces; if some of those are missing, the state is
            refused.
        missing: migrations not applied that a pending migration would replace too.
        outdated: files of functions and views that differ from those applied, are new or are gone.
    """

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    changed: tuple[str, ...]
    replaced: tuple[str, ...]
    missing: tuple[str, ...]
    outdated: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What a run did, or would do.

    Attributes:
        migrations: migrations applied, in order.
        replaced: earlier migrations that the first of them replaces; it changed the tables that they had made.
        sources: files of functions and views that differed; after any change all files are applied.
    """

    migrations: tuple[str, ...]
    replaced: tuple[str, ...]
    sources: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.migrations or self.sources)


def migrate(dsn: SecretStr, *, dry_run: bool = False, connect_timeout: timedelta = _TIMEOUT) -> Changes:
    """Applies everything that is pending or differs, or nothing.

    Args:
        dsn: of the tables' owner.
        dry_run: apply it, and roll it back.
        connect_timeout: how long to wait for the server.

    Raises:
        VacancyError: a newer version has run there, a released migration has changed, a file failed, other sessions
            lock the tables or views, or the connection failed.
    """
    deadline = time.monotonic() + _RUNNER_TIMEOUT.total_seconds()
    with (
        closing(
            dial(
                dsn,
                connect_timeout=connect_timeout,
                application_name="vacancy migrate",
                statement_timeout=_LONGEST_STATEMENT,
            )
        ) as connection,
        explained(dsn),
        connection.cursor() as cursor,
    ):
        # The server releases a killed runner's locks within a second, even in the middle of a long statement.
        connection.settings = set_local(client_connection_check_interval="1s", statement_timeout="0")
        _require_utf8(cursor, where(dsn))
        while True:
            try:
                connection.begin()
                changes = _apply(connection, cursor, where(dsn))
                if dry_run:
                    connection.rollback()
                else:
                    connection.commit()
            except (LockNotAvailable, DeadlockDetected):
                connection.rollback()
                if time.monotonic() > deadline:
                    raise VacancyError(
                        f"{where(dsn)}: others have held its tables or views for "
                        f"{_RUNNER_TIMEOUT.total_seconds():g} s, so nothing was changed; "
                        "end the transactions that pg_stat_activity shows, and run `vacancy migrate` again"
                    ) from None
                time.sleep(_PAUSE_SECONDS)
            else:
                return changes


def schema_state(dsn: SecretStr, *, connect_timeout: timedelta = _TIMEOUT) -> SchemaState:
    """Compares a database with this release and changes nothing; needs the owner's or the reader's rights.

    Raises:
        VacancyError: the connection failed, or the user lacks the right to read.
    """
    with (
        closing(
            dial(
                dsn,
                connect_timeout=connect_timeout,
                application_name="vacancy",
                writes=False,
                statement_timeout=_TIMEOUT,
            )
        ) as connection,
        explained(dsn),
        connection.cursor() as cursor,
    ):
        connection.settings = set_local(statement_timeout=_milliseconds(_TIMEOUT))
        return _compare(cursor)


def _require_utf8(cursor: Cursor, place: str) -> None:
    """Refuses a database that cannot hold the functions' texts, nor every name of a host, before anything is done."""
    cursor.execute("SHOW server_encoding")
    ((encoding,),) = cursor.fetchall()
    if encoding != "UTF8":
        raise VacancyError(
            f"{place}: its encoding is {encoding}, and Vacancy needs UTF8; nothing was changed; "
            "make another database: CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )


def refusal(state: SchemaState) -> str | None:
    """Why this release refuses to change a database, and what to do; None: it does not refuse."""
    if state.unknown:
        return f"is of a newer version (it has {state.unknown[-1]}): upgrade vacancy (pip install -U vacancy)"
    if state.changed:
        return f"has another {state.changed[0]} than this release: reinstall vacancy as released"
    if state.missing:
        return (
            f"was made by an earlier version and lacks its {state.missing[0]}: "
            "run `vacancy migrate` of that version first, or make a new database"
        )
    return None


def _apply(connection: Connection, cursor: Cursor, place: str) -> Changes:
    """Applies all changes in a transaction that the caller ends.

    Raises:
        psycopg2.errors.LockNotAvailable: another session locks a table or view.
        VacancyError: as :func:`migrate`.
    """
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_milliseconds(_RUNNER_TIMEOUT),))
    try:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    except LockNotAvailable:
        connection.rollback()
        raise VacancyError(
            f"{place}: another `vacancy migrate` has run for {_RUNNER_TIMEOUT.total_seconds():g} s; "
            "wait for it, or end it"
        ) from None
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_milliseconds(_LOCK_TIMEOUT),))
    state = _compare(cursor)
    reason = refusal(state)
    if reason is not None:
        connection.rollback()
        raise VacancyError(f"{place} {reason}")
    changes = Changes(state.pending, state.replaced, state.outdated)
    if not changes:
        return changes
    cursor.execute(_RECORDS)
    texts, squashes, sources = tables.migrations(), tables.squashes(), tables.sources()
    for name in state.pending:
        squash = squashes.get(name) if state.replaced else None
        _execute(cursor, place, f"migration {name}", squash.sql if squash else texts[name])
        if squash:
            cursor.execute("DELETE FROM vacancy.schema_migration WHERE name = ANY (%s)", (list(squash.replaces),))
        cursor.execute(
            "INSERT INTO vacancy.schema_migration (name, sha256) VALUES (%s, %s)", (name, _sha256(texts[name]))
        )
    cursor.execute("DELETE FROM vacancy.schema_source")
    for name, text in sources.items():
        _execute(cursor, place, f"{name}.sql", text)
        cursor.execute("INSERT INTO vacancy.schema_source (name, sha256) VALUES (%s, %s)", (name, _sha256(text)))
    return changes


def _execute(cursor: Cursor, place: str, what: str, sql: str) -> None:
    try:
        cursor.execute(sql)
    except (LockNotAvailable, DeadlockDetected):
        raise
    except psycopg2.Error as error:
        reason = str(error).splitlines()[0]
        raise VacancyError(
            f"{place}: {what} failed and changed nothing: {reason}; put that right and run `vacancy migrate` again"
        ) from None


def _compare(cursor: Cursor) -> SchemaState:
    texts, squashes, sources = tables.migrations(), tables.squashes(), tables.sources()
    applied = _recorded(cursor, "schema_migration")
    of_earlier = {
        name: sha256
        for migration, squash in squashes.items()
        if migration not in applied
        for name, sha256 in squash.replaces.items()
    }
    replaced = tuple(name for name in applied if name in of_earlier)
    released = {name: _sha256(text) for name, text in texts.items()} | of_earlier
    current = {name: _sha256(text) for name, text in sources.items()}
    last = _recorded(cursor, "schema_source")
    return SchemaState(
        applied=tuple(applied),
        pending=tuple(name for name in texts if name not in applied),
        unknown=tuple(name for name in applied if name not in released),
        changed=tuple(name for name, sha256 in applied.items() if released.get(name, sha256) != sha256),
        replaced=replaced,
        missing=tuple(name for name in of_earlier if name not in applied) if replaced else (),
        outdated=tuple(name for name in {**current, **last} if current.get(name) != last.get(name)),
    )


def _recorded(cursor: Cursor, table: str) -> dict[str, str]:
    """Name to SHA-256 as recorded in the database, in order; {} if the table does not exist."""
    cursor.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'vacancy' AND c.relname = %s",
        (table,),
    )
    if not cursor.fetchone():
        return {}
    cursor.execute(f"SELECT name, sha256 FROM vacancy.{table} ORDER BY name")  # noqa: S608  # one of two constants
    return dict(cursor.fetchall())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _milliseconds(span: timedelta) -> str:
    return f"{span // timedelta(milliseconds=1)} ms"
