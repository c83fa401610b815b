"""Ids of reservations: what a bulk claim holds its hosts with until it gives them to its consumers.

``schemas/functions/bulk.sql`` says how they are made up. The ids of an older bulk claim come first.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

PART = 16
"""Consumers that are claimed for in one transaction: other claims wait no longer than that takes."""
LONGEST = timedelta(minutes=10)
"""A bulk claim ends by then. Most of it is waiting for its turn: they come one after the other."""
RESERVED = timedelta(minutes=1)
"""How long a reservation counts after the last part of its bulk claim, if that is left behind."""
MOST = 1000
"""Consumers of one call at most."""
MOST_MOVED = 64
"""Consumers of a call in which claims move, which is one transaction; the limit of the SQL function claim(), too."""
_ONES = (1 << 48) - 1
_T = TypeVar("_T")


def reservation_ids(count: int) -> list[str]:
    """The ids for a new bulk claim. Two that begin in the same microsecond differ in the last bits of their 64."""
    began = (time.time_ns() // 1000) << 8 | uuid.uuid4().int & 0xFF
    return [str(uuid.UUID(int=_ONES << 80 | began << 16 | number)) for number in range(count)]


def parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The items, so many at a time as one transaction takes."""
    for start in range(0, len(items), PART):
        yield items[start : start + PART]
