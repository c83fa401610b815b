"""`vacancy bridge`: emits the events of a cloud's hosts, from its notifications."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.openstack.api import connect, read_conf
from vacancy.connectors.openstack.cloud import Cloud
from vacancy.connectors.openstack.listener import Listener
from vacancy.connectors.settings import BridgeSettings
from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import flags, load, settings_options
from vacancy.jobs.reporters.bridge import LEAST_TURN_S, Bridge, Reader
from vacancy.jobs.reporters.encoders import make_encoders
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.events import Event

_FLUSH_S = 5.0
_LOG = logging.getLogger("vacancy.bridge")


@click.command(
    help="""Emit events for all compute hosts of a cloud, from its notifications, Placement and Nova's API.

    \b
    On a controller:   vacancy bridge --config /etc/vacancy.toml
    """
)
@settings_options
@log_format_option
def command(config: Path | None, data_dir: Path | None, log_format: str | None) -> None:
    """Runs the bridge."""
    settings = load(config, data_dir, flags(log={"format": log_format}))
    configure(settings.log.format, job="bridge")
    conf = read_conf(settings.bridge.nova_conf)
    api = connect(conf)
    events = HostEvents(settings.kafka, "vacancy-bridge")
    with StopSignal() as stop:
        encoders = make_encoders(settings.kafka, stop)
        if encoders is None:
            return
        bridge = Bridge(settings.bridge, Cloud(), events, encoders, stop.interrupt)
        listener = Listener(settings.bridge, conf, bridge)
        reader = Reader(settings.bridge, api, bridge)
        with _exported(settings.bridge, bridge):
            listener.start()
            reader.start()
            while not stop.is_set():
                # The wait is limited, so that the broker's answers are processed regularly.
                stop.wait(0.0 if bridge.woken else 1.0)
                bridge.turn()
                time.sleep(LEAST_TURN_S)
            bridge.close()
            reader.stop()
            listener.stop()
            left = events.close(_FLUSH_S)
        total = f"{events.delivered[Event.USAGE]} usage events delivered"
        if left:
            _LOG.warning("stopped; %s; not delivered within %g s: %d events", total, _FLUSH_S, left)
        else:
            _LOG.info("stopped; %s", total)


def _exported(settings: BridgeSettings, bridge: Bridge) -> AbstractContextManager[None]:
    if settings.metrics_port is None:
        return nullcontext()
    from vacancy.jobs.metrics import exported
    from vacancy.jobs.reporters.bridge_metrics import BridgeCollector

    return exported("bridge", settings.metrics_port, settings.metrics_address, BridgeCollector(bridge))
