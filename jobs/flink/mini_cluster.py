"""The Flink job in its own mini cluster, in one JVM that is a child of this process.

It resumes from the newest checkpoint. Code that it shares with the job on a cluster (cluster.py) is here as well.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from vacancy.connectors.flink.edges import production_edges
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.kafka.schema_registry import registry_address
from vacancy.connectors.postgres.connection import connect, require_rights
from vacancy.jobs import ports
from vacancy.jobs.flink.job_jars import flink_home, flink_jars, java_home
from vacancy.jobs.flink.rest import cause
from vacancy.jobs.flink.state_backend import require_own_backend
from vacancy.jobs.logs import Format
from vacancy.jobs.settings import Settings
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.schemas.units import milliseconds_of
from vacancy.topology.settings import JobSettings

_JVM_ARGS = "-XX:MaxRAMPercentage=20 -XX:+UseParallelGC -XX:+UseTransparentHugePages -XX:TypeProfileWidth=4"
"""The window's events are on the heap: 128 bytes each, in rings that may be half empty. docs/decisions/0010-the-jvm.md
explains the other options; the files in deploy/ set the same ones for clusters."""
_PROMETHEUS = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
_WATCH_SECONDS = 0.5
_LOG = logging.getLogger("vacancy.job")
_CLUSTER_END_SECONDS = 60.0


def run_job(settings: Settings, stop: StopSignal, *, fresh: bool = False) -> None:
    """Runs the job until ``stop`` is set; prints ``ready`` once it is running.

    Raises:
        ConfigError: the checkpoint directory is not on this machine.
        VacancyError: something that the job needs is missing at its start, or the job failed permanently.
    """
    checkpoints = checkpoint_directory(settings.job.checkpoint_dir)
    _check(settings, checkpoints)
    prepare_java(checkpoints.parent, settings.log.format)
    # PyFlink reads the environment variables for Java and its log directory when it is imported.
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
            _LOG.info("job %s runs; http://%s:%d shows it", client.get_job_id(), ports.HOST, port)
            print("ready", flush=True)
        # If an operator cannot close after a failure, Flink ends the task manager (FLINK-38180). On a cluster the
        # operator of the cluster restarts it; here this loop does.
        if not _task_managers(port):
            client.cancel().result()
            _wait_until_free(port, settings.local.flink_metrics_port)
            newest = newest_checkpoint(checkpoints)
            newest = None if newest == ignored else newest
            _LOG.warning("the task manager has failed; starting again from %s", newest or "the beginning")
            client = _start(settings, port, newest)
    client.cancel().result()


def _start(settings: Settings, port: int, checkpoint: Path | None) -> Any:
    """Starts a mini cluster with the job in it; returns the job's client.

    Raises:
        ConfigError: the checkpoint is of another state backend.
        VacancyError: the job does not start.
    """
    if checkpoint is not None:
        require_own_backend(settings.job, checkpoint)
    try:
        return graph(settings, _mini_cluster_options(settings, port, checkpoint)).execute_async(settings.job.name)
    except VacancyError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever Java threw, as py4j hands it over
        raise VacancyError(f"the job does not start: {cause(error)}; see {os.environ['FLINK_LOG_DIR']}") from None


def graph(settings: Settings, options: Mapping[str, str]) -> Any:
    """An execution environment with the job between its production edges, its operators named, ready to execute.

    Args:
        settings: all settings.
        options: Flink options that depend on where the job runs.
    """
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.java_gateway import get_gateway
    from pyflink.table import StreamTableEnvironment

    from vacancy.topology.graph import Edges, SchemaRegistry, add_to, build, configuration

    flink = configuration(settings.job)
    for key, value in {**_options(settings.job), **options, **settings.job.flink}.items():
        flink.set_string(key, value)
    if "execution.target" in options:
        # Outside Flink's own command line the factory creates only local environments, whatever the target.
        java = get_gateway().jvm.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment
        environment = StreamExecutionEnvironment(java(flink._j_configuration))  # noqa: SLF001  # as PyFlink itself
    else:
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
        SchemaRegistry(*registry_address(url)) if (url := settings.kafka.schema_registry_url) else None,
    )
    add_to(environment, inserts)
    return environment


def _task_managers(port: int) -> int:
    """The number of task managers of the mini cluster; 1 if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{ports.HOST}:{port}/overview", timeout=10) as response:
            return int(json.load(response)["taskmanagers"])
    except (OSError, ValueError, KeyError):
        return 1


def _wait_until_free(*taken: int | None) -> None:
    """Waits until the former mini cluster has closed its ports; None stands for a port that is not set.

    Raises:
        VacancyError: a port is still in use after the time limit.
    """
    deadline = time.monotonic() + _CLUSTER_END_SECONDS
    while not all(ports.is_free(port) for port in taken if port):
        if time.monotonic() > deadline:
            raise VacancyError(
                f"the job's cluster does not end within {_CLUSTER_END_SECONDS:.0f} s; start the job again"
            )
        time.sleep(_WATCH_SECONDS)


def _check(settings: Settings, checkpoints: Path) -> None:
    """Checks what Flink would find out late, retry for ever, or report in a hundred lines.

    Raises:
        VacancyError: a port or directory cannot be used, or broker, topics, database or tables are missing.
    """
    for name, port, another in (
        ("flink_port", settings.local.flink_port, "another (0: a free one)"),
        ("flink_metrics_port", settings.local.flink_metrics_port, "another"),
    ):
        if port and not ports.is_free(port):
            raise VacancyError(f"port {port} of local.{name} is in use; end what listens there, or set {another}")
    for directory in (checkpoints, checkpoints.parent / "logs"):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VacancyError(
                f"{directory} cannot be made: {error.strerror}; set job.checkpoint_dir to where the job may write"
            ) from None
    check_edges(settings)


