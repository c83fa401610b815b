"""Frames and levels of the fleet page: whatever a browser has missed, it ends with the newest state."""

from __future__ import annotations

import json
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vacancy.jobs.web.frames import DIFFERENCE, HEADER, WHOLE, Frames
from vacancy.jobs.web.levels import BASE, DIMENSIONS, FIRST, LEVELS, NEXT, PAINTED, UNKNOWN, level, steps
from vacancy.jobs.web.table import UNKNOWN_INTEGER

PAINT = "cpu_steal"
HELD = (*BASE, PAINT)


class Browser:
    """What the page does with frames (static/feed.js), in Python."""

    def __init__(self, frames: Frames) -> None:
        self.frames, self.epoch, self.number, self.data = frames, -1, -1, b""

    def ask(self) -> None:
        frame = self.frames.since(self.epoch, self.number, PAINT)
        if not frame:
            return
        epoch, number, hosts, planes, kind, _, _, json_bytes, body_bytes = HEADER.unpack_from(frame)
        assert len(frame) == HEADER.size + json_bytes + body_bytes
        change = zlib.decompress(frame[HEADER.size + json_bytes :], -15) if body_bytes else b""
        assert len(change) == hosts * planes
        if kind == WHOLE:
            self.data = change
        else:
            assert kind == DIFFERENCE
            self.data = bytes(a ^ b for a, b in zip(self.data, change, strict=True))
        self.epoch, self.number = epoch, number
        assert json.loads(frame[HEADER.size : HEADER.size + json_bytes]) == {"n": number}


@given(st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 2))), max_size=40))
def test_browsers_that_miss_frames_end_with_the_newest_state(steps_of: list[tuple[int, set[int]]]) -> None:
    frames = Frames(7)
    browsers = [Browser(frames) for _ in range(3)]
    hosts, state = 1, {name: bytearray(1) for name in HELD}
    for number, (grow, asking) in enumerate(steps_of, start=1):
        if grow == 5:
            hosts += 1
            for plane in state.values():
                plane.append(number % 256)
        state[HELD[number % len(HELD)]][number % hosts] = number * 37 % 256
        frames.publish(state, {"n": number}, float(number))
        for who in asking:
            browsers[who].ask()
            assert browsers[who].data == b"".join(state[name] for name in HELD)


def test_a_dimension_that_nobody_looked_at_comes_whole_and_then_in_differences() -> None:
    frames, browser = Frames(1), Browser(Frames(1))
    browser.frames = frames
    base = {name: bytearray([3, 4]) for name in BASE}
    frames.publish(base, {"n": 1}, 0.0)
    frames.add(PAINT, bytes([5, 6]))
    browser.ask()
    assert browser.data[-2:] == bytes([5, 6])
    frames.publish(base | {PAINT: bytes([5, 7])}, {"n": 2}, 1.0)
    frame = frames.since(browser.epoch, browser.number, PAINT)
    assert HEADER.unpack_from(frame)[4] == DIFFERENCE
    browser.ask()
    assert browser.data[-2:] == bytes([5, 7])
    # The dimension was given up meanwhile, and then somebody came back to it.
    frames.publish(base, {"n": 3}, 2.0)
    frames.add(PAINT, bytes([8, 9]))
    browser.ask()
    assert browser.data[-2:] == bytes([8, 9])


def test_after_a_restart_of_the_server_a_browser_begins_anew() -> None:
    before, after = Frames(1), Frames(2)
    for frames in (before, after):
        frames.publish(dict.fromkeys(HELD, bytearray([9])), {"n": 1}, 0.0)
    browser = Browser(before)
    browser.ask()
    browser.frames = after
    browser.ask()
    assert (browser.epoch, browser.data) == (2, bytes([9] * len(HELD)))


def test_a_state_without_hosts_is_a_frame_too() -> None:
    frames = Frames(1)
    assert HEADER.unpack_from(frames.since(-1, -1, PAINT))[2] == 0


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_level_stays_within_half_a_level_of_its_figure(old: int, step: int) -> None:
    new = NEXT[old << 8 | step]
    if step == UNKNOWN:
        assert new == UNKNOWN
    else:
        assert 0 <= new < LEVELS
        assert abs(step / 255 * LEVELS - (new + 0.5)) <= 1.0
        assert new in (old, level(step))
    assert FIRST[step] == level(step)


def test_what_cannot_be_a_share_is_not_known() -> None:
    columns = {
        "vcpus_free": np.array([UNKNOWN_INTEGER, -5, 0, 1, 300, 5, 5, 4 * 10**18]),
        "vcpus_capacity": np.array([8, 8, 8, 8, 8, 0, UNKNOWN_INTEGER, 8 * 10**18]),
    }
    assert steps("vcpus_free", columns).tolist() == [UNKNOWN, 0, 0, 31, 254, UNKNOWN, UNKNOWN, 127]
    fractions = {"cpu_utilization": np.array([float("nan"), -1.0, 0.5, float("inf")])}
    assert steps("cpu_utilization", fractions).tolist() == [UNKNOWN, 0, 127, 254]
    # Little is much of these: 1 % shows.
    assert FIRST[steps("cpu_steal", {"cpu_steal": np.array([0.01])})] == 1
    assert set(PAINTED) < set(DIMENSIONS)
