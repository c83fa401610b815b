"""Whatever is killed, cut or filled up under load: the table becomes what the oracle says, and no row goes back.

2,000 hosts at 1 Hz and 1 % poison, on a cluster of one JobManager and two TaskManagers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.harness.faults import FAULTS, faults_of, go_through
from tests.harness.installation import config_file
from tests.harness.live import PASSWORD, Live
from tests.harness.process import Ended, command_lines
from tests.harness.watch import Outage
from vacancy.jobs.local import settings_file

HOSTS = int(os.environ.get("VACANCY_TEST_HOSTS", "2000"))
KILLED = "a TaskManager killed"
MAX_SECONDS_WITHOUT_ROWS = 10.0
"""While a TaskManager that was killed is replaced."""


@pytest.fixture(scope="module")
def outages() -> dict[str, Outage]:
    """How the table went through the faults, as far as they were done."""
    return {}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """The system; at the end, at rest, it has lost nothing."""
    with Live(HOSTS, poison_per_s=0.01 * HOSTS) as system:
        yield system
        system.verify_at_rest()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_table_comes_right_again(
    live: Live, outages: dict[str, Outage], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One fault, until the table is fresh again: it equals the oracle."""
    if fault not in faults_of(live):
        pytest.skip("there is no small disk to fill: it takes root to mount one")
    outages[fault] = go_through(live, fault)
    with capsys.disabled():
        print(f"\n{fault}: {outages[fault]}")
    live.verify()


@pytest.mark.timing
@pytest.mark.timeout(600)
def test_a_killed_task_manager_is_replaced_in_time(live: Live, outages: dict[str, Outage]) -> None:
    if KILLED not in outages:  # this test is run by itself
        outages[KILLED] = go_through(live, KILLED)
    assert outages[KILLED].without_rows_s <= MAX_SECONDS_WITHOUT_ROWS


def test_a_wrong_password_is_found_before_anything_is_submitted(live: Live, tmp_path: Path) -> None:
    """In one line; what runs goes on."""
    postgres = live.settings.postgres.model_copy(update={"job_dsn": SecretStr(live.job_dsn("wrong"))})
    job = live.settings.job.model_copy(update={"name": "another"})
    settings = live.settings.model_copy(update={"postgres": postgres, "job": job})
    config_file(tmp_path).write_text(settings_file.dumps(settings), encoding="utf-8")
    refused = Ended(tmp_path, "job", "submit", "--config", config_file(tmp_path))
    assert refused.status == 1
    assert "password" in refused.error()
    assert "wrong" not in refused.error()
    assert [job["name"] for job in live.cluster.ask("/jobs/overview")["jobs"]] == [live.settings.job.name]


def test_no_secret_is_shown(live: Live) -> None:
    """Neither by `flink list`, nor in REST answers, logs or arguments of processes."""
    shown = live.cluster.shows(live.status().job.job_id)
    for name, processes in live.processes().items():
        shown[f"arguments of {name}"] = "\n".join(command_lines(processes))
    shown["arguments of submitting"] = "\n".join(live.command_lines)
    assert [place for place, text in shown.items() if PASSWORD in text] == []
    # What is searched does show the job: its topic stands in its graph and in the logs of those who read it.
    assert sum(live.settings.kafka.usage_topic in text for text in shown.values()) > 1
    assert any("java" in line for line in live.command_lines)
