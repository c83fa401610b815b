"""The host collector on machines that are not as expected: a figure that cannot be had costs itself alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness.machine import FIGURES, PROC, Machine
from vacancy.connectors.collectors.devices import counted_disks, counted_interfaces
from vacancy.connectors.collectors.file_system import Helper, kind_of
from vacancy.connectors.collectors.limited import Limited
from vacancy.connectors.collectors.machine import HostCollector, numa_cells
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
FAULTS = ("missing", "empty", "directory", "garbled", "shortened", "fewer columns", "huge", "negative", "bytes")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _figures(collector: HostCollector) -> dict[str, Any]:
    figures = dataclasses.asdict(collector.usage())
    for name in ("monotonic_ns", "disk_gb_available"):
        del figures[name]
    return figures


def test_figures_of_a_machine_as_it_should_be(machine: Machine) -> None:
    usage = machine.collector(reserved_memory_mb=0).usage()
    assert (usage.cpu_count, usage.vcpus_capacity) == (2, 2)
    assert (usage.cpu_busy_ns, usage.cpu_iowait_ns, usage.cpu_steal_ns) == (433 * TICK_NS, 50 * TICK_NS, 8 * TICK_NS)
    assert (usage.memory_mb_capacity, usage.memory_mb_available) == (16384, 8192)
    assert (usage.disk_read_bytes, usage.disk_write_bytes) == (208 * 512, 616 * 512)
    assert (usage.disk_read_ops, usage.disk_write_ops) == (11, 42)
    assert (usage.net_rx_bytes, usage.net_tx_bytes, usage.net_rx_packets, usage.net_tx_packets) == (1500, 2700, 15, 27)
    assert (usage.cpu_pressure_us, usage.memory_pressure_us, usage.io_pressure_us) == (111, 222, 333)


def _spoil(file: Path, fault: str) -> None:
    text = file.read_text()
    match fault:
        case "missing":
            file.unlink()
        case "empty":
            file.write_text("")
        case "directory":
            file.unlink()
            file.mkdir()
        case "garbled":
            file.write_text(text.translate(str.maketrans("0123456789", "x?-. ,;:#'")))
        case "shortened":
            file.write_text(text[: len(text) // 3])
        case "fewer columns":
            file.write_text("\n".join(" ".join(line.split()[:4]) for line in text.splitlines()))
        case "huge":
            file.write_text("".join(_huge(word) for word in _words(text)))
        case "negative":
            file.write_text("".join(f"-{word}" if word.isdecimal() else word for word in _words(text)))
        case "bytes":
            file.write_bytes(bytes(range(256)))


def _words(text: str) -> list[str]:
    return [part for line in text.splitlines(keepends=True) for part in _split(line)]


def _split(line: str) -> Iterator[str]:
    word = ""
    for letter in line:
        if letter.isspace():
            yield from (word, letter)
            word = ""
        else:
            word += letter
    yield word


def _huge(word: str) -> str:
    return str(2**64 - 1) if word.isdecimal() else word


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(FIGURES)), st.sampled_from(FAULTS), max_size=4))
def test_a_file_that_is_missing_or_garbled_costs_its_figures_alone(faults: dict[str, str]) -> None:
    """From the start, or later; and the reading can be sent."""
    for from_the_start in (True, False):
        directory = Path(tempfile.mkdtemp())
        try:
            machine = Machine(directory)
            expected = _figures(machine.collector())
            collector = machine.collector()
            if not from_the_start:
                collector.usage()
            for name, fault in faults.items():
                _spoil(machine.proc / name, fault)
            if from_the_start:
                collector = machine.collector()
            figures = _figures(collector)
            lost = {figure for name in faults for figure in FIGURES[name]}
            # Without cpu0, cpu1 … in /proc/stat their number comes from elsewhere.
            lost |= {"cpu_count", "vcpus_capacity"} if "stat" in faults else set()
            for name, value in figures.items():
                assert value == expected[name] or name in lost, name
                assert value is None or not isinstance(value, int) or 0 <= value < 2**62, name
            assert figures["cpu_count"] >= 1
            if figures["cpu_busy_ns"] is not None:
                record = dataclasses.asdict(collector.usage()) | {"host_id": "h", "seq": 0, "agent_time": 0}
                assert Encoder(Event.USAGE).encode(record)
            assert collector.inventory().inventories["MEMORY_MB"].total == 16384
            unread = {name for name, fault in faults.items() if fault in {"missing", "directory"}}
            for name in unread & {"stat", "diskstats", "net/dev"}:
                assert figures[FIGURES[name][0]] is None
                assert FIGURES[name][0] in collector.unknown
        finally:
            shutil.rmtree(directory)


@pytest.mark.parametrize("fault", sorted({*FAULTS} - {"shortened", "fewer columns"}))
def test_without_its_memory_there_is_no_reading(machine: Machine, fault: str) -> None:
    collector = machine.collector()
    _spoil(machine.proc / "meminfo", fault)
    with pytest.raises((OSError, ValueError), match="meminfo"):
        collector.usage()
    if fault == "directory":
        (machine.proc / "meminfo").rmdir()
    machine.write(machine.proc / "meminfo", PROC["meminfo"].replace("16777216", str(2**60)))
    with pytest.raises(ValueError, match="no MemTotal that a machine can have"):
        collector.usage()
    machine.write(machine.proc / "meminfo", PROC["meminfo"])
    assert collector.usage().memory_mb_available == 8192


def test_lxcfs_writes_fewer_columns(machine: Machine) -> None:
    machine.write(machine.proc / "diskstats", "   8       0 sda 10 1 200 30 40 5 600\n")
    assert machine.collector().usage().disk_write_bytes == 600 * 512
    machine.write(machine.proc / "diskstats", "   8       0 sda 10 1 200\n")
    collector = machine.collector()
    usage = collector.usage()
    assert (usage.disk_read_bytes, usage.disk_read_ops) == (200 * 512, 10)
    assert (usage.disk_write_bytes, usage.disk_write_ops) == (None, None)
    assert collector.unknown == dict.fromkeys(("disk_write_bytes", "disk_write_ops"), "not all of sda tell it")


def test_without_diskstats_and_sysfs_nothing_fails(machine: Machine) -> None:
    (machine.proc / "diskstats").unlink()
    shutil.rmtree(machine.sysfs)
    collector = machine.collector()
    usage = collector.usage()
    assert usage.disk_read_bytes is None
    assert "No such file" in collector.unknown["disk_read_bytes"]
    assert usage.net_rx_bytes == 1000 + 500 + 900


@pytest.mark.parametrize("huge", [2**62, 2**63, 2**64 - 1, 10**30])
def test_a_counter_beyond_what_an_event_holds_is_not_known(machine: Machine, huge: int) -> None:
    machine.write(machine.proc / "net/dev", PROC["net/dev"].replace("1000 10", f"{huge} 10"))
    machine.write(machine.proc / "stat", PROC["stat"].replace("9000 50", f"{huge} 50", 1))
    collector = machine.collector()
    usage = collector.usage()
    assert (usage.net_rx_bytes, usage.net_tx_bytes, usage.net_rx_packets) == (None, 2700, 15)
    assert usage.cpu_busy_ns == 433 * TICK_NS  # the time idle is nobody's
    assert collector.unknown == {"net_rx_bytes": "not all of eno1, eno2 tell it"}


@pytest.mark.parametrize("garbled", [str(2**64 - 1), "-1", "x"])
def test_each_figure_that_a_file_has_and_does_not_tell_is_named(machine: Machine, garbled: str) -> None:
    machine.write(machine.proc / "stat", PROC["stat"].replace(" 50 ", f" {garbled} ", 1))
    machine.write(machine.proc / "pressure/io", f"some avg10=0.00 avg60=0.00 avg300=0.00 total={garbled}\n")
    collector = machine.collector()
    usage = collector.usage()
    assert (usage.cpu_iowait_ns, usage.io_pressure_us) == (None, None)
    assert (usage.cpu_steal_ns, usage.cpu_busy_ns) == (8 * TICK_NS, 433 * TICK_NS)
    assert collector.unknown.keys() == {"cpu_iowait_ns", "io_pressure_us"}


def test_no_pressure_and_no_disks_are_nothing_to_say(machine: Machine) -> None:
    shutil.rmtree(machine.proc / "pressure")
    machine.write(machine.proc / "diskstats", "   7       0 loop0 1 1 1 1 1 1 1 1 1 1 1\n")
    collector = machine.collector()
    usage = collector.usage()
    assert (usage.cpu_pressure_us, usage.disk_read_bytes) == (None, None)
    assert collector.unknown == {}


def test_kernels_before_3_14_have_no_memavailable(machine: Machine) -> None:
    lines = [line for line in PROC["meminfo"].splitlines() if not line.startswith("MemAvailable")]
    machine.write(machine.proc / "meminfo", "\n".join(lines))
    # What is free, and the cache less what is shared memory.
    assert machine.collector().usage().memory_mb_available == 4096 + 1 + 3072 - 1024


# Memory that can be given back, and limits


ARC = "13 1 0x01 123 33456 1 1\nname               type data\nc                  4    5368709120\n{}"


@pytest.mark.parametrize(
    ("size", "least", "given_back_mb"),
    [(3 * 2**30, 2**30, 2048), (2**29, 2**30, 0), ("x", 2**30, 0), (2**64 - 1, 0, 0), (100 * 2**30, 0, 8192)],
)
def test_the_arc_above_its_least_size_is_available(
    machine: Machine, size: object, least: int, given_back_mb: int
) -> None:
    rows = f"c_min                           4    {least}\nsize                            4    {size}\n"
    machine.write(machine.proc / "spl/kstat/zfs/arcstats", ARC.format(rows))
    assert machine.collector().usage().memory_mb_available == 8192 + given_back_mb


def test_the_limit_of_a_container_that_is_a_node_is_its_memory(machine: Machine) -> None:
    """The first process is in the container's own group, or below it."""
    group = machine.sysfs / "fs/cgroup"
    machine.write(group / "memory.max", f"{4 * 2**30}\n")
    machine.write(group / "memory.current", f"{3 * 2**30}\n")
    machine.write(group / "memory.stat", f"anon 1\ninactive_file {2**29}\nactive_file {2**29}\n")
    machine.write(group / "init.scope/memory.max", "max\n")
    usage = machine.collector(reserved_memory_mb=0).usage()
    assert (usage.memory_mb_capacity, usage.memory_mb_available) == (4096, 2048)
    # A limit that comes and goes while the agent runs.
    machine.write(group / "memory.max", "max\n")
    collector = machine.collector(reserved_memory_mb=0)
    assert collector.usage().memory_mb_capacity == 16384
    machine.write(group / "memory.max", f"{2**30}\n")
    assert (collector.usage().memory_mb_capacity, collector.usage().memory_mb_available) == (1024, 0)


