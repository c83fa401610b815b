"""A restart is for trouble that passes by itself; what would fail again next time is put aside, and counted.

One job, and one thing after the other into the input of each of its operators: the job never restarts, what is beside
the bad thing arrives, and what is put aside shows in the dead letters as far as their topic takes it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.harness.fuzz import fuzz, read_records
from tests.harness.histories import BASE_MS, encode_usage, usage_event
from tests.harness.installation import config_file, install
from tests.harness.job import Job, ask_flink
from tests.harness.process import READY_SECONDS, Ended
from tests.harness.topic import Reader, own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka import dead_letters
from vacancy.connectors.kafka.client import client_config, ensure_topics, producer
from vacancy.connectors.kafka.dead_letters import DeadLetter
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import READS_AS_HEADER, Event, newest

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

SECONDS = 120.0
FUZZ_RECORDS = int(os.environ.get("VACANCY_TEST_FUZZ_JOB_RECORDS", "4000"))
FUZZ_SEED = 1
YEAR_10000_MS = 253_402_300_800_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
INVENTORY = Encoder(Event.INVENTORY)
HUGE = encode_usage(usage_event(host_id="huge", recent_consumers=[str(uuid.UUID(int=n)) for n in range(100_000)]))


class Bench:
    """The topics and the table that a job works between."""

    def __init__(self, kafka: KafkaSettings, dsn: str) -> None:
        self.kafka = kafka
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True
        self._admin = AdminClient(client_config(kafka))
        self._producers: dict[str, Producer] = {}
        self._seq = 0

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs a statement; its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def produce(
        self, topic: str, key: str | bytes | None, value: bytes | None, compression: str = "none", **more: Any
    ) -> None:
        """Has a record written, in a batch of its own; ``more`` are its headers, or its timestamp."""
        if compression not in self._producers:
            config = {"compression.type": compression, "message.max.bytes": 100_000_000}
            self._producers[compression] = Producer(client_config(self.kafka) | config)
        client = self._producers[compression]
        errors: list[object] = []
        client.produce(topic, value, key, on_delivery=lambda error, _: errors.append(error), **more)
        assert client.flush(60) == 0
        assert errors == [None]

    def produce_many(self, topic: str, key: str, values: Iterable[bytes]) -> None:
        """Has records of one key written, as fast as it goes."""
        client = producer(self.kafka)
        for value in values:
            client.produce(topic, value, key)
        assert client.flush(60) == 0

    def usage(self, host: str, compression: str = "none", **fields: Any) -> None:
        """Sends a good usage event."""
        self._seq += 1
        event = usage_event(host_id=host, seq=self._seq, monotonic_ns=self._seq * 10**9, **fields)
        self.produce(self.kafka.usage_topic, host, encode_usage(event), compression)

    def inventory(self, host: str, compression: str = "none", **fields: Any) -> None:
        """Sends a good inventory event."""
        event = {
            "host_id": host,
            "boot_id": "boot",
            "agent_time": BASE_MS,
            "name": host,
            "status": "ENABLED",
            "inventories": {},
            "reporting_interval_ms": 1000,
            "agent_version": "1",
        }
        self.produce(self.kafka.inventory_topic, host, INVENTORY.encode(event | fields), compression)

    def configure(self, topic: str, **settings: str) -> None:
        """Changes settings of a topic; underscores stand for dots."""
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        (changed,) = self._admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
        ).values()
        changed.result(30)

    def delete(self, topic: str) -> None:
        """Deletes a topic."""
        (deleted,) = self._admin.delete_topics([topic]).values()
        deleted.result(30)

    def wait_for(self, table: str, *hosts: str) -> None:
        """Waits until the hosts' rows are there."""
        seen: set[str] = set()

        def there() -> bool:
            seen.update(host for (host,) in self.execute(f"SELECT host_id FROM vacancy.{table}"))
            return seen.issuperset(hosts)

        wait_until(there, SECONDS, f"{table} lacks some of {hosts}")

    def letter(self, key: str) -> DeadLetter:
        """The dead letter with that key, once it is there."""
        found: list[DeadLetter] = []

        def there() -> bool:
            found[:] = [letter for letter in dead_letters.read(self.kafka) if letter.key == key]
            return bool(found)

        wait_until(there, SECONDS, f"no dead letter of {key}")
        return found[0]


