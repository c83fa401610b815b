"""What a user gets wrong, or finds broken: one line on stderr that says what to do, the right status, no traceback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from pydantic import SecretStr

from tests.harness.agent import what_an_agent_says
from tests.harness.process import Ended
from tests.harness.servers import reachable_directory
from tests.harness.stack import all_parts
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.jobs.local.stack import DATABASE

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

SETTINGS_COMMANDS = ["up", "agent", "simulate --hosts 1", "job run", "hosts", "dead-letters", "migrate", "doctor"]
SETTINGS_COMMANDS += ["claim --vcpus 1", "release 5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11", "claims"]
NEWER = "9999_of_the_future"
NOWHERE = '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[postgres]\n' + "".join(
    f'{role}_dsn = "postgresql://somebody:hush@127.0.0.1:1/vacancy"\n'
    for role in ("owner", "job", "scheduler", "reader")
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file to be written."""
    return tmp_path / "mine.toml"


@pytest.fixture
def stack_directory() -> Iterator[Path]:
    """The directory of a stack, below one that PostgreSQL's user can reach."""
    parent = reachable_directory()
    yield parent / "stack"
    shutil.rmtree(parent)


@pytest.mark.parametrize("command", SETTINGS_COMMANDS)
def test_wrong_keys_are_all_named_at_once(command: str, config: Path) -> None:
    config.write_text('[job]\nwindw = "10s"\nemit = "5ms"\n[kafak]\n', encoding="utf-8")
    ended = Ended(config.parent, *command.split(), "--config", config)
    if command == "doctor":  # which reports, also on the settings
        assert (ended.status, ended.errors) == (1, "")
        line = ended.output
    else:
        assert (ended.status, ended.output) == (2, "")
        line = ended.error()
    assert f"{config}: " in line
    for mistake in ("job.windw: no such setting (see docs/settings.md)", "kafak: no such setting", "job.emit: "):
        assert mistake in line


def test_what_is_no_toml_is_named(config: Path) -> None:
    config.write_text("[job\n", encoding="utf-8")
    ended = Ended(config.parent, "hosts", "--config", config)
    assert ended.status == 2
    assert ended.error().startswith(f"{config}: not TOML: ")


def test_an_unreachable_server_is_named(config: Path) -> None:
    no_broker = r"no Kafka broker answers at 127\.0\.0\.1:1 within \d+ s: .*; start it, or set kafka\."
    no_database = r"PostgreSQL at 127\.0\.0\.1:1, .* cannot be reached: Connection refused; start it, or correct"
    messages = {
        "job run": no_broker,
        "simulate --hosts 1": no_broker,
        "dead-letters": no_broker,
        "hosts": no_database,
        "hosts --watch": no_database,
        "migrate": no_database,
    }
    config.write_text(NOWHERE, encoding="utf-8")
    # All at once, since what they do is wait.
    with ThreadPoolExecutor(len(messages)) as pool:
        results = pool.map(lambda command: Ended(config.parent, *command.split(), "--config", config), messages)
        for message, ended in zip(messages.values(), results, strict=True):
            assert (ended.status, ended.output) == (1, "")
            assert re.match(message, ended.error())
            assert "hush" not in ended.errors


def test_doctor_names_every_server_that_is_unreachable(config: Path) -> None:
    config.write_text(NOWHERE, encoding="utf-8")
    ended = Ended(config.parent, "doctor", "--config", config)
    assert (ended.status, ended.errors) == (1, "")
    wrong = [line for line in ended.output.splitlines() if line.startswith("!! ")]
    for check in ("broker", "postgres.owner_dsn"):
        assert [line for line in wrong if re.match(rf"!! {check}: .*: start it, or ", line)], ended.output
    not_checked = "postgres.job_dsn, postgres.scheduler_dsn, postgres.reader_dsn, tables"
    assert [line for line in wrong if line.startswith(f"!! database: not checked: {not_checked}")], ended.output
    assert "hush" not in ended.output


def test_the_agent_waits_for_its_broker_and_says_so_once(config: Path) -> None:
    config.write_text(NOWHERE + '[agent]\ninterval = "100ms"\n', encoding="utf-8")
    lines, rest = what_an_agent_says(config.parent, "--config", config)
    assert re.search("topic vacancy.usage at 127.0.0.1:1 takes no events: .*; keeping the newest", "".join(lines))
    assert re.search("stopped; 0 usage events delivered, .* not delivered within 5 s: ", rest)
    assert len(rest.splitlines()) == 1
    assert "Traceback" not in rest


