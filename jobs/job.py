"""``vacancy job``: the Flink job.

``run`` holds it in a mini cluster of its own, in one JVM below this process, which resumes from the newest checkpoint.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import click

from connectors.flink import production_edges
from connectors.kafka import ensure_topics
from connectors.postgres import connect, require_rights
from jobs import ports
from jobs.flink_jars import flink_jars, java_home
from jobs.options import load, settings_options
from jobs.settings import Settings
from schemas.errors import ConfigError, VacancyError
from schemas.units import milliseconds_of

_JVM_ARGS = "-XX:MaxRAMPercentage=20"
"""The window's events are on the heap: 128 bytes each, in rings that may be half empty."""
_WATCH_SECONDS = 0.5
_CLUSTER_END_SECONDS = 60.0


@click.group(name="job")
def command() -> None:
    """The Flink job that keeps the table."""


@command.command()
@settings_options
@click.option("--fresh", is_flag=True, help="Start without a checkpoint: read the topics from their beginning.")
def run(config: Path | None, data_dir: Path | None, fresh: bool) -> None:
    """Run the job in this process until it is stopped.

    It resumes from the newest checkpoint under job.checkpoint_dir. Ctrl-C or SIGTERM stops it; what it had not
    checkpointed by then it reads again.

    \b
    vacancy job run --config vacancy.toml
    VACANCY_JOB__EMIT=100ms vacancy job run
    """
    settings = load(config, data_dir)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_job(settings, stop, fresh=fresh)


def run_job(settings: Settings, stop: threading.Event, *, fresh: bool = False) -> None:
    """Runs the job until ``stop`` is set; prints ``ready`` once it is running.

    Raises:
        ConfigError: the checkpoint directory is not on this machine.
        VacancyError: something it needs is missing at its start, or the job failed for good.
    """
    checkpoints = checkpoint_directory(settings.job.checkpoint_dir)
    _check(settings, checkpoints)
    prepare_java(checkpoints.parent / "logs")
    # PyFlink finds Java and its log directory by the environment, when it is imported.
    from pyflink.common import JobStatus

    port = settings.local.flink_port or ports.free_port()
    former = newest_checkpoint(checkpoints)
    ignored = former if fresh else None
    client = _start(settings, port, None if fresh else former)
    ready = False
    while not stop.wait(_WATCH_SECONDS):
        status = client.get_job_status().result()
        if status in (JobStatus.FAILED, JobStatus.CANCELED, JobStatus.FINISHED):
            raise VacancyError(f"the job ended as {status.name}: {_end(client)}; see {checkpoints.parent / 'logs'}")
        if status == JobStatus.RUNNING and not ready:
            ready = True
            print("ready", flush=True)
        # Where an operator fails to close after a failure (the database's sink does, while that is away), Flink ends
        # the task manager (FLINK-38180). A cluster's is started again by whoever runs it; this is ours.
        if not _task_managers(port):
            client.cancel().result()
            _wait_until_free(port)
            newest = newest_checkpoint(checkpoints)
            newest = None if newest == ignored else newest
            print(f"the task manager has failed; starting again from {newest or 'the beginning'}", flush=True)
            client = _start(settings, port, newest)
    client.cancel().result()


def _start(settings: Settings, port: int, checkpoint: Path | None) -> Any:
    """Starts a mini cluster with the job in it; the client of the job.

    Raises:
        VacancyError: the job does not start.
    """
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from topology.graph import Edges, build, configuration

    flink = configuration(settings.job)
    for key, value in _mini_cluster_options(settings, port, checkpoint).items():
        flink.set_string(key, value)
    environment = StreamExecutionEnvironment.get_execution_environment(flink)
    inserts = build(
        StreamTableEnvironment.create(environment),
        settings.job,
        Edges(
            production_edges(
                settings.kafka,
                settings.postgres.job_dsn,
                emit=settings.job.emit,
                idle_timeout=settings.job.idle_timeout,
            )
        ),
        registry_factory(settings.kafka.schema_registry_url),
    )
    try:
        return inserts.execute().get_job_client()
    except Exception as error:  # noqa: BLE001  # whatever Java threw, as py4j hands it over
        raise VacancyError(f"the job does not start: {_cause(error)}; see {os.environ['FLINK_LOG_DIR']}") from None


def _task_managers(port: int) -> int:
    """How many task managers the mini cluster has; 1 if it does not say."""
    try:
        with urllib.request.urlopen(f"http://{ports.HOST}:{port}/overview", timeout=10) as response:
            return int(json.load(response)["taskmanagers"])
    except (OSError, ValueError, KeyError):
        return 1


