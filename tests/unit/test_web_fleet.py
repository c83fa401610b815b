"""The fleet in memory is what the newest rows say, whatever came before them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vacancy.jobs.web.fleet import (
    CLOCK_AHEAD,
    DISABLED,
    DUPLICATE,
    GONE,
    NO_USAGE,
    SCHEDULABLE,
    STALE,
    TOTALS,
    Fleet,
)
from vacancy.jobs.web.levels import PLACE, UNKNOWN
from vacancy.jobs.web.table import AHEAD, CLONED, FIGURES, FRACTIONS, UNKNOWN_INTEGER, InventoryRow, Look, Usage

MAX_AGE_S = 30.0
MAX_AHEAD_S = 5.0
START = 1_000_000.0


UsageRow = tuple[Any, ...]
"""A host's id, its observed_at, what is odd about it, and the columns FIGURES."""


def usage(host: str, at: float, odd: int = 0, **figures: Any) -> UsageRow:
    given_figures = {name: 10 if name.endswith("capacity") else 5 for name in FIGURES} | {"claims": 0} | figures
    return (host, at, odd, *(given_figures[name] for name in FIGURES))


def inventory(host: str, **columns: Any) -> InventoryRow:
    row = InventoryRow(host, False, f"name of {host}", "zone", False, "", "host", [], [], False, False)
    return row._replace(**columns)


def look(now: float, *usage_rows: UsageRow, inventories: tuple[InventoryRow, ...] = ()) -> Look:
    hosts, at, odd, *figures = zip(*usage_rows, strict=True) if usage_rows else [()] * (3 + len(FIGURES))
    columns: dict[str, Any] = {
        name: np.array(values, np.float64 if name in FRACTIONS else np.int64)
        for name, values in zip(FIGURES, figures, strict=True)
    }
    found = Usage(hosts, np.array(at, np.float64), np.array(odd, np.int64), columns)
    return Look(now, found, len(usage_rows), list(inventories), 0, MAX_AHEAD_S)


def state(fleet: Fleet, host: str) -> int:
    return int(fleet.planes[PLACE["state"]][fleet.slot_of[host]])


HOSTS = ("a", "b", "c", "d")
MOVES = st.one_of(
    st.tuples(
        st.just("usage"), st.sampled_from(HOSTS), st.integers(-3, 12), st.sampled_from([0, 0, CLONED, AHEAD, 99])
    ),
    st.tuples(st.just("inventory"), st.sampled_from(HOSTS), st.booleans(), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0, 40), st.none(), st.none()),
)


@settings(max_examples=200)
@given(st.lists(MOVES, max_size=40))
def test_states_and_totals_follow_from_the_newest_rows(moves: list[tuple[Any, ...]]) -> None:
    fleet = Fleet(MAX_AGE_S)
    now = START
    rows: dict[str, UsageRow] = {}
    known: dict[str, InventoryRow] = {}
    wanted: list[str] = []
    for kind, what, first, second in moves:
        usage_rows: list[UsageRow] = []
        inventories: tuple[InventoryRow, ...] = ()
        if kind == "wait":
            now += what
        elif kind == "usage":
            # 99: from the future, until time has come so far.
            at, odd = (now + 20, 0) if second == 99 else (now, second)
            rows[what] = usage(what, at, odd, vcpus_free=first, memory_mb_free=first * 2)
            usage_rows.append(rows[what])
        else:
            # Retired, or disabled, or neither.
            inventories = (inventory(what, gone=first and second, disabled=first and not second),)
            known[what] = inventories[0]
        usage_rows += [rows[host] for host in wanted if host in rows and all(row[0] != host for row in usage_rows)]
        wanted = fleet.apply(look(now, *usage_rows, inventories=inventories))
    fleet.apply(look(now, *(rows[host] for host in wanted if host in rows)))
    totals = dict.fromkeys(TOTALS, 0)
    for host in HOSTS:
        what = known.get(host)
        if what is None or what.gone:
            assert host not in fleet.slot_of
            continue
        row = rows.get(host)
        if what.disabled:
            expected = DISABLED
        elif row is None:
            expected = NO_USAGE
        elif row[2] & AHEAD or row[1] > now + MAX_AHEAD_S:
            expected = CLOCK_AHEAD
        elif now - row[1] >= MAX_AGE_S:
            expected = STALE
        else:
            expected = DUPLICATE if row[2] & CLONED else SCHEDULABLE
        assert state(fleet, host) == expected
        if expected == SCHEDULABLE and row is not None:
            for name in TOTALS:
                totals[name] += max(row[3 + FIGURES.index(name)], 0)
    assert dict(zip(TOTALS, fleet.totals, strict=True)) == totals
    assert sum(fleet.counts().values()) == len(fleet.slot_of)


