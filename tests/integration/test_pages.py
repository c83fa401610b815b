"""The blocks of Python and SQL in the pages run as they stand, on a table with hosts that fit what they ask for."""

from __future__ import annotations

import json
import re
import textwrap
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

import vacancy
from tests.harness.rows import INVENTORY, query, upsert_inventory, upsert_usage

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "docs/collectors.md": "tests/harness/guides.py",
    "docs/security.md": "tests/harness/secure.py",
    "docs/reference/sql.md": "tests/unit/test_reference.py",  # signatures, made of the sources
}
"""Pages whose blocks another file runs, or makes."""
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "schemas").glob("*.md")})
DSN = "postgresql://scheduler@db/vacancy"
POOL, TOGETHER = "rack-1@lvm#fast", "0e2a2bd4-4a8c-4c52-a3a5-6a3b3b7f2c11"
MACHINE: dict[str, Any] = {
    "inventories": json.dumps(
        {
            "VCPU": {"total": 64, "min_unit": 1, "max_unit": 64, "step_size": 1},
            "CUSTOM_FPGA": {"total": 4, "min_unit": 1, "max_unit": 4, "step_size": 1},
        }
    ),
    "allocated": "{}",
    "aggregates": f"{{{TOGETHER}}}",
    "numa_cells": json.dumps(
        [
            {
                "id": 0,
                "cpus": list(range(32)),
                "free_cpus": list(range(32)),
                "memory_mb": 65_536,
                "pages": [{"size_kb": 2048, "total": 16_384, "free": 16_384}],
            }
        ]
    ),
    "pci_pools": json.dumps(
        [
            {"vendor_id": "10de", "product_id": "20b5", "numa_node": 0, "total": 2, "free": 2, "tags": {}},
            {
                "vendor_id": "8086",
                "product_id": "154c",
                "numa_node": 0,
                "total": 8,
                "free": 8,
                "tags": {"physical_network": "tenant"},
            },
        ]
    ),
}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    text: str


def blocks(language: str) -> list[Block]:
    """Those of a language that nobody else runs."""
    found = []
    for file in PAGES:
        page, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        found += [
            Block(page, text[: match.start()].count("\n") + 1, textwrap.dedent(match[1]))
            for match in re.finditer(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
            if page not in ELSEWHERE
        ]
    return found


def each(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks(language), ids=lambda block: f"{block.page}:{block.line}")


@pytest.fixture
def table(owner: Connection) -> Connection:
    """Two hosts that have what the pages ask for, and the storage pool beside them."""
    for name in ("5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d01", "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d02"):
        upsert_inventory(owner, **INVENTORY | MACHINE | {"host_id": name, "name": f"compute-{name[-1]}"})
        upsert_usage(owner, host_id=name, observed_at=_now(owner))
    pool = {"traits": "{MISC_SHARES_VIA_AGGREGATE}", "source": "cinder", "aggregates": f"{{{TOGETHER}}}"}
    upsert_inventory(owner, **INVENTORY | pool | {"host_id": "pool", "name": POOL})
    upsert_usage(owner, host_id="pool", observed_at=_now(owner))
    return owner


def _now(owner: Connection) -> Any:
    return query(owner, "SELECT statement_timestamp()")[0][0]


def test_pages_have_blocks_of_both_and_those_elsewhere_are_named() -> None:
    assert len(blocks("python")) >= 5
    assert len(blocks("sql")) >= 5
    for page, runs in ELSEWHERE.items():
        assert re.search("```(python|sql)", (ROOT / page).read_text(encoding="utf-8")), page
        assert (ROOT / runs).exists()


@each("python")
def test_python_runs(table: Connection, database: str, block: Block) -> None:
    """What a page leaves to the reader, an id of an instance or a name that an earlier block imported, is there."""
    one_id, another_id, instance_id = (str(uuid.uuid4()) for _ in range(3))
    names = {name: getattr(vacancy, name) for name in vacancy.__all__}
    names |= {"one_id": one_id, "another_id": another_id, "instance_id": instance_id}
    text = block.text.replace(DSN, database)
    if "scheduler = " not in text:
        names["scheduler"] = vacancy.Scheduler(database)
    if text.startswith("Request("):
        text = f"scheduler.claim({text}, [instance_id])"
    exec(compile(text, f"{block.page}:{block.line}", "exec"), names)  # noqa: S102  # our own pages
    assert query(table, "SELECT true FROM vacancy.claim LIMIT 1"), "nothing was claimed"


@each("sql")
def test_sql_runs(table: Connection, block: Block) -> None:
    """Each statement, in a transaction that is rolled back; a database cannot be made in one."""
    statements = [text for text in re.sub(r"--.*", "", block.text).split(";") if text.strip()]
    assert statements
    with table.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in statements:
            if not statement.strip().startswith("CREATE DATABASE"):
                cursor.execute(statement)
        cursor.execute("ROLLBACK")
