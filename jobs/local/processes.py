"""Child processes that never outlive what they belong to.

What always holds for a :class:`Child`:

- It runs in a session of its own, so that Ctrl-C on the terminal reaches `vacancy up` alone, which then ends its
  children in order; its output goes to a log file.
- The kernel sends it its stop signal when its parent dies, however that happens.
- It and all its descendants carry :data:`MARKER` in their environment, by which a later run finds what is left over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from vacancy.schemas.errors import VacancyError

MARKER = "VACANCY_STACK"
"""Environment variable of every process of a local stack: the stack's directory."""
MAX_LOG_BYTES = 16 * 1024 * 1024
POLL_SECONDS = 0.05

_STACK_TRACE = ("at ", "... ", "File ", "^")  # Java's and Python's
_PR_SET_PDEATHSIG = 1
# Loaded here, since nothing may be imported or looked up between fork and exec.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class ServerUser(NamedTuple):
    """The user that a server is to run as, where that is not our own."""

    name: str
    uid: int
    gid: int


class Child:
    """A process of the local stack."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 10,
        user: ServerUser | None = None,
    ) -> None:
        """Describes the process; :meth:`start` starts it.

        Args:
            name: what messages call it.
            arguments: the program and its arguments.
            directory: the directory of the stack that it belongs to, for the marker.
            log: the file that its output is appended to.
            stop_signal: what makes it end in good order.
            stop_seconds: how long it may take for that before it is killed.
            user: whom to run as, when we are root.
        """
        self.name = name
        self.log = log
        self.stop_seconds = stop_seconds
        self._arguments = [str(argument) for argument in arguments]
        self._directory = directory
        self._stop_signal = stop_signal
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._asked = False

    @property
    def pid(self) -> int | None:
        """Its process id, if it was started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or was never started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Starts it, or starts it again after it ended.

        Raises:
            VacancyError: the program could not be started.
        """
        self._kill_group()
        self._asked = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.log)
        our_pid, stop_signal = os.getpid(), int(self._stop_signal)

        def die_with_parent() -> None:
            # After the change of user, which would clear it.
            _prctl(_PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != our_pid:
                os._exit(1)

        user = self._user
        # Settings reach it by file alone: a variable that is meant for us would win over what we put there.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VACANCY_")}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment | {MARKER: str(self._directory)},
                    cwd="/",
                    start_new_session=True,
                    user=user.uid if user else None,
                    group=user.gid if user else None,
                    extra_groups=[] if user else None,
                    preexec_fn=die_with_parent,  # nothing else can set the death signal
                )
            except OSError as error:
                raise VacancyError(f"{self.name}: {self._arguments[0]} does not start: {error.strerror}") from None

    def run(self, seconds: float) -> None:
        """Starts it and waits until it has done its work.

        Raises:
            VacancyError: it could not be started, failed, or took too long; with the last lines of its log.
        """
        self.start()
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if self.exit_status != 0:
            reason = self.describe_end()
            self.kill()
            raise VacancyError(reason)

    def request_stop(self) -> None:
        """Asks it to end, once; see :meth:`stop`."""
        if self._process is not None and self.running and not self._asked:
            self._asked = True
            self._process.send_signal(self._stop_signal)

    def stop(self) -> None:
        """Ends it: asks, waits, then kills it with its whole process group."""
        if self._process is None:
            return
        self.request_stop()
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._kill_group()

    def kill(self) -> None:
        """Kills it at once, as a crash would, with its process group."""
        self._kill_group()
        if self._process is not None:
            self._process.wait()

    def _kill_group(self) -> None:
        """Kills it and what it left behind."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the usual case: nothing is left
                os.killpg(self._process.pid, signal.SIGKILL)

    def has_said(self, line: str) -> bool:
        """Whether its output since it was started holds a line."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return line.encode() in log.read().splitlines()

    def last_lines(self, count: int = 5) -> str:
        """What it said last since it was started, in one line, without the lines of stack traces."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 8192))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        return " | ".join([line for line in lines if line and not line.startswith(_STACK_TRACE)][-count:])

    def describe_end(self) -> str:
        """How it ended, where its log is and what that says last, in one line."""
        status = self.exit_status
        if status is None:
            how = "does not answer"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        said = self.last_lines()
        return f"{self.name} {how}; {self.log} ends with: {said}" if said else f"{self.name} {how}; see {self.log}"

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Waits until it is ready.

        Raises:
            VacancyError: it ended, or was not ready in time; with the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise VacancyError(self.describe_end())
            if time.monotonic() > deadline:
                raise VacancyError(f"{self.name} was not ready after {seconds:.0f} s; {self.describe_end()}")
            time.sleep(POLL_SECONDS)


def bound_log(log: Path) -> None:
    """Moves a log that has grown too large aside (one old one is kept), also while a process appends to it."""
    try:
        if log.stat().st_size <= MAX_LOG_BYTES:
            return
    except FileNotFoundError:
        return
    # Copied and emptied, not renamed: its writer keeps the file open, and appends.
    old = log.with_name(log.name + ".1")
    old.write_bytes(log.read_bytes())
    os.truncate(log, 0)


def leftovers(directory: Path) -> list[psutil.Process]:
    """Processes that carry the marker of a stack's directory, but for this one and its ancestors."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in ours and _environment(process).get(MARKER) == str(directory)
    ]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}  # gone, or another user's


def end_processes(processes: Iterable[psutil.Process], seconds: float, *signals: signal.Signals) -> int:
    """Ends processes that need not be our children: each signal in turn, a bounded wait after each, then SIGKILL.

    Returns:
        How many there were.
    """
    alive = list(processes)
    count = len(alive)
    for each in (*signals, signal.SIGKILL):
        for process in alive:
            try:
                process.send_signal(each)
            except psutil.NoSuchProcess:
                continue
        alive = wait_gone(alive, seconds)
        if not alive:
            break
    return count


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until processes have ended; those that have not in time.

    A killed process that held much memory takes its time, and no longer shows its environment meanwhile.
    """
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        # What nobody has reaped yet is no process any more.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_leftovers(directory: Path, seconds: float = 5) -> int:
    """Ends what is left of an earlier run of a stack; how many processes that were."""
    count = 0
    # Again until none is left, since what is being ended may still start something.
    while found := leftovers(directory):
        count += end_processes(found, seconds, signal.SIGTERM)
    return count
