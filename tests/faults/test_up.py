"""`vacancy up` leaves nothing behind, loses nothing, and says in one line what it cannot do."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from tests.harness.installation import config_file
from tests.harness.process import vacancy
from tests.harness.servers import reachable_directory
from tests.harness.stack import Up, all_parts
from tests.harness.table import open_table
from tests.harness.terminal import Terminal
from tests.harness.waiting import wait_until
from vacancy.jobs.local.processes import end_leftovers, leftovers
from vacancy.jobs.settings import load_settings

START_SECONDS = 400
STOP_SECONDS = 60
HOSTS = 20
CTRL_C = "\x03"
ALL_FRESH = rf"{HOSTS + 1} hosts, [1-9]\d* schedulable(?!.*(stale|without))"


@pytest.fixture
def directory() -> Iterator[Path]:
    parent = reachable_directory()
    yield parent / "stack"
    end_leftovers(parent / "stack", seconds=1)
    wait_until(lambda: not all_parts(parent / "stack"), 30, "PostgreSQL is still there")
    shutil.rmtree(parent)


class UpAlone(Up):
    """`vacancy up` that is killed alone at the end, so that the test sees what its parts do.

    Under nohup SIGHUP is ignored, and it outlives its terminal. Here the signal ends it, however the tests are run.
    """

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        super().__init__(directory, *arguments, prefix=["env", "--default-signal=HUP"], **environment)

    def __exit__(self, *exception: object) -> None:
        self.kill()


def suspended(process: psutil.Process) -> bool:
    """Stops a process, unless it has ended of itself."""
    try:
        process.suspend()
    except psutil.NoSuchProcess:
        return False
    return True


def part(directory: Path, word: str) -> psutil.Process:
    """The process of a stack that has a word on its command line."""
    (process,) = [process for process in leftovers(directory) if word in process.cmdline()]
    return process


def rows(directory: Path) -> dict[str, int]:
    """When each host was last seen, as the table has it, in ms since 1970."""
    with open_table(load_settings(config_file(directory)).postgres.reader_dsn) as table:
        return table.observed_ms()


def metrics(address: str) -> str:
    """What the server of the fleet page says of itself."""
    with closing(HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def refusal(directory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status and the last line of an `up` that ends by itself."""
    with UpAlone(directory, *arguments, **environment) as up:
        status = up.process.wait(60)
        return status, up.output.splitlines()[-1]


@pytest.mark.timeout(1800)
def test_a_life_of_a_stack(directory: Path) -> None:
    """Start; refuse a second; restart a killed part; kill -9; resume on a terminal with nothing lost; Ctrl-C."""
    with UpAlone(directory, "--hosts", str(HOSTS)) as up:
        up.wait_for(ALL_FRESH, START_SECONDS)
        address = up.wait_for(r"Fleet page +http://(127\.0\.0\.1:\d+)/").group(1)
        wait_until(lambda: f"vacancy_web_hosts {HOSTS + 1}.0" in metrics(address), 30, "not all hosts are on the page")
        for private in ("vacancy.toml", "secrets"):
            assert (directory / private).stat().st_mode & 0o777 == 0o600

        status, line = refusal(directory)
        assert status == 1
        assert f"already, as process {up.process.pid}" in line

        part(directory, "agent").kill()
        up.wait_for("agent was ended by SIGKILL", 30)
        up.wait_for("agent was started again", 30)
        part(directory, "kafka.Kafka").kill()
        up.wait_for("Kafka was started again", 30)
        before = rows(directory)
        wait_until(lambda: min(rows(directory).values(), default=0) > max(before.values()), 120, "no new rows")

        before = rows(directory)
        up.process.kill()
        up.process.wait()

    command = vacancy("up", "--data-dir", directory, "--hosts", str(HOSTS))
    with Terminal(command, directory.parent, columns=160, lines=50) as terminal:
        terminal.wait_for(ALL_FRESH, START_SECONDS)
        after = rows(directory)
        assert after.keys() == before.keys()
        assert all(after[host] >= before[host] for host in before)
        see_the_live_view(terminal)
        terminal.type(CTRL_C)
        assert terminal.wait() == 0
        assert "All parts have ended." in terminal.screen
        assert terminal.is_as_before
    assert all_parts(directory) == []