def test_the_same_with_the_first_version_of_control_groups(machine: Machine) -> None:
    machine.write(machine.proc / "1/cgroup", "5:cpu,cpuacct:/\n4:memory:/lxc/node\n0::/\n")
    group = machine.sysfs / "fs/cgroup/memory"
    machine.write(group / "memory.limit_in_bytes", f"{2**63 - 4096}\n")
    machine.write(group / "lxc/node/memory.limit_in_bytes", f"{2 * 2**30}\n")
    machine.write(group / "lxc/node/memory.usage_in_bytes", f"{2**30}\n")
    machine.write(group / "lxc/node/memory.stat", f"total_inactive_file {2**28}\ntotal_active_file 0\n")
    usage = machine.collector(reserved_memory_mb=0).usage()
    assert (usage.memory_mb_capacity, usage.memory_mb_available) == (2048, 1024 + 256)


@pytest.mark.parametrize("path", ["0::/../../init.scope", "0::/init.scope", "", "garbled", "4:memory"])
def test_a_limit_on_the_agents_own_group_is_not_the_machines(machine: Machine, path: str) -> None:
    machine.write(machine.proc / "1/cgroup", f"{path}\n")
    machine.write(machine.sysfs / "fs/cgroup/system.slice/vacancy-agent.service/memory.max", f"{2**28}\n")
    assert machine.collector(reserved_memory_mb=0).usage().memory_mb_capacity == 16384


