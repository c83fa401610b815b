"""Bad records among good ones: every good one counts, every bad one becomes a dead letter, the job never restarts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.harness.histories import encode_usage, usage_event
from tests.harness.installation import install
from tests.harness.job import Job, ask_flink
from tests.harness.oracle import COUNTERS
from tests.harness.poison import HOST, beyond_the_bounds
from tests.harness.sender import Sender
from tests.harness.table import TABLE_SECONDS, open_table, wait_for_table
from tests.harness.topic import count_records, histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka import dead_letters
from vacancy.schemas.events import SINGLE_OBJECT_HEADER_BYTES as HEADER_BYTES
from vacancy.schemas.events import SINGLE_OBJECT_MARKER, Event

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

FULL = "VACANCY_TEST_FULL_SIZE" in os.environ
"""The whole size takes minutes on two cores, most of them to make, send and compare the records."""
HOSTS = 1000 if FULL else 100
EVENTS_PER_HOST = 100
BAD = HOSTS * EVENTS_PER_HOST // 10
LARGE_EVERY = 100
"""One in so many bad records is of 1 MiB."""
LARGE_BYTES = 1 << 20
WINDOW = timedelta(hours=1)


class Bad(NamedTuple):
    """A bad record, and what its dead letter must give for a reason."""

    payload: bytes | None
    reason: str
    key: str | None = None
    """None: any host's."""


@pytest.mark.timeout(900)
def test_good_ones_count_and_bad_ones_become_dead_letters(
    kafka_broker: KafkaServer, database: str, tmp_path: Path
) -> None:
    random = Random(0)
    kafka = own_topics(kafka_broker.bootstrap_servers)
    settings = install(tmp_path, kafka, database, {"window": WINDOW, "emit": "1s", "checkpoint_interval": "1s"})
    sender = Sender(kafka)
    reasons: dict[bytes | None, str] = {}
    payload: bytes | None
    bad = bad_records(random)
    turns = [True] * (HOSTS * EVENTS_PER_HOST) + [False] * BAD
    random.shuffle(turns)
    good = good_records(random)
    for is_good in turns:
        if is_good:
            host_id, payload = next(good)
            sender.send([payload], host_id)
        else:
            payload, reason, key = next(bad)
            reasons[payload] = reason
            sender.send([payload], key or f"host-{random.randrange(HOSTS)}")
    sender.flush()
    topic = read_topic(kafka, kafka.usage_topic)
    assert len(topic) == len(turns)
    fleet = histories(record for record in topic if record.value not in reasons)
    assert sum(map(len, fleet.values())) == HOSTS * EVENTS_PER_HOST

    with Job(tmp_path) as job, open_table(settings.postgres.reader_dsn) as table:
        job.wait_until_ready()
        wait_for_table(table, fleet, round(WINDOW.total_seconds() * 1000), sender)
        assert {row["samples"] for row in table.rows().values()} == {EVENTS_PER_HOST}
        wait_until(
            lambda: count_records(kafka, kafka.dead_letter_topic) >= BAD,
            TABLE_SECONDS,
            f"fewer than {BAD} dead letters",
        )
        job.wait_for_checkpoint()
        assert ask_flink(settings) == ("RUNNING", [])
        job.stop()

    letters = list(dead_letters.read(kafka))
    found = {(letter.partition, letter.offset): letter for letter in letters}
    assert len(found) == len(letters) == BAD
    for record in topic:
        if record.value not in reasons:
            continue
        letter = found.pop((record.partition, record.offset))
        assert letter.topic == kafka.usage_topic
        assert letter.payload == (record.value or b"")
        assert letter.append_time is not None
        assert round(datetime.fromisoformat(letter.append_time).timestamp() * 1000) == record.append_ms
        assert re.match(reasons[record.value], letter.reason or ""), (letter.reason, reasons[record.value])
    assert not found


def good_records(random: Random) -> Iterator[tuple[str, bytes]]:
    """Each host's events in turn, a second apart on its own clock."""
    counters = {name: [0] * HOSTS for name in COUNTERS}
    for number in range(EVENTS_PER_HOST):
        for host in range(HOSTS):
            for values in counters.values():
                values[host] += random.randint(0, 1_000_000)
            event = usage_event(
                host_id=f"host-{host}",
                seq=number,
                monotonic_ns=(number + 1) * 1_000_000_000,
                vcpus_allocated=random.randint(0, 4),
                **{name: values[host] for name, values in counters.items()},
            )
            yield f"host-{host}", encode_usage(event)


def bad_records(random: Random) -> Iterator[Bad]:
    """Bad records of all kinds in turn, without end."""
    good = encode_usage(usage_event(recent_consumers=["a2b4e0a5-6c0f-4a1e-9d4d-0a3c55f0f6a1"]))
    header, datum = good[:HEADER_BYTES], good[HEADER_BYTES:]
    beyond = [case for case in beyond_the_bounds() if case.event is Event.USAGE]
    assert len(beyond) < BAD / 5, "not all of them would be sent"
    senseless = cycle(Bad(case.payload, f"invalid: .*{case.name}", HOST) for case in beyond)
    number = 0
    while True:
        forged_length = b"\xfe\xff\xff\xff" + random.choice([b"\x0f", b"\xff\xff\xff\xff\x01"])
        fingerprint = random.randbytes(8)
        kinds = [
            Bad(b"\x01" + random.randbytes(random.randint(0, 400)), "not an Avro single-object encoding: starts with"),
            Bad(good[: random.randint(HEADER_BYTES, len(good) - 1)], "undecodable: "),
            Bad(SINGLE_OBJECT_MARKER + fingerprint + datum, f"unknown schema fingerprint {fingerprint.hex()}$"),
            Bad(header + forged_length + datum[1:], "undecodable: "),
            Bad(good[:-1] + forged_length, "undecodable: "),
            Bad(good + random.randbytes(random.randint(1, 50)), r"undecodable: \d+ bytes left over$"),
            next(senseless),
            next(senseless),
            Bad(encode_usage(usage_event(host_id="another")), 'invalid: host_id is "another", but the key is "host-'),
            Bad(random.choice([b"", None]), "empty payload$"),
        ]
        for kind in kinds:
            number += 1
            if number % LARGE_EVERY == 0:
                large = header + random.randbytes(LARGE_BYTES - HEADER_BYTES)
                yield Bad(large, "payload of more than 65536 bytes$")
            else:
                yield kind
