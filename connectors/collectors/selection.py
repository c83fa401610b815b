"""Which collector an agent reads its node with, as `agent.collector` says."""

from __future__ import annotations

from importlib import metadata

from vacancy.connectors.collectors.collector import Collector
from vacancy.connectors.collectors.machine import HostCollector
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError


def make_collector(settings: AgentSettings) -> Collector:
    """The collector that is set.

    Raises:
        ConfigError: it lacks something, or there is no such class.
    """
    if settings.collector == "host":
        return HostCollector(settings)
    if settings.collector == "libvirt":
        from vacancy.connectors.collectors.libvirt import LibvirtCollector  # a package that only hypervisors have

        return LibvirtCollector(settings)
    entry = metadata.EntryPoint("collector", settings.collector, "vacancy.collectors")
    try:
        made: Collector = entry.load()(settings)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"agent.collector: {settings.collector} cannot be loaded: {error}; "
            "write it as module:Class, and have Python find the module (PYTHONPATH)"
        ) from None
    return made
