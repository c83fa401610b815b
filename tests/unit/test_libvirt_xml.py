"""Reads libvirt's documents in the form that Nova gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.collector import PciPool
from vacancy.connectors.collectors.libvirt_xml import Cell, cells, cpu_set, definition, host_cpu, parse, pools
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
