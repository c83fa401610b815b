"""Cinder's API and scheduler as a process in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from bench.placement import environment
from tests.harness.waiting import wait_until
from vacancy.connectors.settings import StorageSettings

LOCK = environment.ROOT / "requirements" / "cinder.lock"
PROJECT = "0123456789abcdef0123456789abcdef"
"""Hex digits, which the paths of Cinder's API need."""
LIMIT_S = 60.0


class RunningCinder:
    """The orders to ``tests.cinder.programs.serve``, as methods."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self.port = self._answer()

    def report(self, host: str, *pools: Mapping[str, Any], **capabilities: Any) -> None:
        """A volume service reports its pools."""
        backend = {"volume_backend_name": host.partition("@")[2], "vendor_name": "ours", "driver_version": "1"}
        told = backend | {"storage_protocol": "iSCSI", "pools": list(pools)} | capabilities
        self._ask(report={"host": host, "capabilities": told})

    def down(self, host: str) -> None:
        """A volume service stops reporting."""
        self._ask(down=host)

    def fits(self, sizes: Mapping[str, Sequence[int]]) -> dict[str, list[bool]]:
        """Whether Cinder's capacity filter accepts volumes of these sizes for these pools."""
        fits: dict[str, list[bool]] = self._ask(fits=sizes)
        return fits

    def settings(self, **more: Any) -> StorageSettings:
        """The settings to read it; it has no Keystone and accepts any user that the token names."""
        url = f"http://127.0.0.1:{self.port}/v3/{PROJECT}"
        auth = {"auth_type": "admin_token", "endpoint": url, "token": f"admin:{PROJECT}"}
        return StorageSettings.model_validate({"auth": auth} | more)

    def _ask(self, **question: Any) -> Any:
        self._stdin.write(json.dumps(question) + "\n")
        self._stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._stdout.readline()
        assert line, f"Cinder ended with {self._process.wait(LIMIT_S)}"
        return json.loads(line)


@contextmanager
def running_cinder(directory: Path) -> Iterator[RunningCinder]:
    """Cinder on its own port; its log goes into the directory."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))}
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [str(environment.python(LOCK)), "-W", "ignore", "-m", "tests.cinder.programs.serve", str(directory)],
            env=ours | {"PYTHONPATH": str(environment.ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    with process:
        try:
            yield RunningCinder(process)
        finally:
            process.kill()
            wait_until(lambda: process.poll() is not None, LIMIT_S, "Cinder does not end")


@pytest.fixture(scope="module")
def cinder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCinder]:
    """One a module."""
    with running_cinder(tmp_path_factory.mktemp("cinder")) as running:
        yield running
