"""The circuit breaker in front of the table, with a clock that is advanced by hand and no database."""

from __future__ import annotations

import logging
import socket
from contextlib import closing
from itertools import pairwise

import pytest

from tests.harness.clock import Clock
from vacancy.connectors.nova.hysteresis import Flip, Hysteresis
from vacancy.connectors.nova.table import Fault, Table


def kind(table: Table) -> str:
    with pytest.raises(Fault) as raised:
        table.read(["host-1"])
    return raised.value.kind


def test_pauses_double_and_one_request_tries_after_each(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but not listening
        table = Table(f"host=127.0.0.1 port={closed.getsockname()[1]} user=u dbname=d", 5.0, clock)
        tried_at = []
        with caplog.at_level(logging.WARNING, "vacancy.nova"):
            for _ in range(1000):
                if kind(table) == "unreachable":
                    tried_at.append(clock.now)
                clock.now += 0.1
    pauses = [later - earlier for earlier, later in pairwise(tried_at)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], abs=0.15)
    assert table.counts["unreachable"] == len(tried_at)
    assert table.counts["paused"] == 1000 - len(tried_at)
    assert len(caplog.records) == 2  # 100 s, one line per minute
    assert "Connection refused" in caplog.text


def test_without_a_dsn_it_says_so() -> None:
    assert kind(Table(None, 0.05)) == "unset"


def test_a_dsn_that_cannot_be_parsed_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    table = Table("hunter2 hunter2", 0.05)
    assert kind(table) == "refused"
    assert "cannot be parsed" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_note_without_a_connection_is_counted() -> None:
    table = Table(None, 0.05)
    table.close()
    assert table.counts == {}


def test_a_host_that_is_hot_for_a_moment_does_not_flip() -> None:
    hysteresis = Hysteresis(hot_for_s=60, cool_below=0.7, flips_per_hour=4, max_hot=1.0)
    assert hysteresis.flips(0, {"a": 1.2}, frozenset()) == []
    assert hysteresis.flips(50, {"a": 0.9}, frozenset()) == []
    assert hysteresis.flips(60, {"a": 1.2}, frozenset()) == []
    assert hysteresis.flips(130, {"a": 1.2}, frozenset()) == [Flip("a", True, 1.2)]


def test_a_host_that_falls_silent_keeps_its_trait() -> None:
    hysteresis = Hysteresis(hot_for_s=60, cool_below=0.7, flips_per_hour=4, max_hot=1.0)
    hysteresis.flips(0, {"a": 0.1}, {"a"})
    assert hysteresis.flips(70, {}, {"a"}) == []
    assert hysteresis.flips(80, {"a": 0.1}, {"a"}) == []  # the pauses start again
    assert hysteresis.flips(150, {"a": 0.1}, {"a"}) == [Flip("a", False, 0.1)]
