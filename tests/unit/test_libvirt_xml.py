"""Reads libvirt's documents in the form that Nova gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.collector import PciPool
from vacancy.connectors.collectors.libvirt_xml import (
    Cell,
    Definition,
    DiskSource,
    Pool,
    cells,
    cpu_set,
    definition,
    host_cpu,
    parse,
    pool,
    pools,
)
from vacancy.connectors.collectors.machine import traits_of

DOMAIN = """
<domain type='kvm' id='7'>
  <name>instance-00000007</name><uuid>6f2b1cbd-7c4a-4e55-9a57-2f0f3a3a1d6e</uuid>
  <memory unit='KiB'>4194304</memory><currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static' current='2'>8</vcpu>
  <cputune>
    <shares>2048</shares>
    <vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='20'/><emulatorpin cpuset='4,20'/>
  </cputune>
  <devices>
    <disk type='file' device='disk'><source file='/var/lib/nova/disk'/><target dev='vda' bus='virtio'/></disk>
    <disk type='block' device='disk'><source dev='/dev/vg/ephemeral'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='vms/x'/><target dev='vdc' bus='virtio'/></disk>
    <disk type='block' device='disk'>
      <source dev='/dev/sdx'/><target dev='vdd' bus='virtio'/><serial>0c9f7f3e-58b1-4f0c-8b4b-0f8f6d3b0a11</serial>
    </disk>
    <disk type='file' device='cdrom'><source file='/var/lib/nova/disk.config'/><target dev='sda' bus='sata'/></disk>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x82' slot='0x00' function='0x1'/></source>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>
    <hostdev mode='subsystem' type='mdev' model='vfio-pci'>
      <source><address uuid='4b20d080-1b54-4048-85b3-a6a62d165c01'/></source>
    </hostdev>
    <interface type='hostdev' managed='yes'>
      <source><address type='pci' domain='0x0000' bus='0x0a' slot='0x10' function='0x2'/></source>
    </interface>
  </devices>
</domain>
"""
CAPABILITIES = """
<capabilities><host><cpu><arch>x86_64</arch>{model}</cpu><topology><cells num='2'>
  <cell id='1'>
    <memory unit='KiB'>8388608</memory>
    <pages unit='KiB' size='1048576'>2</pages><pages unit='KiB' size='4'>1572864</pages>
    <pages unit='KiB' size='2048'>0</pages>
    <cpus num='2'><cpu id='3'/><cpu id='1'/></cpus>
  </cell>
  <cell id='0'><memory unit='KiB'>4194304</memory><cpus num='2'><cpu id='0'/><cpu id='2'/></cpus></cell>
</cells></topology></host></capabilities>
"""
DEVICE = """
<device><name>pci_{number}</name><driver><name>{driver}</name></driver><capability type='pci'>
  <domain>0</domain><bus>{number}</bus><slot>0</slot><function>0</function>
  <product id='0x20B5'>A100</product><vendor id='0x10DE'>NVIDIA</vendor>
