"""The graph's rows equal a plain batch computation, whatever happened to the hosts and however long the window is."""

from __future__ import annotations

import json
import tempfile
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.flink.bounded import TopicRecord, run_graph
from tests.harness import oracle
from tests.harness.histories import encode_usage, host_history
from tests.harness.table import same
from vacancy.topology.settings import JobSettings

HOSTS = 300


@pytest.mark.parametrize("window_ms", [500, 10_000, 60_000])
def test_rows_equal_the_oracle(window_ms: int) -> None:
    """One run of the graph takes a whole fleet of histories, since hosts do not touch each other."""

    # A run costs seconds, so few examples of many hosts; and no shrinking: the message names the first host that
    # differs, whose history is short.
    @settings(
        max_examples=2,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32))
    def check(seed: int) -> None:
        random = Random(seed)
        fleet = [host_history(random, f"host-{number}") for number in range(HOSTS)]
        # Between hosts the order is about that of append times; records of one host keep theirs.
        latest = [accumulate((record.append_ms for record in history), max) for history in fleet]
        timed = [
            entry for times, history in zip(latest, fleet, strict=True) for entry in zip(times, history, strict=True)
        ]
        records = [record for _, record in sorted(timed, key=lambda entry: entry[0])]
        topic = [
            TopicRecord(record.append_ms, encode_usage(record.event), offset=offset)
            for offset, record in enumerate(records)
        ]
        with tempfile.TemporaryDirectory() as directory:
            output = run_graph(
                Path(directory) / "graph", JobSettings(window=timedelta(milliseconds=window_ms), parallelism=2), topic
            )
        rows = [as_oracle(row) for row in output.host]
        for history in fleet:
            host_id = history[0].event["host_id"]
            mine = [row for row in rows if row["host_id"] == host_id]
            assert_same(kept(mine), kept(oracle.rows(history, window_ms)), history)
        assert output.dead_letters == []

    check()


def kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a host's rows those that stand in the end: of some that say the same time the sink keeps the last."""
    return list({row["observed_ms"]: row for row in rows}.values())


def as_oracle(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the sink in the oracle's terms; the window's ends follow from observed_at and are checked here."""
    row = dict(row)
    observed_at, window_start, window_end = (
        datetime.fromisoformat(row.pop(name)) for name in ("observed_at", "window_start", "window_end")
    )
    assert window_end == observed_at
    assert window_start < window_end
    literal = row.pop("recent_consumers").strip("{}")
    return row | {
        "observed_ms": round(observed_at.timestamp() * 1000),
        "recent_consumers": literal.split(",") if literal else [],
        "uncertain": row["uncertain"] and json.loads(f"[{row['uncertain'][1:-1]}]"),
    }


def assert_same(rows: list[dict[str, Any]], expected: list[dict[str, Any]], history: list[oracle.Record]) -> None:
    """Equal but for the order of rows, which parallel sinks do not keep, and for rounding of rates."""

    def identity(row: dict[str, Any]) -> tuple[Any, ...]:
        names = ("observed_ms", "samples", "instances", "memory_mb_available", "vcpus_free", "memory_mb_free")
        return tuple(row[name] for name in names)

    assert len(rows) == len(expected), history
    for row, right in zip(sorted(rows, key=identity), sorted(expected, key=identity), strict=True):
        for name, value in right.items():
            assert same(row[name], value), f"{name} is {row[name]}, should be {value}, in {row} of {history}"
