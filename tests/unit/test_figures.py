"""The figures of the README and of docs/benchmarks.md agree with the results in bench/results."""

from __future__ import annotations

import json

from bench import report
from bench.common import RESULTS
from bench.decisions.advice import ADVICE, advice_of
from bench.decisions.page import PAGE, with_tables
from bench.decisions.summary import RAW, read_runs


def test_the_readme_shows_five_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert text == report.with_five(text), "python -m bench.report"
    assert len(list(report.five())) == 5


def test_the_readme_says_how_long_the_first_command_takes() -> None:
    first, second = json.loads((RESULTS / "first_command.json").read_text(encoding="utf-8"))["runs"]
    text = " ".join(report.README.read_text(encoding="utf-8").split())
    assert f"all 1,001 hosts are in the table after {first['all_hosts_s']:.0f} s, " in text
    assert f"the next time after {second['all_hosts_s']:.0f} s" in text


def test_the_page_of_benchmarks_shows_all_results() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text == report.with_table(text), "python -m bench.report"
    assert text.count("\n| ") > len(list(report.rows()))


def test_the_page_on_freshness_and_the_advice_are_those_of_the_saved_runs() -> None:
    runs, text = read_runs(RAW), PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text, runs), "python -m bench.decisions advice"
    assert text.count("\n| ") > 30
    live = json.loads((RESULTS / "decisions_live.json").read_text(encoding="utf-8"))
    beyond, regret = live["compared"]["busy_0.7"], live["compared"]["regret"]
    for figure in (beyond, regret):
        assert abs(figure["in_real_time"] - figure["simulated"]["mean"]) <= figure["simulated"]["half"]
    text = " ".join(text.split())
    assert f"{100 * beyond['in_real_time']:.1f} % of the placements beyond a limit of 70 %, simulated" in text
    assert f"{100 * regret['in_real_time']:.1f} and {100 * regret['simulated_same_seed']:.1f} points of regret" in text
    assert live["rows_off"]["p99"] < 1e-12
    assert json.loads(ADVICE.read_text(encoding="utf-8")) == advice_of(runs), "python -m bench.decisions advice"
