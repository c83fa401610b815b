"""How often the fleet page looks at the tables."""

from __future__ import annotations

from tests.harness.clock import Clock
from vacancy.jobs.settings import load_settings
from vacancy.jobs.web.fleet import HISTORY_STEP_SECONDS
from vacancy.jobs.web.frames import Frames
from vacancy.jobs.web.watch import Watch


def test_looks_are_few_while_nobody_has_the_page_open() -> None:
    clock = Clock()
    watch = Watch(load_settings(None), Frames(1), clock)
    assert watch.every == HISTORY_STEP_SECONDS
    assert not watch.noticed(), "there was no look yet, so the browser has to wait for one"
    assert watch.every == 0.5
    clock.now += 5
    assert watch.watched
    watch.noticed()
    clock.now += 9.9
    assert watch.every == 0.5, "a browser that asks keeps the looks quick"
    clock.now += 0.2
    assert not watch.watched
    assert watch.every == HISTORY_STEP_SECONDS


def test_looks_that_take_long_are_made_less_often() -> None:
    clock = Clock()
    watch = Watch(load_settings(None), Frames(1), clock)
    watch.noticed()
    periods_s = []
    for took_s in (0.2, 1.5, 1.0, 1.0, 0.1, 5.0, 5.0):
        watch.took.append(took_s)
        periods_s.append(round(watch.every, 3))
    assert periods_s == [0.5, 0.5, 4.0, 4.0, 0.5, 0.5, 10.0]
    clock.now += 100
    watch.took.extend((1.0, 1.0))  # of ten seconds each
    watch.noticed()
    assert watch.every == 0.5


def test_a_browser_waits_for_a_look_only_if_the_newest_is_old() -> None:
    clock = Clock()
    watch = Watch(load_settings(None), Frames(1), clock)
    watch.ticked = clock.now
    assert watch.noticed()
    assert watch.until_next() == 0.5
    clock.now += 0.7
    assert watch.noticed(), "the next look is about to end"
    clock.now += 0.5
    assert not watch.noticed()
