"""The SQL that makes the tables, functions and views of this release, as text.

``migrations/*.sql`` hold state and are applied once each, in the order of their names. ``functions/*.sql`` and
``views/*.sql`` hold none and are applied again, all of them, when one changes. ``schemas/README.md`` says how to change
each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

SOURCES = (
    "functions/max_age",
    "functions/retirement",
    "functions/settlement",
    "views/host_free",
    "views/schedulable_host",
    "views/freshness",
    "views/source",
    "functions/request",
    "functions/fit",
    "functions/complex",
    "functions/sample",
    "functions/candidate",
    "functions/claim",
    "functions/measured",
    "views/pci_pool",
    "views/numa_cell",
    "views/resource_class",
    "views/drifting",
    "views/host_drift",
    "functions/drift",
)
"""Functions and views in the order in which they are applied: each after what it uses."""

_REPLACES = re.compile(r"^-- replaces (\w+) ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True)
class Squash:
    """How a database that was made by earlier migrations comes to one that stands for all of them.

    Attributes:
        sql: what is applied to it instead of the migration.
        replaces: the earlier migrations: name to SHA-256.
    """

    sql: str
    replaces: Mapping[str, str]


def migrations() -> dict[str, str]:
    """Name to SQL, in the order in which they are applied."""
    found = resources.files(__package__).joinpath("migrations").iterdir()
    texts = {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in found if file.name.endswith(".sql")}
    return dict(sorted(texts.items()))


def squashes() -> dict[str, Squash]:
    """By the name of the migration that stands for earlier ones."""
    found = resources.files(__package__).joinpath("migrations", "squashed").iterdir()
    texts = {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in found if file.name.endswith(".sql")}
    return {name: Squash(text, dict(_REPLACES.findall(text))) for name, text in texts.items()}


def sources() -> dict[str, str]:
    """Functions and views, ``folder/file`` to SQL, in the order in which they are applied."""
    root = resources.files(__package__)
    return {name: root.joinpath(f"{name}.sql").read_text("utf-8") for name in SOURCES}