@pytest.mark.timeout(1200)
def test_what_would_fail_again_is_put_aside(kafka_broker: KafkaServer, database: str, tmp_path: Path) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers)
    settings = install(tmp_path, kafka, database, {"emit": "200ms", "checkpoint_interval": "1 s"})
    with closing(Bench(kafka, database)) as bench, Job(tmp_path) as job:
        job.wait_until_ready()
        _sources(bench)
        _decoders(bench)
        _odd_records(bench)
        _fuzz(bench, tmp_path / "fuzz")
        _tables(bench)
        _dead_letters(bench)
        job.wait_for_checkpoint()
        assert ask_flink(settings) == ("RUNNING", [])
        job.stop()
    _waiting_letters_are_resent(kafka, tmp_path)
    _another_state_backend_is_said(settings, tmp_path)
    _a_damaged_checkpoint_is_said(tmp_path)


def _sources(bench: Bench) -> None:
    """Each codec, by the producer's hand and by the broker's, on both topics."""
    hosts = []
    for codec in CODECS:
        for topic in (bench.kafka.usage_topic, bench.kafka.inventory_topic):
            bench.configure(topic, compression_type="producer")
        bench.usage(f"{codec}-by-producer", codec)
        bench.inventory(f"{codec}-by-producer", codec)
        for topic in (bench.kafka.usage_topic, bench.kafka.inventory_topic):
            bench.configure(topic, compression_type="uncompressed" if codec == "none" else codec)
        bench.usage(f"{codec}-by-broker")
        bench.inventory(f"{codec}-by-broker")
        hosts += [f"{codec}-by-producer", f"{codec}-by-broker"]
    bench.wait_for("host", *hosts)
    bench.wait_for("host_inventory", *hosts)


def _decoders(bench: Bench) -> None:
    """Bad records, and one that is larger than any dead letter."""
    bench.produce(bench.kafka.usage_topic, "rubbish", b"rubbish")
    bench.produce(bench.kafka.inventory_topic, "rubbish\x1b[2J", b"rubbish")
    bench.produce(bench.kafka.usage_topic, "thief", encode_usage(usage_event(host_id="none-by-broker")))
    assert len(HUGE) > 2 * 1024 * 1024
    bench.configure(bench.kafka.usage_topic, compression_type="producer")
    bench.produce(bench.kafka.usage_topic, "huge", HUGE, "zstd")
    bench.usage("after-poison")
    bench.wait_for("host", "after-poison")
    assert bench.letter("rubbish").payload == b"rubbish"
    assert bench.letter("rubbish\x1b[2J").topic == bench.kafka.inventory_topic
    assert 'but the key is "thief"' in (bench.letter("thief").reason or "")
    huge = bench.letter("huge")
    assert huge.reason == "payload of more than 65536 bytes"
    assert huge.payload_bytes == len(HUGE)
    assert huge.payload_sha256 == hashlib.sha256(HUGE).hexdigest()
    assert len(huge.payload) >= 1024 * 1024
    assert HUGE.startswith(huge.payload)


def _odd_records(bench: Bench) -> None:
    """What Kafka takes, and no producer of ours sends: keys, headers, times and batches of any kind."""
    usage, inventory = bench.kafka.usage_topic, bench.kafka.inventory_topic
    good = encode_usage(usage_event(host_id="odd", seq=1, monotonic_ns=1))
    unknown = b"\xc3\x01" + b"12345678" + good[10:]
    before = len(list(dead_letters.read(bench.kafka)))
    for key, value in ((b"\xff\xfe\xed\xa0\x80", good), (None, good), (None, None), (b"", b""), (b"empty", None)):
        bench.produce(usage, key, value)
    bench.produce(inventory, b"\xff", None)
    bench.produce(inventory, b"x" * 100_000, None)
    for header in ((READS_AS_HEADER, None), (READS_AS_HEADER, b"z" * 500_000), ("\u202e", b"x" * 500_000)):
        bench.produce(usage, "odd", unknown, headers=[header, header])
    for codec in CODECS:
        transactions = Producer(
            client_config(bench.kafka) | {"transactional.id": f"odd-{codec}", "compression.type": codec}
        )
        transactions.init_transactions(30)
        transactions.begin_transaction()
        event = usage_event(host_id=f"in-transaction-{codec}", seq=1, monotonic_ns=1)
        transactions.produce(usage, encode_usage(event), f"in-transaction-{codec}")
        transactions.commit_transaction(30)
    bench.wait_for("host", *(f"in-transaction-{codec}" for codec in CODECS))
    wait_until(lambda: len(list(dead_letters.read(bench.kafka))) - before == 10, SECONDS, "not 10 more dead letters")
    _odd_times(bench)


