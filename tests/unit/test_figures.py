"""The figures of the README and of docs/benchmarks.md agree with the results in bench/results."""

from __future__ import annotations

from bench import report


def test_the_readme_shows_five_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert text == report.with_five(text), "python -m bench.report"
    assert len(list(report.five())) == 5


def test_the_page_of_benchmarks_shows_all_results() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text == report.with_table(text), "python -m bench.report"
    assert text.count("\n| ") > len(list(report.rows()))
