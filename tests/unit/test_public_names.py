"""The names of ``from vacancy import …``: the public ones, each loaded when it is first used."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vacancy

ROOT = Path(__file__).parents[2]
RANKING = ("Amount", "Limits", "Measured", "fullness", "over_limit")
SCHEDULERS = (
    "Candidate",
    "Claim",
    "ConfigError",
    "ContendedError",
    "Contradiction",
    "ContradictionError",
    "HostRow",
    "NearestMiss",
    "NoHostFitsError",
    "Numa",
    "Pci",
    "Refusal",
    "Request",
    "Scheduler",
    "SchedulerCollector",
    "SchedulerSettings",
    "TimedOutError",
    "UnreachableError",
    "VacancyError",
    "Weights",
)
COLLECTORS = (
    "AgentSettings",
    "Collector",
    "HostCollector",
    "HugePages",
    "Inventory",
    "InventoryReading",
    "NumaCell",
    "PciPool",
    "UsageReading",
)


def test_the_public_names_are_these() -> None:
    """An added or removed name is a change for users and must be in CHANGELOG.md."""
    assert sorted(vacancy.__all__) == sorted(RANKING + SCHEDULERS + COLLECTORS)


@pytest.mark.parametrize("name", RANKING + SCHEDULERS + COLLECTORS)
def test_each_is_there_for_programs_and_for_type_checkers(name: str) -> None:
    assert getattr(vacancy, name).__name__ == name
    module = ast.parse(Path(vacancy.__file__).read_text(encoding="utf-8"))
    typed = next(node for node in module.body if isinstance(node, ast.If))
    assert name in {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Shceduler'"):
        vacancy.Shceduler  # type: ignore[attr-defined]  # noqa: B018  # the test is that the name does not exist


def loaded(program: str) -> set[str]:
    """The modules that a program loads, without those that an idle interpreter loads."""
    program = f"import sys; before = set(sys.modules); {program}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_loads_nothing_else() -> None:
    assert {name for name in loaded("import vacancy") if name.startswith("vacancy")} == {"vacancy"}
    assert not {"psycopg2", "pydantic", "pyflink"} & loaded("import vacancy")


def test_ranking_needs_the_standard_library_alone() -> None:
    modules = {name.partition(".")[0] for name in loaded(f"from vacancy import {', '.join(RANKING)}")}
    assert modules <= sys.stdlib_module_names | {"vacancy"}


def test_a_scheduler_loads_neither_kafka_nor_flink() -> None:
    modules = loaded("from vacancy import Request, Scheduler")
    assert not {"confluent_kafka", "pyflink", "click", "rich", "prometheus_client"} & modules


def test_the_wheel_holds_each_folder() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {"vacancy"} | {
        ".".join(("vacancy", *file.parent.relative_to(ROOT).parts))
        for folder in ("schemas", "connectors", "topology", "jobs")
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(declared) == sorted(there)
