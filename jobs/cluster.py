"""``vacancy job submit``, ``stop`` and ``status``: the Flink job on a cluster.

Submitting goes through PyFlink, all else through the cluster's REST interface. ``jobs/flink_job.py`` is the same job
for ``flink run -py`` and for application mode.

What always holds: no secret stands in the command line, the job's configuration or its plan. Passwords travel inside
the serialized graph, in options that Flink never shows.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import click

from jobs.flink_jars import flink_jars
from jobs.flink_rest import Checkpoint, FlinkRest, Job, Status, explained
from jobs.hosts import duration
from jobs.job import (
    add_to_class_path,
    cause,
    check_edges,
    checkpoint_directory,
    graph,
    prepare_java,
    savepoint_directory,
)
from jobs.options import F, load, settings_options
from jobs.settings import Settings
from schemas.errors import ConfigError, VacancyError
from topology.settings import JobSettings

RUNNING_SECONDS = 120.0
"""How long ``submit`` waits until all tasks run."""
STOPPED_SECONDS = 60.0
_FAILURES = 3
"""So often a job that has just been submitted may fail, as on a database that comes up with it."""
_WATCH_SECONDS = 0.5


def cluster_options(function: F) -> F:
    """Adds the settings' options and ``--flink-url``."""
    function = click.option("--flink-url", metavar="URL", help="The cluster's REST address, as job.flink_url.")(
        function
    )
    return settings_options(function)


def load_for_cluster(config: Path | None, data_dir: Path | None, flink_url: str | None) -> Settings:
    """Settings as the flags say."""
    return load(config, data_dir, {"job": {"flink_url": flink_url}} if flink_url else None)


@click.command()
@cluster_options
@click.option("--from-savepoint", metavar="PATH", help="Start from a savepoint or a retained checkpoint (a URI).")
@click.option(
    "--resume", is_flag=True, help="Start from the newest savepoint or retained checkpoint, where they are files here."
)
@click.option(
    "--allow-non-restored-state", is_flag=True, help="Start even where it holds state of what the job has no more."
)
@click.option(
    "--if-running",
    type=click.Choice(["fail", "keep", "duplicate"]),
    default="fail",
    show_default=True,
    help="Where a job of this name runs: fail, leave it as it is and be content, or start another one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the job as a JSON object.")
def submit(
    config: Path | None,
    data_dir: Path | None,
    flink_url: str | None,
    from_savepoint: str | None,
    resume: bool,
    allow_non_restored_state: bool,
    if_running: str,
    as_json: bool,
) -> None:
    """Submit the job to a Flink cluster, and leave it there once it runs.

    \b
    vacancy job submit --flink-url http://jobmanager:8081
    vacancy job submit --resume
    vacancy job submit --from-savepoint s3://bucket/savepoints/savepoint-4f2a1c-0d9e8b7a6c5d
    """
    settings = load_for_cluster(config, data_dir, flink_url)
    cluster = FlinkRest(settings.job.flink_url)
    if resume and from_savepoint:
        raise ConfigError("--resume and --from-savepoint exclude each other: the newest one, or the one that is named")
    running = [job.job_id for job in cluster.jobs() if job.name == settings.job.name and not job.ended]
    if running and if_running == "fail":
        raise VacancyError(
            f"{settings.job.name} already runs at {cluster.url} as {running[0]}; stop it with `vacancy job stop`, or "
            "say what to do with --if-running"
        )
    if running and if_running == "keep":
        job_id = running[0]
    else:
        check_edges(settings)
        former = newest_state(settings.job) if resume else from_savepoint
        job_id = submit_job(settings, former, allow_non_restored_state=allow_non_restored_state)
        wait_until_running(cluster, job_id)
    watch = f"{cluster.url}/#/job/running/{job_id}/overview"
    if as_json:
        click.echo(json.dumps({"job_id": job_id, "watch": watch}))
    else:
        click.echo(f"{settings.job.name} runs as {job_id}; watch it at {watch}")


