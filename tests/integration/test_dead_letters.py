"""`vacancy dead-letters` on a real topic."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tests.harness.topic import own_topics
from vacancy.connectors.kafka.client import ensure_topics, producer
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.commands.dead_letters import command
from vacancy.schemas.errors import VacancyError

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer


@pytest.fixture
def settings(kafka_broker: KafkaServer) -> KafkaSettings:
    """Topics that no other test has."""
    return own_topics(kafka_broker.bootstrap_servers, partitions=4)


@pytest.fixture
def run(settings: KafkaSettings, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command with the test's topics."""
    config = tmp_path / "vacancy.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{settings.bootstrap_servers}"\n'
        f'dead_letter_topic = "{settings.dead_letter_topic}"\n'
    )

    def run_command(*arguments: str, columns: int = 200) -> Result:
        runner = CliRunner(env={"COLUMNS": str(columns)})
        return runner.invoke(command, ["--config", str(config), *arguments], standalone_mode=False)

    return run_command


def _write(settings: KafkaSettings, payloads: list[bytes]) -> None:
    """Dead letters as the job writes them, one after the other; the offset is the number."""
    client = producer(settings)
    for number, payload in enumerate(payloads):
        headers = {
            "vacancy.topic": "vacancy.usage",
            "vacancy.partition": "3",
            "vacancy.offset": str(number),
            "vacancy.append_time": "2026-01-02T03:04:05.678Z",
            "vacancy.reason": f"undecodable: [red]{number}",
        }
        client.produce(
            settings.dead_letter_topic, payload, headers={name: text.encode() for name, text in headers.items()}
        )
        assert client.flush(20) == 0


def test_an_empty_topic_is_fine(settings: KafkaSettings, run: Callable[..., Result]) -> None:
    ensure_topics(settings)
    assert json.loads(run("--json").stdout) == []
    assert json.loads(run("--json", "--limit", "3").stdout) == []
    assert run().stdout.strip() == "0 dead letters"


def test_every_dead_letter_shows_with_its_coordinates_reason_and_payload(
    settings: KafkaSettings, run: Callable[..., Result]
) -> None:
    ensure_topics(settings)
    payloads = [b"", b"\x00", bytes(range(256)), bytes(2**20)]
    _write(settings, payloads)
    for _ in range(2):  # nothing is committed, so the second run sees the same
        letters = sorted(json.loads(run("--json").stdout), key=lambda letter: letter["offset"])
        assert [base64.b64decode(letter.pop("payload")) for letter in letters] == payloads
        assert letters[2] == {
            "append_time": "2026-01-02T03:04:05.678Z",
            "topic": "vacancy.usage",
            "partition": 3,
            "offset": 2,
            "table": None,
            "key": None,
            "reason": "undecodable: [red]2",
            "payload_bytes": 256,
            "payload_sha256": None,
        }
    table = run().stdout
    assert "undecodable: [red]2" in table
    assert "0001020304050607 …" in table
    assert "4 dead letters" in table


def test_a_refused_row_and_a_payload_that_was_cut_say_what_they_were(
    settings: KafkaSettings, run: Callable[..., Result]
) -> None:
    ensure_topics(settings)
    client = producer(settings)
    headers = {
        "vacancy.table": "vacancy.host",
        "vacancy.key": "host-7",
        "vacancy.append_time": "2026-01-02T03:04:05.678Z",
        "vacancy.reason": "refused: ERROR: no",
        "vacancy.payload_bytes": "300000",
        "vacancy.payload_sha256": "5e" * 32,
    }
    client.produce(
        settings.dead_letter_topic, b'{"host_id', headers={name: text.encode() for name, text in headers.items()}
    )
    assert client.flush(20) == 0
    (letter,) = json.loads(run("--json").stdout)
    assert base64.b64decode(letter.pop("payload")) == b'{"host_id'
    assert letter == {
        "append_time": "2026-01-02T03:04:05.678Z",
        "topic": None,
        "partition": None,
        "offset": None,
        "table": "vacancy.host",
        "key": "host-7",
        "reason": "refused: ERROR: no",
        "payload_bytes": 300_000,
        "payload_sha256": "5e" * 32,
    }
    table = run().stdout
    assert "vacancy.host" in table
    assert "host-7" in table
    assert "300000" in table


def test_a_limit_leaves_the_newest_oldest_first(settings: KafkaSettings, run: Callable[..., Result]) -> None:
    ensure_topics(settings)
    _write(settings, [b"x"] * 20)
    letters = json.loads(run("--json", "--limit", "5").stdout)
    assert len(letters) == 5
    # Those of the same millisecond may stand in either order.
    assert {letter["offset"] for letter in letters} <= set(range(10, 20))


def test_it_ends_while_dead_letters_keep_coming_in(settings: KafkaSettings, run: Callable[..., Result]) -> None:
    ensure_topics(settings)
    _write(settings, [b"x"] * 20)
    client = producer(settings)
    done = threading.Event()

    def keep_writing() -> None:
        while not done.wait(0.005):
            client.produce(settings.dead_letter_topic, b"y")
            client.poll(0)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        assert len(json.loads(run("--json").stdout)) >= 20
    finally:
        done.set()
        writer.join()
        client.flush(20)


def test_records_without_our_headers_show_as_far_as_they_go(
    settings: KafkaSettings, run: Callable[..., Result]
) -> None:
    ensure_topics(settings)
    client = producer(settings)
    odd: dict[str, str | bytes | None] = {
        "vacancy.offset": b"x",
        "vacancy.partition": b"9" * 5000,
        "vacancy.reason": b"\xff",
    }
    client.produce(settings.dead_letter_topic, b"x", headers=odd)
    client.produce(settings.dead_letter_topic, None)
    assert client.flush(20) == 0
    first, second = sorted(json.loads(run("--json").stdout), key=lambda letter: -letter["payload_bytes"])
    assert (first["offset"], first["partition"], first["reason"], first["topic"]) == (None, None, "�", None)
    assert (second["payload"], second["reason"]) == ("", None)


def test_a_topic_that_does_not_exist_is_one_line(run: Callable[..., Result]) -> None:
    error = run("--json").exception
    assert isinstance(error, VacancyError)
    assert "does not exist" in str(error)