def test_a_port_in_use_is_named_by_the_job(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.write_text(f"[local]\nflink_port = {port}\n", encoding="utf-8")
        ended = Ended(config.parent, "job", "run", "--config", config)
    assert (ended.status, ended.output) == (1, "")
    assert ended.error().startswith(f"port {port} of local.flink_port is in use; ")


def test_a_checkpoint_directory_that_cannot_be_made_is_named(config: Path) -> None:
    config.write_text('[job]\ncheckpoint_dir = "file:///proc/nowhere/checkpoints"\n', encoding="utf-8")
    ended = Ended(config.parent, "job", "run", "--config", config)
    assert (ended.status, ended.output) == (1, "")
    assert re.match(r"/proc/nowhere/checkpoints cannot be made: .*; set job\.checkpoint_dir", ended.error())


def test_a_job_without_tables_is_told_to_migrate(config: Path, kafka_broker: KafkaServer, database: str) -> None:
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka_broker.bootstrap_servers}"\n[postgres]\njob_dsn = "{database}"\n',
        encoding="utf-8",
    )
    ended = Ended(config.parent, "job", "run", "--config", config)
    assert (ended.status, ended.output) == (1, "")
    assert re.search(r"has no Vacancy tables; run `vacancy migrate`$", ended.error())


def test_a_data_directory_with_too_little_room_is_refused(stack_directory: Path, config: Path) -> None:
    config.write_text("[local]\nmin_free_disk_mb = 1000000000\n", encoding="utf-8")
    ended = Ended(config.parent, "up", "--data-dir", stack_directory, "--config", config)
    assert ended.status == 1
    assert re.match(r".*: \d+ MiB free, less than local\.min_free_disk_mb = 1000000000; make room, or", ended.error())
    assert all_parts(stack_directory) == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_data_directory_that_fills_up_is_named(stack_directory: Path, config: Path) -> None:
    """On a file system of 16 MiB, which is less than a database needs, and with the check of its room off."""
    config.write_text("[local]\nmin_free_disk_mb = 0\n", encoding="utf-8")
    stack_directory.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=711", "tmpfs", stack_directory], check=True)
    try:
        ended = Ended(config.parent, "up", "--data-dir", stack_directory, "--config", config, seconds=180)
        assert ended.status == 1
        assert re.match(rf"initdb ended with status 1; {stack_directory}/.*: No space left on device", ended.error())
        assert all_parts(stack_directory) == []
    finally:
        subprocess.run(["umount", stack_directory], check=True)


def test_a_database_of_a_newer_version_is_left_alone(config: Path, database: str) -> None:
    migrate(SecretStr(database))
    pretend_to_be_newer(database)
    config.write_text(
        "[postgres]\n" + "".join(f'{role}_dsn = "{database}"\n' for role in ("owner", "reader")), encoding="utf-8"
    )
    ended = Ended(config.parent, "migrate", "--config", config)
    assert (ended.status, ended.output) == (1, "")
    assert re.search(rf"is of a newer version \(it has {NEWER}\): upgrade vacancy", ended.error())
    ended = Ended(config.parent, "doctor", "--config", config)
    assert ended.status == 1
    assert f"!! tables: the database is of a newer version (it has {NEWER}): upgrade vacancy" in ended.output


@pytest.mark.timeout(300)
def test_a_stack_whose_database_is_newer_does_not_start(stack_directory: Path) -> None:
    """The database is what a former `up` has left; of that nothing else is looked at before it."""
    stack_directory.mkdir(mode=0o711)
    server = PostgresServer(stack_directory / "postgres", stack=stack_directory)
    server.start()
    try:
        execute(server.owner_dsn, f"CREATE DATABASE {DATABASE}")
        dsn = server.owner_dsn.removesuffix("/postgres") + f"/{DATABASE}"
        migrate(SecretStr(dsn))
        pretend_to_be_newer(dsn)
    finally:
        server.stop()
    ended = Ended(stack_directory.parent, "up", "--data-dir", stack_directory, seconds=180)
    assert ended.status == 1
    assert re.search(rf"is of a newer version \(it has {NEWER}\): upgrade vacancy", ended.error())
    assert all_parts(stack_directory) == []


def pretend_to_be_newer(dsn: str) -> None:
    """Records a migration that this release does not have."""
    execute(dsn, f"INSERT INTO vacancy.schema_migration (name, sha256) VALUES ('{NEWER}', '')")


def execute(dsn: str, statement: str) -> None:
    """Runs a statement outside of a transaction."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
