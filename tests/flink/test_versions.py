"""The graph while a fleet is being upgraded, and with a schema registry: events of all kinds side by side."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from schemas.codec import Encoder
from schemas.events import CONFLUENT_MARKER, Event, SchemaVersion, fingerprint, newest, released
from tests.flink.bounded import TopicRecord, run_graph
from tests.flink.registry import running_registry
from tests.histories import BASE_MS, usage_event
from topology.graph import SchemaRegistry
from topology.settings import JobSettings


def test_events_of_two_versions_and_of_the_registry_side_by_side(tmp_path: Path) -> None:
    first = newest(Event.USAGE)
    text = json.dumps(
        first.document | {"fields": [*first.document["fields"], {"name": "added", "type": "long", "default": 0}]}
    )
    second = SchemaVersion(Event.USAGE, first.version + 1, text, fingerprint(text))
    unknown = CONFLUENT_MARKER + (8).to_bytes(4, "big")
    payloads = [
        Encoder(Event.USAGE).encode(usage_event(host_id="first")),
        Encoder(Event.USAGE, versions=[first, second]).encode(usage_event(host_id="second") | {"added": 7}),
        Encoder(Event.USAGE, schema_id=7).encode(usage_event(host_id="registry")),
        unknown,
    ]
    with running_registry({7: first.text}, "user:password") as url:
        output = run_graph(
            tmp_path / "graph",
            JobSettings(parallelism=1),
            [TopicRecord(BASE_MS, payload) for payload in payloads],
            registry=SchemaRegistry(url, "user:password"),
            versions=lambda event: [first, second] if event is Event.USAGE else released(event),
        )
    assert sorted(row["host_id"] for row in output.host) == ["first", "registry", "second"]
    (letter,) = output.dead_letters
    assert base64.b64decode(letter["payload"]) == unknown
    assert base64.b64decode(letter["headers"]["vacancy.reason"]) == b"the schema registry has no schema 8"
