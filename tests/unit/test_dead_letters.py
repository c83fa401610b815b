"""The table of dead letters on terminals of any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from vacancy.connectors.kafka.dead_letters import DeadLetter
from vacancy.jobs.commands.dead_letters import render

LETTER = DeadLetter(
    append_time="2026-01-02T03:04:05.678Z",
    topic="vacancy.usage",
    partition=11,
    offset=123_456_789,
    table=None,
    key="6f1d6f5e-3f0a-4b53-9c7a-2c1b5e4d3a2f",
    reason="vcpus_capacity: 20000000 is more than 10000000",
    payload=bytes(range(64)),
    payload_bytes=64,
    payload_sha256=None,
    written=(0, 0, 0),
)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_nothing_that_is_shown_is_cut_off(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(render([LETTER], width))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert "…" not in text.replace("0001020304050607 …", "")
    head, rows = (part.splitlines() for part in re.split(r"\n *─+ *\n", text))
    start, end = (next(line.index(word) for line in head if word in line) for word in ("from", "key"))
    stop = next(line.index("reason") for line in head if "reason" in line)
    assert "".join(row[start:end].strip() for row in rows) == "vacancy.usage/11/123456789"
    assert "".join(row[end:stop].strip() for row in rows) == LETTER.key
    assert "20000000" in text
    assert ("0001020304050607" in text) == (width >= 120)
