"""The alerts: Prometheus accepts them, each fires when it should, and their metrics exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.debian import program

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
CASES = ALERTS.with_name("alerts_test.yml")


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program("prometheus", "usr/bin/promtool", tmp_path_factory.mktemp("prometheus"))


def run(*command: str | Path) -> str:
    """The output of a command, which must succeed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_prometheus_takes_the_alerts_and_raises_each_when_it_should(promtool: Path) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", ALERTS)
    assert "SUCCESS" in run(promtool, "test", "rules", CASES)


def test_every_alert_is_raised_in_a_case() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    cases = CASES.read_text(encoding="utf-8")
    assert alerts
    assert [alert for alert in alerts if f'alertname="{alert}"' not in cases] == []


def test_every_figure_that_an_alert_reads_is_explained() -> None:
    figures = set(re.findall(r"\b(?:vacancy|flink)_\w+", ALERTS.read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert figures
    assert [
        figure for figure in sorted(figures) if figure.removesuffix("_bucket").removesuffix("_count") not in page
    ] == []
