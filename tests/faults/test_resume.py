"""Whatever happened to the hosts and wherever the job was stopped, in the end the table equals the oracle."""

from __future__ import annotations

import os
from collections import deque
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.harness.histories import encode_usage, host_history
from tests.harness.installation import install
from tests.harness.job import Job
from tests.harness.seeds import draws, seed_of
from tests.harness.sender import Sender
from tests.harness.table import open_table, wait_for_table
from tests.harness.topic import histories, own_topics, read_topic
from vacancy.connectors.kafka import dead_letters

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

HOSTS = 200
EXAMPLES = int(os.environ.get("VACANCY_TEST_EXAMPLES", "1"))
CASES = [(1000, "100ms"), (3000, "1s"), (20_000, "500ms")]
BAD = [bytes([number]) * 20 for number in range(20)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("example", range(EXAMPLES))
@pytest.mark.parametrize(("window_ms", "emit"), CASES)
@draws()
def test_the_table_equals_the_oracle_after_every_stop(
    window_ms: int,
    emit: str,
    example: int,
    kept: int | None,
    kafka_broker: KafkaServer,
    database: str,
    tmp_path: Path,
) -> None:
    """A fleet's histories go to the topic chunk by chunk, so that append times are the broker's own.

    On the way the job is started, stopped (in good order or killed, as drawn) and started again::

        chunks  |-----------------------------------------|
        job          |-------x       |---x       |-----------
    """
    # Not drawn by Hypothesis: an example takes half a minute, so there would be no shrinking, and of few examples the
    # first is always its simplest.
    random = Random(f"{seed_of(kept)} {window_ms} {emit} {example}")
    kafka = own_topics(kafka_broker.bootstrap_servers)
    job = {"window": timedelta(milliseconds=window_ms), "emit": emit, "checkpoint_interval": "300ms"}
    settings = install(tmp_path, kafka, database, job)
    sender = Sender(kafka)
    chunks = deque(fleet_in_chunks(random))

    def send(count: int) -> None:
        for _ in range(min(count, len(chunks))):
            for message in chunks.popleft():
                sender.send([message.payload], message.host_id)
            sender.flush()
            sender.poll(random.uniform(0.002, 0.08))

    with open_table(settings.postgres.reader_dsn) as table:
        send(random.randint(0, 30))
        for _ in range(random.randint(1, 2)):
            with Job(tmp_path) as running:
                running.wait_until_ready()
                send(random.randint(0, 20))
                if random.random() < 0.8:
                    running.wait_for_checkpoint()
                send(random.randint(0, 20))
                if random.random() < 0.5:
                    running.stop()
            send(random.randint(0, 15))
        with Job(tmp_path) as running:
            send(random.randint(0, 10))
            running.wait_until_ready()
            send(len(chunks))
            topic = read_topic(kafka, kafka.usage_topic)
            fleet = histories(topic)
            assert len(fleet) == HOSTS
            wait_for_table(table, fleet, window_ms, sender)
            running.stop()
    letters = {(letter.partition, letter.offset): letter.payload for letter in dead_letters.read(kafka)}
    assert letters == {(record.partition, record.offset): record.value for record in topic if record.value in BAD}


class Message(NamedTuple):
    """What goes to the usage topic; the host is the key."""

    host_id: str
    payload: bytes


def fleet_in_chunks(random: Random) -> list[list[Message]]:
    """A fleet's histories and some bad records, mixed but for each host's own order, cut at random places."""
    fleet: dict[str, deque[Message]] = {}
    for number in range(HOSTS):
        host_id = f"host-{number}"
        events = [record.event for record in host_history(random, host_id)]
        fleet[host_id] = deque(Message(host_id, encode_usage(event)) for event in events)
    fleet["bad"] = deque(Message("bad", payload) for payload in BAD)
    turns = [host_id for host_id, messages in fleet.items() for _ in messages]
    random.shuffle(turns)
    chunks: list[list[Message]] = [[]]
    for host_id in turns:
        if random.random() < 0.07:
            chunks.append([])
        chunks[-1].append(fleet[host_id].popleft())
    return chunks
