"""The graph while a fleet is being upgraded, and with a schema registry: events of all kinds side by side."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.flink.bounded import TopicRecord, run_graph
from tests.flink.registry import running_registry
from tests.harness.histories import BASE_MS, encode_usage, next_version, usage_event
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import (
    CONFLUENT_MARKER,
    READS_AS_HEADER,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    Event,
    SchemaVersion,
    kafka_headers,
    newest,
    released,
)
from vacancy.topology.graph import SchemaRegistry
from vacancy.topology.settings import JobSettings


def with_next(event: Event) -> list[SchemaVersion]:
    """The released versions, and one that adds fields."""
    return [*released(event), next_version(event)]


INVENTORY: dict[str, Any] = {
    "boot_id": "boot",
    "agent_time": BASE_MS,
    "name": "compute",
    "status": "ENABLED",
    "inventories": {},
    "reporting_interval_ms": 1000,
    "agent_version": "1",
}


@pytest.mark.parametrize("job", ["old", "new"])
def test_a_job_reads_what_older_and_newer_agents_write(tmp_path: Path, job: str) -> None:
    """Both events of all versions, mixed; and what no header vouches for is a dead letter."""
    usage: list[TopicRecord] = []
    inventory: list[TopicRecord] = []
    for number in range(20):
        for event, records, fields in (
            (Event.USAGE, usage, usage_event()),
            (Event.INVENTORY, inventory, INVENTORY),
        ):
            host = f"host-{number:02}"
            all_versions = with_next(event)
            versions = all_versions[: 1 + number % len(all_versions)]
            written = fields | {"added": number, "note": "new", "host_id": host}
            known = {field["name"] for field in versions[-1].document["fields"]}
            payload = Encoder(event, versions=versions).encode({name: written[name] for name in written.keys() & known})
            assert payload.startswith(versions[-1].header)
            records.append(TopicRecord(BASE_MS + number, payload, host, dict(kafka_headers(versions))))
    header, datum = SINGLE_OBJECT_MARKER + b"stranger", encode_usage(usage_event())[SINGLE_OBJECT_HEADER_BYTES:]
    reads_as = {READS_AS_HEADER: newest(Event.USAGE).fingerprint}
    bad = [TopicRecord(BASE_MS, header + datum), TopicRecord(BASE_MS, header + b"\xff" * 20, headers=reads_as)]
    output = run_graph(
        tmp_path / "graph",
        JobSettings(parallelism=1),
        [*usage, *bad],
        inventory,
        versions=released if job == "old" else with_next,
    )
    hosts = [f"host-{number:02}" for number in range(20)]
    assert sorted(row["host_id"] for row in output.host) == hosts
    assert sorted(row["host_id"] for row in output.host_inventory) == hosts
    assert [row["samples"] for row in output.host] == [1] * 20
    letters = [base64.b64decode(letter["payload"]) for letter in output.dead_letters]
    assert set(letters) == {record.payload for record in bad}
    assert len(letters) == len(bad)


def test_events_of_the_registry_stand_beside_others(tmp_path: Path) -> None:
    first, second = newest(Event.USAGE), with_next(Event.USAGE)[-1]
    unknown = CONFLUENT_MARKER + (8).to_bytes(4, "big")
    payloads = {
        "first": Encoder(Event.USAGE).encode(usage_event(host_id="first")),
        "second": Encoder(Event.USAGE, versions=[first, second]).encode(usage_event(host_id="second") | {"added": 7}),
        "registry": Encoder(Event.USAGE, schema_id=7).encode(usage_event(host_id="registry")),
        "unknown": unknown,
    }
    with running_registry({7: first.text}, "user:password") as url:
        output = run_graph(
            tmp_path / "graph",
            JobSettings(parallelism=1),
            [TopicRecord(BASE_MS, payload, key) for key, payload in payloads.items()],
            registry=SchemaRegistry(url, "user:password"),
            versions=with_next,
        )
    assert sorted(row["host_id"] for row in output.host) == ["first", "registry", "second"]
    (letter,) = output.dead_letters
    assert base64.b64decode(letter["payload"]) == unknown
    assert base64.b64decode(letter["headers"]["vacancy.reason"]) == b"the schema registry has no schema 8"
