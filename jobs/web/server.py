"""Runs the fleet page until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from vacancy.jobs.settings import Settings
from vacancy.jobs.web.application import Application
from vacancy.jobs.web.frames import Frames
from vacancy.jobs.web.watch import Watch
from vacancy.schemas.errors import ConfigError, VacancyError

_LOG = logging.getLogger("vacancy.web")
_MAX_CONNECTIONS = 1000


def require_safe(settings: Settings) -> tuple[str, int]:
    """The address and the port to listen on.

    Raises:
        ConfigError: others could reach the page without a token, or not at all.
    """
    web = settings.web
    address, _, port = web.listen.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not address:
        raise ConfigError(f"web.listen {web.listen}: write it as address:port")
    if (web.certificate_file is None) != (web.key_file is None):
        raise ConfigError("web.certificate_file and web.key_file need each other")
    if not _is_loopback(address):
        if web.token is None:
            raise ConfigError(
                f"web.listen {web.listen}: others could read the table; set web.token, or listen on 127.0.0.1 behind a"
                " proxy that authenticates (docs/web.md)"
            )
        if not web.allow_hosts:
            raise ConfigError(
                f"web.listen {web.listen}: say with --allow-host by which name browsers call this server (docs/web.md)"
            )
    return address, int(port)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serves the page inside the ``with`` block; gives its address.

    Raises:
        ConfigError: see :func:`require_safe`.
        VacancyError: the port cannot be opened.
    """
    address, port = require_safe(settings)
    listening = _listen(address, port)
    watch = Watch(settings, Frames(secrets.randbits(31)))
    application = Application(settings, watch)
    web = settings.web
    server = uvicorn.Server(
        uvicorn.Config(
            application.asgi(),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            loop="asyncio",
            http="h11",
            h11_max_incomplete_event_size=32_768,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            ssl_certfile=web.certificate_file,
            ssl_keyfile=web.key_file,
        )
    )
    # In a thread of its own uvicorn leaves signals to us.
    thread = threading.Thread(target=server.run, args=([listening],), name="http", daemon=True)
    watch.start()
    thread.start()
    scheme = "https" if web.certificate_file else "http"
    shown = f"[{address}]" if ":" in address else address
    try:
        yield f"{scheme}://{shown}:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        watch.stop()
        application.close()
        listening.close()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise VacancyError(f"web.listen {address}:{port}: {error.strerror}; choose another address or port") from None
    return listening
