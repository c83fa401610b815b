"""The identity of a compute node: the id that is the key of its events."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import socket
import struct
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vacancy.connectors.settings import AgentSettings, KafkaSettings
from vacancy.schemas.errors import VacancyError

_APPLICATION = uuid.UUID("0f0bd27e-25ce-4c1b-b4b8-1dd2a4c5c8f2")


def host_id_of(settings: AgentSettings, state_dir: Path) -> str:
    """This node's id: from the setting, from a file, or derived from the machine id.

    Raises:
        VacancyError: the file contains no UUID, or no identity can be found or kept.
    """
    if settings.host_id:
        return settings.host_id
    if settings.host_id_file:
        try:
            return str(uuid.UUID(settings.host_id_file.read_text(encoding="ascii").strip()))
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or "no UUID in it"
            raise VacancyError(
                f"agent.host_id_file {settings.host_id_file}: {what}; start nova-compute once, which writes it, "
                "or set agent.host_id"
            ) from None
    return default_host_id(state_dir)


def default_host_id(state_dir: Path, machine_id: Path = Path("/etc/machine-id")) -> str:
    """A stable UUID: derived from the machine id, or else generated once and kept in state_dir.

    The machine id itself is confidential (machine-id(5)), so the UUID is a keyed hash of it.

    Raises:
        VacancyError: there is no machine id, and state_dir cannot be written.
    """
    try:
        key = bytes.fromhex(machine_id.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) == 16 and any(key):
        return str(uuid.UUID(bytes=hmac.digest(key, _APPLICATION.bytes, hashlib.sha256)[:16], version=4))
    file = state_dir / "host-id"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"host-id.{os.getpid()}")
        unfinished.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        try:
            # Unlike a rename, this does not overwrite a file that another agent has just written.
            file.hardlink_to(unfinished)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
        return str(uuid.UUID(file.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise VacancyError(f"{file}: cannot keep this node's identity: {error}; set agent.host_id") from None


@contextmanager
def only_agent(host_id: str, settings: KafkaSettings) -> Iterator[None]:
    """Keeps a second agent of this machine from sending as the same host to the same topic, while it lasts.

    The two would take turns to show in the table. A socket without a file says so: it ends with its process. Only Linux
    has such sockets, and containers with a network of their own do not see each other's.

    Raises:
        VacancyError: another does already.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    what = f"{host_id} {settings.bootstrap_servers} {settings.usage_topic}"
    address = b"\0vacancy-agent-" + hashlib.sha256(what.encode()).hexdigest()[:32].encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        try:
            held.bind(address)
            held.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise VacancyError(
                    f"another agent on this machine{_pid_at(address)} sends as host {host_id} to"
                    f" {settings.bootstrap_servers} already; end it (`vacancy up` starts one), or set agent.host_id"
                ) from None
            # Where no such socket may be had nobody is refused.
        yield


def _pid_at(address: bytes) -> str:
    """Of the process that listens there, for a message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, suppress(OSError):
        asking.settimeout(1)
        asking.connect(address)
        (pid,) = struct.unpack("i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4])
        return f" (process {pid})"
    return ""