def _odd_times(bench: Bench) -> None:
    """Times that no broker says, but a producer where the topic takes its times."""
    topic, tries = bench.kafka.usage_topic, itertools.count()
    bench.configure(topic, message_timestamp_type="CreateTime", message_timestamp_after_max_ms=str(2**63 - 1))
    for append_ms in (YEAR_10000_MS, 2**63 - 1):
        wanted = f"append_time is {append_ms}, not 0 to "

        def refused(append_ms: int = append_ms, wanted: str = wanted) -> bool:
            # The topic's setting takes a while to reach the broker.
            key = f"at-{next(tries)}"
            bench.produce(topic, key, b"rubbish", timestamp=append_ms)
            return wanted in (bench.letter(key).reason or "")

        wait_until(refused, SECONDS, f"no dead letter says that {wanted}")
    bench.configure(topic, message_timestamp_type="LogAppendTime")
    bench.usage("after-odd-times")
    bench.wait_for("host", "after-odd-times")


def _fuzz(bench: Bench, directory: Path) -> None:
    """Whatever the decoders take the database takes as well, and every view can be read."""
    directory.mkdir()
    before = len(list(dead_letters.read(bench.kafka)))
    counts = fuzz(directory, FUZZ_SEED, FUZZ_RECORDS, directory / "records")
    topics = {Event.USAGE: bench.kafka.usage_topic, Event.INVENTORY: bench.kafka.inventory_topic}
    refused = counts[1] + counts[3]
    # Compaction would take records of one key away before the job has read them.
    bench.configure(bench.kafka.inventory_topic, min_compaction_lag_ms=str(3_600_000))
    client = producer(bench.kafka, queue_buffering_max_messages=FUZZ_RECORDS)
    undelivered: Counter[str] = Counter()

    def answered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            undelivered[str(error)] += 1

    for record in read_records(directory / "records"):
        if record.event is Event.INVENTORY and record.key is None:
            refused -= 1  # by the broker, since the topic is compacted
            continue
        client.produce(topics[record.event], record.payload, record.key, on_delivery=answered)
        client.poll(0)
    assert client.flush(60) == 0

    def letters_written() -> int:
        return sum(reader.ends().values()) - before

    with closing(Reader(bench.kafka, bench.kafka.dead_letter_topic)) as reader:
        wait_until(
            lambda: letters_written() >= refused,
            SECONDS + FUZZ_RECORDS / 500,
            lambda: f"{letters_written()} of {refused} dead letters; not delivered: {dict(undelivered)}",
        )
    letters = list(dead_letters.read(bench.kafka))
    bench.usage("after-fuzz")
    bench.inventory("after-fuzz")
    bench.wait_for("host", "after-fuzz")
    bench.wait_for("host_inventory", "after-fuzz")
    assert len(letters) - before == refused
    assert [letter.reason for letter in letters if letter.table] == []
    views = [name for (name,) in bench.execute("SELECT viewname FROM pg_views WHERE schemaname = 'vacancy'")]
    assert "schedulable_host" in views
    for view in views:
        bench.execute(f"SELECT * FROM vacancy.{view}")
    for field in newest(Event.USAGE).document["fields"]:
        column = field["name"]
        if column in ("vcpus_capacity", "memory_mb_capacity", "disk_gb_capacity", "instances"):
            ((least, most),) = bench.execute(f"SELECT min({column}), max({column}) FROM vacancy.host")
            assert field["minimum"] <= least <= most <= field["maximum"], column


