"""A real file system that can be made to hang: FUSE, spoken by hand (fuse(4)), whose server answers or does not."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKUP, _GETATTR, _STATFS, _INIT, _FORGET, _INTERRUPT = 1, 3, 17, 26, 2, 36
_HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_MNT_DETACH = 2


class HangingFileSystem:
    """An empty directory of 100 GiB, of which 40 are free; while ``answers`` is not set nothing is answered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Semaphore(0)
        """Counts the questions about its room."""
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode={stat.S_IFDIR | 0o755:o},user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"hanging", os.fsencode(directory), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")
        self._umount = libc.umount2
        self._thread = threading.Thread(target=self._serve, daemon=True, name="hanging file system")
        self._thread.start()

    def close(self) -> None:
        """Ends it; whoever waits for it gets an error."""
        self._umount(os.fsencode(self.directory), _MNT_DETACH)
        self.answers.set()
        os.close(self._device)
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                question = os.read(self._device, 1 << 17)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.ENOENT}:
                    continue
                return
            _, operation, unique, *_ = _HEADER.unpack_from(question)
            if operation == _STATFS:
                self.asked.release()
            if operation in {_FORGET, _INTERRUPT}:
                continue
            self.answers.wait()
            try:
                self._answer(unique, *_reply(operation))
            except OSError:
                continue  # nobody waits for it any more, or it has been unmounted

    def _answer(self, unique: int, error: int, body: bytes) -> None:
        os.write(self._device, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)


def _reply(operation: int) -> tuple[int, bytes]:
    if operation == _INIT:
        return 0, struct.pack("<IIII", 7, 31, 0, 0) + bytes(48)
    if operation == _STATFS:
        blocks, free, block_bytes = 100 << 18, 40 << 18, 4096
        return 0, struct.pack("<QQQQQIIII", blocks, free, free, 0, 0, block_bytes, 255, block_bytes, 0) + bytes(24)
    if operation == _GETATTR:
        attributes = struct.pack(
            "<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0
        )
        return 0, struct.pack("<QII", 0, 0, 0) + attributes
    return (errno.ENOENT if operation == _LOOKUP else errno.ENOSYS), b""


@contextmanager
def hanging_file_system(directory: Path) -> Iterator[HangingFileSystem]:
    """One that is mounted there for as long as it lasts."""
    file_system = HangingFileSystem(directory)
    try:
        yield file_system
    finally:
        file_system.close()
