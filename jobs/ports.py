"""TCP ports of the local stack, all on 127.0.0.1."""

from __future__ import annotations

import random
import socket

from vacancy.schemas.errors import VacancyError

HOST = "127.0.0.1"
# Below the kernel's range for outgoing connections: otherwise a client that keeps trying to reach a stopped server
# could be given the server's own port, and connect to itself.
_CANDIDATES = range(15_000, 32_000)


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(*taken: int) -> int:
    """A port that nothing listens on and that is not in the set of taken ports.

    Raises:
        VacancyError: no free port was found.
    """
    for port in random.sample(_CANDIDATES, 200):
        if port not in taken and is_free(port):
            return port
    raise VacancyError(f"no free port on {HOST} among 200 tried; name free ones in the settings' section [local]")


def answers(port: int) -> bool:
    """Whether something accepts connections on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