</capability></device>
"""


def test_a_domain_is_what_it_holds() -> None:
    domain = definition(DOMAIN)
    assert (domain.vcpus, domain.memory_kb) == (2, 4 << 20)
    assert domain.disks == {"vda", "vdb", "vdc", "vdd", "sda"}
    assert domain.local_disks == {"vda", "vdb"}
    assert domain.pinned_cpus == {4, 20}
    assert domain.pci_devices == {"0000:82:00.1", "0000:0a:10.2"}
    assert domain.mdevs == {"4b20d080-1b54-4048-85b3-a6a62d165c01"}


def test_the_least_domain_holds_one_vcpu_and_no_device() -> None:
    domain = definition("<domain><memory>1024</memory><vcpu>3</vcpu></domain>")
    assert (domain.vcpus, domain.memory_kb) == (3, 1024)
    assert not domain.disks | domain.pinned_cpus | domain.pci_devices | domain.mdevs
    assert definition("<domain/>").vcpus == 1


def test_cells_by_number_with_pages_larger_than_the_smallest() -> None:
    capabilities = parse(CAPABILITIES.format(model=""))
    assert cells(capabilities) == (
        Cell(0, (0, 2), 4096, ()),
        Cell(1, (1, 3), 8192, ((2048, 0), (1048576, 2))),
    )


def test_a_cpu_without_a_model_cannot_be_expanded() -> None:
    assert host_cpu(parse(CAPABILITIES.format(model=""))) is None
    assert "Skylake" in (host_cpu(parse(CAPABILITIES.format(model="<model>Skylake</model>"))) or "")


def test_devices_for_instances_are_those_bound_to_vfio_and_those_given() -> None:
    documents = [DEVICE.format(number=number, driver="vfio-pci" if number < 3 else "nvidia") for number in range(5)]
    assert pools(documents, {"0000:00:00.0", "0000:04:00.0"}, set()) == (PciPool("10de", "20b5", None, 4, 2),)
    assert pools(documents[3:], set(), set()) == ()


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", set()), ("4", {4}), ("0-3,^2", {0, 1, 3}), ("1, 5-6", {1, 5, 6}), ("0-7,^2-5", {0, 1, 6, 7})],
)
def test_cpu_sets(text: str, cpus: set[int]) -> None:
    assert cpu_set(text) == cpus


@given(st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)))
def test_cpu_sets_read_back(included: set[int], excluded: set[int]) -> None:
    text = ",".join([*map(str, included), *(f"^{cpu}" for cpu in excluded)])
    assert cpu_set(text) == included - excluded


def test_the_kernel_and_libvirt_name_the_same_traits() -> None:
    kernel = {"sse4_1", "sha_ni", "pclmulqdq", "avx512_vnni", "avx512_vpopcntdq", "pni", "amx_tile", "svm", "lahf_lm"}
    libvirt = {"sse4.1", "sha-ni", "pclmuldq", "avx512vnni", "avx512-vpopcntdq", "pni", "amx-tile", "svm", "lahf_lm"}
    assert traits_of(kernel) == traits_of(libvirt)
    assert len(traits_of(kernel)) == len(kernel) - 1


# What is pinned, and what floats

CELLS = (Cell(0, tuple(range(8)), 4096, ()), Cell(1, tuple(range(8, 16)), 4096, ()))


def _tuned(*pins: str, kind: str = "vcpupin") -> Definition:
    tune = "".join(f"<{kind} vcpu='{number}' cpuset='{pin}'/>" for number, pin in enumerate(pins))
    return definition(f"<domain><vcpu>{len(pins)}</vcpu><cputune>{tune}</cputune></domain>")


@pytest.mark.parametrize("kind", ["vcpupin", "emulatorpin", "iothreadpin"])
@pytest.mark.parametrize(
    ("pins", "own"),
    [
        (["0-7"] * 8, set()),  # Nova's guest that shares the CPUs of a cell
        (["8-15", "8-15"], set()),
        (["0-15"], set()),
        (["0-31"], set()),  # some of them offline
        (["1", "2"], {1, 2}),
        (["0-7", "3"], {3}),
        (["2-7"] * 4, set()),  # Nova's, where cpu_shared_set leaves out two of the cell
        (["0-7,^0"], set()),
        (["1,9"], set()),
        (["1,9"] * 2, {1, 9}),
        (["2,3", "3,2", "5"], {2, 3, 5}),
    ],
)
def test_what_may_run_on_more_cpus_than_it_is_floats(kind: str, pins: list[str], own: set[int]) -> None:
    assert _tuned(*pins, kind=kind).own_cpus(CELLS) == own


def test_a_cell_of_one_cpu_can_be_pinned_to() -> None:
    assert _tuned("3").own_cpus((Cell(0, (3,), 1024, ()),)) == {3}
    assert _tuned("3").own_cpus(()) == {3}


# Memory that is bound to cells

BOUND = """
<domain>
  <memory>4194304</memory>{backing}
  <numatune><memory mode='strict' nodeset='0-1'/>{nodes}</numatune>
  <cpu><numa>
    <cell id='0' cpus='0' memory='1048576' unit='KiB'/><cell id='1' cpus='1' memory='3145728' unit='KiB'/>
  </numa></cpu>
