"""A real libvirtd with real guests, for tests: QEMU without hardware, as a user without rights; nothing of it is left.

The guests have no operating system: their BIOS looks for one on an empty disk and waits.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.waiting import wait_until

try:
    import libvirt
except ImportError:
    libvirt = None

LIMIT_S = 60.0
_PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_USER = "nobody"


def require_libvirt() -> None:
    """Skips the test where libvirt's bindings are not installed, unless VACANCY_TEST_REQUIRE_LIBVIRT is set."""
    _require(libvirt is not None, "libvirt's bindings are not installed: pip install 'vacancy[libvirt]'")


def require_hypervisor() -> None:
    """Skips the test where there is no libvirtd with QEMU either."""
    require_libvirt()
    missing = [program for program in _PROGRAMS if not shutil.which(program, path=_PATH)]
    packages = "libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86"
    _require(not missing, f"{', '.join(missing)} missing: apt-get install {packages}")


def _require(there: bool, message: str) -> None:
    if not there:
        assert "VACANCY_TEST_REQUIRE_LIBVIRT" not in os.environ, message
        pytest.skip(message)


class Hypervisor:
    """libvirtd in session mode, in a directory of its own.

    Attributes:
        directory: for all of it; the daemon's user may write there.
        uri: to connect to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "libvirtd.log"
        self._socket = directory / "run" / "libvirt" / "libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self._socket}"
        # As root libvirtd would be the system's own, and write where that one does.
        self._user = _USER if os.geteuid() == 0 else ""
        if self._user:
            shutil.chown(directory, self._user)
        environment = {
            "PATH": _PATH,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(directory),
            **{f"XDG_{name.upper()}_HOME": str(directory / name) for name in ("config", "cache", "data")},
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }
        with self.log.open("wb") as log:
            self._reaper = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.harness.reaper",
                    self._user,
                    shutil.which("libvirtd", path=_PATH) or "libvirtd",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                start_new_session=True,
            )
        self.daemon_pid = 0

    def start(self) -> None:
        """Starts the daemon, or starts it again, and waits until it answers."""
        assert self._reaper.stdin is not None
        assert self._reaper.stdout is not None
        print("start", file=self._reaper.stdin, flush=True)
        self.daemon_pid = int(self._reaper.stdout.readline())
        wait_until(self._answers, LIMIT_S, f"libvirtd does not answer; see {self.log}")

    def _answers(self) -> bool:
        return subprocess.run(self._virsh("list"), capture_output=True, check=False).returncode == 0

    def kill(self) -> None:
        """kill -9; its guests go on."""
        os.kill(self.daemon_pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(self.daemon_pid), LIMIT_S, "libvirtd is not gone")

    def stop(self) -> None:
        """Kills all of it."""
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait(LIMIT_S)
        assert self._reaper.stdout is not None
        self._reaper.stdout.close()

    def virsh(self, *arguments: str) -> str:
        """What virsh prints."""
        done = subprocess.run(self._virsh(*arguments), capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, name: str) -> None:
        """Ends a guest. When libvirt sees to its end first, the command that asked for it fails, and it is gone too."""
        subprocess.run(self._virsh("destroy", name), capture_output=True, check=False, timeout=LIMIT_S)
        wait_until(lambda: name not in self.virsh("list", "--name").split(), LIMIT_S, f"{name} does not end")

    def _virsh(self, *arguments: str) -> list[str]:
        return [shutil.which("virsh", path=_PATH) or "virsh", "-c", self.uri, *arguments]

    def domstats(self, name: str) -> dict[str, str]:
        """A domain's statistics, by libvirt's names."""
        return dict(re.findall(r"^  ([^=\n]+)=(.*)$", self.virsh("domstats", "--raw", name), re.MULTILINE))

    def guest(
        self, name: str, uuid_: str | None = None, *, vcpus: int = 1, memory_mb: int = 64, disk_gb: int = 1
    ) -> Path:
        """The definition of a guest with one disk, as a file for virsh."""
        disk = self.directory / f"{name}.raw"
        with disk.open("wb") as image:
            image.truncate(disk_gb * 2**30)
        if self._user:
            shutil.chown(disk, self._user)
        document = self.directory / f"{name}.xml"
        document.write_text(
            f"""<domain type='qemu'>
              <name>{name}</name><uuid>{uuid_ or uuid.uuid4()}</uuid>
              <memory unit='MiB'>{memory_mb}</memory><vcpu>{vcpus}</vcpu>
              <os><type arch='x86_64'>hvm</type></os>
              <devices>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
                </disk>
              </devices>
            </domain>"""
        )
        return document

    def qemu_pid(self, name: str) -> int:
        """The process that a guest is."""
        return int((self.directory / "run" / "libvirt" / "qemu" / "run" / f"{name}.pid").read_text())


@contextmanager
def running_hypervisor() -> Iterator[Hypervisor]:
    """A hypervisor of one's own."""
    require_hypervisor()
    directory = Path(tempfile.mkdtemp(prefix="vacancy-libvirt-"))  # short: the path of a socket has 107 bytes
    directory.chmod(0o755)
    hypervisor = Hypervisor(directory)
    try:
        hypervisor.start()
        yield hypervisor
    finally:
        hypervisor.stop()
        shutil.rmtree(directory)


@contextmanager
def connected(uri: str) -> Iterator[Any]:
    """A connection to libvirt that may do anything."""
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()
