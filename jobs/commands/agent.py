"""`vacancy agent`: emits this compute node's events."""

from __future__ import annotations

import ctypes
import gc
import logging
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from vacancy.connectors.collectors.disk_pool import pool_id
from vacancy.connectors.collectors.selection import make_collector
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.kafka.outbox import Outbox
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import DurationType, flags, load, settings_options
from vacancy.jobs.reporters.agent import FLUSH_LIMIT_S, Agent, run
from vacancy.jobs.reporters.disk_pool import PoolReporter
from vacancy.jobs.reporters.encoders import make_encoders
from vacancy.jobs.reporters.identity import host_id_of, only_agent
from vacancy.jobs.settings import Settings, default_data_dir
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event
from vacancy.schemas.units import format_duration

_LOG = logging.getLogger("vacancy.agent")


@click.command(
    help="""Emit this compute node's events until SIGTERM or Ctrl-C.

    \b
    Into the local stack:     vacancy agent
    On a compute node:        vacancy agent --config /etc/vacancy.toml
    Ten times a second:       vacancy agent --interval 100ms
    Without a settings file:  VACANCY_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 vacancy agent
    """
)
@settings_options
@click.option("--host-id", help="Identity of this node.  [default: made from the machine id]")
@click.option("--interval", type=DurationType(), help="Time between two usage events.  [default: 1s]")
@log_format_option
def command(
    config: Path | None, data_dir: Path | None, host_id: str | None, interval: Any, log_format: str | None
) -> None:
    """Runs the agent."""
    settings = load(
        config, data_dir, flags(agent={"host_id": host_id, "interval": interval}, log={"format": log_format})
    )
    identity = host_id_of(settings.agent, data_dir or default_data_dir())
    configure(settings.log.format, host=settings.agent.name or socket.gethostname(), host_id=identity, job="agent")
    collector = make_collector(settings.agent)
    outbox = Outbox(settings.kafka, identity, settings.agent.buffer_events)
    with only_agent(identity, settings.kafka), StopSignal() as stop:
        encoders = make_encoders(settings.kafka, stop)
        if encoders is None:
            return
        _LOG.info(
            "host %s sends to %s every %s",
            identity,
            settings.kafka.bootstrap_servers,
            format_duration(settings.agent.reporting_interval) + (" or on change" if settings.agent.tolerance else ""),
        )
        pool = _pool_reporter(settings, encoders)
        agent = Agent(settings.agent, identity, collector, outbox, encoders, pool, window=settings.job.window)

        def wake() -> None:
            agent.wake()
            stop.interrupt()

        collector.watch(wake)
        with _exported(settings.agent, agent, outbox, identity):
            _give_back_memory()
            run(agent, outbox, stop)
            if pool is not None:
                pool.close(FLUSH_LIMIT_S)
            left = outbox.close(FLUSH_LIMIT_S)
        what = f"{left.usage} usage events{' and the inventory' if left.inventory else ''}"
        total = f"{outbox.delivered} usage events delivered, {outbox.dropped} dropped"
        if left:
            _LOG.warning("stopped; %s; not delivered within %g s: %s", total, FLUSH_LIMIT_S, what)
        else:
            _LOG.info("stopped; %s", total)


def _give_back_memory() -> None:
    """Gives 3 MiB back to the system that loading has left behind, and that the agent would keep for ever."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than GNU's has no such function
        ctypes.CDLL(None).malloc_trim(0)


def _pool_reporter(settings: Settings, encoders: Mapping[Event, Encoder]) -> PoolReporter | None:
    """What reports the storage pool of the node's disk, if this agent is to."""
    pool = settings.agent.disk_pool
    if pool is None or not settings.agent.reports_disk_pool:
        return None
    _LOG.info("this agent reports the storage pool %s, as host %s", pool, pool_id(pool))
    events = HostEvents(settings.kafka, "vacancy-agent-pool")
    return PoolReporter(settings.agent, pool, events, encoders, settings.job.window)


def _exported(settings: AgentSettings, agent: Agent, outbox: Outbox, host_id: str) -> AbstractContextManager[None]:
    """Serves the agent's metrics inside the ``with`` block, if a port is set for them."""
    if settings.metrics_port is None:
        return nullcontext()
    # Imported here, so that an agent without a metrics port does not load the Prometheus client into memory.
    from vacancy.jobs.metrics import exported
    from vacancy.jobs.reporters.agent_metrics import AgentCollector

    collector = AgentCollector(agent, outbox, host_id)
    return exported("agent", settings.metrics_port, settings.metrics_address, collector)
