"""A RabbitMQ of a test's own, from Debian's package: its node, ports, files and port mapper are in nobody's way."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.waiting import wait_until
from vacancy.jobs import ports

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_S = 180.0
"""It takes some 5 s on idle cores, and many times that on busy ones; who waits for longer waits for nothing."""


class RabbitMQ:
    """A node; :meth:`kill` and :meth:`start` bounce it on its port with its files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port, distribution, mapper = (ports.free_port() for _ in range(3))
        (directory / "plugins").write_text("[].\n", encoding="ascii")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\nvm_memory_high_watermark.relative = 0.2\n"
            # More than a busy CI machine may have left.
            "disk_free_limit.absolute = 10MB\n",
            encoding="ascii",
        )
        self._variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"vacancy-{uuid.uuid4().hex[:12]}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            # Its schedulers otherwise spin for work, on cores that others need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._reaper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As oslo.messaging takes it."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Starts it, and waits until it lets one in."""
        log = self._directory / "output"
        with log.open("ab") as output:
            self._reaper = reaper = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.reaper", "", PROGRAM],
                env=self._variables,
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        assert reaper.stdin is not None
        reaper.stdin.write(b"start\n")
        reaper.stdin.flush()
        wait_until(self._answers, START_S, f"RabbitMQ does not start, see {log}")

    def kill(self) -> None:
        """Ends it at once, with its port mapper and all else that it has started."""
        if self._reaper is not None:
            self._reaper.communicate()
            self._reaper = None

    def _answers(self) -> bool:
        """Whether it speaks AMQP: of a protocol that it does not know it says which it does."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(b"AMQP\0\0\0\0")
            return connection.recv(4) == b"AMQP"
        return False


@contextmanager
def running_rabbitmq() -> Iterator[RabbitMQ]:
    """A node that is ended at the end, and nothing of it left.

    Skips the test where Debian's package is not installed, unless VACANCY_TEST_REQUIRE_RABBITMQ is set.
    """
    if not PROGRAM.exists():
        message = "no RabbitMQ: apt-get install rabbitmq-server"
        assert "VACANCY_TEST_REQUIRE_RABBITMQ" not in os.environ, message
        pytest.skip(message)
    directory = Path(tempfile.mkdtemp(prefix="vacancy-rabbitmq-"))
    server = RabbitMQ(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
