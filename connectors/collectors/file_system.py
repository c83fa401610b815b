"""How much room a file system has, asked so that nothing hangs with it.

A process ends only when all its threads do, and one that waits for a FUSE server which has read the question cannot be
killed; virtiofs is FUSE to a server on the host. So such file systems are asked by a process of its own, and stay
behind with it if need be; of all others (a server of NFS that is gone) the kernel lets go.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vacancy.connectors.collectors.kernel_files import MOST
from vacancy.connectors.collectors.limited import Limited
from vacancy.connectors.collectors.mounts import mount_of

_PROGRAM = """
import os, sys
for _ in sys.stdin:
    try:
        found = os.statvfs(sys.argv[1])
        print(os.stat(sys.argv[1]).st_dev, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


class Room(NamedTuple):
    """A file system's: what tells it from others of this machine, and in bytes what it has and what users may have."""

    device: int
    total: int
    free: int


def room_of(path: Path, what: str, mounts: str = "/proc/self/mountinfo") -> Limited[Room]:
    """Asks for the room of a path's file system, again at each call.

    Args:
        path: on it.
        what: it is, for messages.
        mounts: where the kernel tells what is mounted.
    """
    ask = Helper(path).ask if kind_of(path, mounts).startswith(("fuse", "virtiofs")) else lambda: _ask(path)
    return Limited(lambda: _checked(ask(), what), what)


def kind_of(path: Path, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that a path is on by its name, such as ``fuse.sshfs``; "" where that is not told.

    It does not look at the path, which may hang.
    """
    mount = mount_of(path, mounts)
    return mount.kind if mount else ""


def _ask(path: Path) -> Room:
    found = os.statvfs(path)
    return Room(path.stat().st_dev, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _checked(room: Room, what: str) -> Room:
    if room.total > MOST:
        raise OSError(f"{what} says that it has {room.total} bytes")
    return room._replace(free=min(room.free, room.total))


class Helper:
    """A process that asks for the room of a path, and can be left behind.

    Args:
        path: on the file system.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pipes: tuple[int, int] | None = None
        self._close: Callable[[], object] = lambda: None

    def ask(self) -> Room:
        """The room.

        Raises:
            OSError: the file system says so, or the process has ended.
        """
        if self._pipes is None:
            self._start()
        assert self._pipes is not None  # noqa: S101  # for mypy
        try:
            os.write(self._pipes[1], b"\n")
            answer = os.read(self._pipes[0], 1 << 10).split()
        except OSError:
            answer = []
        if not answer:
            self._close()
            self._pipes = None
            raise OSError(f"the process that looks at {self._path} has ended")
        if len(answer) == 1:
            raise OSError(int(answer[0]), os.strerror(int(answer[0])), str(self._path))
        return Room(*map(int, answer))

    def _start(self) -> None:
        their_in, ours_out = os.pipe()
        ours_in, their_out = os.pipe()
        arguments = [sys.executable, "-I", "-S", "-c", _PROGRAM, os.path.abspath(self._path)]  # noqa: PTH100  # as above
        actions = [(os.POSIX_SPAWN_DUP2, their_in, 0), (os.POSIX_SPAWN_DUP2, their_out, 1)]
        process = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions, setpgroup=0)
        os.close(their_in)
        os.close(their_out)
        self._pipes = ours_in, ours_out
        self._close = weakref.finalize(self, _close, process, ours_in, ours_out)


def _close(process: int, *pipes: int) -> None:
    for pipe in pipes:
        os.close(pipe)
    with suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
