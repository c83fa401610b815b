"""Sources of three kinds, stopped one at a time in random order: the others continue, and doctor names the silent one.

The sources are the host agent, a custom collector (from the guide) and Cinder's pools, with broker, job and database.
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from tests.cinder.conftest import RunningCinder
from tests.cinder.test_pools import FAST
from tests.harness.guides import guide_collector
from tests.harness.installation import config_file, install
from tests.harness.job import Job
from tests.harness.process import Process, own_environment, vacancy
from tests.harness.rows import query
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.settings import AgentSettings, SchedulerSettings
from vacancy.jobs.commands.doctor import Finding, diagnose
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

MAX_AGE = timedelta(seconds=4)
LIMIT_S = 90.0
SEED = 20131
AGES = "SELECT source, age_max_seconds FROM vacancy.source"


class Program(Process):
    """A `vacancy` command that can be killed or suspended, and resumed."""

    def __init__(self, directory: Path, settings: Settings, *arguments: str, pythonpath: Path | None = None) -> None:
        directory.mkdir()
        config_file(directory).write_text(settings_file.dumps(settings), encoding="utf-8")
        super().__init__(
            vacancy(*arguments, "--config", config_file(directory)),
            directory,
            directory / "log",
            own_environment(**{"PYTHONPATH": str(pythonpath)} if pythonpath else {}),
        )

    def off(self, number: signal.Signals) -> None:
        """Sends it a signal that stops its reports."""
        self.process.send_signal(number)

    def on(self) -> None:
        """Resumes it, or starts it again."""
        self.process.send_signal(signal.SIGCONT)
        if self.ended or self._ends():
            self.start()

    def _ends(self) -> bool:
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            return False
        return True


@pytest.fixture
def sources(
    cinder: RunningCinder, kafka_broker: KafkaServer, database: str, tmp_path: Path
) -> Iterator[tuple[Settings, dict[str, Program]]]:
    """The whole running system; returns the sources by name."""
    kafka = own_topics(kafka_broker.bootstrap_servers)
    stack_settings = install(tmp_path / "job", kafka, database, {"parallelism": 1, "window": timedelta(seconds=10)})
    settings = stack_settings.model_copy(update={"scheduler": SchedulerSettings(max_age=MAX_AGE)})
    instances = tmp_path / "instances"
    instances.write_text("5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11 2 1024 10\n", encoding="utf-8")
    guide_collector(tmp_path, instances)
    agent: dict[str, Any] = {"interval": "200 ms", "host_id": "plain"}
    own = agent | {"host_id": "own", "collector": "text_file:TextFileCollector"}

    def at(name: str, **sections: Any) -> tuple[Path, Settings]:
        return tmp_path / name, Settings().model_copy(update={"kafka": kafka} | sections)

    cinder.report("node-9@lvm", FAST)
    with ExitStack() as stack, Job(tmp_path / "job") as job:
        programs = {
            "host": Program(*at("host", agent=AgentSettings.model_validate(agent)), "agent"),
            "text-file": Program(*at("own", agent=AgentSettings.model_validate(own)), "agent", pythonpath=tmp_path),
            "cinder": Program(*at("cinder", storage=cinder.settings(interval="200 ms")), "storage"),
        }
        for program in programs.values():
            stack.enter_context(program)
        job.wait_until_ready()
        yield settings, programs
    cinder.down("node-9@lvm")


@pytest.mark.timeout(600)
def test_each_source_off_at_random(sources: tuple[Settings, dict[str, Program]], cinder: RunningCinder) -> None:
    settings, programs = sources
    rng = random.Random(SEED)

    def findings() -> dict[str, Finding]:
        found = [finding for finding in diagnose(settings) if finding.check == "sources"]
        return {finding.message.split()[0]: finding for finding in found}

    def silent() -> set[str]:
        return {name for name, finding in findings().items() if finding.remedy is not None}

    def says_of(name: str) -> Callable[[], object]:
        return lambda: silent() == {name}

    with closing(psycopg2.connect(settings.postgres.reader_dsn.get_secret_value())) as reader:
        reader.autocommit = True
        wait_until(lambda: set(findings()) == set(programs) and not silent(), LIMIT_S, "not all sources are heard")
        for name in rng.sample(sorted(programs), len(programs)):
            way = rng.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
            programs[name].off(way)
            wait_until(says_of(name), LIMIT_S, f"doctor does not name {name} alone, after {way.name}")
            ages = dict(query(reader, AGES))
            assert ages.pop(name) > MAX_AGE.total_seconds()
            assert max(ages.values()) < MAX_AGE.total_seconds()
            finding = findings()[name]
            assert f"{name} is silent: 1 of the 1 hosts it speaks for, last heard" in finding.message
            programs[name].on()
            wait_until(lambda: not silent(), LIMIT_S, f"{name} is not heard again")
        # `vacancy storage` still runs, but Cinder considers the volume service down, so the pool is no longer sent.
        cinder.down("node-9@lvm")
        wait_until(says_of("cinder"), LIMIT_S, "doctor does not name cinder alone")
        assert "volume services" in str(findings()["cinder"].remedy)
