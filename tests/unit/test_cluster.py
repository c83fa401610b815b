"""How `vacancy job submit`, `stop` and `status` use the settings and Flink's answers."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vacancy.jobs.commands.job import as_object, as_text, load_for_cluster, require_cluster
from vacancy.jobs.flink.address import forget, remember
from vacancy.jobs.flink.cluster import newest_state, recovery, shipping
from vacancy.jobs.flink.mini_cluster import flink_path, savepoint_directory
from vacancy.jobs.flink.rest import Checkpoint, Failure, FlinkRest, Job, Status, explained, innermost_cause
from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.topology.settings import JobSettings

TRACE = """org.apache.flink.runtime.JobException: Recovery is suppressed
\tat org.apache.flink.Somewhere.run(Somewhere.java:1)
Caused by: java.io.IOException: Failed
\tat org.apache.flink.Elsewhere.run(Elsewhere.java:1)
\t... 3 more
Caused by: org.postgresql.util.PSQLException: ERROR: permission denied for table host
\tat org.postgresql.Somewhere.run(Somewhere.java:1)
"""


def status() -> Status:
    """A job that has failed and has been running again for five minutes."""
    now = datetime.now(UTC)
    return Status(
        job=Job("4f2a1c", "vacancy", "RUNNING", now - timedelta(hours=3)),
        running_since=now - timedelta(minutes=5),
        restarts=1,
        tasks_running=7,
        tasks=8,
        last_checkpoint=Checkpoint("file:/state/chk-7", now - timedelta(seconds=8), timedelta(milliseconds=120), 4096),
        last_savepoint=None,
        last_failure=Failure(now - timedelta(minutes=5), innermost_cause(TRACE)),
    )


def test_the_innermost_cause_is_the_one_line() -> None:
    assert innermost_cause(TRACE) == "org.postgresql.util.PSQLException: ERROR: permission denied for table host"
    assert innermost_cause("only this\n\tat somewhere") == "only this"
    assert innermost_cause(" ") == "no reason given"


def test_a_savepoint_of_another_version_is_explained() -> None:
    reason = "Cannot map checkpoint/savepoint state for operator 1234 to the new program"
    assert explained(reason).startswith("the savepoint holds state of an operator that this job does not have")
    assert explained(reason).endswith(f"({reason})")
    assert explained("something else") == "something else"


@pytest.mark.parametrize(
    ("checkpoint_dir", "savepoint_dir", "expected"),
    [
        ("s3://bucket/vacancy/checkpoints", None, "s3://bucket/vacancy/savepoints"),
        ("file:///state/checkpoints/", None, "file:///state/savepoints"),
        ("file:///state/checkpoints", "s3://bucket/saved", "s3://bucket/saved"),
    ],
)
def test_savepoints_go_beside_checkpoints_unless_told(
    checkpoint_dir: str, savepoint_dir: str | None, expected: str
) -> None:
    assert savepoint_directory(JobSettings(checkpoint_dir=checkpoint_dir, savepoint_dir=savepoint_dir)) == expected


def test_the_newest_state_is_a_savepoint_or_a_checkpoint(tmp_path: Path) -> None:
    job = JobSettings(checkpoint_dir=(tmp_path / "checkpoints").as_uri())
    assert newest_state(job) is None
    for age, place in enumerate(("savepoints/savepoint-1", "checkpoints/a/chk-3", "checkpoints/b/chk-2")):
        metadata = tmp_path / place / "_metadata"
        metadata.parent.mkdir(parents=True)
        metadata.touch()
        os.utime(metadata, (1000 - age, 1000 - age))
    (tmp_path / "checkpoints/c/chk-9").mkdir(parents=True)  # not complete
    assert newest_state(job) == (tmp_path / "savepoints/savepoint-1").as_uri()
    (tmp_path / "savepoints/savepoint-1/_metadata").unlink()
    assert newest_state(job) == (tmp_path / "checkpoints/a/chk-3").as_uri()
    with pytest.raises(ConfigError, match="not a file:// URI"):
        newest_state(JobSettings(checkpoint_dir="s3://bucket/checkpoints"))


def test_nothing_is_shipped_where_the_image_holds_it() -> None:
    assert shipping(JobSettings(ship=False)) == {}


def test_a_savepoint_stays_ours() -> None:
    assert recovery(None, allow_non_restored_state=False) == {}
    assert recovery("s3://b/savepoint-1", allow_non_restored_state=True) == {
        "execution.state-recovery.path": "s3://b/savepoint-1",
        "execution.state-recovery.claim-mode": "NO_CLAIM",
        "execution.state-recovery.ignore-unclaimed-state": "true",
    }


def test_a_status_says_how_the_job_is() -> None:
    text = "\n".join(as_text(status()))
    for expected in ("RUNNING, 7 of 8 tasks run", "5 min", "file:/state/chk-7", "permission denied for table host"):
        assert expected in text
    found = as_object(status())
    assert found["uptime_seconds"] == pytest.approx(300, abs=60)
    assert found["last_checkpoint"]["size_bytes"] == 4096
    assert found["last_savepoint"] is None


def test_a_cluster_that_does_not_answer() -> None:
    with pytest.raises(VacancyError, match=r"no Flink cluster answers at http://127\.0\.0\.1:1: .*; start it, or name"):
        FlinkRest("http://127.0.0.1:1/").jobs()


def test_the_local_stack_s_flink_is_found_and_its_job_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "vacancy.toml"
    file.write_text("[local]\nflink_port = 18081\n", encoding="utf-8")
    settings, cluster, _ = load_for_cluster(file, None, None)
    assert cluster.url == "http://127.0.0.1:18081"
    with pytest.raises(ConfigError, match="`vacancy up`"):
        require_cluster(settings, cluster)
    settings, cluster, _ = load_for_cluster(file, None, "http://jobmanager:8081")
    assert cluster.url == "http://jobmanager:8081"
    require_cluster(settings, cluster)


@pytest.mark.parametrize("local", ["[local]\nflink_port = 18081\n", ""])
def test_where_the_job_was_submitted_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: str) -> None:
    monkeypatch.setenv("VACANCY_DATA_DIR", str(tmp_path / "state"))
    file = tmp_path / "vacancy.toml"
    file.write_text(local, encoding="utf-8")
    _, cluster, memory = load_for_cluster(file, None, "http://jobmanager:8081")
    remember(memory, cluster.url)
    settings, cluster, _ = load_for_cluster(file, None, None)
    assert (cluster.url, settings.job.flink_url) == ("http://jobmanager:8081", "http://jobmanager:8081")
    require_cluster(settings, cluster)
    _, cluster, _ = load_for_cluster(file, None, "http://another:8081")
    assert cluster.url == "http://another:8081"
    file.write_text(local + '[job]\nflink_url = "http://named:8081"\n', encoding="utf-8")
    assert load_for_cluster(file, None, None)[1].url == "http://named:8081"
    file.write_text(local, encoding="utf-8")
    forget(memory)
    assert load_for_cluster(file, None, None)[1].url == ("http://127.0.0.1:18081" if local else "http://127.0.0.1:8081")


def test_a_memory_that_is_no_address_is_none(tmp_path: Path) -> None:
    file = tmp_path / "vacancy.toml"
    file.write_text("[local]\nflink_port = 18081\n", encoding="utf-8")
    for content in (b"", b"\xff\n", b"ftp://x\n"):
        (tmp_path / "flink_url").write_bytes(content)
        assert load_for_cluster(file, None, None)[1].url == "http://127.0.0.1:18081"


def test_flink_reads_no_percent_signs(tmp_path: Path) -> None:
    directory = tmp_path / "with space, % and ü"
    assert flink_path(directory.as_uri()) == f"file://{directory}"
    assert flink_path("s3://bucket/with%20space") == "s3://bucket/with%20space"
