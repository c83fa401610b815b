"""`vacancy web`: the fleet page."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from vacancy.jobs.logs import configure, log_format_option
from vacancy.jobs.options import flags, load, settings_options
from vacancy.jobs.signals import StopSignal
from vacancy.jobs.web.server import serving

_LOG = logging.getLogger("vacancy.web")


@click.command("web")
@settings_options
@click.option("--listen", help="Address and port, as web.listen.  [default: 127.0.0.1:9770]")
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="As web.allow_hosts.")
@click.option(
    "--certificate-file", type=click.Path(path_type=Path, dir_okay=False), help="For TLS, as web.certificate_file."
)
@click.option("--key-file", type=click.Path(path_type=Path, dir_okay=False), help="For TLS, as web.key_file.")
@log_format_option
def command(
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    allow_hosts: tuple[str, ...],
    certificate_file: Path | None,
    key_file: Path | None,
    log_format: str | None,
) -> None:
    """Show the fleet in a browser, live, until SIGTERM or Ctrl-C. It only reads.

    \b
    Examples:
      vacancy web
      vacancy web --listen 0.0.0.0:9770 --allow-host fleet.example.org     (and web.token)
    """
    given = {
        "listen": listen,
        "allow_hosts": list(allow_hosts) or None,
        "certificate_file": certificate_file,
        "key_file": key_file,
    }
    settings = load(config, data_dir, flags(web=given, log={"format": log_format}))
    configure(settings.log.format, job="web")
    with StopSignal() as stop, serving(settings) as address:
        _LOG.info("the fleet page is at %s", address)
        while not stop.is_set():
            stop.wait(3600)