def see_the_live_view(terminal: Terminal) -> None:
    """The parts in one line, a line a host; on a small screen as many hosts as fit, and how many do not."""
    terminal.wait_for(r"broker ok, database ok, job ok, .*http://127\.0\.0\.1:\d+/")
    assert sum(bool(re.search(r"\d \(\d+\) / ", line)) for line in terminal.screen) == HOSTS + 1
    terminal.resize(columns=80, lines=20)
    terminal.wait_for(rf"{HOSTS + 1} hosts, [^(]*\(1\d more not shown")
    assert not any("disk, GiB" in line for line in terminal.screen)
    terminal.resize(columns=160, lines=50)
    terminal.wait_for(rf"disk, GiB(?![\s\S]*not shown)[\s\S]*\n{HOSTS + 1} hosts, ")


@pytest.mark.timeout(900)
def test_it_ends_by_itself_after_its_time(directory: Path) -> None:
    with UpAlone(directory, "--for", "1", "--emit", "200ms") as up:
        assert up.process.wait(START_SECONDS) == 0, up.output
        assert "1 host, " in up.output
    assert all_parts(directory) == []
    assert load_settings(directory / "vacancy.toml").job.emit.total_seconds() == 0.2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_a_signal_while_it_starts_ends_it(directory: Path, number: signal.Signals, status: int) -> None:
    with UpAlone(directory) as up:
        wait_until(lambda: leftovers(directory), START_SECONDS, "no part has started")
        assert up.end(number) == status
    assert all_parts(directory) == []


def test_it_ends_when_its_parent_is_killed(directory: Path) -> None:
    code = f"""
import signal, subprocess, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
up = subprocess.Popen([sys.executable, "-m", "vacancy", "up", "--data-dir", {str(directory)!r}], start_new_session=True)
print(up.pid, flush=True)
up.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        up = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: leftovers(directory), START_SECONDS, "no part has started")
        parent.kill()
        parent.wait()
        wait_until(lambda: not up.is_running(), STOP_SECONDS, "vacancy up outlives its parent")
    assert all_parts(directory) == []


def test_what_a_killed_run_leaves_behind_is_ended_by_the_next(directory: Path) -> None:
    with UpAlone(directory) as up:
        up.wait_for("PostgreSQL  ", START_SECONDS)
        # Stopped, they cannot follow when the kernel tells them that their parent is gone.
        former = [process for process in all_parts(directory) if suspended(process)]
        up.process.kill()
        up.process.wait()
    assert {process.name() for process in former} >= {"java", "postgres"}
    with UpAlone(directory) as up:
        up.wait_for("ended [1-9][0-9]* leftover processes", START_SECONDS)
        up.wait_for("PostgreSQL  ", START_SECONDS)
        assert not [process for process in former if process.is_running() and process.status() != "zombie"]
        assert up.end(signal.SIGTERM) == 0
    assert all_parts(directory) == []


@pytest.mark.parametrize("setting", ["kafka_port", "postgres_port", "flink_port", "web_port"])
def test_a_port_in_use_is_named_with_its_setting(directory: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, line = refusal(directory, **{f"VACANCY_LOCAL__{setting.upper()}": str(port)})
    assert status == 1
    assert line.startswith(f"vacancy: port {port} of local.{setting} is in use")


def test_a_disk_that_is_full_is_named(directory: Path) -> None:
    status, line = refusal(directory, VACANCY_LOCAL__MIN_FREE_DISK_MB="1000000000")
    assert status == 1
    assert re.match(
        rf"vacancy: {directory}: \d+ MiB free, less than local.min_free_disk_mb = 1000000000; make room", line
    )


def test_a_directory_that_cannot_be_made_is_named() -> None:
    arguments = [sys.executable, "-m", "vacancy", "up", "--data-dir", "/proc/nowhere"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("vacancy: /proc/nowhere: ")


def test_a_wrong_key_is_named(directory: Path) -> None:
    config = directory.with_name("mistaken.toml")
    config.write_text("[local]\nkafka_prot = 1\n", encoding="utf-8")
    status, line = refusal(directory, "--config", str(config))
    assert status == 2
    assert line.startswith(f"vacancy: {config}: local.kafka_prot: no such setting")
