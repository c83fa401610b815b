"""The PostgreSQL edge: connections, and what their errors mean in one line.

What always holds: no message contains a password, or any part of a connection string that might be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import cursor as Cursor  # noqa: N812  # likewise
from psycopg2.extensions import parse_dsn
from pydantic import SecretStr

from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import milliseconds_of

_ENCODE = "write it as libpq's URI or key=value form, with @ : / % in a password percent-encoded in a URI"


class MissingTablesError(VacancyError):
    """The database has no Vacancy tables."""


class UnreachableError(VacancyError):
    """The server cannot be reached, accepts no connections now, or closed the connection: a retry may help."""


# The server's message when it refuses a connection, the error to raise, and what to do. libpq gives no SQLSTATE here.
_REFUSALS: tuple[tuple[str, type[VacancyError], str], ...] = (
    (r'database ".*" does not exist', VacancyError, "create it (createdb), or correct the dsn"),
    (r'role ".*" does not exist', VacancyError, "create the login role (docs/tables.md), or correct the dsn"),
    (r'role ".*" is not permitted to log in', VacancyError, "use a login role that is a member of it (docs/tables.md)"),
    (
        r"certificate authentication failed|requires a valid client certificate",
        VacancyError,
        "correct sslcert and sslkey in the dsn",
    ),
    (r"authentication failed|no password supplied", VacancyError, "check the user and the password in the dsn"),
    (
        r"pg_hba\.conf.*no encryption",
        VacancyError,
        "add sslmode=verify-full to the dsn, or let this client in in the server's pg_hba.conf",
    ),
    (r"pg_hba\.conf (entry|rejects)", VacancyError, "let this client in in the server's pg_hba.conf"),
    (r"too many clients|remaining connection slots", UnreachableError, "raise the server's max_connections"),
    # "terminating connection": the server stopped between authentication and its first answer.
    (
        r"starting up|shutting down|recovery|terminating connection",
        UnreachableError,
        "wait until the server has started",
    ),
)
_TOO_SOON_FOR_TLS = "error response during SSL exchange"
"""The server is stopping or cannot start a backend: it says so before TLS begins, and libpq hides the reason."""
# libpq's message when TLS with the server fails, and what to do. A retry helps with none of these.
_TLS: tuple[tuple[str, str], ...] = (
    (
        r"certificate verify failed",
        "have the server's certificate renewed if it has expired, or name the authorities that sign it as sslrootcert",
    ),
    (r"does not match host name", "name the server in the dsn as its certificate does"),
    (r"root certificate file", "name the file of the authorities that sign the server's as sslrootcert in the dsn"),
    (r"does not support SSL", "turn ssl on in the server's postgresql.conf"),
    (r"alert|certificate|private key", "correct sslcert and sslkey in the dsn"),
    (r"SSL", "see the server's log"),
)


def connect(
    dsn: SecretStr,
    *,
    connect_timeout: timedelta,
    application_name: str,
    read_only: bool,
    max_age: timedelta | None = None,
) -> Connection:
    """A connection to a database that has Vacancy's tables.

    Args:
        dsn: libpq's URI or key=value form.
        connect_timeout: how long to wait for the server; libpq counts whole seconds, two at least.
        application_name: what pg_stat_activity shows.
        read_only: refuse writes, and use autocommit: an open transaction of a reader keeps the server from pruning old
            versions of rows.
        max_age: scheduler.max_age, for the view's `reason`.

    Raises:
        UnreachableError: no server answers, or it closed the connection.
        MissingTablesError: `vacancy migrate` has not run.
        VacancyError: the server refuses the user or the database.
    """
    connection = dial(dsn, connect_timeout=connect_timeout, application_name=application_name)
    try:
        with explained(dsn):
            if read_only:
                connection.set_session(readonly=True, autocommit=True)
            with connection.cursor() as cursor:
                _require_tables(cursor, dsn)
                if max_age is not None:
                    cursor.execute(
                        "SELECT set_config('vacancy.max_age', %s, false)", (f"{milliseconds_of(max_age)} ms",)
                    )
            # set_config lasts only if its transaction commits.
            connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _require_tables(cursor: Cursor, dsn: SecretStr) -> None:
    # Every role may read the catalog. Looking for the schema is not enough: a failed migration may leave an empty one.
    cursor.execute("SELECT 1 FROM pg_views WHERE schemaname = 'vacancy' AND viewname = 'schedulable_host'")
    if cursor.fetchone() is None:
        raise MissingTablesError(f"{where(dsn)} has no Vacancy tables; run `vacancy migrate`")


def require_rights(
    connection: Connection, dsn: SecretStr, role: str, tables: Sequence[str], rights: Sequence[str]
) -> None:
    """Checks that a connection's user has the rights of a group role.

    Raises:
        VacancyError: names the rights that are missing.
    """
    with explained(dsn), connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.name || ' vacancy.' || c.relname, current_user FROM pg_class c"
            " CROSS JOIN unnest(%s) WITH ORDINALITY AS r (name, number)"
            " WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'vacancy') AND c.relname = ANY(%s)"
            " AND NOT has_table_privilege(c.oid, r.name) ORDER BY c.relname, r.number",
            (list(rights), list(tables)),
        )
        lacking = cursor.fetchall()
    if lacking:
        what = ", ".join(right for right, _ in lacking)
        raise VacancyError(f"{where(dsn)}: may not {what}; GRANT {role} TO {lacking[0][1]} (docs/security.md)")


def dial(dsn: SecretStr, *, connect_timeout: timedelta, application_name: str) -> Connection:
    """A connection to a database, with or without tables; arguments and errors as for :func:`connect`."""
    place = where(dsn)
    try:
        return psycopg2.connect(
            dsn.get_secret_value(),
            connect_timeout=max(2, round(connect_timeout.total_seconds())),
            application_name=application_name,
            # A server that vanishes silently is noticed within about 10 s.
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )
    except psycopg2.OperationalError as error:
        text = str(error)
    raise not_connected(text, place, connect_timeout)


def not_connected(text: str, place: str, connect_timeout: timedelta) -> VacancyError:
    """The one-line error for libpq's text of a failed connection, which has no SQLSTATE; see :func:`connect`."""
    if "FATAL:" in text:
        refusal = " ".join(text.split("FATAL:")[-1].split())
        kind, remedy = next(
            ((kind, remedy) for pattern, kind, remedy in _REFUSALS if re.search(pattern, refusal)),
            (VacancyError, "see the server's log"),
        )
        return kind(f"{place} refuses: {refusal}; {remedy}")
    if "translate host name" in text:
        return UnreachableError(f"{place}: its host name cannot be resolved; correct the dsn or the name service")
    if "timeout expired" in text:
        return UnreachableError(
            f"{place} does not answer in {connect_timeout.total_seconds():g} s; is it up, is a firewall between?"
        )
    if "failed: " in text:
        reason = text.split("failed: ")[-1].strip().splitlines()[0].rstrip(".")
        for pattern, remedy in () if _TOO_SOON_FOR_TLS in reason else _TLS:
            if re.search(pattern, reason):
                return VacancyError(f"{place}: {reason}; {remedy}")
        return UnreachableError(f"{place} cannot be reached: {reason}; start it, or correct the dsn")
    return VacancyError(f"{place}: the connection string is wrong; {_ENCODE}")