@click.command()
@cluster_options
@click.argument("job_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print job and savepoint as a JSON object.")
def stop(config: Path | None, data_dir: Path | None, flink_url: str | None, job_id: str | None, as_json: bool) -> None:
    """Stop the job with a savepoint, from which `vacancy job submit --from-savepoint` goes on.

    Without JOB_ID it is the one that runs under job.name.

    \b
    vacancy job stop
    vacancy job submit --from-savepoint "$(vacancy job stop --json | jq -r .savepoint)"
    """
    settings = load_for_cluster(config, data_dir, flink_url)
    cluster = FlinkRest(settings.job.flink_url)
    job = find_job(cluster, settings.job.name, job_id)
    if job.ended:
        raise VacancyError(f"{job.job_id} has ended already ({job.state}); there is nothing to stop")
    savepoint = cluster.stop(job.job_id, savepoint_directory(settings.job))
    deadline = time.monotonic() + STOPPED_SECONDS
    while not _ended(cluster, job.job_id) and time.monotonic() < deadline:
        time.sleep(_WATCH_SECONDS)
    if as_json:
        click.echo(json.dumps({"job_id": job.job_id, "savepoint": savepoint}))
    else:
        click.echo(f"{job.name} ({job.job_id}) is stopped; its savepoint is {savepoint}")


@click.command()
@cluster_options
@click.argument("job_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def status(
    config: Path | None, data_dir: Path | None, flink_url: str | None, job_id: str | None, as_json: bool
) -> None:
    """Show how the job is: state, uptime, restarts, last checkpoint and savepoint, last failure.

    Without JOB_ID it is the newest one under job.name.

    \b
    vacancy job status
    vacancy job status --json | jq .restarts
    """
    settings = load_for_cluster(config, data_dir, flink_url)
    cluster = FlinkRest(settings.job.flink_url)
    found = cluster.status(find_job(cluster, settings.job.name, job_id).job_id)
    click.echo(json.dumps(as_object(found)) if as_json else as_text(found))


