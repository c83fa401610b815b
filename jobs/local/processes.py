"""Child processes that never outlive the stack that they belong to.

What always holds for a :class:`Child`:

- It runs in its own session, so that Ctrl-C on the terminal reaches only `vacancy up`, which then ends its children in
  order. Its output goes to a log file.
- When its parent dies for any reason, the kernel sends it its stop signal.
- It and all its descendants have :data:`MARKER` in their environment, so that a later run finds leftover processes.
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
# Loaded here, since between fork and exec nothing may be imported or looked up.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class ServerUser(NamedTuple):
    """The user that a server runs as, if that is not the current user."""

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
            name: its name in messages.
            arguments: the program and its arguments.
            directory: the directory of the stack that it belongs to, for the marker.
            log: the file that its output is appended to.
            stop_signal: the signal for a graceful stop.
            stop_seconds: how long a graceful stop may take before the process is killed.
            user: the user to run as, if the current user is root.
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
        """Its process id; None before it is started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or was never started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Starts it, also again after it has ended.

        Raises:
            VacancyError: the program could not be started.
        """
        self._kill_group()
        self._asked = False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.log)
        our_pid, stop_signal = os.getpid(), int(self._stop_signal)

        def die_with_parent() -> None:
            # Set after the change of user, which would clear it.
            _prctl(_PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != our_pid:
                os._exit(1)

        user = self._user
        # Children get their settings only from a file: this process's VACANCY_* variables would override it.
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
                    preexec_fn=die_with_parent,  # there is no other way to set the parent-death signal
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
        """Sends the stop signal once; see :meth:`stop`."""
        if self._process is not None and self.running and not self._asked:
            self._asked = True
            self._process.send_signal(self._stop_signal)

    def stop(self) -> None:
        """Sends the stop signal and waits; then kills it with its whole process group."""
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
        """Kills it at once with its process group, like a crash."""
        self._kill_group()
        if self._process is not None:
            self._process.wait()

    def _kill_group(self) -> None:
        """Kills it and the processes that it left behind."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the usual case: nothing is left
                os.killpg(self._process.pid, signal.SIGKILL)

    def has_said(self, line: str) -> bool:
        """Whether its output since its last start contains a line."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return line.encode() in log.read().splitlines()

    def last_lines(self, count: int = 5) -> str:
        """The last output since its last start, in one line, without the lines of stack traces."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 8192))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        return " | ".join([line for line in lines if line and not line.startswith(_STACK_TRACE)][-count:])

    def describe_end(self) -> str:
        """How it ended, the path of its log and the log's last output, in one line."""
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
    """Rotates a log that has grown too large, even while a process appends to it; one old log is kept."""
    try:
        if log.stat().st_size <= MAX_LOG_BYTES:
            return
    except FileNotFoundError:
        return
    # The log is copied and truncated, not renamed, since its writer keeps it open for appending.
    old = log.with_name(log.name + ".1")
    old.write_bytes(log.read_bytes())
    os.truncate(log, 0)


def leftovers(directory: Path) -> list[psutil.Process]:
    """Processes with the marker of a stack's directory, except this process and its ancestors."""
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
    """Ends processes, which need not be children: sends each signal in turn, waits a limited time, then SIGKILL.

    Returns:
        the number of processes.
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
    """Waits until processes have ended; returns those that have not ended in time.

    A killed process with much memory takes a while to end, and its environment cannot be read meanwhile.
    """
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        # A zombie counts as ended.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_leftovers(directory: Path, seconds: float = 5) -> int:
    """Ends the processes left by an earlier run of a stack; returns their number."""
    count = 0
    # Repeated until none is left, since a process that is being ended may still start another.
    while found := leftovers(directory):
        count += end_processes(found, seconds, signal.SIGTERM)
    return count