@contextmanager
def explained(dsn: SecretStr) -> Iterator[None]:
    """Turns PostgreSQL's errors into one line each.

    Raises:
        UnreachableError: the connection broke.
        VacancyError: anything else that PostgreSQL refuses.
    """
    try:
        yield
    except psycopg2.errors.InsufficientPrivilege as error:
        raise VacancyError(f"{where(dsn)}: {_primary(error)}; grant its role (docs/tables.md)") from None
    except (
        psycopg2.errors.UndefinedTable,
        psycopg2.errors.UndefinedColumn,
        psycopg2.errors.InvalidSchemaName,
    ) as error:
        raise MissingTablesError(f"{where(dsn)}: {_primary(error)}; run `vacancy migrate`") from None
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise UnreachableError(f"{where(dsn)}: {_primary(error)}; is the server up?") from None
    except psycopg2.Error as error:
        raise VacancyError(f"{where(dsn)}: {_primary(error)}") from None


def where(dsn: SecretStr) -> str:
    """The server, the database and the user that a connection string names, for messages.

    Raises:
        VacancyError: the string is invalid; the message does not quote it.
    """
    try:
        parts = parse_dsn(dsn.get_secret_value())
    except psycopg2.ProgrammingError:
        raise VacancyError(f"PostgreSQL: the connection string cannot be parsed; {_ENCODE}") from None
    host, port = parts.get("host") or parts.get("hostaddr") or "local socket", parts.get("port") or "5432"
    # With an unencoded @ or : in a URI's password libpq reads the rest of the password as the host or the port.
    if "@" in host or not re.fullmatch(r"[\d,]+", port):
        raise VacancyError(f"PostgreSQL: the connection string is wrong; {_ENCODE}")
    database = parts.get("dbname") or parts.get("user") or "?"
    user = f" as {parts['user']}" if "user" in parts else ""
    return f"PostgreSQL at {host}:{port}, database {database}{user}"


def _primary(error: psycopg2.Error) -> str:
    """The first line of PostgreSQL's message."""
    text = (error.diag.message_primary if error.diag else None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
