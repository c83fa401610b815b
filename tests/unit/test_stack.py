"""What `vacancy up` finds out before and while a stack runs."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from vacancy.jobs.local.files import exclusive
from vacancy.jobs.local.stack import Stack
from vacancy.jobs.settings import load_settings
from vacancy.schemas.errors import VacancyError


def stack(directory: Path, **local: int) -> Stack:
    directory.mkdir()
    return Stack(directory, load_settings(None, {"local": {"min_free_disk_mb": 0, **local}}), None)


@pytest.mark.parametrize("setting", ["kafka_port", "postgres_port", "flink_port", "web_port", "flink_metrics_port"])
def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VacancyError, match=rf"port {port} of local\.{setting} is in use"):
            stack(tmp_path / "stack", **{setting: port}).prepare(lambda _: None)


def test_a_directory_that_is_deleted_ends_the_stack(tmp_path: Path) -> None:
    running = stack(tmp_path / "stack")
    with exclusive(running.directory):
        assert running.watch() == []
        shutil.rmtree(running.directory)
        with pytest.raises(VacancyError, match="was deleted while the stack ran"):
            running.watch()
