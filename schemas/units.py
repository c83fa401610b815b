"""Units that settings are written in."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> Any:
    """Parses ``"100 ms"``, ``"1 s"``, ``"5 min"``, ``"1 h"`` or ``"1 d"`` to a timedelta; a bare number is seconds.

    Raises:
        ValueError: the text is not a duration.
    """
    if isinstance(value, bool):
        raise ValueError("write a duration such as '500 ms', '10 s' or '5 min'")
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)?\s*", value)
        if match is None:
            raise ValueError("write a duration such as '500 ms', '10 s' or '5 min'")
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2] or "s"])
    return value


def format_duration(value: timedelta) -> str:
    """A duration as settings write it, in the largest unit that keeps it whole."""
    milliseconds = milliseconds_of(value)
    for unit in ("d", "h", "min", "s"):
        size = int(_SECONDS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"


def milliseconds_of(value: timedelta) -> int:
    """A duration in whole ms."""
    return round(value / timedelta(milliseconds=1))


def _positive(value: timedelta) -> timedelta:
    if value < timedelta(milliseconds=1):
        raise ValueError("must be at least 1 ms")
    return value


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_positive), PlainSerializer(format_duration)
]
"""A length of time of at least 1 ms."""
