"""Errors while connecting: whether a retry may help."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vacancy.connectors.postgres.connection import UnreachableError, not_connected
from vacancy.schemas.errors import VacancyError

AWAY = (
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "sorry, too many clients already",
    "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    "terminating connection due to unexpected postmaster exit",
    "terminating connection due to administrator command",
    "the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been reached.",
    "the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.",
    "canceling authentication due to timeout",
    'too many connections for role "scheduler"',
    'too many connections for database "vacancy"',
    "out of memory\nDETAIL:  Failed on request of size 8192 in memory context",
    'could not open file "global/pg_filenode.map": Too many open files',
)
REFUSES = (
    'password authentication failed for user "u"',
    'database "vacancy" is not currently accepting connections',
    'role "u" is not permitted to log in',
)


@pytest.mark.parametrize("said", AWAY)
def test_a_server_that_is_away_for_now_is_unreachable(said: str) -> None:
    assert isinstance(refusal(said), UnreachableError)


def test_a_server_that_answers_no_more_is_unreachable() -> None:
    """The postmaster sends this error before TLS is negotiated, so libpq does not show its text."""
    text = 'connection to server at "127.0.0.1", port 5432 failed: server sent an error response during SSL exchange\n'
    assert isinstance(not_connected(text, "PostgreSQL", timedelta(seconds=2)), UnreachableError)


@pytest.mark.parametrize("said", REFUSES)
def test_a_server_that_does_not_want_us_refuses(said: str) -> None:
    assert type(refusal(said)) is VacancyError


def refusal(said: str) -> VacancyError:
    """The exception for libpq's error, which has no SQLSTATE."""
    text = f'connection to server at "127.0.0.1", port 5432 failed: FATAL:  {said}\n'
    return not_connected(text, "PostgreSQL", timedelta(seconds=2))
