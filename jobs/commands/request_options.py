"""The flags that say what an instance needs, shared by the commands that ask for hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from vacancy.connectors.scheduler.request import Request
from vacancy.jobs.options import DurationType
from vacancy.jobs.wording import mistake
from vacancy.schemas.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
_FRACTION = click.FloatRange(0, 1)
_AMOUNT = click.IntRange(min=0)
_FLAGS = {"required": "require", "forbidden": "forbid", "resources": "resource", "aggregates": "aggregate"}
"""Flags that are not called as what they set."""
_OPTIONS = (
    click.option("--vcpus", type=_AMOUNT, default=0, help="VCPUs."),
    click.option("--memory-mb", type=_AMOUNT, default=0, help="MiB of memory."),
    click.option("--disk-gb", type=_AMOUNT, default=0, help="GiB of disk."),
    click.option(
        "--resource", "resources", multiple=True, metavar="CLASS=N", help="An amount of another resource class."
    ),
    click.option("--numa-cpus", type=_AMOUNT, default=0, help="CPUs to pin, all in one NUMA cell."),
    click.option("--numa-pages", multiple=True, metavar="KIB=N", help="Huge pages of this size, in the same cell."),
    click.option(
        "--pci",
        multiple=True,
        metavar="VENDOR:PRODUCT[,...]",
        help="A PCI device; after it count=N, numa_node=N, same_cell (one cell with --numa-*) and tags, TAG=VALUE.",
    ),
    click.option("--require", "required", multiple=True, metavar="TRAIT", help="The host has this trait."),
    click.option("--any-of", multiple=True, metavar="TRAIT,TRAIT", help="The host has one of these traits."),
    click.option("--forbid", "forbidden", multiple=True, metavar="TRAIT", help="The host does not have this trait."),
    click.option(
        "--aggregate", "aggregates", multiple=True, metavar="UUID", help="The host is in one of these aggregates."
    ),
    click.option("--near", metavar="POOL", help="The host shares an aggregate with this storage pool."),
    click.option("--zone", help="The host is in this availability zone."),
    click.option("--include", multiple=True, metavar="HOST", help="Only these hosts, by name or id."),
    click.option("--avoid", multiple=True, metavar="HOST", help="None of these hosts, by name or id."),
    click.option("--max-cpu-utilization", type=_FRACTION, help="At most this fraction of its CPUs is busy."),
    click.option("--max-cpu-steal", type=_FRACTION, help="At most this fraction of its CPU time is stolen."),
    click.option("--max-cpu-pressure", type=_FRACTION, help="Tasks wait for a CPU at most this fraction of the time."),
    click.option("--max-memory-pressure", type=_FRACTION, help="The same for memory."),
    click.option("--max-io-pressure", type=_FRACTION, help="The same for I/O."),
    click.option("--min-memory-mb-available", type=_AMOUNT, default=0, help="MiB of memory that must stay available."),
    click.option("--max-age", type=DurationType(), help="The host has reported within this time."),
)


def request_options(function: F) -> F:
    """Adds the flags; the command gets them as keyword arguments for :func:`parse_request`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def parse_request(**flags: Any) -> Request:
    """The request that the flags describe.

    Raises:
        ConfigError: a flag is invalid.
    """
    flags["any_of"] = [group.split(",") for group in flags["any_of"]]
    flags["resources"] = _amounts("--resource", flags["resources"])
    flags["numa"] = {"cpus": flags.pop("numa_cpus"), "pages": _amounts("--numa-pages", flags.pop("numa_pages"))}
    flags["pci"] = [_pci(demand) for demand in flags["pci"]]
    try:
        return Request(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        detail = error.errors()[0]
        flag = str(detail["loc"][0]).replace("_", "-") if detail["loc"] else "request"
        raise ConfigError(f"--{_FLAGS.get(flag, flag)}: {mistake(detail)}") from None


def _amounts(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """`name=amount`, each once."""
    split = [pair.partition("=") for pair in pairs]
    for name, equals, amount in split:
        if not (name and equals and amount.isdecimal()):
            raise ConfigError(f"{flag} {name}{equals}{amount}: write it as name=amount")
    amounts = {name: amount for name, _, amount in split}
    if len(amounts) < len(pairs):
        raise ConfigError(f"{flag}: the same name twice")
    return amounts


def _pci(text: str) -> dict[str, Any]:
    """A request for PCI devices; either part of `vendor:product` may be empty and then matches any."""
    ids, *rest = text.split(",")
    vendor_id, _, product_id = ids.partition(":")
    demand: dict[str, Any] = {"vendor_id": vendor_id or None, "product_id": product_id or None, "tags": {}}
    for part in rest:
        name, equals, value = part.partition("=")
        if name == "same_cell" and not equals:
            demand["same_cell"] = True
        elif not (name and equals):
            raise ConfigError(f"--pci {text}: write it as vendor:product,count=N,numa_node=N,same_cell,tag=value")
        elif name in ("count", "numa_node"):
            demand[name] = value
        else:
            demand["tags"][name] = value
    return demand