# Devices


def test_a_device_that_comes_goes_and_comes_back_makes_no_sum_jump(machine: Machine) -> None:
    collector = machine.collector()
    first = collector.usage()
    one, two = PROC["net/dev"].splitlines(keepends=True)[3:5]
    without = PROC["net/dev"].replace(two, "")
    machine.write(machine.proc / "net/dev", without)
    assert collector.usage().net_rx_bytes == first.net_rx_bytes
    back = without + "  eno2:  1000000500  5 0 0 0 0 0 0  700  7 0 0 0 0 0 0\n"
    machine.write(machine.proc / "net/dev", back)
    assert collector.usage().net_rx_bytes == first.net_rx_bytes
    machine.write(machine.proc / "net/dev", back.replace("1000000500", "1000000600").replace(one, ""))
    assert (collector.usage().net_rx_bytes or 0) - (first.net_rx_bytes or 0) == 100


def test_a_counter_that_goes_back_is_not_known_once(machine: Machine) -> None:
    """Such as one of 32 bits: what it counted over its end is not known, and nothing else is lost."""
    near_the_end = PROC["net/dev"].replace("1000 10", f"{2**32 - 100} 10")
    machine.write(machine.proc / "net/dev", near_the_end)
    collector = machine.collector()
    first = collector.usage()
    machine.write(machine.proc / "net/dev", PROC["net/dev"].replace("1000 10", "50 11"))
    usage = collector.usage()
    assert (usage.net_rx_bytes, usage.net_rx_packets) == (None, 16)
    machine.write(machine.proc / "net/dev", PROC["net/dev"].replace("1000 10", "80 12"))
    assert (collector.usage().net_rx_bytes or 0) - (first.net_rx_bytes or 0) == 30


