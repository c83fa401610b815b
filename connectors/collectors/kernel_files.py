"""Files of the kernel, as far as they can be had. Paths are text here: pathlib would cost more than the kernel does."""

from __future__ import annotations

import os

MOST = 2**63 - 1
"""The largest figure that an event can hold, Avro's long."""


def read(file: str) -> str:
    """All of a file, stripped; bytes that are no UTF-8 stay what they are in a path.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file) from None
    finally:
        os.close(descriptor)
    return os.fsdecode(b"".join(parts)).strip()


def read_if_there(file: str) -> str | None:
    """The same; None where it cannot be read."""
    try:
        return read(file)
    except OSError:
        return None


def count(text: str | None) -> int | None:
    """A counter as it stands in a file; None where it is missing, garbled or beyond what an event can hold."""
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    value = int(text) if len(text) < 20 else MOST + 1
    return value if value <= MOST else None
