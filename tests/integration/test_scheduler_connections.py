"""The connections that a scheduler keeps."""

from __future__ import annotations

from contextlib import closing

import psycopg2
from pydantic import SecretStr

from tests.harness.rows import query
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings


def test_a_connection_is_opened_when_needed_and_kept(database: str) -> None:
    migrate(SecretStr(database))
    with (
        closing(psycopg2.connect(database)) as observer,
        closing(Scheduler(database, SchedulerSettings(connections=2))) as s,
    ):
        observer.autocommit = True
        sessions = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'vacancy scheduler' AND datname = current_database()"
        )
        assert query(observer, sessions) == []
        s.candidates(Request())
        first = query(observer, sessions)
        assert len(first) == 1
        s.candidates(Request())
        s.release()
        # A new one would pay for the connection and, far more, for the plans of the functions.
        assert query(observer, sessions) == first
