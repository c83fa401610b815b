"""What people ask that is not in memory: read from the database, one question at a time, each answer kept for a moment.

What always holds: however many people ask, the database answers one question of a kind at a time, each within a limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import psycopg2

from vacancy.connectors.postgres.connection import connect, explained
from vacancy.connectors.postgres.documents import documents
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.postgres.whole_host import CLAIMS, LISTED, read_host
from vacancy.jobs.settings import Settings
from vacancy.schemas.errors import ConfigError, VacancyError

T = TypeVar("T")
_KEPT = 256

_DRIFT = "SELECT * FROM vacancy.host_drift ORDER BY since, name, kind LIMIT %(limit)s"
_SOURCES = "SELECT * FROM vacancy.source ORDER BY source"
_NEAR = "SELECT name FROM vacancy.host_inventory WHERE shares AND NOT retired ORDER BY name LIMIT 200"


class BusyError(VacancyError):
    """Others are asking; asking again in a moment helps."""


class Asking:
    """A connection for one question at a time, with a limit on each, and the newest answers.

    Args:
        settings: the reader's login and `scheduler.max_age`.
        name: what pg_stat_activity shows.
        limit_s: how long one question may take.
        keep_s: how long an answer is given to others who ask the same.
    """

    def __init__(self, settings: Settings, name: str, limit_s: float, keep_s: float) -> None:
        self.asked = 0
        self._settings = settings
        self._name = name
        self._limit_s = limit_s
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._answers: dict[Hashable, tuple[float, Any]] = {}

    def ask(self, key: Hashable, question: Callable[[Connection], T]) -> T:
        """The answer to a question, from a moment ago where somebody has asked the same.

        Raises:
            BusyError: others have kept the connection for as long as one question may take.
            ConfigError: the question makes no sense.
            VacancyError: it took too long, or the database cannot be asked.
        """
        if not self._lock.acquire(timeout=self._limit_s):
            raise BusyError("others are asking, too; ask again in a moment")
        try:
            at, answer = self._answers.get(key, (0.0, None))
            if at and time.monotonic() - at < self._keep_s:
                kept: T = answer
                return kept
            fresh = self._once(question)
            while len(self._answers) >= _KEPT:
                self._answers.pop(next(iter(self._answers)))
            self._answers.pop(key, None)
            self._answers[key] = (time.monotonic(), fresh)
            return fresh
        finally:
            self._lock.release()

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _once(self, question: Callable[[Connection], T]) -> T:
        dsn = self._settings.postgres.reader_dsn
        self.asked += 1
        if self._connection is None:
            self._connection = connect(
                dsn,
                connect_timeout=self._settings.postgres.connect_timeout,
                application_name=self._name,
                read_only=True,
                max_age=self._settings.scheduler.max_age,
                statement_timeout=timedelta(seconds=self._limit_s),
            )
        try:
            with explained(dsn):
                try:
                    return question(self._connection)
                except psycopg2.errors.QueryCanceled:
                    raise VacancyError(f"the database had no answer within {self._limit_s:g} s; ask for less") from None
                except psycopg2.DataError as error:
                    raise ConfigError(f"the request makes no sense: {error.diag.message_primary}") from None
                except ValueError as error:  # a NUL in a text, which the client library refuses
                    raise ConfigError(f"the request makes no sense: {error}") from None
        except VacancyError as error:
            if not isinstance(error, ConfigError):
                self.close()  # after a restart of the server a new connection is due
            raise


class Questions:
    """The questions that take milliseconds."""

    def __init__(self, settings: Settings) -> None:
        self.asking = Asking(settings, "vacancy web questions", 5.0, 1.0)

    def host(self, host_id: str) -> dict[str, Any] | None:
        """A host, whole: its row of `schedulable_host`, cells, devices, resource classes, claims and drift."""
        return self.asking.ask(("host", host_id), lambda connection: read_host(connection, host_id))

    def claims(self) -> list[dict[str, Any]]:
        """The claims in flight, oldest first."""
        return self._list("claims", CLAIMS, host=None)

    def drift(self) -> list[dict[str, Any]]:
        """The hosts whose allocations and measurements disagree."""
        return self._list("drift", _DRIFT)

    def sources(self) -> list[dict[str, Any]]:
        """Every source and whether it is heard, storage pools as well."""
        return self._list("sources", _SOURCES)

    def pools(self) -> list[str]:
        """The names of storage pools."""
        return [row["name"] for row in self._list("near", _NEAR)]

    def _list(self, name: str, query: str, **values: Any) -> list[dict[str, Any]]:
        return self.asking.ask(name, lambda connection: list(documents(connection, query, {"limit": LISTED, **values})))
