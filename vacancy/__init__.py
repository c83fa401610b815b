"""Vacancy: a live table of what every compute node has free, for schedulers.

The names in ``__all__`` are the public ones; everything else may change with any release. Each is loaded when it is
first used, so ``import vacancy`` is cheap and works without the packages of the extras. Names for schedulers need
``vacancy[scheduler]``, those for collectors ``vacancy[agent]``; those for ranking need no extra.

>>> from vacancy import NoHostFitsError, Request, Scheduler    # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vacancy.connectors.collectors.collector import (
        Collector,
        HugePages,
        Inventory,
        InventoryReading,
        NumaCell,
        PciPool,
        UsageReading,
    )
    from vacancy.connectors.collectors.machine import HostCollector
    from vacancy.connectors.postgres.connection import UnreachableError
    from vacancy.connectors.postgres.schedulable_hosts import HostRow
    from vacancy.connectors.scheduler.adapter import Scheduler
    from vacancy.connectors.scheduler.answers import (
        Candidate,
        Claim,
        ContendedError,
        Contradiction,
        ContradictionError,
        NearestMiss,
        NoHostFitsError,
        Refusal,
        TimedOutError,
    )
    from vacancy.connectors.scheduler.metrics import SchedulerCollector
    from vacancy.connectors.scheduler.ranking import Amount, Limits, Measured, fullness, over_limit
    from vacancy.connectors.scheduler.request import Numa, Pci, Request, Weights
    from vacancy.connectors.settings import AgentSettings, SchedulerSettings
    from vacancy.schemas.errors import ConfigError, VacancyError

__all__ = [  # __getattr__ loads them; tests/unit/test_public_names.py holds the list
    "AgentSettings",
    "Amount",
    "Candidate",
    "Claim",
    "Collector",
    "ConfigError",
    "ContendedError",
    "Contradiction",
    "ContradictionError",
    "HostCollector",
    "HostRow",
    "HugePages",
    "Inventory",
    "InventoryReading",
    "Limits",
    "Measured",
    "NearestMiss",
    "NoHostFitsError",
    "Numa",
    "NumaCell",
    "Pci",
    "PciPool",
    "Refusal",
    "Request",
    "Scheduler",
    "SchedulerCollector",
    "SchedulerSettings",
    "TimedOutError",
    "UnreachableError",
    "UsageReading",
    "VacancyError",
    "Weights",
    "fullness",
    "over_limit",
]

_MODULES = {
    "connectors.collectors.collector": (
        "Collector", "HugePages", "Inventory", "InventoryReading", "NumaCell", "PciPool", "UsageReading",
    ),
    "connectors.collectors.machine": ("HostCollector",),
    "connectors.postgres.connection": ("UnreachableError",),
    "connectors.postgres.schedulable_hosts": ("HostRow",),
    "connectors.scheduler.adapter": ("Scheduler",),
    "connectors.scheduler.answers": (
        "Candidate", "Claim", "ContendedError", "Contradiction", "ContradictionError", "NearestMiss", "NoHostFitsError",
        "Refusal", "TimedOutError",
    ),
    "connectors.scheduler.metrics": ("SchedulerCollector",),
    "connectors.scheduler.ranking": ("Amount", "Limits", "Measured", "fullness", "over_limit"),
    "connectors.scheduler.request": ("Numa", "Pci", "Request", "Weights"),
    "connectors.settings": ("AgentSettings", "SchedulerSettings"),
    "schemas.errors": ("ConfigError", "VacancyError"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # so that type checkers report misspelled names

    def __getattr__(name: str) -> Any:
        """Loads a public name (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
