"""Reads a cloud's compute hosts from the HTTP APIs of Placement and Nova, with keystoneauth.

What always holds: a reading is complete or it fails. A failed request never makes a host look gone or empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystoneauth1 import exceptions, loading
from oslo_config import cfg

from vacancy.connectors.collectors.collector import Inventory
from vacancy.connectors.collectors.disk_pool import SHARES
from vacancy.connectors.openstack.cloud import Amounts, Provider, Truth, with_pools
from vacancy.connectors.openstack.notifications import Service
from vacancy.schemas.errors import ConfigError, VacancyError

_PLACEMENT = {"OpenStack-API-Version": "placement 1.19"}
"""The first version whose provider generation also covers aggregates: only allocations change without it."""
_COMPUTE = {"OpenStack-API-Version": "compute 2.53"}
"""The first version that returns the compute nodes' UUIDs."""
_AT_ONCE = 8
_LIMIT_S = 30.0
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class _Static:
    """Everything of a provider except its allocations, which change without a new generation."""

    generation: int
    inventories: Mapping[str, Inventory]
    traits: frozenset[str]
    aggregates: frozenset[str]


class OpenStack:
    """Reads Placement and Nova's API; its methods are for one thread.

    Args:
        placement: keystoneauth's adapter for Placement.
        compute: the same for Nova's API.
        wall_clock: seconds since 1970.

    Every method raises:
        VacancyError: an API cannot be reached, refuses, or sends an unexpected answer; the message says which and why.
    """

    def __init__(self, placement: Any, compute: Any, wall_clock: Callable[[], float] = time.time) -> None:
        self._placement = placement
        self._compute = compute
        self._wall_clock = wall_clock
        self._known: dict[str, _Static] = {}

    def truth(self) -> Truth:
        """All compute nodes that Placement knows, each with its nested providers, and their storage pools."""
        at = self._wall_clock()
        nodes = {node["id"]: node for node in self._hypervisors()}
        listed = _get(self._placement, "/resource_providers", _PLACEMENT)["resource_providers"]
        trees: dict[str, list[Any]] = {}
        for provider in listed:
            trees.setdefault(provider["root_provider_uuid"], []).append(provider)
        wanted = [provider for root in nodes for provider in trees.get(root, [])]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            read = dict(zip((provider["uuid"] for provider in wanted), pool.map(self._provider, wanted), strict=True))
            sharing = _get(self._placement, f"/resource_providers?required={SHARES}", _PLACEMENT)["resource_providers"]
            shared = list(zip(sharing, pool.map(self._provider, sharing), strict=True))
        self._known = {id_: static for id_, (static, _) in read.items()}
        self._known |= {provider["uuid"]: static for provider, (static, _) in shared}
        providers = {
            root: _joined(root, node, [read[provider["uuid"]] for provider in trees[root]])
            for root, node in nodes.items()
            if root in trees
        }
        pools = {
            provider["uuid"]: Provider(
                id=provider["uuid"],
                name=provider["name"],
                service="",
                inventories=static.inventories,
                traits=static.traits,
                aggregates=static.aggregates,
                held=held,
            )
            for provider, (static, held) in shared
        }
        return with_pools(at, providers, pools)

    def services(self) -> tuple[dict[str, Service], dict[str, str | None]]:
        """All nova-compute services, and for each one that is up the time of its last report."""
        listed = _get(self._compute, "/os-services?binary=nova-compute", _COMPUTE)["services"]
        services = {
            service["host"]: Service(
                service["host"],
                service["status"] != "enabled",
                bool(service["forced_down"]),
                service["disabled_reason"],
                service["zone"],
            )
            for service in listed
        }
        return services, {service["host"]: service["updated_at"] for service in listed if service["state"] == "up"}

    def _hypervisors(self) -> Iterator[Any]:
        path: str | None = "/os-hypervisors/detail"
        while path:
            answer = _get(self._compute, path, _COMPUTE)
            yield from answer["hypervisors"]
            links = [link["href"] for link in answer.get("hypervisors_links", []) if link["rel"] == "next"]
            # This client may be unable to reach the host that the link names.
            path = "/os-hypervisors/detail?" + links[0].partition("?")[2] if links else None

    def _provider(self, listed: Mapping[str, Any]) -> tuple[_Static, Mapping[str, Amounts]]:
        path = f"/resource_providers/{listed['uuid']}"
        static = self._known.get(listed["uuid"])
        if static is None or static.generation != listed["generation"]:
            static = _Static(
                listed["generation"],
                {
                    name: Inventory(
                        total=inventory["total"],
                        reserved=inventory["reserved"],
                        max_unit=inventory["max_unit"],
                        allocation_ratio=inventory["allocation_ratio"],
                        min_unit=inventory["min_unit"],
                        step_size=inventory["step_size"],
                    )
                    for name, inventory in _get(self._placement, f"{path}/inventories", _PLACEMENT)[
                        "inventories"
                    ].items()
                },
                frozenset(_get(self._placement, f"{path}/traits", _PLACEMENT)["traits"]),
                frozenset(_get(self._placement, f"{path}/aggregates", _PLACEMENT)["aggregates"]),
            )
        allocations = _get(self._placement, f"{path}/allocations", _PLACEMENT)["allocations"]
        return static, {consumer: allocation["resources"] for consumer, allocation in allocations.items()}


