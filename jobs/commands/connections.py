"""Connections to the database that commands open, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vacancy.connectors.postgres.connection import connect
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.jobs.settings import Settings


def open_reader(settings: Settings) -> Connection:
    """A read-only connection that uses the settings' scheduler.max_age."""
    return connect(
        settings.postgres.reader_dsn,
        connect_timeout=settings.postgres.connect_timeout,
        application_name="vacancy hosts",
        read_only=True,
        max_age=settings.scheduler.max_age,
    )


@contextmanager
def owner_connection(settings: Settings) -> Iterator[Connection]:
    """The owner's connection, for what operators change."""
    connection = connect(
        settings.postgres.owner_dsn,
        connect_timeout=settings.postgres.connect_timeout,
        application_name="vacancy operator",
        read_only=False,
        max_age=settings.scheduler.max_age,
    )
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def open_scheduler(settings: Settings) -> Iterator[Scheduler]:
    """A scheduler for one command; its retries are short, since a person waits at the terminal."""
    patience = min(settings.scheduler.retry_for, settings.postgres.connect_timeout)
    scheduler = Scheduler(
        settings.postgres.scheduler_dsn, settings.scheduler.model_copy(update={"retry_for": patience, "connections": 1})
    )
    try:
        yield scheduler
    finally:
        scheduler.close()