def check_edges(settings: Settings) -> None:
    """Creates the topics that are missing, and checks the job's rights on the topics and in the database.

    Raises:
        VacancyError: broker, topics, database, tables or rights are missing.
    """
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
        ConfigError: it is not a file URI.
    """
    parts = urlparse(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ConfigError(f"job.checkpoint_dir: {uri} is not a file:// URI, so what it holds is not to be found here")
    return Path(unquote(parts.path))


def flink_path(uri: str) -> str:
    """A file URI as Flink reads it, for which `%20` is a part of the name; any other URI as it is."""
    return unquote(uri) if uri.startswith("file:") else uri


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint under a checkpoint directory; None if there is none."""
    complete = [(file.stat().st_mtime_ns, file.parent) for file in directory.glob("*/chk-*/_metadata")]
    return max(complete)[1] if complete else None


def savepoint_directory(job: JobSettings) -> str:
    """URI of the directory for savepoints."""
    return job.savepoint_dir or f"{job.checkpoint_dir.rstrip('/').rpartition('/')[0]}/savepoints"


def prepare_java(directory: Path, log_format: Format = "plain") -> None:
    """Sets PyFlink's Java runtime (the wheel's unless JAVA_HOME is set), its logs, temporary files and JVM limits.

    Args:
        directory: gets the directories `logs` and `tmp`.
        log_format: the format of the logs.
    """
    log4j = "log4j-json.properties" if log_format == "json" else "log4j.properties"
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_directory(directory / "tmp")
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ.setdefault("FLINK_LOG_DIR", str(logs))
    os.environ.setdefault("LOG4J_PROPERTIES", str(resources.files("vacancy.jobs.flink").joinpath(log4j)))
    os.environ.setdefault("JVM_ARGS", _JVM_ARGS)
    if not re.search(r"\s", str(temporary)):  # PyFlink splits the arguments at white space
        os.environ["JVM_ARGS"] = f"{os.environ['JVM_ARGS']} -Djava.io.tmpdir={temporary}"
    # A mini cluster loads no plugins, so the metrics reporter must be on the class path.
    add_to_class_path(flink_home() / "plugins" / "metrics-prometheus" / "*")
    # The job has no Python workers. Without this variable PyFlink prepares for workers in this process and loads Beam.
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112  # PyFlink's own spelling


def _temporary_directory(parent: Path) -> Path:
    """A directory that goes with this process; whatever processes that were killed have left beside it goes at once.

    Flink itself leaves some 70 MB in it, most of that jars.

    Raises:
        VacancyError: it cannot be made.
    """
    try:
        parent.mkdir(exist_ok=True)
        held = os.open(parent, os.O_RDONLY)  # until this process ends: whoever works below holds a shared lock
        with suppress(OSError):  # another one works there, or the file system has no locks
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for former in parent.iterdir():
                shutil.rmtree(former, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_SH)
        directory = Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise VacancyError(
            f"no directory for temporary files can be made in {parent}: {error.strerror}; set job.checkpoint_dir to"
            " where the job may write and has room"
        ) from None
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def add_to_class_path(*entries: Path) -> None:
    """Adds to the class path of the Java that PyFlink is about to start."""
    # PyFlink appends the value of this variable to the class path, despite its name.
    before = os.environ.get("HADOOP_CLASSPATH")
    os.environ["HADOOP_CLASSPATH"] = os.pathsep.join(filter(None, (before, *map(str, entries))))


def _options(job: JobSettings) -> dict[str, str]:
    """The Flink options that the job needs wherever it runs: its state, and what happens when it fails."""
    return {
        "pipeline.auto-generate-uids": "false",  # a guard: every operator has an explicit uid
        "state.backend.type": job.state_backend,
        "execution.checkpointing.incremental": "true",  # only RocksDB supports it
        "execution.checkpointing.interval": f"{milliseconds_of(job.checkpoint_interval)} ms",
        "execution.checkpointing.timeout": f"{milliseconds_of(job.checkpoint_timeout)} ms",
        "execution.checkpointing.dir": flink_path(job.checkpoint_dir),
        "execution.checkpointing.savepoint-dir": flink_path(savepoint_directory(job)),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": "10",
        # Restart without limit: the job continues once the database or broker is back.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
    }


def _mini_cluster_options(settings: Settings, port: int, checkpoint: Path | None) -> dict[str, str]:
    options = {
        "pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars()),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": str(port),
    }
    if settings.local.flink_metrics_port is not None:
        options["metrics.reporter.prometheus.factory.class"] = _PROMETHEUS
        options["metrics.reporter.prometheus.port"] = str(settings.local.flink_metrics_port)
    if checkpoint is not None:
        options["execution.state-recovery.path"] = flink_path(checkpoint.as_uri())
        options["execution.state-recovery.claim-mode"] = "CLAIM"
    return options


def _end(client: Any) -> str:
    """The innermost cause of a job's end."""
    try:
        client.get_job_execution_result().result()
    except Exception as error:  # noqa: BLE001  # as above
        return cause(error)
    return "no reason given"
