"""The part of Flink's REST interface that is needed to stop and watch a job."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from vacancy.schemas.errors import NoAnswerError, VacancyError

TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.2
_ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})


class Job(NamedTuple):
    """A job as a cluster lists it."""

    job_id: str
    name: str
    state: str
    """Flink's name of the state: CREATED, RUNNING, RESTARTING, FAILING, FINISHED, ..."""
    started_at: datetime

    @property
    def ended(self) -> bool:
        """Whether the job has ended for good."""
        return self.state in _ENDED


class Checkpoint(NamedTuple):
    """A completed checkpoint or savepoint."""

    path: str
    completed_at: datetime
    duration: timedelta
    size_bytes: int


class Failure(NamedTuple):
    """A failure after which a job restarted or ended."""

    at: datetime
    message: str
    """The innermost cause, one line."""


class Status(NamedTuple):
    """How a job is."""

    job: Job
    running_since: datetime | None
    """When the job last started or restarted; None if it is not running."""
    restarts: int
    tasks_running: int
    tasks: int
    last_checkpoint: Checkpoint | None
    last_savepoint: Checkpoint | None
    last_failure: Failure | None


class FlinkRest:
    """A cluster; every call raises VacancyError if it does not answer or refuses."""

    def __init__(self, url: str) -> None:
        """The cluster whose REST interface has that URL."""
        self.url = url.rstrip("/")

    def jobs(self) -> list[Job]:
        """All jobs that the cluster remembers, newest first."""
        found = [
            Job(job["jid"], job["name"], job["state"], _time(job["start-time"]))
            for job in self._ask("/jobs/overview")["jobs"]
        ]
        return sorted(found, key=lambda job: job.started_at, reverse=True)

    def free_slots(self) -> tuple[int, int]:
        """The number of free task slots, and the number of all."""
        overview = self._ask("/overview")
        return overview["slots-available"], overview["slots-total"]

    def adds_task_managers(self) -> bool:
        """Whether the cluster starts task managers by itself when a job needs slots, as on Kubernetes and YARN."""
        keys = {option["key"] for option in self._ask("/jobmanager/config")}
        return any(key.startswith(("kubernetes.", "yarn.")) for key in keys)

    def status(self, job_id: str) -> Status:
        """How a job is."""
        job = self._ask(f"/jobs/{job_id}")
        running = sum(vertex["tasks"].get("RUNNING", 0) for vertex in job["vertices"])
        checkpoints = self._ask(f"/jobs/{job_id}/checkpoints")["latest"]
        return Status(
            job=Job(job["jid"], job["name"], job["state"], _time(job["start-time"])),
            running_since=_time(job["timestamps"]["RUNNING"]) if job["state"] == "RUNNING" else None,
            restarts=self._restarts(job_id),
            tasks_running=running,
            tasks=sum(vertex["parallelism"] for vertex in job["vertices"]),
            last_checkpoint=_checkpoint(checkpoints.get("completed")),
            last_savepoint=_checkpoint(checkpoints.get("savepoint")),
            last_failure=self._last_failure(job_id) or _unsaid(job["timestamps"]["RESTARTING"]),
        )

    def stop(self, job_id: str, directory: str) -> str:
        """Stops the job with a savepoint under a directory (a URI); returns the savepoint's path.

        The savepoint is in the canonical format, which either state backend can restore.
        """
        body = {"targetDirectory": directory, "drain": False, "formatType": "CANONICAL"}
        trigger = self._ask(f"/jobs/{job_id}/stop", body)["request-id"]
        while True:
            answer = self._ask(f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                break
            time.sleep(_POLL_SECONDS)
        operation = answer["operation"]
        if "failure-cause" in operation:
            reason = innermost_cause(operation["failure-cause"]["stack-trace"])
            raise VacancyError(f"{job_id} is not stopped, its savepoint failed: {reason}")
        return str(operation["location"])

    def _restarts(self, job_id: str) -> int:
        metrics = self._ask(f"/jobs/{job_id}/metrics?get=numRestarts")
        return int(metrics[0]["value"]) if metrics else 0

    def _last_failure(self, job_id: str) -> Failure | None:
        history = self._ask(f"/jobs/{job_id}/exceptions?maxExceptions=1")["exceptionHistory"]["entries"]
        if not history:
            return None
        return Failure(_time(history[0]["timestamp"]), innermost_cause(history[0]["stacktrace"]))

    def _ask(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.url + path)  # noqa: S310  # the settings allow http and https alone
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # as above
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise VacancyError(f"Flink at {self.url} refuses {path}: {_refusal(error)}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise NoAnswerError(
                f"no Flink cluster answers at {self.url}: {reason}; start it, or name another with "
                "--flink-url or job.flink_url"
            ) from None


_UNSAID = "Flink gives no reason"
_ENDED_ITSELF = (
    "a task manager was ended, or has ended itself as Flink does when an operator cannot close (FLINK-38180); its log "
    "says more"
)
_EXPLANATIONS = {
    "Cannot map checkpoint/savepoint state for operator": "the savepoint holds state of an operator that this job does "
    "not have, so it is another version's; start from one of its own, or give it up: `vacancy job submit "
    "--allow-non-restored-state`, `vacancy job run --fresh`",
    "Cannot find checkpoint or savepoint": "the cluster finds no savepoint or retained checkpoint there; `vacancy job "
    "status` shows the last ones, and a job manager elsewhere reads its own disk",
    "Unexpected state handle type": "the state to go on from is of another job.state_backend; set it back, start from "
    "a savepoint of `vacancy job stop`, which goes with any, or start without",
    "The new state serializer": "the savepoint's state is of another version, which this one cannot read; start from "
    "one of its own, or without",
    "UnknownTopicOrPartition": "a topic is gone; `vacancy doctor` says which, `vacancy job submit` would make it anew",
    _UNSAID: _ENDED_ITSELF,
    "The TaskExecutor is shutting down": _ENDED_ITSELF,
    "permission denied for": "the database refuses its rows; `vacancy doctor` says why",
    "this release does not know": "the savepoint was taken by a later release; submit with that one",
}


def explained(reason: str) -> str:
    """A failure reason from Flink, followed by its meaning if that is known."""
    meaning = next((meaning for part, meaning in _EXPLANATIONS.items() if part in reason), None)
    return f"{meaning} ({reason})" if meaning else reason


def cause(error: Exception) -> str:
    """The innermost cause of a Java exception in one line, and what it means."""
    # py4j puts a line of its own before the exception.
    return explained(innermost_cause(str(error).partition("\n: ")[2] or str(error)))


def innermost_cause(trace: str) -> str:
    """The first line of the innermost cause in a Java stack trace."""
    lines = trace.strip().splitlines() or ["no reason given"]
    causes = [line.strip() for line in lines if line.strip().startswith("Caused by: ")]
    return (causes[-1] if causes else lines[0]).removeprefix("Caused by: ")


def _unsaid(restarted_ms: int) -> Failure | None:
    """The failure behind a restart that the job's exception history does not list; None if it was not restarted."""
    return Failure(_time(restarted_ms), _UNSAID) if restarted_ms else None


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return innermost_cause("\n".join(json.load(error)["errors"]))
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP {error.code}"


def _checkpoint(answer: Any) -> Checkpoint | None:
    if not answer:
        return None
    return Checkpoint(
        path=answer["external_path"],
        completed_at=_time(answer["latest_ack_timestamp"]),
        duration=timedelta(milliseconds=answer["end_to_end_duration"]),
        size_bytes=answer["state_size"],
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
