"""`vacancy extender`: filters and ranks nodes for kube-scheduler."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import click

from vacancy.connectors.kubernetes.extender import Extender
from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.kubernetes.server import serve
from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.errors import ConfigError, VacancyError

_LOG = logging.getLogger("vacancy.extender")


@click.command("extender")
@settings_options
@click.option("--listen", default="127.0.0.1:9760", show_default=True, help="Address and port to listen on.")
@log_format_option
def command(config: Path | None, data_dir: Path | None, listen: str, log_format: str | None) -> None:
    """Filter and rank nodes for kube-scheduler until SIGTERM or Ctrl-C.

    \b
    Examples:
      vacancy extender
      vacancy extender --config /etc/vacancy.toml --listen 0.0.0.0:9760
    """
    settings = load(config, data_dir, {"log": {"format": log_format}} if log_format else None)
    configure(settings.log.format, job="extender")
    address, _, port = listen.rpartition(":")
    if not port.isdecimal() or not address:
        raise ConfigError(f"--listen {listen}: write it as address:port")
    nodes = Nodes(
        settings.postgres.reader_dsn,
        settings.postgres.connect_timeout,
        settings.scheduler.max_age,
        settings.extender.answer_within,
    )
    with StopSignal() as stop, closing(nodes):
        try:
            with serve(Extender(nodes), address, int(port)):
                _LOG.info("listens on %s", listen)
                while not stop.is_set():
                    stop.wait(3600)
        except OSError as error:
            raise VacancyError(f"--listen {listen}: {error.strerror}; choose another address or port") from None
