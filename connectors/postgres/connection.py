"""The PostgreSQL edge: connections, and what their errors mean in one line.

What always holds: no message contains a password, or any part of a connection string that might be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg2
from psycopg2.extensions import parse_dsn
from pydantic import SecretStr

from vacancy.connectors.postgres.servers import Connection, Cursor, NoServerError, Servers, set_local
from vacancy.schemas.errors import NoAnswerError, VacancyError
from vacancy.schemas.units import milliseconds_of

STATEMENT_TIMEOUT = timedelta(seconds=30)
"""Enough for the whole table of the largest fleet."""
GRACE_S = 1.0
"""How much longer than the server we wait: its answer, that it has ended the statement, leaves a usable connection."""
_PRIMARY = "name all servers in the dsn: host=a,b (docs/database.md)"
_ENCODE = "write it as libpq's URI or key=value form, with @ : / % in a password percent-encoded in a URI"


class MissingTablesError(VacancyError):
    """The database has no Vacancy tables."""


class UnreachableError(NoAnswerError):
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
    (
        r"too many connections for (role|database)",
        UnreachableError,
        "raise its CONNECTION LIMIT, or lower scheduler.connections",
    ),
    # PgBouncer's own. What it says of a server that it cannot reach, it says in the server's words as well.
    (r"no such (database|user)", VacancyError, "add it to pgbouncer.ini, or correct the dsn"),
    (
        r"unsupported startup parameter",
        VacancyError,
        "leave it out of the dsn, or name it in PgBouncer's ignore_startup_parameters",
    ),
    (
        r"no more connections allowed|max_client_conn|connections? (limit|allowed)",
        UnreachableError,
        "raise PgBouncer's limits",
    ),
    (
        r"query_wait_timeout|pooler|pgbouncer|bouncer|server login|login has been failing|client_login_timeout"
        r"|server_login_retry|connect failed|paused|suspended|server conn",
        UnreachableError,
        "see the log of PgBouncer and that of the server",
    ),
    # "terminating connection": the server stopped between authentication and its first answer. One that does "not
    # accept connections" is a standby without hot_standby, or one that has yet to catch up.
    (
        r"starting up|shutting down|recovery|terminating connection|is not (yet )?accepting connections",
        UnreachableError,
        "wait until the server has started",
    ),
    (
        r"authentication due to timeout|could not fork|out of (shared )?memory|[Nn]o space left|[Tt]oo many open files",
        UnreachableError,
        "the server has too much to do or too little room; see its log",
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
    statement_timeout: timedelta = STATEMENT_TIMEOUT,
) -> Connection:
    """A connection to a database that has Vacancy's tables; each statement is a transaction.

    Args:
        dsn: libpq's URI or key=value form, of one or several servers.
        connect_timeout: how long to wait for a server, all of them together.
        application_name: what pg_stat_activity shows.
        read_only: refuse writes, and be content with a standby.
        max_age: scheduler.max_age, for the view's `reason`.
        statement_timeout: how long each statement may take.

    Raises:
        UnreachableError: no server answers, or it closed the connection.
        MissingTablesError: `vacancy migrate` has not run.
        VacancyError: the server refuses the user or the database.
    """
    connection = dial(
        dsn,
        connect_timeout=connect_timeout,
        application_name=application_name,
        writes=not read_only,
        statement_timeout=statement_timeout,
    )
    settings = {"statement_timeout": f"{milliseconds_of(statement_timeout)} ms"}
    if read_only:
        settings["transaction_read_only"] = "on"
    if max_age is not None:
        settings["vacancy.max_age"] = f"{milliseconds_of(max_age)} ms"
    try:
        connection.settings = set_local(**settings)
        with explained(dsn), connection.cursor() as cursor:
            _require_tables(cursor, dsn)
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


def dial(
    dsn: SecretStr,
    *,
    connect_timeout: timedelta,
    application_name: str,
    writes: bool = True,
    statement_timeout: timedelta = STATEMENT_TIMEOUT,
) -> Connection:
    """A connection to a database, with or without tables; arguments and errors as for :func:`connect`.

    `writes` asks for the one of several servers that takes writes, if the connection string does not say which. The
    server knows nothing of the limit of statements until the caller sets ``settings``.
    """
    connection = dial_one_of(servers(dsn, application_name=application_name, writes=writes), dsn, connect_timeout)
    connection.limit_s = statement_timeout.total_seconds() + GRACE_S
    return connection


def servers(dsn: SecretStr, *, application_name: str, writes: bool) -> Servers:
    """The servers that a connection string names.

    Raises:
        VacancyError: it is no connection string.
    """
    place = where(dsn)
    try:
        return Servers(dsn.get_secret_value(), writes=writes, parameters={"application_name": application_name})
    except psycopg2.OperationalError as error:
        raise VacancyError(f"{place}: {error}; name a port for all servers, or one for each") from None


def dial_one_of(servers: Servers, dsn: SecretStr, timeout: timedelta) -> Connection:
    """A connection to one of these servers; errors as for :func:`connect`."""
    try:
        return servers.connect(timeout.total_seconds())
    except NoServerError as error:
        raise no_server(error, dsn, timeout) from None


def no_server(error: NoServerError, dsn: SecretStr, timeout: timedelta) -> VacancyError:
    """The one-line error for a connection that none of its servers gave; see :func:`connect`."""
    reasons = [not_connected(text, where(dsn), timeout) for text in error.texts]
    # One server that may be had later is reason enough to try again.
    return next((reason for reason in reversed(reasons) if isinstance(reason, UnreachableError)), reasons[-1])


def not_connected(text: str, place: str, connect_timeout: timedelta) -> VacancyError:
    """The one-line error for libpq's text of a failed connection, which has no SQLSTATE; see :func:`connect`."""
    # A pooler says ERROR where a server says FATAL.
    if said := re.search(r".*(?:FATAL|ERROR):(.*)", text, re.DOTALL):
        refusal = " ".join(said[1].split())
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
    if re.search(r"session is (not )?read-only|server is (not )?in hot standby mode", text):
        reason = text.split("failed: ")[-1].strip().splitlines()[0].rstrip(".")
        return UnreachableError(
            f"{place}: {reason}; wait until a standby has been promoted, or correct target_session_attrs in the dsn"
        )
    if re.search(r"invalid (port|integer|\w+ value)|could not match|weak sslmode", text):
        return VacancyError(f"{place}: the connection string is wrong; {_ENCODE}")
    # Without "failed: " it is the error of a connection that had begun, such as one of TLS.
    reason = (text.split("failed: ")[-1].strip() or "no reason given").splitlines()[0].rstrip(".")
    for pattern, remedy in () if _TOO_SOON_FOR_TLS in reason else _TLS:
        if re.search(pattern, reason):
            return VacancyError(f"{place}: {reason}; {remedy}")
    return UnreachableError(f"{place} cannot be reached: {reason}; start it, or correct the dsn")


@contextmanager
def explained(dsn: SecretStr) -> Iterator[None]:
    """Turns PostgreSQL's errors into one line each.

    Raises:
        UnreachableError: the connection broke, there was no answer in time, or the server is a standby.
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
    except psycopg2.errors.ReadOnlySqlTransaction as error:
        raise UnreachableError(f"{where(dsn)}: {_primary(error)}; is it a standby? {_PRIMARY}") from None
    except (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable) as error:
        raise UnreachableError(
            f"{where(dsn)}: {_primary(error)}; "
            "if a table is locked, as by VACUUM FULL or a migration, pg_stat_activity shows by whom"
        ) from None
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise UnreachableError(f"{where(dsn)}: {_primary(error)}; is the server up?") from None
    except psycopg2.Error as error:
        if type(error) is psycopg2.DatabaseError:  # libpq's, of an answer that was cut off
            raise UnreachableError(f"{where(dsn)}: {_primary(error)}; is the server up?") from None
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