@pytest.mark.parametrize("shown", ["both", "upper", "lower", "master"])
def test_the_virtual_function_under_a_paravirtual_interface_counts_once(machine: Machine, shown: str) -> None:
    """Hyper-V's netvsc has one interface under it, virtio's net_failover two; the upper one counts for all."""
    net = machine.sysfs / "class/net"
    machine.interface("eth0", "LNXSYSTM:00/VMBUS:00/f8b3781a/net/eth0")
    machine.interface("enP1s1", "LNXSYSTM:00/VMBUS:00/pci0001:00/0001:00:02.0/net/enP1s1")
    machine.interface("ens3", "pci0000:00/0000:00:03.0/virtio0/net/ens3")
    machine.interface("ens3nsby", "pci0000:00/0000:00:03.0/virtio0/net/ens3nsby")
    machine.interface("ens4", "pci0000:00/0000:00:04.0/net/ens4")
    for upper, lower in (("eth0", "enP1s1"), ("ens3", "ens3nsby"), ("ens3", "ens4")):
        if shown in {"both", "upper"}:
            (net / upper / f"lower_{lower}").symlink_to(net / lower)
        if shown in {"both", "lower"}:
            (net / lower / f"upper_{upper}").symlink_to(net / upper)
        if shown == "master":
            (net / lower / "master").symlink_to(net / upper)
    names = ["lo", "eth0", "enP1s1", "ens3", "ens3nsby", "ens4"]
    assert set(counted_interfaces(names, machine.sysfs)) == {"eth0", "ens3"}


def test_a_switch_in_a_card_counts_where_it_leads_out(machine: Machine) -> None:
    """Its uplink carries what representors, virtual functions and subfunctions do; other functions count."""
    switch = {"phys_switch_id": "5ab63d0003a9b8e8"}
    card = "pci0000:00/0000:01:00.0"
    machine.interface("enp1s0f0np0", f"{card}/net/enp1s0f0np0", **switch, phys_port_name="p0")
    # By devlink, by mlx5 before that, and as sfc and ice name theirs.
    ports = ("pf0vf0", "pf0sf88", "c1pf0vf2", "c1pf0", "0", "pf0", "vf3", "hpf", "p0pf0vf1", "p0if1pf2vf3", "pf0vfr1")
    for number, port in enumerate(ports):
        machine.interface(f"eth{number}", f"{card}/net/eth{number}", **switch, phys_port_name=port)
    function = machine.interface("enp1s0f0v0", "pci0000:00/0000:01:00.2/net/enp1s0f0v0")
    (function.parent.parent / "physfn").symlink_to(machine.sysfs / "devices" / card)
    sub = machine.interface("enp1s0f0s88", f"{card}/mlx5_core.sf.2/net/enp1s0f0s88")
    (sub.parent.parent / "sfnum").write_text("88")
    # A card without such a switch, and its function.
    machine.interface("eno3", "pci0000:00/0000:02:00.0/net/eno3", phys_switch_id="", phys_port_name="")
    legacy = machine.interface("eno3v0", "pci0000:00/0000:02:10.0/net/eno3v0")
    (legacy.parent.parent / "physfn").symlink_to(machine.sysfs / "devices/pci0000:00/0000:02:00.0")
    names = [entry.name for entry in (machine.sysfs / "class/net").iterdir()]
    assert set(counted_interfaces(names, machine.sysfs)) == {"enp1s0f0np0", "eno1", "eno2", "eno3", "eno3v0"}


