"""The live view says at once that the job does not run."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.waiting import wait_until
from vacancy.jobs.commands import job_watch
from vacancy.jobs.commands.job_watch import JobWatch
from vacancy.jobs.flink.address import local_url, named_url
from vacancy.jobs.settings import load_settings


class _Flink(http.server.BaseHTTPRequestHandler):
    jobs: tuple[tuple[str, str], ...] = ()

    def do_GET(self) -> None:
        jobs = [{"jid": name, "name": name, "state": state, "start-time": 0} for name, state in self.jobs]
        body = json.dumps({"jobs": jobs}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        del format, args


def _says(watch: JobWatch, words: str) -> bool:
    return words in (watch.trouble or "")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(job_watch, "EVERY_SECONDS", 0.02)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Flink) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_job_that_stops_is_said_and_one_that_runs_again_is_well(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Flink, "jobs", (("vacancy", "RUNNING"),))
    with JobWatch(load_settings(None, {"local": {"flink_port": port}})) as watch:
        assert watch.look() is None
        for jobs, words in (
            ((("vacancy", "RESTARTING"),), "the job is restarting"),
            ((("vacancy", "FAILED"),), "the job is failed"),
            ((), "the job is not there"),
        ):
            monkeypatch.setattr(_Flink, "jobs", jobs)
            wait_until(partial(_says, watch, words), 10, f"nobody says that {words}")
        monkeypatch.setattr(_Flink, "jobs", (("vacancy", "FAILED"), ("vacancy", "RUNNING")))
        wait_until(lambda: watch.trouble is None, 10, "the trouble stays")


def test_on_a_cluster_only_our_job_counts(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Flink, "jobs", (("another", "RUNNING"),))
    watch = JobWatch(load_settings(None, {"job": {"flink_url": f"http://127.0.0.1:{port}"}}))
    assert "not there" in (watch.look() or "")
    both = load_settings(None, {"job": {"flink_url": "http://127.0.0.1:1"}, "local": {"flink_port": port}})
    assert JobWatch(both, local=True).look() is None


def test_a_file_that_sets_other_things_of_the_job_names_no_cluster(tmp_path: Path) -> None:
    """As `vacancy up` writes it: each command must find the stack's own Flink with it."""
    file = tmp_path / "vacancy.toml"
    file.write_text('[job]\ncheckpoint_dir = "file:///tmp/c"\n[local]\nflink_port = 1234\n', encoding="utf-8")
    settings = load_settings(file, {"job": {"emit": "2s"}})
    assert settings.job.model_fields_set == {"checkpoint_dir", "emit"}
    assert (named_url(settings), local_url(settings)) == (None, "http://127.0.0.1:1234")
    file.write_text('[job]\nflink_url = "http://127.0.0.1:8081"\n', encoding="utf-8")
    assert named_url(load_settings(file)) == "http://127.0.0.1:8081"


def test_a_cluster_that_is_gone_is_said() -> None:
    watch = JobWatch(load_settings(None, {"local": {"flink_port": 1}}))
    assert "the job does not run: no Flink cluster answers" in (watch.look() or "")


def test_where_nothing_says_where_the_job_is_nobody_looks() -> None:
    with JobWatch(load_settings(None)) as watch:
        assert watch.trouble is None
