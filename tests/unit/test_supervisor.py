"""A child that ends is restarted after growing pauses, and finally given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.clock import Clock
from tests.harness.waiting import wait_until
from vacancy.jobs.local.processes import Child
from vacancy.jobs.local.supervisor import FIRST_DELAY_SECONDS, MAX_RESTARTS, WITHIN_SECONDS, Supervisor
from vacancy.schemas.errors import VacancyError


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child("agent", ["sh", "-c", "echo oops; sleep 600"], directory=tmp_path, log=tmp_path / "agent.log")
    child.start()
    wait_until(lambda: child.has_said("oops"), 5, "it says nothing")
    yield child
    child.stop()


def test_a_part_that_runs_is_left_alone(child: Child) -> None:
    supervisor = Supervisor(Clock())
    supervisor.add(child)
    supervisor.check()
    assert supervisor.watch() == []


def test_a_part_that_ended_is_started_again_after_a_pause(child: Child) -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    supervisor.add(child)
    child.kill()
    (event,) = supervisor.watch()
    assert "agent was ended by SIGKILL" in event
    assert "oops" in event
    clock.now += FIRST_DELAY_SECONDS / 2
    assert supervisor.watch() == []
    assert not child.running
    clock.now += FIRST_DELAY_SECONDS
    assert supervisor.watch() == ["agent was started again"]
    assert child.running


def test_a_part_that_ends_again_and_again_is_given_up(child: Child) -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    supervisor.add(child)
    for attempt in range(MAX_RESTARTS):
        child.kill()
        (event,) = supervisor.watch()
        assert f"starting it again in {FIRST_DELAY_SECONDS * 2**attempt:.0f} s" in event
        clock.now += FIRST_DELAY_SECONDS * 2**attempt
        supervisor.watch()
    child.kill()
    with pytest.raises(VacancyError, match=r"agent was ended by SIGKILL.*given up"):
        supervisor.watch()


def test_ends_of_long_ago_are_forgotten(child: Child) -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    supervisor.add(child)
    for _ in range(MAX_RESTARTS + 2):
        child.kill()
        (event,) = supervisor.watch()
        assert event.endswith(f"starting it again in {FIRST_DELAY_SECONDS:.0f} s")
        clock.now += FIRST_DELAY_SECONDS
        supervisor.watch()
        clock.now += WITHIN_SECONDS


def test_while_starting_an_end_is_an_error(child: Child) -> None:
    supervisor = Supervisor(Clock())
    supervisor.add(child)
    child.kill()
    with pytest.raises(VacancyError, match="agent was ended by SIGKILL"):
        supervisor.check()