def test_the_ports_of_a_switch_on_the_board_count_and_not_what_they_are_on(machine: Machine) -> None:
    machine.interface("eth0", "platform/soc/net/eth0")
    for number in range(2):
        machine.interface(
            f"lan{number}", f"platform/soc/mdio/net/lan{number}", phys_switch_id="00", phys_port_name=f"p{number}"
        )
        machine.stack(f"lan{number}", "eth0")
    assert set(counted_interfaces(["eth0", "lan0", "lan1"], machine.sysfs)) == {"lan0", "lan1"}


def test_the_ends_of_guests_in_xens_first_domain_do_not_count(machine: Machine) -> None:
    vif = machine.interface("vif1.0", "vif-1-0/net/vif1.0")
    (machine.sysfs / "bus/xen-backend").mkdir(parents=True)
    (vif.parent.parent / "subsystem").symlink_to(machine.sysfs / "bus/xen-backend")
    front = machine.interface("eth0", "vif-0/net/eth0")
    (machine.sysfs / "bus/xen").mkdir(parents=True)
    (front.parent.parent / "subsystem").symlink_to(machine.sysfs / "bus/xen")
    assert set(counted_interfaces(["vif1.0", "eth0", "eno1"], machine.sysfs)) == {"eth0", "eno1"}


def test_tunnels_do_not_count_beside_what_they_pass(machine: Machine) -> None:
    names = {
        "tap7": {"tun_flags": "0x1002"},
        "wg0": {"type": "65534"},
        "vxlan1": {"uevent": "DEVTYPE=vxlan\nINTERFACE=x"},
    }
    for name, files in names.items():
        machine.interface(name, f"virtual/net/{name}", **files)
    machine.interface("eth0", "virtual/net/eth0")
    assert set(counted_interfaces(["lo", "eth0", *names], machine.sysfs)) == {"eth0"}
    # A namespace that has nothing else.
    assert set(counted_interfaces(["lo", "wg0"], machine.sysfs)) == {"wg0"}


@pytest.mark.parametrize("name", ["eth0.100", "weiß", "a", "eth-0_x@y", "π", "a|b", "7", "lo0x"])
def test_interfaces_may_have_any_name(machine: Machine, name: str) -> None:
    machine.interface(name, f"pci0000:00/0000:05:00.0/net/{name}")
    machine.write(machine.proc / "net/dev", f"{PROC['net/dev']}  {name}: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n")
    assert machine.collector().usage().net_rx_bytes == 1505


def test_without_sysfs_names_tell_parts_and_virtual_disks(tmp_path: Path) -> None:
    names = ["sda", "sda1", "nvme0n1", "nvme0n1p2", "mmcblk0", "mmcblk0p1", "dm-0", "md127", "loop3", "zram0", "xvda1"]
    assert set(counted_disks(names, tmp_path)) == {"sda", "nvme0n1", "mmcblk0", "xvda1"}


# NUMA cells


def _cell(machine: Machine, number: int, cpus: str, memory_kb: object = 4_194_304) -> Path:
    node = machine.sysfs / f"devices/system/node/node{number}"
    machine.write(node / "cpulist", f"{cpus}\n")
    machine.write(node / "meminfo", f"Node {number} MemTotal:        {memory_kb} kB\n")
    return node


def _pages(directory: Path, size_kb: int, **counts: object) -> None:
    for name, count in counts.items():
        file = directory / f"hugepages-{size_kb}kB" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{count}\n")


