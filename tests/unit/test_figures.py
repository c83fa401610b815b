"""The README's figures agree with the results in bench/results."""

from __future__ import annotations

from bench import report


def test_the_readme_shows_the_results() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert text == report.with_table(text), "python -m bench.report"
    assert text.count("\n| ") > len(list(report.rows()))
