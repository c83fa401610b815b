"""What the live system is compared with: a record that a row may still be at is never forgotten."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

from tests.harness.histories import encode_usage, usage_event
from tests.harness.oracle import newest_row
from tests.harness.sender import Sender
from tests.harness.table import differences_of_one
from tests.harness.topic import Topic, own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import ensure_topics

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

KEEP_MS = 50
WINDOW_MS = 10


def test_a_host_that_was_silent_and_reports_again_is_compared_by_its_old_event(kafka_broker: KafkaServer) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(kafka)
    sender = Sender(kafka)
    with closing(Topic(kafka, KEEP_MS)) as topic:

        def report(seq: int) -> int:
            """Sends the next event of the host, and gives when it was appended."""
            event = usage_event(seq=seq, monotonic_ns=10_000_000_000 + seq)
            sender.send([encode_usage(event)], event["host_id"])
            sender.flush()
            topic.read()
            return topic.history("host-0")[-1].append_ms

        first_ms = report(0)
        topic.forget()
        row = newest_row(topic.history("host-0"), WINDOW_MS)
        assert row
        numbers = count(1)
        wait_until(lambda: report(next(numbers)) > first_ms + KEEP_MS, 30, "the broker's clock stands still")
        assert differences_of_one(row, topic.history("host-0"), WINDOW_MS) == []

        topic.forget()
        history = topic.history("host-0")
        assert history[0].append_ms >= history[-1].append_ms - KEEP_MS
        (difference,) = differences_of_one(row, topic.history("host-0"), WINDOW_MS)
        assert difference.startswith(f"host-0 is at {first_ms} ms, and no event of it")
