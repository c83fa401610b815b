"""Files of the local stack: private ones, and the lock on its directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vacancy.schemas.errors import VacancyError


def write_private(file: Path, text: str) -> None:
    """Writes a file atomically; only its owner can read it."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds a directory's lock; the kernel releases it when this process dies.

    Raises:
        VacancyError: another process holds it; the message names its pid.
    """
    with (directory / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise VacancyError(
                f"`vacancy up` runs on {directory} already, as process {lock.read().strip() or '?'}; end it first, or "
                "use another --data-dir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
