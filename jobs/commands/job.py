"""`vacancy job`: the Flink job, here or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from vacancy.jobs.flink.address import local_url, memory_file, named_url, remember, with_remembered
from vacancy.jobs.flink.cluster import (
    find_job,
    newest_state,
    require_slots,
    submit_job,
    wait_until_ended,
    wait_until_running,
)
from vacancy.jobs.flink.mini_cluster import check_edges, run_job, savepoint_directory
from vacancy.jobs.flink.rest import Checkpoint, FlinkRest, Status, explained
from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import F, flags, load, settings_options
from vacancy.jobs.rendering import duration
from vacancy.jobs.settings import Settings, find_config
from vacancy.jobs.signals import StopSignal
from vacancy.jobs.terminal import say, say_json
from vacancy.schemas.errors import ConfigError, VacancyError


@click.command()
@settings_options
@click.option("--fresh", is_flag=True, help="Start without a checkpoint and read the topics from their beginning.")
@log_format_option
def run(config: Path | None, data_dir: Path | None, fresh: bool, log_format: str | None) -> None:
    """Run the job in this process until it is stopped.

    It resumes from the newest checkpoint under job.checkpoint_dir. Ctrl-C or SIGTERM stops it; the next run reads again
    what was not yet in a checkpoint.

    \b
    vacancy job run --config vacancy.toml
    VACANCY_JOB__EMIT=100ms vacancy job run
    """
    settings = load(config, data_dir, flags(log={"format": log_format}))
    configure(settings.log.format, job="job")
    with StopSignal() as stop:
        run_job(settings, stop, fresh=fresh)


def cluster_options(function: F) -> F:
    """Adds the settings' options and ``--flink-url``."""
    function = click.option("--flink-url", metavar="URL", help="The cluster's REST address, as job.flink_url.")(
        function
    )
    return settings_options(function)


def load_for_cluster(
    config: Path | None, data_dir: Path | None, flink_url: str | None
) -> tuple[Settings, FlinkRest, Path]:
    """The settings, with the flags applied, the cluster (see address.py), and the file that remembers its address."""
    file = find_config(config, data_dir)
    settings = load(config, data_dir, {"job": {"flink_url": flink_url}} if flink_url else None)
    settings = with_remembered(settings, file)
    url = named_url(settings) or local_url(settings) or settings.job.flink_url
    return settings, FlinkRest(url), memory_file(settings, file)


def require_cluster(settings: Settings, cluster: FlinkRest) -> None:
    """Raises ConfigError if the cluster is that of the local stack."""
    if named_url(settings) is None and cluster.url == local_url(settings):
        raise ConfigError(
            "these settings are a local stack's, whose job starts and ends with `vacancy up` or `vacancy job run`; "
            "name a cluster with --flink-url or job.flink_url"
        )


@click.command()
@cluster_options
@click.option("--from-savepoint", metavar="PATH", help="Start from a savepoint or a retained checkpoint (a URI).")
@click.option(
    "--resume",
    is_flag=True,
    help="Start from the newest savepoint or retained checkpoint; they must be files on this machine.",
)
@click.option(
    "--allow-non-restored-state",
    is_flag=True,
    help="Start even if the savepoint has state of operators that the job no longer has.",
)
@click.option(
    "--if-running",
    type=click.Choice(["fail", "keep", "duplicate"]),
    default="fail",
    show_default=True,
    help="If a job of this name already runs: fail, leave it and succeed, or start another one.",
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
    """Submit the job to a Flink cluster, and return once it runs there.

    \b
    vacancy job submit --flink-url http://jobmanager:8081
    vacancy job submit --resume
    vacancy job submit --from-savepoint s3://bucket/savepoints/savepoint-4f2a1c-0d9e8b7a6c5d
    """
    settings, cluster, memory = load_for_cluster(config, data_dir, flink_url)
    require_cluster(settings, cluster)
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
        require_slots(cluster, settings.job.parallelism)
        job_id = submit_job(settings, former, allow_non_restored_state=allow_non_restored_state)
        wait_until_running(cluster, job_id)
    if flink_url:
        remember(memory, cluster.url)
    watch = f"{cluster.url}/#/job/running/{job_id}/overview"
    if as_json:
        say_json({"job_id": job_id, "watch": watch})
    else:
        say(f"{settings.job.name} runs as {job_id}; watch it at {watch}")


@click.command()
@cluster_options
@click.argument("job_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print job and savepoint as a JSON object.")
def stop(config: Path | None, data_dir: Path | None, flink_url: str | None, job_id: str | None, as_json: bool) -> None:
    """Stop the job with a savepoint, from which `vacancy job submit --from-savepoint` continues.

    Without JOB_ID it stops the running job named job.name.

    \b
    vacancy job stop
    vacancy job submit --from-savepoint "$(vacancy job stop --json | jq -r .savepoint)"
    """
    settings, cluster, _ = load_for_cluster(config, data_dir, flink_url)
    require_cluster(settings, cluster)
    job = find_job(cluster, settings.job.name, job_id)
    if job.ended:
        raise VacancyError(f"{job.job_id} has ended already ({job.state}); there is nothing to stop")
    savepoint = cluster.stop(job.job_id, savepoint_directory(settings.job))
    wait_until_ended(cluster, job.job_id)
    if as_json:
        say_json({"job_id": job.job_id, "savepoint": savepoint})
    else:
        say(f"{job.name} ({job.job_id}) is stopped; its savepoint is {savepoint}")


@click.command()
@cluster_options
@click.argument("job_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def status(
    config: Path | None, data_dir: Path | None, flink_url: str | None, job_id: str | None, as_json: bool
) -> None:
    """Show the job's state, uptime, restarts, last checkpoint and savepoint, and last failure.

    Without JOB_ID it shows the newest job named job.name.

    \b
    vacancy job status
    vacancy job status --json | jq .restarts
    """
    settings, cluster, _ = load_for_cluster(config, data_dir, flink_url)
    found = cluster.status(find_job(cluster, settings.job.name, job_id).job_id)
    if as_json:
        say_json(as_object(found))
    else:
        for line in [f"{'cluster':<16} {cluster.url}", *as_text(found)]:
            say(line)


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


def as_text(found: Status) -> list[str]:
    """A job's status as lines for people."""

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
    return [f"{name:<16} {value}" for name, value in lines.items()]


def _uptime(found: Status) -> timedelta:
    """How long the job has run since its last start or restart."""
    return datetime.now(UTC) - found.running_since if found.running_since else timedelta()


command = click.Group("job", help="The Flink job that keeps the table.", commands=[run, submit, stop, status])
