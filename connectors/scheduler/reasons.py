"""What exactly rules a host out for a request, with the figures of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vacancy.connectors.scheduler.answers import FREE, LOADS, UNITS, dimension_label
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.schemas.units import format_duration

_CLASSES = {"vcpus": "VCPU", "memory_mb": "MEMORY_MB", "disk_gb": "DISK_GB"}


def why_out(dimension: str, row: Mapping[str, Any], request: Request, settings: SchedulerSettings) -> str:
    """What rules a host out, in words with the host's and the request's figures.

    Args:
        dimension: as `ruled_out_by` has it.
        row: the host's row of `schedulable_host`, as JSON.
        request: what was asked for.
        settings: the defaults of what the request leaves open.
    """
    if dimension in FREE:
        amount, how = FREE[dimension]
        asked = getattr(request, amount)
        if dimension == "memory_mb_available":
            asked += request.min_memory_mb_available
        had = row[dimension]
        return f"{'-' if had is None else format(had, ',')} {UNITS[amount]} {how}, {asked:,} asked for"
    if dimension in LOADS:
        return f"{row[dimension]:.1%} {LOADS[dimension]}, at most {getattr(request, f'max_{dimension}'):.1%} asked for"
    if dimension.removesuffix("_unit") in _CLASSES and dimension.endswith("_unit"):
        return _unit_rule(dimension.removesuffix("_unit"), row, request)
    match dimension:
        case "disabled":
            return str(row["reason"])
        case "stale":
            limit = request.max_age or settings.max_age
            return f"its figures are {row['age']:.1f} s old, at most {format_duration(limit)} allowed"
        case "include":
            return "not among the hosts of --include"
        case "avoid":
            return "among the hosts of --avoid"
        case "zone":
            return f"in zone {row['zone'] or '-'}, {request.zone} asked for"
        case "aggregates":
            return f"in none of the aggregates {', '.join(request.aggregates)}"
        case "required":
            return f"lacks {', '.join(sorted(set(request.required) - set(row['traits'])))}"
        case "forbidden":
            return f"has {', '.join(sorted(set(request.forbidden) & set(row['traits'])))}, which is forbidden"
        case "any_of":
            lacking = [group for group in request.any_of if not set(group) & set(row["traits"])]
            return "; ".join(f"has none of {', '.join(group)}" for group in lacking)
    if dimension in request.resources:
        return f"{dimension}: too few free, {request.resources[dimension]:,} asked for"
    return dimension_label(dimension).rstrip(",")


def _unit_rule(amount: str, row: Mapping[str, Any], request: Request) -> str:
    """The rule of min_unit, max_unit and step_size that an amount breaks."""
    inventory = (row["inventories"] or {}).get(_CLASSES[amount], {})
    least, step = inventory.get("min_unit", 1), inventory.get("step_size", 1)
    most = inventory.get("max_unit")
    rule = (
        f"takes {least:,} {UNITS[amount]} and more" if most is None else f"takes {least:,} to {most:,} {UNITS[amount]}"
    )
    if step != 1:
        rule += f" in steps of {step:,}"
    return f"{rule} at once, {getattr(request, amount):,} asked for"
