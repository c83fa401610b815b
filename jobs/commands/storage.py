"""`vacancy storage`: emits the events of Cinder's pools."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import click

from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.openstack.cinder import Cinder
from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import DurationType, flags, load, settings_options
from vacancy.jobs.reporters.agent import FLUSH_LIMIT_S
from vacancy.jobs.reporters.encoders import make_encoders
from vacancy.jobs.reporters.storage import Storage
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.units import format_duration

_LOG = logging.getLogger("vacancy.agent")


@click.command("storage")
@settings_options
@click.option("--interval", type=DurationType(), help="Time between two readings of the pools.  [default: 10s]")
@log_format_option
def command(config: Path | None, data_dir: Path | None, interval: Any, log_format: str | None) -> None:
    """Emit the events of Cinder's pools until SIGTERM or Ctrl-C.

    \b
    Example:  vacancy storage --config /etc/vacancy.toml
    """
    settings = load(config, data_dir, flags(storage={"interval": interval}, log={"format": log_format}))
    configure(settings.log.format, job="storage")
    cinder = Cinder(settings.storage)
    events = HostEvents(settings.kafka, "vacancy-storage")
    with StopSignal() as stop:
        encoders = make_encoders(settings.kafka, stop)
        if encoders is None:
            return
        every = format_duration(settings.storage.interval)
        _LOG.info("Cinder's pools go to %s every %s", settings.kafka.bootstrap_servers, every)
        storage = Storage(settings.storage, cinder.pools, events, encoders)
        while not stop.is_set():
            due = storage.turn()
            while not stop.is_set() and (left_s := due - time.monotonic()) > 0:
                if events.left:
                    events.serve(min(left_s, 0.1))
                else:
                    stop.wait(left_s)
        left = events.close(FLUSH_LIMIT_S)
    _LOG.info("stopped; %d events delivered%s", sum(events.delivered.values()), f", {left} not" if left else "")
