"""Usage histories for tests: one event by hand, or a host's whole life from a seed."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import fastavro

from tests.harness.oracle import COUNTERS, Record
from vacancy.schemas.codec import Encoder, decode
from vacancy.schemas.events import Event, SchemaVersion, fingerprint, kafka_headers, newest, released

_USAGE = Encoder(Event.USAGE)

BASE_MS = 1_790_000_000_000
LAST = 2**62 - 1
"""The end of a counter's range."""
OPTIONAL_COUNTERS = tuple(counter for counter in COUNTERS if counter != "cpu_busy_ns")


def usage_event(**fields: Any) -> dict[str, Any]:
    """A usage event of an idle plain machine with 4 CPUs, 8 GiB and 100 GiB, with some fields set otherwise."""
    event: dict[str, Any] = {
        "host_id": "host-0",
        "boot_id": "boot-0",
        "seq": 0,
        "agent_time": BASE_MS,
        "monotonic_ns": 10_000_000_000,
        "vcpus_capacity": 4,
        "vcpus_allocated": 0,
        "memory_mb_capacity": 8192,
        "memory_mb_allocated": 0,
        "disk_gb_capacity": 100,
        "disk_gb_allocated": 0,
        "memory_mb_available": 6000,
        "disk_gb_available": 90,
        "cpu_count": 4,
        **{field["name"]: field["default"] for field in newest(Event.USAGE).document["fields"] if "default" in field},
        **dict.fromkeys(COUNTERS, 0),
        "instances": 0,
    }
    unknown = fields.keys() - event.keys()
    assert not unknown, f"not fields of a usage event: {unknown}"
    return event | fields


def next_version(event: Event) -> SchemaVersion:
    """A version of an event that nobody has released: it adds fields."""
    last = newest(event)
    fields: list[dict[str, Any]] = [
        *last.document["fields"],
        {"name": "added", "type": "long", "default": 0, "doc": "A number."},
        {"name": "note", "type": ["null", "string"], "default": None, "doc": "A text, or none."},
    ]
    text = json.dumps(last.document | {"fields": fields})
    return SchemaVersion(event, last.version + 1, text, fingerprint(text))


def encode_next_usage(event: dict[str, Any]) -> tuple[bytes, dict[str, str | bytes | None]]:
    """A usage event as an agent of the next release writes it, and its Kafka headers."""
    return _NEXT_USAGE.encode(event | {"added": event["seq"], "note": "new"}), kafka_headers(_NEXT_VERSIONS)


def decode_usage(payload: bytes) -> dict[str, Any]:
    """A usage event of a released version or of the next one, as this release sees it.

    Raises:
        ValueError: it is none.
    """
    header = _NEXT_VERSIONS[-1].header
    if not payload.startswith(header):
        return decode(payload).record
    datum = io.BytesIO(payload[len(header) :])
    record: Any = fastavro.schemaless_reader(datum, _NEXT_VERSIONS[-1].document, newest(Event.USAGE).document)
    return dict(record)


def usage_key(payload: bytes | None) -> str | None:
    """The key that a usage event's record has; None if it is no event of a version that tests know."""
    try:
        return str(decode_usage(payload or b"")["host_id"])
    except ValueError:
        return None


def encode_usage(event: dict[str, Any]) -> bytes:
    """A usage event as its producer frames it."""
    return _USAGE.encode(event)


FAULTS = ("reset", "fall", "flap", "lose", "gain", "leap", "huge")
"""What a single counter does: begins anew; falls a little; falls and comes back; is no longer there; is there again;
grows by more than can be; is near the end of its range."""