</domain>
"""
NODES = "<memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/>"


@pytest.mark.parametrize(
    ("backing", "nodes", "bound"),
    [
        ("", NODES, [({0}, 1 << 20), ({1}, 3 << 20)]),
        ("", "", [({0, 1}, 1 << 20), ({0, 1}, 3 << 20)]),
        ("<memoryBacking><hugepages/></memoryBacking>", NODES, []),
        ("<memoryBacking><hugepages><page size='2048'/></hugepages></memoryBacking>", NODES, []),
        (
            "<memoryBacking><hugepages><page size='2048' nodeset='1'/></hugepages></memoryBacking>",
            NODES,
            [({0}, 1 << 20)],
        ),
        ("<memoryBacking><nosharepages/></memoryBacking>", NODES, [({0}, 1 << 20), ({1}, 3 << 20)]),
    ],
)
def test_memory_in_no_pages_is_held_of_the_cells_that_it_is_bound_to(
    backing: str, nodes: str, bound: list[tuple[set[int], int]]
) -> None:
    found = definition(BOUND.format(backing=backing, nodes=nodes)).bound_memory
    assert [(set(cells), memory_kb) for cells, memory_kb in found] == bound


def test_a_guest_without_cells_of_its_own_may_be_bound_as_well() -> None:
    tuned = "<domain><memory>2048</memory><numatune><memory nodeset='1'/></numatune></domain>"
    assert definition(tuned).bound_memory == ((frozenset({1}), 2048),)
    assert definition("<domain><memory>2048</memory></domain>").bound_memory == ()


# Devices that the host has

VF = """
<device><name>pci_vf{number}</name>{driver}<capability type='pci'>
  <domain>0</domain><bus>10</bus><slot>16</slot><function>{number}</function>
  <capability type='phys_function'><address domain='0x0000' bus='0x0a' slot='0x00' function='0x0'/></capability>
  <product id='0x154c'/><vendor id='0x8086'/>
</capability></device>
"""
CARD = """
<device><name>pci_card</name><driver><name>vfio-pci</name></driver><capability type='pci'>
  <domain>0</domain><bus>10</bus><slot>0</slot><function>0</function>
  <capability type='virt_functions'>
    <address domain='0x0000' bus='0x0a' slot='0x10' function='0x0'/>
    <address domain='0x0000' bus='0x0a' slot='0x10' function='0x1'/>
  </capability>
  <product id='0x10fb'/><vendor id='0x8086'/>