def _wait_until_free(port: int) -> None:
    """Waits until the former mini cluster has let go of its port.

    Raises:
        VacancyError: it does not.
    """
    deadline = time.monotonic() + _CLUSTER_END_SECONDS
    while not ports.is_free(port):
        if time.monotonic() > deadline:
            raise VacancyError(
                f"the job's cluster does not end within {_CLUSTER_END_SECONDS:.0f} s; start the job again"
            )
        time.sleep(_WATCH_SECONDS)


def _check(settings: Settings, checkpoints: Path) -> None:
    """What Flink would find out late, try for ever, or say in a hundred lines.

    Raises:
        VacancyError: the port or the directory is not to be had, or broker, topics, database or tables are not there.
    """
    port = settings.local.flink_port
    if port and not ports.is_free(port):
        raise VacancyError(
            f"port {port} of local.flink_port is in use; end what listens there, or set another (0: a free one)"
        )
    for directory in (checkpoints, checkpoints.parent / "logs"):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VacancyError(
                f"{directory} cannot be made: {error.strerror}; set job.checkpoint_dir to where the job may write"
            ) from None
    kafka = settings.kafka
    ensure_topics(kafka, {kafka.usage_topic: "READ", kafka.inventory_topic: "READ", kafka.dead_letter_topic: "WRITE"})
    dsn = settings.postgres.job_dsn
    with closing(
        connect(
            dsn,
            connect_timeout=settings.postgres.connect_timeout,
            application_name="vacancy-job",
            read_only=True,
        )
    ) as connection:
        require_rights(connection, dsn, "vacancy_job", ("host", "host_inventory"), ("SELECT", "INSERT", "UPDATE"))


def checkpoint_directory(uri: str) -> Path:
    """The directory that a file URI names.

    Raises:
        ConfigError: it is no file URI.
    """
    parts = urlparse(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ConfigError(f"job.checkpoint_dir: {uri} is not a file:// URI; `vacancy job run` keeps checkpoints here")
    return Path(unquote(parts.path))


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint under a checkpoint directory; None if there is none."""
    complete = [(file.stat().st_mtime_ns, file.parent) for file in directory.glob("*/chk-*/_metadata")]
    return max(complete)[1] if complete else None


def prepare_java(log_dir: Path) -> None:
    """Points PyFlink at a Java runtime (the wheel's unless JAVA_HOME is set), at a log directory and at limits."""
    log_dir.mkdir(parents=True, exist_ok=True)
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ.setdefault("FLINK_LOG_DIR", str(log_dir))
    os.environ.setdefault("LOG4J_PROPERTIES", str(resources.files("jobs").joinpath("flink-log4j.properties")))
    os.environ.setdefault("JVM_ARGS", _JVM_ARGS)
    # Python workers as processes: as threads of this one, all of a job's decoders would share one lock.
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112  # PyFlink spells it so


def registry_factory(url: str | None) -> Any:
    """What makes the look-up of schema ids in a Python worker; None without a registry."""
    if url is None:
        return None
    from connectors.registry import registry_lookup  # needs the registry extra

    return functools.partial(registry_lookup, url)


def _mini_cluster_options(settings: Settings, port: int, checkpoint: Path | None) -> dict[str, str]:
    options = {
        "pipeline.name": "vacancy",
        "pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars()),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "io.tmp.dirs": tempfile.gettempdir(),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": str(port),
        "execution.checkpointing.interval": f"{milliseconds_of(settings.job.checkpoint_interval)} ms",
        "execution.checkpointing.dir": settings.job.checkpoint_dir,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": "10",
        # Without end: a database or broker that is away comes back, and the job with it.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
    }
    if checkpoint is not None:
        options["execution.state-recovery.path"] = checkpoint.as_uri()
        options["execution.state-recovery.claim-mode"] = "CLAIM"
    return options


def _end(client: Any) -> str:
    """The innermost reason that a job gave for its end."""
    try:
        client.get_job_execution_result().result()
    except Exception as error:  # noqa: BLE001  # as above
        return _cause(error)
    return "no reason given"


def _cause(error: Exception) -> str:
    """The innermost cause of what Java threw."""
    causes = [line for line in str(error).splitlines() if line.startswith("Caused by: ")]
    return (causes[-1] if causes else str(error).splitlines()[0]).removeprefix("Caused by: ")
