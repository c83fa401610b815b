"""`vacancy advise`: what ways of reporting cost and buy, and what is only concluded."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from vacancy.jobs.commands.advise import Way, command, cost, known_ways, recommended
from vacancy.jobs.settings import load_settings


def run(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def way(name: str, events: float, busy: float, settings: dict[str, str] | None, silence_s: int = 1) -> Way:
    return Way(name, settings, events, {0.7: (2 * busy, 0.01), 0.8: (busy, 0.005)}, silence_s, 3)


def test_cost_is_that_of_the_page_on_scaling() -> None:
    million = cost(1_000_000, 1, 0)
    assert million.rows_per_s == 1e6
    assert million.wal_bytes_per_s == 283e6
    assert million.log_bytes_per_s == 206e6
    assert million.cores == pytest.approx(17 + 10 + 3)
    assert cost(1_000, 5, 0).rows_per_s == 1_000  # a row is written once an emit interval
    assert cost(1_000, 1, 10).cores - cost(1_000, 1, 0).cores == pytest.approx(0.01)


def test_the_cheapest_of_those_that_are_as_good_is_recommended() -> None:
    ways = [
        way("elsewhere", 0.01, 0.0, None),
        way("each second", 1, 0.05, {"agent.interval": "1s"}),
        way("each 10 s", 0.1, 0.055, {"agent.interval": "10s"}),
        way("each 20 s", 0.05, 0.05, {"agent.interval": "20s"}, 20),
        way("each minute", 0.0167, 0.08, {"agent.interval": "60s"}),
        way("not in this release", 0.001, 0.05, {"agent.telepathy": "on"}),
    ]
    assert recommended(ways, 0.8, 30).name == "each 10 s"
    assert recommended(ways, 0.8, 60).name == "each 20 s"
    with pytest.raises(click.UsageError):
        recommended(ways, 0.8, 2)
    assert ways[1].busy_beyond(0.75)[0] == pytest.approx(0.075)


@pytest.mark.parametrize("max_age", ["3s", "30s", "100s", "10min", "1d"])
def test_what_is_recommended_is_accepted_as_settings(max_age: str) -> None:
    settings = json.loads(run("--hosts", "1000", "--max-age", max_age, "--json"))["settings"]
    nested: dict[str, dict[str, str]] = {}
    for setting, value in settings.items():
        section, name = setting.split(".")
        nested.setdefault(section, {})[name] = value
    load_settings(None, nested)


def test_a_silence_that_the_window_does_not_allow_is_not_possible() -> None:
    tolerant = {"agent.interval": "1s", "agent.tolerance": "0.1"}
    assert way("half a window", 0.02, 0.1, tolerant | {"agent.max_silence": "30s"}).possible
    assert not way("a window", 0.02, 0.1, tolerant | {"agent.max_silence": "60s"}).possible


def test_what_was_measured_is_whole() -> None:
    ways, measured = known_ways()
    assert measured["boots_a_host_s"] > 0
    assert any(one.possible for one in ways)
    assert 0.5 < measured["events_a_boot"] < 3
    assert len(measured["other_loads"]) >= 4
    for one in ways:
        assert sorted(one.busy) == [0.6, 0.7, 0.8, 0.9, 1.0]
        shares = [one.busy[limit][0] for limit in sorted(one.busy)]
        assert shares == sorted(shares, reverse=True)


def test_the_answer_says_what_it_concludes() -> None:
    output = run("--hosts", "30000")
    assert "recommended: " in output
    assert "agent.interval = " in output
    assert "30,000 hosts" in output
    answer = json.loads(run("--hosts", "30000", "--limit", "0.85", "--boots-per-minute", "9000000", "--json"))
    assert {way["name"] for way in answer["ways"]} >= {answer["recommended"]}
    assert any("not measured" in remark for remark in answer["remarks"])
    assert any("straight line" in remark for remark in answer["remarks"])


def test_limits_that_were_not_measured_are_refused() -> None:
    done = CliRunner().invoke(command, ["--hosts", "10", "--limit", "0.3"])
    assert done.exit_code == 2
    assert "0.6" in done.output
