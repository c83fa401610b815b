"""The cells of the table, and the columns and rows that fit on a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from rich.console import Console

from vacancy.connectors.postgres.documents import json_value
from vacancy.connectors.postgres.schedulable_hosts import HostRow
from vacancy.jobs.commands.cli import cli
from vacancy.jobs.commands.host_table import Summary, render, render_columns, summary_line
from vacancy.jobs.commands.hosts import ColumnsType
from vacancy.jobs.commands.part_watch import line
from vacancy.jobs.commands.status import Part
from vacancy.jobs.rendering import duration, percent, size

ROW = HostRow(
    host_id="host-1",
    name="compute-1",
    reason=None,
    age=timedelta(seconds=0.75),
    vcpus_capacity=64,
    vcpus_free=32,
    vcpus_free_min=16,
    memory_mb_capacity=262_144,
    memory_mb_free=131_072,
    memory_mb_free_min=65_536,
    memory_mb_available=200_704,
    disk_gb_capacity=4000,
    disk_gb_free=2000,
    disk_gb_free_min=1000,
    disk_gb_available=3000,
    cpu_utilization=0.256,
    disk_read_bytes_per_s=1.5e6,
    disk_write_bytes_per_s=0.0,
    net_rx_bytes_per_s=1.2e9,
    net_tx_bytes_per_s=None,
    instances=3,
    disk_pool=None,
    claims=0,
)
SUMMARY = Summary(
    hosts=10_000,
    schedulable=9_990,
    disabled=3,
    without_usage=0,
    stale=7,
    oldest_age=timedelta(hours=5),
    vcpus_free=64_000,
    memory_mb_free=1_048_576,
    disk_gb_free=8_000,
)


def shown(rows: list[HostRow], width: int = 180, message: str | None = None, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )
    console.print(render(rows, SUMMARY, width=width, message=message))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_a_row_in_human_units() -> None:
    line = next(line for line in shown([ROW]).splitlines() if "compute-1" in line)
    assert " ".join(line.split()) == (
        "compute-1 ok 32 (16) / 64 128 (64) / 256 196 2000 (1000) / 4000 3,000 3 26% 1.5 MB 0 B 1.2 GB - 0.8 s"
    )


def test_a_host_without_usage_shows_no_figures() -> None:
    blank = dict.fromkeys(vars(ROW)) | {"host_id": "host-2", "name": "compute-2", "reason": "no usage yet"}
    line = next(line for line in shown([HostRow(**blank)]).splitlines() if "compute-2" in line)  # type: ignore[arg-type]  # nulls and text
    assert line.split() == ["compute-2", "no", "usage", "yet", *"-" * 12]


@pytest.mark.parametrize("width", [80, 100, 110, 120, 136, 176, 250])
def test_every_figure_is_whole_at_every_width(width: int) -> None:
    row = replace(ROW, name="compute-" + "x" * 250, reason="disabled: " + "because " * 20)
    lines = shown([row], width).splitlines()
    line = next(line for line in lines if "compute-" in line)
    assert line.count("…") == 2  # the name's and the reason's
    assert "32 (16) / 64" in line
    assert "128 (64) / 256" in line
    assert line.rstrip().endswith("0.8 s")
    assert sum("compute-" in line for line in lines) == 1


def test_the_columns_that_are_shown_by_default_fit_80_columns() -> None:
    named = replace(ROW, name="compute-node-17", reason="duplicate id")
    table, _, _ = shown([named], 80).partition("10,000 hosts")
    assert "…" not in table
    assert max(len(line) for line in table.splitlines()) <= 80


@pytest.mark.parametrize("width", [80, 100, 110, 136, 176])
def test_names_and_states_have_room_beside_large_figures(width: int) -> None:
    row = replace(
        ROW,
        name="general-000217",
        reason="disabled: repair",
        vcpus_capacity=256,
        vcpus_free=196,
        vcpus_free_min=196,
        disk_gb_capacity=3840,
        disk_read_bytes_per_s=180.5e6,
        disk_write_bytes_per_s=120.3e6,
        net_rx_bytes_per_s=113.7e6,
        net_tx_bytes_per_s=101.8e6,
    )
    table, _, _ = shown([row], width).partition("10,000 hosts")
    assert "…" not in table


def test_chosen_columns_in_the_unit_of_their_name() -> None:
    values: dict[str, object] = {
        "name": "evil\x1b[2J",
        "reason": None,
        "age": timedelta(minutes=12),
        "observed_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "cpu_steal": 0.07,
        "net_rx_bytes_per_s": 1.2e9,
        "memory_mb_free": 131_072,
        "zone": None,
        "shares": False,
        "traits": ["HW_CPU_X86_AVX2", "CUSTOM_SSD"],
        "inventories": {"VCPU": {"total": 8}},
    }
    console = Console(file=io.StringIO(), width=300)
    console.print(render_columns(list(values), [values], SUMMARY, matching=3))
    output = console.file
    assert isinstance(output, io.StringIO)
    head, row, totals = (line for line in output.getvalue().splitlines() if line.strip(" ─"))
    assert head.split() == list(values)
    assert re.split(r" {2,}", row.strip()) == [
        *(r"evil\x1b[2J", "ok", "12 min", "2026-01-02 03:04:05Z", "7%", "1.2 GB", "131,072", "-", "no"),
        *("HW_CPU_X86_AVX2, CUSTOM_SSD", '{"VCPU": {"total": 8}}'),
    ]
    assert "(3 match, 1 shown)" in totals


def test_the_shell_completes_the_last_column() -> None:
    parameter = next(one for one in cli.get_command(None, "hosts").params if one.name == "columns")  # type: ignore[union-attr, arg-type]  # it is there, and needs no context
    assert isinstance(parameter.type, ColumnsType)

    def completed(begun: str) -> list[str]:
        return [item.value for item in parameter.type.shell_complete(None, parameter, begun)]  # type: ignore[arg-type]  # it needs no context

    assert completed("vcpus_f") == ["vcpus_free", "vcpus_free_min"]
    assert completed("vcpus_free,name,vcpus_f") == ["vcpus_free,name,vcpus_free_min"]
    assert completed("no such") == []


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    ended = CliRunner().invoke(cli, ["hosts", "--columns", "name,vcpu"])
    assert ended.exit_code == 2
    assert "there is no column 'vcpu'; there are name, host_id, zone" in ended.output


WELL = {
    "broker": Part(True, "127.0.0.1:9092, three topics"),
    "database": Part(True, "127.0.0.1:5432, tables at 12"),
    "job": Part(True, "RUNNING"),
    "sources": Part(True, "host 1, simulator 1,000"),
    "claims": Part(True, "12 in flight, the oldest for 3.0 s"),
    "fleet page": Part(True, "http://127.0.0.1:27059/"),
}


def test_the_parts_in_one_line_the_ill_ones_first() -> None:
    well = str(line(WELL))
    assert well == "broker ok, database ok, job ok, sources ok, 12 claims, http://127.0.0.1:27059/"
    assert len(well) <= 80
    ill = str(line(WELL | {"job": Part(False, "not at http://127.0.0.1:1"), "sources": Part(None, "")}))
    assert ill.startswith("job not well, broker ok, database ok, sources unknown, ")
    assert ill.endswith("; `vacancy status` says more")


def test_the_summary_counts_what_is_not_shown() -> None:
    assert summary_line(SUMMARY) == (
        "10,000 hosts, 9,990 schedulable, 7 stale, 3 disabled, oldest 5 h; "
        "free: 64,000 VCPUs, 1,024 GiB memory, 8,000 GiB disk"
    )
    assert "9,999 more not shown; `vacancy hosts --out` shows the 10 that are out" in shown([ROW], 250)


def test_no_colours_off_a_terminal_and_a_message_below() -> None:
    assert "\x1b" not in shown([ROW], message="trying again")
    assert shown([ROW], message="trying again").rstrip().endswith("trying again")
    assert "\x1b" in shown([ROW], terminal=True)


def test_names_cannot_steer_the_terminal() -> None:
    output = shown([replace(ROW, name="evil\x1b[2J[red]\nname", reason="\x07")])
    assert "\x1b" not in output
    assert r"evil\x1b[2J[red]\nname" in output


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (999.4, "999 B"), (999.6, "1.0 kB"), (12_345_678, "12.3 MB"), (5e12, "5.0 TB")],
)
def test_sizes(value: float | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (119, "119.0 s"),
        (120, "2 min"),
        (7_200, "2 h"),
        (200_000, "2 d"),
        (-0.5, "-0.5 s"),
    ],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert duration(None if seconds is None else timedelta(seconds=seconds)) == text


def test_percent() -> None:
    assert (percent(None), percent(0.0), percent(0.999)) == ("-", "0%", "100%")


def test_json_values() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert json_value(moment) == "2026-01-02T03:04:05.678000Z"
    assert json_value(timedelta(days=1, milliseconds=250)) == 86_400.25
    assert json_value(float("nan")) is None
    assert json_value(["a"]) == ["a"]
