"""A made-up Linux machine: the files of /proc and /sys that the host collector reads, in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vacancy.connectors.collectors.machine import HostCollector
from vacancy.connectors.settings import AgentSettings

PROC = {
    "sys/kernel/random/boot_id": "0f0bd27e-25ce-4c1b-b4b8-1dd2a4c5c8f2\n",
    "meminfo": """\
MemTotal:       16777216 kB
MemFree:         4194304 kB
MemAvailable:    8388608 kB
Buffers:            1024 kB
Cached:          3145728 kB
Shmem:           1048576 kB
HugePages_Total:       0
""",
    "stat": """\
cpu  100 20 300 9000 50 6 7 8 90 1
cpu0 50 10 150 4500 25 3 3 4 45 0
cpu2 50 10 150 4500 25 3 4 4 45 1
intr 1 2 3
btime 1764318731
""",
    "diskstats": """\
   8       0 sda 10 1 200 30 40 5 600 70 0 80 100 0 0 0 0 9 9
   8       1 sda1 9 1 190 30 40 5 600 70 0 80 100
 259       0 nvme0n1 1 0 8 1 2 0 16 1 0 1 1
 252       0 dm-0 99 0 999 9 9 9 999 9 9 9 9
""",
    "net/dev": """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo: 9000 90 0 0 0 0 0 0 9000 90 0 0 0 0 0 0
  eno1: 1000 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0
  eno2:  500  5 0 0 0 0 0 0  700  7 0 0 0 0 0 0
   br0:  900  9 0 0 0 0 0 0  800  8 0 0 0 0 0 0
""",
    "pressure/cpu": "some avg10=0.00 avg60=0.00 total=111\nfull avg10=0.00 avg60=0.00 total=1\n",
    "pressure/memory": "some avg10=0.00 avg60=0.00 total=222\n",
    "pressure/io": "some avg10=0.00 avg60=0.00 total=333\n",
    "cpuinfo": "processor: 0\nflags\t\t: avx2 vmx\n",
    "1/cgroup": "0::/init.scope\n",
    "1/comm": "systemd\n",
}
FIGURES = {
    "stat": ("cpu_busy_ns", "cpu_iowait_ns", "cpu_steal_ns"),
    "diskstats": ("disk_read_bytes", "disk_write_bytes", "disk_read_ops", "disk_write_ops"),
    "net/dev": ("net_rx_bytes", "net_tx_bytes", "net_rx_packets", "net_tx_packets"),
    "pressure/cpu": ("cpu_pressure_us",),
    "pressure/memory": ("memory_pressure_us",),
    "pressure/io": ("io_pressure_us",),
}
"""What is read from where."""


class Machine:
    """The machine in a directory; ``proc`` and ``sysfs`` are its files, to be changed."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.sysfs = directory / "sys"
        for name, text in PROC.items():
            self.write(self.proc / name, text)
        for disk, where in {
            "sda": "pci0000:00/ata1/block/sda",
            "nvme0n1": "pci0000:00/nvme/nvme0/nvme0n1",
            "dm-0": "virtual/block/dm-0",
        }.items():
            self.device(f"block/{disk}", where, hidden="0")
        for name in ("lo", "br0"):
            self.interface(name, f"virtual/net/{name}", type="772" if name == "lo" else "1")
        for name in ("eno1", "eno2"):
            self.interface(name, f"pci0000:00/0000:00:1f.6/net/{name}")

    def write(self, file: Path, text: str) -> None:
        """Makes a file, and its directories."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def device(self, link: str, target: str, **files: str) -> Path:
        """A device: its directory, its files, and the link by its name."""
        directory = self.sysfs / "devices" / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text)
        (self.sysfs / link).parent.mkdir(parents=True, exist_ok=True)
        (self.sysfs / link).symlink_to(directory)
        return directory

    def interface(self, name: str, target: str, **files: str) -> Path:
        """A network interface; ``device`` leads to what it hangs off."""
        directory = self.device(f"class/net/{name}", target, **({"type": "1"} | files))
        if "/virtual/" not in f"/{target}":
            (directory / "device").symlink_to(directory.parent.parent)
        return directory

    def stack(self, upper: str, lower: str) -> None:
        """Puts an interface upon another, as the kernel shows it."""
        net = self.sysfs / "class" / "net"
        (net / upper / f"lower_{lower}").symlink_to(net / lower)
        (net / lower / f"upper_{upper}").symlink_to(net / upper)

    def collector(self, **settings: Any) -> HostCollector:
        """A collector that reads it."""
        return HostCollector(AgentSettings(**settings), proc=self.proc, sysfs=self.sysfs)
