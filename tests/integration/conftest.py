"""What the tests of the tables share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from vacancy.connectors.postgres.migrations import migrate


@pytest.fixture
def owner(database: str) -> Iterator[Connection]:
    """The owner's connection to a migrated database without hosts; each statement commits."""
    migrate(SecretStr(database))
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        yield connection
