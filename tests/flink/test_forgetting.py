"""A host that has been silent for long is forgotten; one that reports is not, however seldom."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

from tests.flink.bounded import TopicRecord, run_graph
from tests.harness.histories import encode_usage, usage_event
from vacancy.topology.settings import JobSettings

BASE_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
LATER_NS = 10**15


def test_a_host_is_forgotten_after_days_of_silence(tmp_path: Path) -> None:
    """A clock that has gone back within a boot shows whether the host is remembered: then its event is late."""
    hours = {"silent": (0, 60), "seldom": (*range(0, 60, 20), 60), "often": range(61)}
    events = sorted((hour, host) for host, times in hours.items() for hour in times)
    records = [
        TopicRecord(
            BASE_MS + hour * HOUR_MS,
            encode_usage(usage_event(host_id=host, boot_id="boot", monotonic_ns=LATER_NS * (hour < 60) + hour)),
        )
        for hour, host in events
    ]
    # One reader alone: a second one, which has nothing to read, would hold the watermark back until it has ended.
    output = run_graph(tmp_path, JobSettings(window=timedelta(hours=1), parallelism=1), records)
    rows = Counter(row["host_id"] for row in output.host)
    assert rows == {"silent": 2, "seldom": 3, "often": 60}
