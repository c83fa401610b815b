"""What rules a host out is said with the host's figures and the request's."""

from __future__ import annotations

from typing import Any

import pytest

from vacancy.connectors.scheduler.answers import NearestMiss, NoHostFitsError, Refusal
from vacancy.connectors.scheduler.reasons import why_out
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings

ROW: dict[str, Any] = {
    "reason": "disabled: new disks",
    "age": 75.5828,
    "zone": "az-2",
    "traits": ["HW_CPU_X86_SSE", "CUSTOM_HOT"],
    "inventories": {"VCPU": {"min_unit": 2, "max_unit": 16, "step_size": 2}, "DISK_GB": {"max_unit": 900}},
    "vcpus_free": 3,
    "memory_mb_free": 7168,
    "memory_mb_available": None,
    "disk_gb_available": 12,
    "cpu_utilization": 0.934,
}
REQUEST = Request(
    vcpus=33,
    memory_mb=8192,
    disk_gb=1000,
    required=("HW_CPU_X86_AVX2", "HW_CPU_X86_SSE"),
    forbidden=("CUSTOM_HOT",),
    any_of=(("A_B", "C_D"), ("HW_CPU_X86_SSE",)),
    zone="az-1",
    max_cpu_utilization=0.9,
    min_memory_mb_available=100,
    resources={"CUSTOM_FPGA": 2},
)


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        ("disabled", "disabled: new disks"),
        ("stale", "its figures are 75.6 s old, at most 30 s allowed"),
        ("zone", "in zone az-2, az-1 asked for"),
        ("required", "lacks HW_CPU_X86_AVX2"),
        ("forbidden", "has CUSTOM_HOT, which is forbidden"),
        ("any_of", "has none of A_B, C_D"),
        ("vcpus_unit", "takes 2 to 16 VCPUs in steps of 2 at once, 33 asked for"),
        ("disk_gb_unit", "takes 1 to 900 GiB at once, 1,000 asked for"),
        ("memory_mb_unit", "takes 1 MiB and more at once, 8,192 asked for"),
        ("vcpus_free", "3 VCPUs free, 33 asked for"),
        ("memory_mb_free", "7,168 MiB free by what is promised, 8,192 asked for"),
        ("memory_mb_available", "- MiB available by what the kernel measures, 8,292 asked for"),
        ("disk_gb_available", "12 GiB available by what the kernel measures, 1,000 asked for"),
        ("cpu_utilization", "93.4% of its CPUs busy, at most 90.0% asked for"),
        ("CUSTOM_FPGA", "CUSTOM_FPGA: too few free, 2 asked for"),
        ("disk_pool_stale nfs", "the storage pool nfs, whose figures are stale"),
        ("numa", "one NUMA cell with all of it"),
        ("something new", "something new"),
    ],
)
def test_each_dimension_has_its_figures(dimension: str, words: str) -> None:
    assert why_out(dimension, ROW, REQUEST, SchedulerSettings()) == words


@pytest.mark.parametrize(
    ("dimension", "had", "requested", "words"),
    [
        ("vcpus_free", 32, 33, "with 32 VCPUs for 33"),
        ("memory_mb_free", 7168, 8192, "with 7,168 MiB for 8,192"),
        ("disk_pool_free nfs", 5, 9, "with 5 GiB for 9"),
        ("stale", 75.5828, 30, "with figures that are 75.6 s old, at most 30 s allowed"),
        ("cpu_steal", 0.2, 0.05, "with 20.0% of its CPU time stolen, at most 5.0% asked for"),
        ("numa_cpus", 8, 9, "with 8 for 9"),
    ],
)
def test_a_refusal_has_units(dimension: str, had: float, requested: float, words: str) -> None:
    refusal = Refusal(3, {dimension: 3}, dimension, requested, NearestMiss("id", "big", had, [dimension]), 0, 1)
    assert str(NoHostFitsError(refusal)).endswith(f"nearest: big {words}")