def submit_job(settings: Settings, savepoint: str | None = None, *, allow_non_restored_state: bool = False) -> str:
    """Submits the job, detached; its id.

    Raises:
        VacancyError: the cluster does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="vacancy-submit-") as directory:
        prepare_java(Path(directory, "logs"))
        if not settings.job.ship:
            # What is not sent along the planner still needs here.
            add_to_class_path(*flink_jars())
        address = urlparse(settings.job.flink_url)
        options = {
            "execution.target": "remote",
            "execution.attached": "false",
            "rest.address": address.hostname or "",
            "rest.port": str(address.port or (443 if address.scheme == "https" else 80)),
            "security.ssl.rest.enabled": str(address.scheme == "https").lower(),
            **shipping(settings.job),
            **recovery(savepoint, allow_non_restored_state=allow_non_restored_state),
        }
        try:
            return str(graph(settings, options).execute_async(settings.job.name).get_job_id())
        except VacancyError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever Java threw, as py4j hands it over
            raise VacancyError(f"{settings.job.flink_url} does not take the job: {cause(error)}") from None


def shipping(job: JobSettings) -> dict[str, str]:
    """Where the task managers find the job's jars: sent along, or in their image."""
    return {"pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars())} if job.ship else {}


def newest_state(job: JobSettings) -> str | None:
    """The newest complete savepoint or retained checkpoint, as a URI; None if there is none.

    Raises:
        ConfigError: they are not files of this machine.
    """
    checkpoints, savepoints = (checkpoint_directory(uri) for uri in (job.checkpoint_dir, savepoint_directory(job)))
    files = [*checkpoints.glob("*/chk-*/_metadata"), *savepoints.glob("savepoint-*/_metadata")]
    newest = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    return newest.parent.as_uri() if newest else None


def recovery(savepoint: str | None, *, allow_non_restored_state: bool) -> dict[str, str]:
    """What makes Flink start from a savepoint, which stays ours."""
    if savepoint is None:
        return {}
    return {
        "execution.state-recovery.path": savepoint,
        "execution.state-recovery.claim-mode": "NO_CLAIM",
        "execution.state-recovery.ignore-unclaimed-state": str(allow_non_restored_state).lower(),
    }


def wait_until_running(cluster: FlinkRest, job_id: str) -> None:
    """Waits until all tasks of a job run.

    Raises:
        VacancyError: it failed, or does not run in time; with the reason, as far as the cluster knows it.
    """
    deadline = time.monotonic() + RUNNING_SECONDS
    while True:
        found = cluster.status(job_id)
        reason = explained(found.last_failure.message) if found.last_failure else None
        if found.job.ended:
            raise VacancyError(f"{job_id} ended as {found.job.state}: {reason or 'the cluster gives no reason'}")
        if found.restarts >= _FAILURES:
            raise VacancyError(
                f"{job_id} has failed {found.restarts} times and is started again: {reason}; mend that, and see how it "
                "goes on with `vacancy job status`"
            )
        if found.tasks and found.tasks_running == found.tasks:
            return
        if time.monotonic() > deadline:
            free, slots = cluster.free_slots()
            raise VacancyError(
                f"{job_id} is submitted, but {found.tasks_running} of its {found.tasks} tasks run after "
                f"{RUNNING_SECONDS:.0f} s ({free} of {slots} slots are free); look at `vacancy job status`"
            )
        time.sleep(_WATCH_SECONDS)


def find_job(cluster: FlinkRest, name: str, job_id: str | None) -> Job:
    """The job with that id, or the newest of that name, one that has not ended first.

    Raises:
        VacancyError: there is none.
    """
    jobs = [job for job in cluster.jobs() if (job.job_id == job_id if job_id else job.name == name)]
    if not jobs:
        raise VacancyError(
            f"no job {job_id or name} at {cluster.url}; `vacancy job submit` starts it, job.name says its name"
        )
    return next((job for job in jobs if not job.ended), jobs[0])


def _ended(cluster: FlinkRest, job_id: str) -> bool:
    """Whether a job has ended, or its cluster with it, as in application mode."""
    try:
        return cluster.status(job_id).job.ended
    except VacancyError:
        return True


def as_object(found: Status) -> dict[str, Any]:
    """A job's status for ``--json``: times in ISO 8601, UTC; seconds and bytes as numbers."""

    def of_checkpoint(checkpoint: Checkpoint | None) -> Mapping[str, Any] | None:
        return checkpoint and {
            "path": checkpoint.path,
            "completed_at": checkpoint.completed_at.isoformat(),
            "duration_seconds": checkpoint.duration.total_seconds(),
            "size_bytes": checkpoint.size_bytes,
        }

    return {
        "job_id": found.job.job_id,
        "name": found.job.name,
        "state": found.job.state,
        "started_at": found.job.started_at.isoformat(),
        "uptime_seconds": _uptime(found).total_seconds(),
        "restarts": found.restarts,
        "tasks": found.tasks,
        "tasks_running": found.tasks_running,
        "last_checkpoint": of_checkpoint(found.last_checkpoint),
        "last_savepoint": of_checkpoint(found.last_savepoint),
        "last_failure": found.last_failure
        and {"at": found.last_failure.at.isoformat(), "message": explained(found.last_failure.message)},
    }


def as_text(found: Status) -> str:
    """A job's status for people."""

    def of_checkpoint(checkpoint: Checkpoint | None) -> str:
        if checkpoint is None:
            return "none"
        return f"{duration(datetime.now(UTC) - checkpoint.completed_at)} ago, {checkpoint.path}"

    failure = found.last_failure
    lines = {
        "job": f"{found.job.name} ({found.job.job_id})",
        "state": f"{found.job.state}, {found.tasks_running} of {found.tasks} tasks run",
        "uptime": duration(_uptime(found)),
        "restarts": str(found.restarts),
        "last checkpoint": of_checkpoint(found.last_checkpoint),
        "last savepoint": of_checkpoint(found.last_savepoint),
        "last failure": f"{duration(datetime.now(UTC) - failure.at)} ago, {explained(failure.message)}"
        if failure
        else "none",
    }
    return "\n".join(f"{name:<16} {value}" for name, value in lines.items())


def _uptime(found: Status) -> timedelta:
    """How long the job has run since it was started or restarted last."""
    return datetime.now(UTC) - found.running_since if found.running_since else timedelta()
