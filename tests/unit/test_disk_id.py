"""What tells one file system from another: the same on all hosts that see it, and on no others."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.harness.machine import Machine
from vacancy.connectors.collectors.disk_id import disk_id
from vacancy.connectors.collectors.libvirt_xml import pool
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

VOLUMES = """\
NV SERVER   PORT DEV          FSID                              FSC
v4 {server}  801 {device}         7b1bcb0f6ec0bc49:{minor}                no
v4 0a000009  801 0:99         1:1                               no
"""


def _id(
    directory: Path, line: str, *, boot_id: str = "boot", volumes: str = "", path: str = "/vms/instances"
) -> str | None:
    """What a node of that mountinfo says of its disk."""
    (directory / "self").mkdir(parents=True, exist_ok=True)
    (directory / "self/mountinfo").write_text(
        f"22 1 254:0 / / rw - ext4 /dev/vda rw\n{line}\n", errors="surrogateescape"
    )
    (directory / "fs/nfsfs").mkdir(parents=True, exist_ok=True)
    (directory / "fs/nfsfs/volumes").write_text(volumes)
    return disk_id(Path(path), None, boot_id, proc=directory, sysfs=directory / "sys", uuids=directory / "uuids")


SAME = {
    "NFS by a name and by an address, other directories of one export": (
        "30 22 0:40 / /vms rw - nfs4 nas:/vms rw,vers=4.2,clientaddr=10.0.0.1,addr=10.0.0.5",
        "31 22 0:51 / /vms rw - nfs 10.0.0.5:/vms rw,vers=3,addr=10.0.0.5",
    ),
    "NFS at another place": (
        "30 22 0:40 / /vms rw - nfs4 nas:/vms rw",
        "30 22 0:77 / /vms/instances rw,relatime shared:4 - nfs4 nas:/vms ro",
    ),
    "NFS by IPv6": (
        "30 22 0:40 / /vms rw - nfs4 [fd00::5]:/vms rw,addr=fd00::5",
        "30 22 0:41 / /vms rw - nfs4 nas:/vms rw,addr=fd00::5",
    ),
    "CephFS by its monitors": (
        "30 22 0:40 / /vms rw - ceph 10.0.0.1:6789,10.0.0.2:6789:/ rw,name=one",
        "30 22 0:40 / /vms rw - ceph 10.0.0.2:6789,10.0.0.1:6789:/vms rw,name=two",
    ),
    "CephFS by its cluster": (
        "30 22 0:40 / /vms rw - ceph a@b2e5c4de-9d13-4b5f-8f37-7e1d6c0f2a11.cephfs=/ rw",
        "30 22 0:40 / /vms rw - ceph b@b2e5c4de-9d13-4b5f-8f37-7e1d6c0f2a11.cephfs=/vms rw",
    ),
    "GlusterFS by whichever server": (
        "30 22 0:40 / /vms rw - fuse.glusterfs localhost:/vms rw",
        "30 22 0:43 / /vms rw - fuse.glusterfs gluster2:vms rw",
    ),
    "CIFS": (
        "30 22 0:40 / /vms rw - cifs //nas/VMs rw,addr=10.0.0.5",
        "30 22 0:43 / /vms rw - smb3 //NAS.example/vms/sub rw,addr=10.0.0.5",
    ),
    "sshfs": (
        "30 22 0:40 / /vms rw - fuse.sshfs me@nas:/vms rw",
        "30 22 0:43 / /vms rw - fuse.sshfs you@nas:/vms rw",
    ),
    "Lustre": (
        "30 22 0:40 / /vms rw - lustre 10.0.0.1@tcp:/scratch rw",
        "30 22 0:43 / /vms rw - lustre 10.0.0.1@tcp:/scratch rw",
    ),
    "GPFS": ("30 22 0:40 / /vms rw - gpfs gpfs0 rw", "30 22 0:43 / /vms rw - gpfs /dev/gpfs0 rw"),
}


@pytest.mark.parametrize("lines", SAME.values(), ids=SAME)
def test_two_hosts_call_one_file_system_the_same(tmp_path: Path, lines: tuple[str, str]) -> None:
    one, two = (_id(tmp_path / boot, line, boot_id=boot) for boot, line in zip("ab", lines, strict=True))
    assert one is not None
    assert one == two


def test_different_file_systems_are_never_called_the_same(tmp_path: Path) -> None:
    """Of one host, and of others that were made of the same image: their devices and UUIDs are the same."""
    lines = [pair[0] for pair in SAME.values()]
    lines += [
        "30 22 0:40 / /vms rw - nfs4 nas:/other rw,addr=10.0.0.5",
        "30 22 0:40 / /vms rw - nfs4 nas:/vms rw,addr=10.0.0.6",
        "30 22 0:61 / /vms rw - nfs4 localhost:/vms rw,addr=127.0.0.1",
        "30 22 0:62 / /vms rw - nfs4 [::1]:/vms rw,addr=::1",
        "30 22 0:63 / /vms rw - cifs //localhost/vms rw",
        "30 22 8:1 / /vms rw - ext4 /dev/sda1 rw",
        "30 22 0:44 / /vms rw - btrfs /dev/sda2 rw",
        "30 22 0:45 / /vms rw - zfs tank/vms rw",
        "30 22 0:46 / /vms rw - overlay overlay rw,lowerdir=/a:/b",
        "garbled",
    ]
    hosts = [
        [_id(tmp_path / f"{boot}{number}", line, boot_id=boot) for number, line in enumerate(lines)] for boot in "abc"
    ]
    assert all(None not in ids for ids in hosts)
    for ids in hosts:
        assert len(set(ids)) == len(ids)
    local = [[each for each in ids if str(each).startswith("local:")] for ids in hosts]
    assert [len(each) for each in local] == [8, 8, 8]
    assert all(not set(one) & set(two) for one, two in itertools.combinations(local, 2))


def test_nfs_is_known_by_its_servers_own_number(tmp_path: Path) -> None:
    """Whichever directory of it is mounted."""

    def of(name: str, device: str, export: str, server: str = "0a000005", minor: str = "0") -> str | None:
        volumes = VOLUMES.format(server=server, device=device, minor=minor)
        return _id(tmp_path / name, f"30 22 {device} / /vms rw - nfs4 nas:{export} rw,addr=10.0.0.5", volumes=volumes)

    assert of("a", "0:40", "/srv") == of("b", "0:51", "/srv/vms")
    assert len({of("a", "0:40", "/srv"), of("c", "0:40", "/srv", "0a000006"), of("d", "0:40", "/srv", minor="1")}) == 3


def test_a_cluster_file_system_is_known_by_its_uuid_or_its_device(tmp_path: Path) -> None:
    line = "30 22 253:7 / /vms rw - ocfs2 /dev/mapper/shared rw"
    assert _id(tmp_path, line) is None
    device = tmp_path / "sys/dev/block/253:7"
    (device / "dm").mkdir(parents=True)
    (device / "dm/uuid").write_text("mpath-3600a098000a1\n")
    assert _id(tmp_path, line) == "ocfs2:mpath-3600a098000a1"
    if os.geteuid() == 0:  # who may make device files
        (tmp_path / "uuids").mkdir()
        os.mknod(tmp_path / "uuids/11111111-2222", 0o600 | 0o060000, os.makedev(253, 7))
        assert _id(tmp_path, line, boot_id="other") == "ocfs2:11111111-2222"


def test_a_partition_is_known_by_its_disk_and_number(tmp_path: Path) -> None:
    disk = tmp_path / "sys/devices/sda"
    (disk / "sda2").mkdir(parents=True)
    (disk / "sda2/partition").write_text("2\n")
    (disk / "device").mkdir()
    (disk / "device/wwid").write_text("naa.600a0980\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/8:2").symlink_to(disk / "sda2")
    assert _id(tmp_path, "30 22 8:2 / /vms rw - gfs2 /dev/sda2 rw") == "gfs2:naa.600a0980:2"


@pytest.mark.parametrize(
    "line",
    ["30 22 0:40 / /vms rw - fuse.ceph-fuse ceph-fuse rw", "30 22 0:40 / /vms rw - fuse.unknown /dev/fuse rw"],
)
def test_what_nobody_tells_is_not_known(tmp_path: Path, line: str) -> None:
    assert _id(tmp_path, line) is None


@pytest.mark.parametrize("source", ["nas:/" + "x" * 5_000, "nas:/\udcff\udcfe", "nas:/a\\040b\\011c", ":", "", "nas"])
def test_what_it_is_fits_an_event_whatever_the_source(tmp_path: Path, source: str) -> None:
    for kind in ("nfs4", "cifs", "ceph", "lustre", "fuse.glusterfs", "fuse.sshfs", "ext4"):
        known = _id(tmp_path, f"30 22 0:40 / /vms rw - {kind} {source} rw")
        assert known is None or 0 < len(known) <= 255
        if known is not None:
            record = {"host_id": "h", "boot_id": "b", "agent_time": 0, "name": "n", "status": "ENABLED"}
            rest = {"inventories": {}, "reporting_interval_ms": 1, "agent_version": "1", "disk_id": known}
            assert Encoder(Event.INVENTORY).encode(record | rest)


def test_where_a_link_leads_to_another_file_system_its_device_tells(tmp_path: Path) -> None:
    """Whoever has asked it knows the device; the path alone would name the file system of the link."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:40 / /mnt/nas rw - nfs4 nas:/vms rw\n"
    )
    known = [disk_id(Path("/link"), device, "b", proc=tmp_path) for device in (None, os.makedev(0, 40), 12345)]
    assert known == ["local:b:254:0", "nfs:nas:/vms", "local:b:254:0"]


def test_the_collector_says_it_and_a_machine_that_tells_nothing_says_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.collector().inventory().disk_id is None
    machine.write(machine.proc / "self/mountinfo", "22 1 254:0 / / rw - nfs4 nas:/ rw\n")
    assert machine.collector().inventory().disk_id == "nfs:nas:/"


@pytest.mark.parametrize(
    ("document", "source"),
    [
        (
            "<pool type='rbd'><source><host name='b'/><host name='a' port='6789'/><name>vms</name></source></pool>",
            "a,b/vms",
        ),
        ("<pool type='gluster'><source><host name='b'/><name>vms</name><dir path='/'/></source></pool>", "vms"),
        ("<pool type='iscsi'><source><host name='a'/><device path='iqn.2013'/></source></pool>", "a/iqn.2013"),
        ("<pool type='logical'><source><name>vg0</name></source></pool>", ""),
        ("<pool type='rbd'/>", ""),
    ],
)
def test_a_pool_of_the_network_is_known_by_its_servers(document: str, source: str) -> None:
    assert pool(document).source == source
