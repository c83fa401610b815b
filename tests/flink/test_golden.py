"""Golden cases: a folder each with usage.jsonl and inventory.jsonl, and in expected.json what the sinks must get.

Regenerate the expected outputs with ``make goldens`` and read the difference before committing it.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.flink.bounded import Output, TopicRecord, run_graph
from tests.harness.histories import BASE_MS, usage_event
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event
from vacancy.topology.settings import JobSettings

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {
    "odd_nodes": timedelta(seconds=10),
    "one_host": timedelta(seconds=10),
    "small_fleet": timedelta(seconds=60),
}


@pytest.mark.parametrize("case", sorted(SETTINGS))
@pytest.mark.parametrize("parallelism", [1, 2])
def test_golden(case: str, parallelism: int, tmp_path: Path) -> None:
    settings = JobSettings(window=SETTINGS[case], parallelism=parallelism)
    usage = _records(GOLDEN / case / "usage.jsonl", Event.USAGE)
    inventory = _records(GOLDEN / case / "inventory.jsonl", Event.INVENTORY)
    actual = _in_order(run_graph(tmp_path / "graph", settings, usage, inventory))
    file = GOLDEN / case / "expected.json"
    if os.environ.get("VACANCY_REGENERATE_GOLDENS") and parallelism == 1:
        file.write_text(json.dumps(actual, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert actual == json.loads(file.read_text(encoding="utf-8"))


def _records(file: Path, event: Event) -> list[TopicRecord]:
    """A line a record: at_ms after the base time, then an event's fields, or hex of raw bytes, or neither for null."""
    encoder = Encoder(event)
    records = []
    for offset, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        case: dict[str, Any] = json.loads(line)
        payload = None
        if "event" in case:
            payload = encoder.encode(usage_event(**case["event"]) if event is Event.USAGE else case["event"])
        elif "hex" in case:
            payload = bytes.fromhex(case["hex"])
        records.append(TopicRecord(BASE_MS + case["at_ms"], payload, case.get("key"), offset=offset))
    return records


def _in_order(output: Output) -> dict[str, list[dict[str, Any]]]:
    for letter in output.dead_letters:
        letter["headers"] = {
            name: value and base64.b64decode(value).decode() for name, value in sorted(letter["headers"].items())
        }

    def by_content(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))

    return {
        "host": by_content(output.host),
        "host_inventory": by_content(output.host_inventory),
        "dead_letters": by_content(output.dead_letters),
    }