</capability></device>
"""
MDEV_OF_VF = """
<device><name>mdev_1</name><parent>pci_vf0</parent>
<capability type='mdev'><type id='nvidia-63'/><uuid>33333333-3333-4333-8333-333333333333</uuid></capability></device>
"""


@pytest.mark.parametrize(
    ("driver", "free"),
    [
        (None, 1),
        ("vfio-pci", 1),
        ("mlx5_vfio_pci", 1),
        ("nvgrace_gpu_vfio_pci", 1),
        ("pci-stub", 1),
        ("iavf", 0),
        ("mlx5_core", 0),
        ("nvidia", 0),
        ("vfio", 0),
    ],
)
def test_a_function_that_a_driver_of_the_host_has_is_not_free(driver: str | None, free: int) -> None:
    element = f"<driver><name>{driver}</name></driver>" if driver else ""
    assert pools([VF.format(number=0, driver=element)], set(), set()) == (PciPool("8086", "154c", None, 1, free),)


def test_a_function_that_mediated_devices_are_made_of_is_not_free() -> None:
    documents = [VF.format(number=number, driver="") for number in range(3)] + [MDEV_OF_VF]
    assert pools(documents, set(), set()) == (PciPool("8086", "154c", None, 3, 2),)


def test_a_card_and_its_functions_are_not_given_away_both() -> None:
    documents = [CARD, *(VF.format(number=number, driver="") for number in range(2))]
    assert [(found.product_id, found.total, found.free) for found in pools(documents, set(), set())] == [
        ("10fb", 1, 1),
        ("154c", 2, 2),
    ]
    assert [found.free for found in pools(documents, {"0000:0a:10.1"}, set())] == [0, 1]
    assert [found.free for found in pools(documents, {"0000:0a:00.0"}, set())] == [0, 0]


# Where disks are

DISKS = """
<domain><devices>
  <disk type='volume' device='disk'><source pool='vms' volume='root'/><target dev='vda'/></disk>
  <disk type='volume' device='cdrom'><source pool='isos' volume='cd'/><target dev='sda'/></disk>
  <disk type='file' device='disk'><source file='/srv/vms/data'/><target dev='vdb'/></disk>
  <disk type='block'><source dev='/dev/vg0/swap'/><target dev='vdc'/></disk>
  <disk type='nvme' device='disk'><source type='pci'/><target dev='vdd'/></disk>
  <disk type='file' device='disk'><target dev='vde'/></disk>
</devices></domain>
"""


def test_where_disks_are() -> None:
    domain = definition(DISKS)
    assert domain.sources == {
        "vda": DiskSource("root", "vms"),
        "vdb": DiskSource("/srv/vms/data"),
        "vdc": DiskSource("/dev/vg0/swap"),
        "vde": DiskSource(""),
    }
    assert domain.local_disks == {"vdb", "vdc", "vde"}


@pytest.mark.parametrize(
    ("kind", "target", "path", "has"),
    [
        ("dir", "/srv/vms", "/srv/vms/data", True),
        ("dir", "/srv/vms/", "/srv/vms/data", True),
        ("dir", "/srv/vms", "/srv/vms2/data", False),
        ("dir", "/srv/vms", "/srv/vms", False),
        ("logical", "/dev/vg0", "/dev/vg0/swap", True),
        ("logical", "/dev/vg0", "/dev/vg01/swap", False),
        ("logical", "/dev/vg-0", "/dev/mapper/vg--0-swap", True),
        ("logical", "/dev/vg", "/dev/mapper/vg--0-swap", False),
        ("disk", "/dev", "/dev/vg0/swap", False),
        ("dir", "", "/srv/vms/data", False),
    ],
)
def test_which_paths_a_foundhas(kind: str, target: str, path: str, has: bool) -> None:
    assert Pool(kind, target).has(path) is has


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "<device>",
        "<device><capability type='pci'/></device>",
        "<device><capability type='pci'><product id='0x1'/><vendor id='0x8086'/></capability></device>",
        "<device><capability type='pci'><bus>x</bus><product id='0x154c'/><vendor id='0x8086'/></capability></device>",
        "<device><capability type='pci'><numa node='x'/><product id='0x1'/><vendor id='0x8086'/></capability></device>",
        "<device><capability type='mdev'/></device>",
    ],
)
def test_a_device_that_is_not_told_whole_offers_nothing_and_hides_no_other(broken: str) -> None:
    whole = (
        "<device><name>a</name><driver><name>vfio-pci</name></driver><capability type='pci'><numa node='-1'/>"
        "<product id='0x154c'/><vendor id='0x8086'/></capability></device>"
    )
    assert pools([broken, whole, broken], set(), set()) == (PciPool("8086", "154c", None, 1, 1),)


def test_a_pool() -> None:
    document = "<pool type='netfs'><name>a</name><target><path>/mnt/a</path></target></pool>"
    assert pool(document) == Pool("netfs", "/mnt/a")
    assert (pool(document).is_of_files, pool(document).is_local) == (True, False)
    assert pool("<pool type='rbd'><name>b</name></pool>") == Pool("rbd", "")
