"""Output on stderr: lines for people, or only JSON."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from vacancy.jobs.logs import JsonFormatter, configure, fail


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("vacancy")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before


def test_a_json_line_says_when_what_and_who(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", job="agent", host_id="host-1")
    logging.getLogger("vacancy.agent").warning("topic %s\ntakes no events", "µ")
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() == timedelta(0)
    assert line == {
        "level": "WARNING",
        "logger": "vacancy.agent",
        "message": "topic µ\ntakes no events",
        "host": socket.gethostname(),
        "job": "agent",
        "host_id": "host-1",
    }


def test_an_exception_stays_in_its_line() -> None:
    try:
        int("no")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "broken", None, sys.exc_info())
    text = JsonFormatter(job="agent").format(record)
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: invalid literal for int() with base 10: 'no'")


@pytest.mark.parametrize(
    ("log_format", "said"), [("plain", "INFO ours"), ("json", '"level": "INFO", "logger": "vacancy.job"')]
)
def test_of_libraries_only_what_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], log_format: str, said: str
) -> None:
    configure("json" if log_format == "json" else "plain", job="job")
    logging.getLogger("py4j").info("theirs")
    logging.getLogger("vacancy.job").info("ours")
    errors = capsys.readouterr().err
    assert said in errors
    assert "theirs" not in errors


def test_the_error_that_ends_a_command_has_the_logs_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure("plain")
    fail("no broker answers")
    assert capsys.readouterr().err == "vacancy: no broker answers\n"
    configure("json", job="simulate")
    fail("no broker answers")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"], line["job"]) == ("CRITICAL", "no broker answers", "simulate")


def test_a_command_that_fails_says_nothing_but_json(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "vacancy.toml"
        config.write_text(f'[local]\nflink_port = {taken.getsockname()[1]}\n[log]\nformat = "json"\n', encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "vacancy", "job", "run", "--config", str(config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
        )
    assert ended.returncode == 1
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["level"], line["job"]) == ("CRITICAL", "job")
    assert "of local.flink_port is in use" in line["message"]
