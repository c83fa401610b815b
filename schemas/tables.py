"""The SQL that creates the tables, functions and views of this release, as text.

``migrations/*.sql`` define tables and are applied once each, in the order of their names. ``functions/*.sql`` and
``views/*.sql`` hold no data, and all of them are applied again when one changes. ``schemas/README.md`` says how to
change each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

SOURCES = (
    "functions/max_age",
    "functions/retirement",
    "functions/disabling",
    "functions/settlement",
    "functions/pages",
    "functions/pool",
    "views/pool_drawn",
    "views/host_free",
    "views/schedulable_host",
    "views/freshness",
    "views/source",
    "functions/request",
    "functions/sample",
    "functions/fit",
    "functions/plain",
    "functions/complex",
    "functions/candidate",
    "functions/claim",
    "functions/many",
    "functions/what_fits",
    "functions/bulk",
    "functions/measured",
    "views/pci_pool",
    "views/numa_cell",
    "views/resource_class",
    "views/shared_disk",
    "views/drifting",
    "views/host_drift",
    "functions/drift",
)
"""Functions and views in the order in which they are applied: each after those that it uses."""

_REPLACES = re.compile(r"^-- replaces (\w+) ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True)
class Squash:
    """Upgrades a database made by earlier migrations to a migration that replaces all of them.

    Attributes:
        sql: applied to such a database instead of the migration.
        replaces: the earlier migrations: name to SHA-256.
    """

    sql: str
    replaces: Mapping[str, str]


def migrations() -> dict[str, str]:
    """Migration name to SQL, in the order in which they are applied."""
    found = resources.files(__package__).joinpath("migrations").iterdir()
    texts = {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in found if file.name.endswith(".sql")}
    return dict(sorted(texts.items()))


def squashes() -> dict[str, Squash]:
    """The squashes, by the name of the migration that replaces earlier ones."""
    found = resources.files(__package__).joinpath("migrations", "squashed").iterdir()
    texts = {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in found if file.name.endswith(".sql")}
    return {name: Squash(text, dict(_REPLACES.findall(text))) for name, text in texts.items()}


def sources() -> dict[str, str]:
    """Functions and views, ``folder/file`` to SQL, in the order in which they are applied."""
    root = resources.files(__package__)
    return {name: root.joinpath(f"{name}.sql").read_text("utf-8") for name in SOURCES}
