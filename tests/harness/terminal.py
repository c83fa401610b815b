"""A program on a terminal of its own, as a person has it: what stands on the screen, its size, what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

from tests.harness.process import END_SECONDS, SAID_SECONDS, own_environment
from tests.harness.waiting import PATIENCE, wait_until


class Terminal:
    """Runs a program; a context manager that kills it.

    Args:
        command: its command line.
        directory: where it runs.
        columns: the width of the terminal at first.
        lines: its height.
        environment: further variables.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, columns: int, lines: int, environment: Mapping[str, str] = {}
    ) -> None:
        self._command = command
        self._directory = directory
        # Rich takes the size from these, if they are set, and not from the terminal.
        outside = {name: text for name, text in own_environment().items() if name not in ("COLUMNS", "LINES")}
        self._environment = {**outside, "TERM": "xterm-256color", **environment}
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, lines)
        self._modes = termios.tcgetattr(self._theirs)

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            cwd=self._directory,
            env=self._environment,
            start_new_session=True,
            # Ctrl-C is a signal to who has the terminal as its own.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def screen(self) -> list[str]:
        """The lines that stand there now, without blanks at their ends."""
        while select.select([self._ours], [], [], 0)[0]:
            self._stream.feed(os.read(self._ours, 65536))
        return [line.rstrip() for line in self._screen.display]

    @property
    def is_as_before(self) -> bool:
        """Whether it echoes, takes Ctrl-C and shows a cursor at the beginning of a line, as before the program."""
        assert self.screen
        cursor = self._screen.cursor
        return not cursor.hidden and cursor.x == 0 and termios.tcgetattr(self._theirs) == self._modes

    def resize(self, columns: int, lines: int) -> None:
        """Gives the terminal another size, of which its program is told by a signal."""
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def type(self, text: str) -> None:
        """What a person types; ``\\x03`` is Ctrl-C."""
        os.write(self._ours, text.encode())

    def wait_for(self, pattern: str, seconds: float = SAID_SECONDS) -> re.Match[str]:
        """Waits until a pattern is found on the screen, which it must be before the program ends: the match."""

        def found() -> re.Match[str] | None:
            ended = self.process.poll() is not None  # asked first: what it says at last is seen then
            match = re.search(pattern, "\n".join(self.screen), re.MULTILINE)
            assert match or not ended, f"it ended without {pattern!r}: {self.screen}"
            return match

        wait_until(found, seconds, lambda: f"{pattern!r} is not on the screen: {self.screen}")
        match = found()
        assert match is not None
        return match

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Waits for the program's end, and reads what it says meanwhile: its exit status."""
        wait_until(lambda: self.screen and self.process.poll() is not None, seconds, lambda: f"{self.screen}")
        status: int = self.process.wait(END_SECONDS * PATIENCE)
        return status
