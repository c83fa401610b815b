"""The local stack: a broker, a database, the job, the agent and a simulated fleet, in one directory.

::

    lock            held by the `vacancy up` that runs
    vacancy.toml    the endpoints and passwords, for all other commands
    secrets         the passwords of the database's roles
    kafka/          the broker's data
    postgres/       the database's data, or a link to them
    checkpoints/    the job's state
    logs/           each part's output

What always holds: acknowledged data is on disk, so nothing is lost if everything is ended or killed and started again
on the same directory.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.postgres.connection import dial, explained
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSecurity, PostgresSettings
from vacancy.jobs import ports
from vacancy.jobs.flink.address import forget, memory_file
from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local import settings_file
from vacancy.jobs.local.files import write_private
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.jobs.local.processes import POLL_SECONDS, Child, end_leftovers, leftovers, wait_gone
from vacancy.jobs.local.supervisor import Supervisor
from vacancy.jobs.settings import CONFIG_NAME, Settings, WebSettings
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration

DATABASE = "vacancy"
JOB_READY_SECONDS = 300
FIRST_ROW_SECONDS = 300
_CONNECT_TIMEOUT = timedelta(seconds=5)
_GONE_SECONDS = 10
_PAGE_READY_SECONDS = 60
_LOGINS = {"job": "vacancy_job", "scheduler": "vacancy_scheduler", "reader": "vacancy_reader"}
_STOP_SECONDS = {"job": 20.0, "agent": 5.0, "simulated hosts": 5.0, "fleet page": 10.0}

Report = Callable[[str], None]
"""Called with the progress of a step, in a few words."""


class Fleet(NamedTuple):
    """The simulated hosts to run in addition to this machine."""

    hosts: int
    interval: timedelta


class Stack:
    """The parts of a local stack: starts them in the order of :data:`STEPS`, keeps them running, ends them in order.

    The caller must hold the directory's lock.
    """

    def __init__(self, directory: Path, settings: Settings, fleet: Fleet | None) -> None:
        """Describes the stack.

        Args:
            directory: the stack's directory, an absolute path.
            settings: the user's settings; the stack replaces endpoints, connections and the checkpoint directory.
            fleet: the simulated hosts, if any.
        """
        self.directory = directory
        self.config_file = directory / CONFIG_NAME
        self.settings = settings
        self._fleet = fleet
        self._supervisor = Supervisor()
        self._kafka: KafkaServer | None = None
        self._postgres: PostgresServer | None = None
        self._children: list[Child] = []
        """The job, then the fleet page and the processes that emit events."""

    def prepare(self, report: Report) -> str:
        """Ends processes left by an earlier run, then checks the disk and the ports."""
        report("looking for leftovers of an earlier run")
        count = self._end_leftovers()
        free_mb = shutil.disk_usage(self.directory).free >> 20
        if free_mb < self.settings.local.min_free_disk_mb:
            raise VacancyError(
                f"{self.directory}: {free_mb} MiB free, less than local.min_free_disk_mb = "
                f"{self.settings.local.min_free_disk_mb}; make room, or use another --data-dir"
            )
        self._choose_ports()
        return f"{self.directory}, {free_mb >> 10} GiB free" + (f", ended {count} leftover processes" if count else "")

    def start_kafka(self, report: Report) -> str:
        """Starts the broker."""
        jars = ensure_jars("kafka", progress=lambda done, count, jar: report(f"jar {done} of {count}: {jar}"))
        report("starting")
        self._kafka = KafkaServer(self.directory / "kafka", self.settings.local.kafka_port, jars, stack=self.directory)
        self._kafka.start()
        self._supervisor.add(self._kafka.child, self._kafka.spawn)
        return self._kafka.bootstrap_servers

    def start_postgres(self, report: Report) -> str:
        """Starts the database server."""
        report("starting")
        port = self.settings.local.postgres_port
        self._postgres = PostgresServer(self.directory / "postgres", port, stack=self.directory)
        self._postgres.start()
        self._supervisor.add(self._postgres.child, self._postgres.spawn)
        return f"{self._postgres.host}:{self._postgres.port}, database {DATABASE}"

    def make_tables(self, report: Report) -> str:
        """Creates the database, its tables and the roles' logins, and writes the settings file."""
        assert self._postgres is not None  # noqa: S101  # the steps' order
        report("migrating")
        server_dsn = self._postgres.owner_dsn
        owner_dsn = server_dsn.rpartition("/")[0] + "/" + DATABASE
        if not _query(server_dsn, "SELECT FROM pg_database WHERE datname = %s", DATABASE):
            _execute(server_dsn, f"CREATE DATABASE {DATABASE}")
        changes = migrate(SecretStr(owner_dsn))
        passwords = self._passwords()
        for name, role in _LOGINS.items():
            if not _query(owner_dsn, "SELECT FROM pg_roles WHERE rolname = %s", f"local_{name}"):
                _execute(owner_dsn, f"CREATE ROLE local_{name} LOGIN IN ROLE {role}")
            _execute(owner_dsn, f"ALTER ROLE local_{name} PASSWORD %s", passwords[name])
        dsns = {name: self._postgres.dsn(f"local_{name}", DATABASE, passwords[name]) for name in _LOGINS}
        self._write_settings(owner_dsn, dsns)
        return "applied" if changes else "up to date"

    def make_topics(self, report: Report) -> str:
        """Creates the topics that are missing."""
        report("creating")
        ensure_topics(self.settings.kafka)
        kafka = self.settings.kafka
        return f"{kafka.usage_topic}, {kafka.inventory_topic}, {kafka.dead_letter_topic}"

    def start_job(self, report: Report) -> str:
        """Starts the job and waits until it runs."""
        flink_jars(lambda done, count, jar: report(f"jar {done} of {count}: {jar}"))
        report("starting")
        job = self._start_command("job", "job", "run")
        self._wait(lambda: job.has_said("ready"), JOB_READY_SECONDS, f"the job does not run; see {job.log}")
        return f"http://{ports.HOST}:{self.settings.local.flink_port}, the job runs"

    def start_page(self, report: Report) -> str:
        """Starts the fleet page, and waits until it can be opened."""
        report("starting")
        page = self._start_command("fleet page", "web")
        port = self.settings.local.web_port
        self._wait(lambda: ports.answers(port), _PAGE_READY_SECONDS, f"the fleet page does not answer; see {page.log}")
        return f"http://{ports.HOST}:{port}/"

    def start_emitters(self, report: Report) -> str:
        """Starts the processes that emit events, and waits until the first event has become a row of the table."""
        reader_dsn = self.settings.postgres.reader_dsn.get_secret_value()
        started_at = _query(reader_dsn, "SELECT clock_timestamp()")[0][0]
        self._start_command("agent", "agent")
        if self._fleet:
            hosts, interval = str(self._fleet.hosts), format_duration(self._fleet.interval)
            self._start_command("simulated hosts", "simulate", "--hosts", hosts, "--interval", interval, "--seed", "0")
        report("waiting for the first row")
        fresh = "SELECT FROM vacancy.schedulable_host WHERE observed_at > %s LIMIT 1"
        self._wait(
            lambda: bool(_query(reader_dsn, fresh, started_at)),
            FIRST_ROW_SECONDS,
            f"no row came in; run `vacancy doctor --data-dir {self.directory}`, and see {self.directory / 'logs'}",
        )
        return "the agent" + (f" and {self._fleet.hosts} simulated hosts" if self._fleet else "") + ", rows come in"

    def watch(self) -> list[str]:
        """Checks all parts without waiting, and returns a line for each event; see :meth:`Supervisor.watch`.

        Raises:
            VacancyError: a part is given up, or the data directory is gone.
        """
        if not (self.directory / "lock").exists():
            raise VacancyError(
                f"{self.directory} was deleted while the stack ran on it, with what it stored; start `vacancy up` "
                "again for an empty one, and end it before you delete its directory"
            )
        return self._supervisor.watch()

    def stop(self) -> None:
        """Ends all processes: first those that emit events, last those that store data."""
        parts = leftovers(self.directory)
        _stop_together(self._children[1:])
        _stop_together(self._children[:1])
        servers = [self._kafka.child] if self._kafka and self._kafka.child.running else []
        if self._postgres and self._postgres.running:
            servers.append(self._postgres.child)
        _stop_together(servers)
        self._end_leftovers()
        wait_gone(parts, _GONE_SECONDS)

    def _end_leftovers(self) -> int:
        count = end_leftovers(self.directory)
        (self._postgres or PostgresServer(self.directory / "postgres", 1)).end_leftovers()
        return count

    def _choose_ports(self) -> None:
        """Chooses the ports: those in the settings, else those of the previous run, else free ones."""
        former = {}
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError):  # the first run, or a file that someone broke
            former = tomllib.loads(self.config_file.read_text(encoding="utf-8")).get("local", {})
        chosen: dict[str, int] = {}
        for name in ("kafka_port", "postgres_port", "flink_port", "web_port"):
            port = getattr(self.settings.local, name)
            if port and not ports.is_free(port):
                raise VacancyError(
                    f"port {port} of local.{name} is in use; end what listens there, or set another (0: a free one)"
                )
            if not port and isinstance(former.get(name), int) and ports.is_free(former[name]):
                port = former[name]
            chosen[name] = port or ports.free_port(*chosen.values())
        metrics_port = self.settings.local.flink_metrics_port
        if metrics_port is not None and (metrics_port in chosen.values() or not ports.is_free(metrics_port)):
            raise VacancyError(
                f"port {metrics_port} of local.flink_metrics_port is in use; end what listens there, or set another"
            )
        self.settings = self.settings.model_copy(
            update={"local": self.settings.local.model_copy(update=chosen)},
        )

    def _passwords(self) -> dict[str, str]:
        """The passwords of the logins, generated at the first run."""
        file = self.directory / "secrets"
        passwords = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if missing := _LOGINS.keys() - passwords.keys():
            passwords |= {name: secrets.token_urlsafe(24) for name in missing}
            write_private(file, json.dumps(passwords))
        return dict(passwords)

    def _write_settings(self, owner_dsn: str, dsns: dict[str, str]) -> None:
        """Replaces the user's endpoints by the stack's, and writes the file that the other commands read."""
        assert self._kafka is not None  # noqa: S101  # the steps' order
        kafka = {
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "replication_factor": 1,
            "schema_registry_url": None,
            "security": KafkaSecurity(),
        }
        postgres = PostgresSettings(
            owner_dsn=SecretStr(owner_dsn),
            job_dsn=SecretStr(dsns["job"]),
            scheduler_dsn=SecretStr(dsns["scheduler"]),
            reader_dsn=SecretStr(dsns["reader"]),
        )
        job = {"checkpoint_dir": (self.directory / "checkpoints").as_uri()}
        self.settings = self.settings.model_copy(
            update={
                "kafka": self.settings.kafka.model_copy(update=kafka),
                "postgres": postgres,
                "job": self.settings.job.model_copy(update=job),
                "web": WebSettings(listen=f"{ports.HOST}:{self.settings.local.web_port}"),
            }
        )
        forget(memory_file(self.settings, self.config_file))
        header = "# Written by `vacancy up` at each start. Holds passwords.\n"
        write_private(self.config_file, header + settings_file.dumps(self.settings))

    def _start_command(self, name: str, *arguments: str) -> Child:
        """Starts a `vacancy` command."""
        child = Child(
            name,
            [sys.executable, "-m", "vacancy", *arguments, "--config", str(self.config_file)],
            directory=self.directory,
            log=self.directory / "logs" / f"{arguments[0]}.log",
            stop_seconds=_STOP_SECONDS[name],
        )
        self._children.append(child)
        child.start()
        self._supervisor.add(child)
        return child

    def _wait(self, ready: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            self._supervisor.check()
            if time.monotonic() > deadline:
                raise VacancyError(f"after {seconds:.0f} s: {otherwise}")
            time.sleep(POLL_SECONDS)


Step = Callable[[Stack, Report], str]
STEPS: tuple[tuple[str, Step], ...] = (
    ("Data directory", Stack.prepare),
    ("Kafka", Stack.start_kafka),
    ("PostgreSQL", Stack.start_postgres),
    ("Tables", Stack.make_tables),
    ("Topics", Stack.make_topics),
    ("Flink", Stack.start_job),
    ("Fleet page", Stack.start_page),
    ("Hosts", Stack.start_emitters),
)
"""The steps that start a stack, in order: a name to show, and a function that returns the detail to show at its end."""


def _stop_together(children: list[Child]) -> None:
    for child in children:
        child.request_stop()
    for child in children:
        child.stop()


def _query(dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """A statement's rows."""
    with _cursor(dsn) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _execute(dsn: str, statement: str, *values: object) -> None:
    """Runs a statement that returns no rows."""
    with _cursor(dsn) as cursor:
        cursor.execute(statement, values)


@contextlib.contextmanager
def _cursor(dsn: str) -> Iterator[Any]:
    """A cursor on a new connection in autocommit mode."""
    secret = SecretStr(dsn)
    connection = dial(secret, connect_timeout=_CONNECT_TIMEOUT, application_name="vacancy up")
    try:
        with explained(secret), connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