def test_a_host_keeps_its_slot_and_one_that_leaves_gives_it_free() -> None:
    fleet = Fleet(MAX_AGE_S)
    assert fleet.apply(look(START, inventories=(inventory("b"), inventory("a")))) == ["a", "b"]
    fleet.apply(look(START, usage("a", START), usage("b", START)))
    slots = dict(fleet.slot_of)
    version = fleet.version
    fleet.apply(look(START, inventories=(inventory("a", name="renamed", zone="other"),)))
    assert fleet.slot_of == slots
    assert fleet.version == version + 1
    assert fleet.zones == ["zone", "other"]
    fleet.apply(look(START, inventories=(inventory("a", gone=True),)))
    assert fleet.planes[PLACE["state"]][slots["a"]] == GONE
    assert fleet.planes[PLACE["vcpus_free"]][slots["a"]] == UNKNOWN
    fleet.apply(look(START, inventories=(inventory("c"),)))
    assert fleet.slot_of["c"] == slots["a"]
    assert state(fleet, "c") == NO_USAGE


def test_hosts_cannot_fill_the_memory_with_names_of_sources() -> None:
    fleet = Fleet(MAX_AGE_S)
    fleet.apply(look(START, inventories=tuple(inventory(str(n), source=f"s{n}", zone=f"z{n}") for n in range(5000))))
    assert len(fleet.sources) == 128
    assert len(fleet.zones) == 4096
    assert len(fleet) == 5000


def test_the_last_minutes_are_kept() -> None:
    fleet = Fleet(MAX_AGE_S)
    fleet.apply(look(START, inventories=(inventory("a"),)))
    for second in range(0, 2000, 5):
        fleet.apply(look(START + second, usage("a", START + second, vcpus_free=second % 11)))
    past = fleet.past(0)
    assert past["at"][-1] - past["at"][0] == 15 * 60
    assert len(past["vcpus_free"]) == len(past["at"]) == 91
    assert all(0 <= share <= 1 for share in past["vcpus_free"])


def test_sorted_by_a_figure_what_is_not_known_comes_last() -> None:
    fleet = Fleet(MAX_AGE_S)
    fleet.apply(look(START, inventories=tuple(map(inventory, "abcd"))))
    rows = (usage(host, START - number, vcpus_free=number) for number, host in enumerate("cab"))
    fleet.apply(look(START, *rows))
    names = {slot: host for host, slot in fleet.slot_of.items()}
    assert "".join(names[slot] for slot in fleet.order("vcpus_free")) == "cabd"
    assert "".join(names[slot] for slot in fleet.order("vcpus_free", descending=True)) == "bacd"
    assert "".join(names[slot] for slot in fleet.order("age")) == "cabd"
    assert "".join(names[slot] for slot in fleet.order("age", descending=True)) == "bacd"
    assert "".join(names[slot] for slot in fleet.order("name", descending=True)) == "dcba"


def test_totals_are_exact_whatever_hosts_say() -> None:
    fleet = Fleet(MAX_AGE_S)
    fleet.apply(look(START, inventories=tuple(map(inventory, "abc"))))
    huge = 4 * 10**18 + 1
    fleet.apply(look(START, *(usage(host, START, vcpus_free=huge) for host in "abc")))
    assert fleet.totals[TOTALS.index("vcpus_free")] == 3 * huge
    fleet.apply(look(START, usage("a", START, vcpus_free=-huge), usage("b", START, vcpus_free=7)))
    assert fleet.totals[TOTALS.index("vcpus_free")] == huge + 7


def test_a_host_shows_what_is_known_of_it() -> None:
    fleet = Fleet(MAX_AGE_S)
    fleet.apply(look(START, inventories=(inventory("a", pooled=True), inventory("b"))))
    unknown: dict[str, Any] = {
        "cpu_steal": float("nan"),
        "io_pressure": float("inf"),
        "memory_mb_available": UNKNOWN_INTEGER,
    }
    fleet.apply(look(START, usage("a", START - 2, disk_gb_free=9, cpu_utilization=0.25, **unknown)))
    shown = fleet.document(fleet.slot_of["a"])
    assert (shown["cpu_steal"], shown["io_pressure"], shown["memory_mb_available"]) == (None, None, None)
    # Its disk is in its pool's row.
    assert (shown["disk_gb_free"], shown["cpu_utilization"], shown["vcpus_free"], shown["age"]) == (0, 0.25, 5, 2.0)
    # Without usage nothing is known, and JSON takes it.
    silent = fleet.document(fleet.slot_of["b"])
    assert {silent[name] for name in (*FIGURES, "age")} == {None}
    assert silent["reason"] == "no usage yet"
    json.dumps([shown, silent, fleet.past(0), fleet.ages(), fleet.by_source(), fleet.counts()], allow_nan=False)
