"""Rows of any query as JSON objects."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from psycopg2 import extensions, sql
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

_UUIDS = extensions.new_array_type((2951,), "uuid[]", psycopg2.STRING)


def documents(connection: Connection, query: str | sql.Composable, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A query's rows as JSON objects: columns as keys, times ISO 8601 in UTC, ages in seconds."""
    with connection.cursor() as cursor:
        extensions.register_type(_UUIDS, cursor)
        cursor.execute(query, values)
        names = [column.name for column in cursor.description or ()]
        for row in cursor:
            yield dict(zip(names, map(json_value, row), strict=True))


def json_value(value: Any) -> Any:
    """A column's value as JSON represents it."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case uuid.UUID():
            return str(value)
        case float() if not math.isfinite(value):
            return None  # JSON has no such number
    return value
