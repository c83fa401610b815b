"""The Flink job on a cluster: submitted, watched and stopped.

Submitting uses PyFlink, everything else the cluster's REST interface. ``entry_point.py`` starts the same job for
``flink run -py`` and for application mode.

What always holds: the command line, the job's configuration and its plan contain no secret. Passwords travel inside the
serialized graph, in options that Flink never shows.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.jobs.flink.mini_cluster import (
    add_to_class_path,
    checkpoint_directory,
    flink_path,
    graph,
    prepare_java,
    savepoint_directory,
)
from vacancy.jobs.flink.rest import FlinkRest, Job, cause, explained
from vacancy.jobs.flink.state_backend import require_own_backend
from vacancy.jobs.settings import Settings
from vacancy.schemas.errors import VacancyError
from vacancy.topology.settings import JobSettings

RUNNING_SECONDS = 120.0
"""How long ``submit`` waits until all tasks run."""
STOPPED_SECONDS = 60.0
_FAILURES = 3
"""How often a job may fail right after it was submitted, for example because its database is still starting."""
_WATCH_SECONDS = 0.5


def submit_job(settings: Settings, savepoint: str | None = None, *, allow_non_restored_state: bool = False) -> str:
    """Submits the job in detached mode; returns its id.

    Raises:
        ConfigError: the savepoint is from another state backend.
        VacancyError: the cluster refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="vacancy-submit-") as directory:
        prepare_java(Path(directory))
        if not settings.job.ship:
            # The planner needs the jars here even if they are not sent along.
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
        if savepoint is not None and savepoint.startswith("file:"):
            state = checkpoint_directory(savepoint)
            if (state / "_metadata").exists():  # else it is on the cluster's disk, and the cluster says what is wrong
                require_own_backend(settings.job, state)
        try:
            return str(graph(settings, options).execute_async(settings.job.name).get_job_id())
        except VacancyError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever Java threw, as py4j hands it over
            raise VacancyError(f"{settings.job.flink_url} does not take the job: {cause(error)}") from None


def shipping(job: JobSettings) -> dict[str, str]:
    """The options that say where task managers find the job's jars: sent along, or in their image."""
    return {"pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars())} if job.ship else {}


def newest_state(job: JobSettings) -> str | None:
    """The newest complete savepoint or retained checkpoint, as a URI; None if there is none.

    Raises:
        ConfigError: they are not files on this machine.
    """
    checkpoints, savepoints = (checkpoint_directory(uri) for uri in (job.checkpoint_dir, savepoint_directory(job)))
    files = [*checkpoints.glob("*/chk-*/_metadata"), *savepoints.glob("savepoint-*/_metadata")]
    newest = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    return newest.parent.as_uri() if newest else None


def recovery(savepoint: str | None, *, allow_non_restored_state: bool) -> dict[str, str]:
    """The options that make Flink start from a savepoint without taking ownership of it."""
    if savepoint is None:
        return {}
    return {
        "execution.state-recovery.path": flink_path(savepoint),
        "execution.state-recovery.claim-mode": "NO_CLAIM",
        "execution.state-recovery.ignore-unclaimed-state": str(allow_non_restored_state).lower(),
    }


def require_slots(cluster: FlinkRest, parallelism: int) -> None:
    """Raises VacancyError if a cluster of a fixed size has too few task slots for the job."""
    free, slots = cluster.free_slots()
    if free < parallelism and not cluster.adds_task_managers():
        raise VacancyError(
            f"the job needs {parallelism} task slots, and {free} of the {slots} at {cluster.url} are free; raise "
            "taskmanager.numberOfTaskSlots there, start task managers, or lower job.parallelism"
        )


def wait_until_running(cluster: FlinkRest, job_id: str) -> None:
    """Waits until all tasks of a job run.

    Raises:
        VacancyError: the job failed, or does not run in time; with the reason, if the cluster knows it.
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
    """The job with that id, or the newest job of that name; a job that has not ended takes precedence.

    Raises:
        VacancyError: there is no such job.
    """
    jobs = [job for job in cluster.jobs() if (job.job_id == job_id if job_id else job.name == name)]
    if not jobs:
        raise VacancyError(
            f"no job {job_id or name} at {cluster.url}; `vacancy job submit` starts it, job.name says its name"
        )
    return next((job for job in jobs if not job.ended), jobs[0])


def wait_until_ended(cluster: FlinkRest, job_id: str) -> None:
    """Waits until a job has ended, for at most STOPPED_SECONDS."""
    deadline = time.monotonic() + STOPPED_SECONDS
    while not _ended(cluster, job_id) and time.monotonic() < deadline:
        time.sleep(_WATCH_SECONDS)


def _ended(cluster: FlinkRest, job_id: str) -> bool:
    """Whether a job has ended; in application mode its cluster ends with it."""
    try:
        return cluster.status(job_id).job.ended
    except VacancyError:
        return True