def host_history(random: Random, host_id: str) -> list[Record]:
    """One host's records in the order of its partition: boots, gaps, repeats, late events, skewed clocks, faults.

    Append times go back a little now and then, as they may when a partition changes its leader, or for good. So do
    the node's clock, and each counter by itself. Boots that are over may go on, as where two nodes have one id.

    From a seeded generator and not drawn by Hypothesis, whose bookkeeping takes longer than the graph for a fleet.
    """
    skew_ms = random.choice((0, -3_600_000, 86_400_000))
    absent = random.sample(OPTIONAL_COUNTERS, random.randint(0, 3))
    faulty = random.sample(tuple(COUNTERS), random.choice((0, 0, 1, 3, len(COUNTERS))))
    doubtful = random.sample((*COUNTERS, "disk_gb_available", "of_a_later_release"), random.choice((0, 0, 1, 4)))
    slow_ms = random.choice((200, 4_000))
    append_ms = BASE_MS + random.randint(0, 5_000)
    records: list[Record] = []
    event = _boot(host_id, 0, absent)
    for number in range(random.randint(1, 24)):
        kind = random.choice(
            ("next",) * 8
            + ("reboot", "reboot", "other", "other", "repeat", "late", "same_ms", "gap", "back", "back_for_good")
            + ("clock_back", "restored", "restored")
        )
        gap_ms = 0 if kind == "same_ms" else random.randint(1, slow_ms)
        if kind == "gap":
            gap_ms += random.choice((9_000, 30_000, 70_000))
        append_ms += gap_ms
        if kind == "back":
            append_ms = max([append_ms - gap_ms, *(record.append_ms for record in records)]) - random.randint(1, 400)
        elif kind == "back_for_good":
            append_ms -= random.choice((11_000, 70_000, 3_600_000))
        if kind in ("repeat", "late") and records:
            repeated = records[-1] if kind == "repeat" else random.choice(records)
            records.append(Record(append_ms, repeated.event))
            continue
        if kind == "clock_back":
            # For one event: the next goes on where the clock was.
            earlier = max(0, event["monotonic_ns"] - random.randint(0, 20_000_000_000))
            records.append(Record(append_ms, event | {"monotonic_ns": earlier}))
            continue
        if kind == "reboot":
            event = _boot(host_id, number + 1, absent)
        elif kind == "other" and records:
            # As where two nodes have one id: the boot of any event before goes on.
            event = _advance(random, random.choice(records).event, max(1, gap_ms))
        elif kind == "restored":
            # A snapshot of the node as it was goes on.
            event = event | {"monotonic_ns": max(0, event["monotonic_ns"] - random.randint(1, 10_000_000_000))}
        else:
            event = _advance(random, event, max(1, gap_ms + random.randint(-1, 1)))
            for counter in faulty:
                if random.random() < 0.5:
                    event = event | {counter: _faulty(random, counter, event[counter], random.choice(FAULTS))}
        event = event | {"seq": event["seq"] + 1, "agent_time": append_ms + skew_ms, **_doubts(random, doubtful)}
        records.append(Record(append_ms, event))
    return records


def _doubts(random: Random, doubtful: Sequence[str]) -> dict[str, Any]:
    """What an event says of its own figures, of which some are doubtful now and then."""
    return {
        kind: random.sample(doubtful, random.randint(0, len(doubtful))) or None for kind in ("unknown", "uncertain")
    }


def _faulty(random: Random, counter: str, value: int | None, fault: str) -> int | None:
    """A counter's next value with a fault; cpu_busy_ns is always there."""
    if fault == "lose" and counter == "cpu_busy_ns":
        return value
    if value is None:
        return random.randint(0, 10_000_000) if fault == "gain" else None
    return {
        "reset": random.randint(0, 1_000),
        "fall": value - value // random.randint(2, 1_000),
        "flap": value // random.randint(1, 4),
        "lose": None,
        "gain": value,
        "leap": min(value + random.randint(0, 2**62), LAST),
        "huge": LAST - random.randint(0, 10),
    }[fault]


_NEXT_VERSIONS = (*released(Event.USAGE), next_version(Event.USAGE))
_NEXT_USAGE = Encoder(Event.USAGE, versions=_NEXT_VERSIONS)


def _boot(host_id: str, number: int, absent: Iterable[str]) -> dict[str, Any]:
    return usage_event(host_id=host_id, boot_id=f"boot-{number}", seq=0, **dict.fromkeys(absent))


def _advance(random: Random, event: dict[str, Any], elapsed_ms: int) -> dict[str, Any]:
    """The same boot a little later, with other instances and more on its counters."""
    consumers = [str(uuid.UUID(int=random.getrandbits(128))) for _ in range(random.randint(0, 2))]
    advanced = {
        "monotonic_ns": event["monotonic_ns"] + elapsed_ms * 1_000_000 + random.randint(0, 999_999),
        "vcpus_allocated": random.randint(0, 6),
        "memory_mb_allocated": random.randint(0, 9000),
        "disk_gb_allocated": random.randint(0, 110),
        "memory_mb_available": random.randint(0, 8192),
        "instances": len(consumers),
        "recent_consumers": consumers,
        "cpu_count": random.choice((4, 4, 4, 8)),
    }
    for counter in COUNTERS:
        if event[counter] is not None:
            advanced[counter] = min(event[counter] + random.randint(0, 10_000_000), LAST)
    return event | advanced