def _tables(bench: Bench) -> None:
    """Rows that the database refuses."""
    for table in ("host", "host_inventory"):
        bench.execute(f"ALTER TABLE vacancy.{table} ADD CONSTRAINT refused CHECK (host_id NOT LIKE 'refused%')")
    for host in ("refused", "beside-refused"):
        bench.usage(host)
        bench.inventory(host, zone="zone-1")
    bench.wait_for("host", "beside-refused")
    bench.wait_for("host_inventory", "beside-refused")
    found: dict[str | None, DeadLetter] = {}

    def both() -> bool:
        found.update({letter.table: letter for letter in dead_letters.read(bench.kafka) if letter.key == "refused"})
        return {"vacancy.host", "vacancy.host_inventory"} <= found.keys()

    wait_until(both, SECONDS, "the refused rows are no dead letters")
    letter = found["vacancy.host_inventory"]
    assert "violates check constraint" in (letter.reason or "")
    assert json.loads(letter.payload)["zone"] == "zone-1"
    assert (letter.topic, letter.partition, letter.offset) == (None, None, None)


def _dead_letters(bench: Bench) -> None:
    """A topic that takes less and less, and then is gone."""
    topic = bench.kafka.dead_letter_topic
    bench.configure(topic, max_message_bytes="2000")
    noise = b"\xc3\x01" + hashlib.shake_256(b"noise").digest(50_000)
    bench.produce(bench.kafka.usage_topic, "cut", noise)
    letter = bench.letter("cut")
    assert letter.payload_bytes == len(noise)
    assert letter.payload_sha256 == hashlib.sha256(noise).hexdigest()
    assert 500 < len(letter.payload) < 2000
    assert noise.startswith(letter.payload)
    bench.configure(topic, max_message_bytes="100")
    bench.produce(bench.kafka.usage_topic, "lost", noise)
    bench.usage("after-lost")
    bench.wait_for("host", "after-lost")
    bench.delete(topic)
    for number in range(20):
        bench.produce(bench.kafka.usage_topic, f"waits-{number}", b"rubbish")
    bench.usage("refused")
    bench.usage("after-all")
    bench.wait_for("host", "after-all")
    # More than may wait, in one partition: those beyond are lost, and hold up nothing.
    bench.produce_many(bench.kafka.usage_topic, "flood", 350 * [noise + b"x" * 10_000])
    bench.usage("after-flood")
    bench.wait_for("host", "after-flood")


def _waiting_letters_are_resent(kafka: KafkaSettings, directory: Path) -> None:
    """Those that waited while the topic was gone were in the checkpoint: they come once it is there again."""
    ensure_topics(kafka)
    wanted = {f"waits-{number}" for number in range(20)}
    with Job(directory) as job:
        job.wait_until_ready()
        wait_until(
            lambda: wanted <= {letter.key for letter in dead_letters.read(kafka)},
            SECONDS,
            "letters that waited are lost",
        )
        job.stop()


def _another_state_backend_is_said(settings: Settings, directory: Path) -> None:
    """The checkpoint cannot be read, and would not be the next time."""
    changed = settings.model_copy(update={"job": settings.job.model_copy(update={"state_backend": "rocksdb"})})
    config_file(directory).write_text(settings_file.dumps(changed), encoding="utf-8")
    ended = Ended(directory, "job", "run", "--config", config_file(directory), seconds=READY_SECONDS)
    assert ended.status == 2
    assert ended.output == ""
    assert "job.state_backend is rocksdb, but the state to go on from, " in ended.error()
    assert ", is of hashmap; set it back, or start once without" in ended.error()


def _a_damaged_checkpoint_is_said(directory: Path) -> None:
    """As a disk that was full leaves one."""
    (*_, newest) = sorted(directory.glob("**/chk-*/_metadata"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    ended = Ended(directory, "job", "run", "--config", config_file(directory), seconds=READY_SECONDS)
    assert ended.status == 1
    assert ended.output == ""
    assert f"{newest.parent}, cannot be read: " in ended.error()
    assert "; move it away to go on from the checkpoint before it, or start once with" in ended.error()