def test_huge_pages_that_are_reserved_are_not_free(machine: Machine) -> None:
    """The kernel does not say in which cell they will be: none of them is free in any."""
    for number, free in ((0, 400), (1, 30)):
        _pages(_cell(machine, number, "0-1") / "hugepages", 2048, nr_hugepages=512, free_hugepages=free)
    _pages(machine.sysfs / "kernel/mm/hugepages", 2048, nr_hugepages=1024, resv_hugepages=100)
    assert [page.free for cell in numa_cells(machine.sysfs) for page in cell.pages[1:]] == [300, 0]
    _pages(machine.sysfs / "kernel/mm/hugepages", 2048, nr_hugepages=1024, resv_hugepages="garbled")
    assert [page.free for cell in numa_cells(machine.sysfs) for page in cell.pages[1:]] == [0, 0]


def test_cells_without_cpus_or_memory_and_garbled_ones(machine: Machine) -> None:
    _cell(machine, 0, "0-1")
    _cell(machine, 1, "", 0)
    _cell(machine, 2, "2-x", "many")
    _pages(_cell(machine, 3, "3") / "hugepages", 2048, nr_hugepages="x", free_hugepages=5)
    _pages(machine.sysfs / "devices/system/node/node3/hugepages", 1_048_576, nr_hugepages=4)
    (machine.sysfs / "devices/system/node/nodes").mkdir()
    cells = numa_cells(machine.sysfs)
    assert [(cell.id, cell.cpus, cell.memory_mb) for cell in cells] == [
        (0, (0, 1), 4096),
        (1, (), 0),
        (2, (), 0),
        (3, (3,), 4096),
    ]
    # How many are free is not known, and nothing is promised.
    assert [(page.size_kb, page.total, page.free) for page in cells[3].pages[1:]] == [(1_048_576, 4, 0)]
    # What is in no huge page is free; a cell without memory says that it has none.
    assert [cell.pages[0].free * cell.pages[0].size_kb // 1024 for cell in cells] == [4096, 0, 0, 0]


# File systems, and calls that may hang


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /var/lib/nova rw - nfs4 10.0.0.5:/nova rw,hard
31 30 0:41 / /var/lib/nova/instances rw - fuse.glusterfs 10.0.0.6:/vms rw
32 22 0:42 / /mnt/a\\040b rw - fuse.sshfs x rw
33 22 0:43 / /mnt/two rw - fuse x rw
34 22 0:44 / /mnt/two rw - xfs /dev/vdb rw
garbled
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib/nova", "nfs4"),
        ("/var/lib/nova/x/../y", "nfs4"),
        ("/var/lib/nova/instances/1", "fuse.glusterfs"),
        ("/var/lib/nova2", "ext4"),
        ("/mnt/a b/c", "fuse.sshfs"),
        ("/mnt/two", "xfs"),
    ],
)
def test_what_a_path_is_on_is_told_without_looking_at_it(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert kind_of(Path(path), str(tmp_path / "mountinfo")) == kind
    assert kind_of(Path(path), str(tmp_path / "none")) == ""


def test_a_helper_says_what_the_file_system_does_and_is_started_again(tmp_path: Path) -> None:
    helper, found = Helper(tmp_path), os.statvfs(tmp_path)
    room = helper.ask()
    assert (room.device, room.total) == (tmp_path.stat().st_dev, found.f_blocks * found.f_frsize)
    missing = Helper(tmp_path / "none")
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="none"):
            missing.ask()
    (child,) = (child.pid for child in psutil.Process().children() if str(tmp_path) == child.cmdline()[-1])
    os.kill(child, signal.SIGKILL)
    with pytest.raises(OSError, match="has ended"):
        helper.ask()
    assert helper.ask().total == room.total


def test_a_call_that_answers_is_answered() -> None:
    numbers = iter(range(3))
    call = Limited(lambda: next(numbers), "it", wait_s=20)
    assert [call(), call(), call()] == [0, 1, 2]
    with pytest.raises(StopIteration):
        call()


def test_an_error_is_the_callers() -> None:
    def fail() -> int:
        raise FileNotFoundError("gone")

    call = Limited(fail, "it", wait_s=20)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="gone"):
            call()
