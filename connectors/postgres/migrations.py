"""Brings the tables to this release's version: plain SQL files, in order, each once.

What always holds:

- A file and its record in ``vacancy.schema_migration`` commit together, so a crash leaves no half-applied file.
- One runner at a time per database: an advisory lock that the server gives back when a runner dies.
- A file never changes once released: its SHA-256 is recorded, and one that differs is an error.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from vacancy.connectors.postgres.connection import dial, explained, where
from vacancy.schemas.errors import VacancyError

_LOCK = int.from_bytes(hashlib.sha256(b"vacancy.schema_migration").digest()[:8], "big", signed=True)
_TIMEOUT = timedelta(seconds=5)
_RECORDS = """
CREATE SCHEMA IF NOT EXISTS vacancy;
CREATE TABLE IF NOT EXISTS vacancy.schema_migration (
  name text PRIMARY KEY,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True)
class SchemaState:
    """A database next to this release, as names of migrations in order.

    Attributes:
        applied: recorded in the database.
        pending: this release has them, the database does not.
        unknown: the database has them, this release does not: a newer one was here.
        changed: applied with another text than this release's.
    """

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    changed: tuple[str, ...]


def migrate(dsn: SecretStr, *, connect_timeout: timedelta = _TIMEOUT) -> list[str]:
    """Applies what is pending, each file in a transaction of its own, and gives the names; [] if there was nothing.

    Raises:
        VacancyError: a newer version was here, a released file changed, a file failed, or no connection.
    """
    files = _files()
    applied: list[str] = []
    with closing(dial(dsn, connect_timeout=connect_timeout, application_name="vacancy migrate")) as connection:
        while True:
            with explained(dsn), connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                cursor.execute(_RECORDS)
                state = _compare(connection, files)
                _refuse(state, where(dsn))
                if not state.pending:
                    return applied
                name = state.pending[0]
                try:
                    cursor.execute(files[name])
                except psycopg2.Error as error:
                    reason = str(error).splitlines()[0]
                    raise VacancyError(
                        f"{where(dsn)}: migration {name} failed and changed nothing: {reason}; "
                        "put that right and run `vacancy migrate` again"
                    ) from None
                cursor.execute(
                    "INSERT INTO vacancy.schema_migration (name, sha256) VALUES (%s, %s)", (name, _sha256(files[name]))
                )
            applied.append(name)


def schema_state(dsn: SecretStr, *, connect_timeout: timedelta = _TIMEOUT) -> SchemaState:
    """Compares a database with this release, and changes nothing; needs the owner's or the reader's rights.

    Raises:
        VacancyError: no connection, or no right to look.
    """
    with (
        closing(dial(dsn, connect_timeout=connect_timeout, application_name="vacancy")) as connection,
        explained(dsn),
    ):
        return _compare(connection, _files())


def _files() -> dict[str, str]:
    """This release's migrations: name to SQL, in order."""
    found = resources.files("vacancy.schemas").joinpath("migrations").iterdir()
    texts = {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in found if file.name.endswith(".sql")}
    return dict(sorted(texts.items()))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _compare(connection: Connection, files: dict[str, str]) -> SchemaState:
    recorded: dict[str, str] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'vacancy' AND c.relname = 'schema_migration'"
        )
        if cursor.fetchone():
            cursor.execute("SELECT name, sha256 FROM vacancy.schema_migration ORDER BY name")
            recorded = dict(cursor.fetchall())
    return SchemaState(
        applied=tuple(recorded),
        pending=tuple(name for name in files if name not in recorded),
        unknown=tuple(name for name in recorded if name not in files),
        changed=tuple(name for name, text in files.items() if recorded.get(name, _sha256(text)) != _sha256(text)),
    )


def _refuse(state: SchemaState, place: str) -> None:
    if state.unknown:
        raise VacancyError(
            f"{place} is of a newer version (it has {state.unknown[-1]}): upgrade vacancy (pip install -U vacancy)"
        )
    if state.changed:
        raise VacancyError(
            f"{place}: migration {state.changed[0]} differs from the one applied: reinstall vacancy as released"
        )