def connect(conf: Any) -> OpenStack:
    """Connects as ``[placement]`` of nova.conf says, and to Nova's API as ``[nova]`` says if it has credentials.

    Raises:
        ConfigError: one of the two sections is wrong.
    """
    groups = ("placement", "nova")
    for group in groups:
        loading.register_auth_conf_options(conf, group)
        loading.register_session_conf_options(conf, group)
        loading.register_adapter_conf_options(conf, group)
    try:
        # [nova] falls back to [placement]: one user may call both APIs, at the addresses in the catalog.
        sections = {
            group: group if conf[group].auth_type or conf[group].auth_section else groups[0] for group in groups
        }
        adapters: list[Any] = []
        for group, service in zip(groups, ("placement", "compute"), strict=True):
            auth = loading.load_auth_from_conf_options(conf, sections[group])
            if auth is None:
                raise ConfigError(f"bridge.nova_conf: [{sections[group]}] auth_type is missing")
            session = loading.load_session_from_conf_options(conf, sections[group], auth=auth)
            # Logging in and looking up the catalog have no limit of their own.
            session.timeout = session.timeout or _LIMIT_S
            adapter = loading.load_adapter_from_conf_options(conf, group, session=session, auth=auth)
            adapter.service_type = service
            adapters.append(adapter)
    except (exceptions.ClientException, cfg.Error) as error:
        raise ConfigError(f"bridge.nova_conf: [placement] or [nova]: {error}") from None
    return OpenStack(adapters[0], adapters[1])


def read_conf(file: Path) -> Any:
    """Reads nova.conf, or a file with some of its sections.

    Raises:
        ConfigError: the file cannot be read.
    """
    conf = cfg.ConfigOpts()
    try:
        conf([], project="vacancy", prog="vacancy", default_config_files=[str(file)], default_config_dirs=[])
    except cfg.Error as error:
        raise ConfigError(f"bridge.nova_conf: {file}: {error}") from None
    return conf


def _get(adapter: Any, path: str, headers: Mapping[str, str]) -> Any:
    try:
        answer = adapter.get(path, headers=headers, timeout=_LIMIT_S, connect_retries=0)
        return answer.json()
    except (exceptions.ClientException, ValueError) as error:
        where = "Placement" if adapter.service_type == "placement" else "Nova's API"
        said = " ".join(str(error).split())[:_SHOWN]
        raise VacancyError(f"{where}, GET {path.partition('?')[0]}: {said}") from None


def _joined(root: str, node: Mapping[str, Any], parts: list[tuple[_Static, Mapping[str, Amounts]]]) -> Provider:
    """A compute node with the resources of all providers in its tree."""
    inventories: dict[str, Inventory] = {}
    held: dict[str, dict[str, int]] = {}
    for static, allocations in parts:
        for name, part in static.inventories.items():
            inventories[name] = _added(inventories[name], part) if name in inventories else part
        for consumer, amounts in allocations.items():
            mine = held.setdefault(consumer, {})
            for name, amount in amounts.items():
                mine[name] = mine.get(name, 0) + amount
    return Provider(
        id=root,
        name=node["hypervisor_hostname"],
        service=node["service"]["host"],
        inventories=inventories,
        traits=frozenset().union(*(static.traits for static, _ in parts)),
        aggregates=frozenset().union(*(static.aggregates for static, _ in parts)),
        held=held,
    )


def _added(one: Inventory, other: Inventory) -> Inventory:
    """Adds the inventories of one resource class in two providers of a tree; an allocation uses only one of them."""
    return Inventory(
        total=one.total + other.total,
        reserved=one.reserved + other.reserved,
        max_unit=max(one.max_unit, other.max_unit),
        allocation_ratio=min(one.allocation_ratio, other.allocation_ratio),
        min_unit=min(one.min_unit, other.min_unit),
        step_size=max(one.step_size, other.step_size),
    )
