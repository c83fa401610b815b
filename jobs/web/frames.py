"""What browsers are sent: the levels of all hosts, as the difference from those that a browser has.

A frame is a header, a summary as JSON, and a deflated body: the bytes of some planes, those of levels.BASE and the one
that the browser paints, exclusive-ored with those that it has, or with zeros where it has none. Exclusive ors compose,
so one frame serves whoever missed some, nothing is held open for a browser, and all that ask from the same state get
the same bytes.

Header, little-endian, 32 bytes::

    u32 epoch     a number of this server's life: after a restart a browser begins anew
    u32 number    of the state that the frame leads to
    u32 hosts     slots
    u16 planes    in the body: a byte of each host for each
    u8  kind      0: from zeros; 1: from the state that the browser named
    u8            0
    f64 now       the database's time, seconds since 1970
    u32           bytes of JSON
    u32           bytes of the body
"""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vacancy.jobs.web.levels import BASE, Levels

HEADER = struct.Struct("<IIIHBBdII")
WHOLE, DIFFERENCE = 0, 1
_KEPT = 16
"""States that a browser may have missed ticks since."""


class _State(NamedTuple):
    number: int
    planes: dict[str, bytes]
    hosts: int


class Frames:
    """The newest states; safe for several threads."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.number = 0
        self._lock = threading.Lock()
        self._states: deque[_State] = deque(maxlen=_KEPT)
        self._cache: dict[tuple[int, str], bytes] = {}
        self._summary = b"{}"
        self._now = 0.0

    def publish(self, planes: Mapping[str, bytes | bytearray | Levels], summary: dict[str, Any], now: float) -> None:
        """Takes a new state in: the planes of levels.BASE, and those of the dimensions that somebody looks at."""
        copies = {name: bytes(plane) for name, plane in planes.items()}
        hosts = len(copies[BASE[0]])
        text = json.dumps(summary, separators=(",", ":")).encode()
        with self._lock:
            if self._states and self._states[-1].hosts != hosts:
                self._states.clear()  # hosts came, so the bytes of none are where they were
            self.number += 1
            self._states.append(_State(self.number, copies, hosts))
            self._summary = text
            self._now = now
            self._cache.clear()

    def add(self, name: str, plane: bytes | bytearray | Levels) -> None:
        """Adds a dimension to the newest state, since somebody begins to look at it."""
        with self._lock:
            if self._states and len(levels := bytes(plane)) == self._states[-1].hosts:
                self._states[-1].planes[name] = levels

    def since(self, epoch: int, number: int, paint: str) -> bytes:
        """The frame from a state that a browser has to the newest; b"" where it has that.

        Args:
            epoch: of the server that the browser got its state from.
            number: of that state.
            paint: the dimension that the browser has in it and wants, one of levels.DIMENSIONS.
        """
        with self._lock:
            if epoch == self.epoch and number == self.number:
                return b""
            old = (
                next((state for state in self._states if state.number == number and paint in state.planes), None)
                if epoch == self.epoch
                else None
            )
            key = (old.number if old else -1, paint)
            frame = self._cache.get(key)
            if frame is None:
                frame = self._cache[key] = self._frame(old, (*BASE, paint))
            return frame

    def cached(self, epoch: int, number: int, paint: str) -> bool:
        """Whether :meth:`since` costs nothing now."""
        return epoch == self.epoch and (number == self.number or (number, paint) in self._cache)

    def _frame(self, old: _State | None, names: tuple[str, ...]) -> bytes:
        if not self._states:
            return (
                HEADER.pack(self.epoch, self.number, 0, 0, WHOLE, 0, self._now, len(self._summary), 0) + self._summary
            )
        new = self._states[-1]
        change = b"".join(new.planes[name] for name in names)
        if old is not None:
            change = _exclusive_or(b"".join(old.planes[name] for name in names), change)
        deflate = zlib.compressobj(1 if old else 6, zlib.DEFLATED, -15)
        body = deflate.compress(change) + deflate.flush()
        kind = WHOLE if old is None else DIFFERENCE
        header = HEADER.pack(
            *(self.epoch, new.number, new.hosts, len(names), kind, 0, self._now, len(self._summary), len(body))
        )
        return header + self._summary + body


def _exclusive_or(a: bytes, b: bytes) -> bytes:
    return np.bitwise_xor(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)).tobytes()
