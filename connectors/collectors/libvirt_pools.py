"""libvirt's storage pools, and the node's disk where it is made of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import libvirt

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.disk_id import fitting
from vacancy.connectors.collectors.file_system import Room, room_of
from vacancy.connectors.collectors.libvirt_connection import ABSENT, Connection, is_of_itself
from vacancy.connectors.collectors.libvirt_xml import DiskSource
from vacancy.connectors.collectors.limited import Limited


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A storage pool of libvirt's, in bytes."""

    pool: libvirt_xml.Pool
    is_active: bool
    capacity: int
    available: int


class Storage(NamedTuple):
    """What libvirt tells of its storage pools by name, and of volumes: their virtual size in bytes."""

    pools: Mapping[str, PoolState]
    volume_bytes: Mapping[DiskSource, int]


class StorageAsker:
    """Asks libvirt for its storage, over a connection and by a thread of its own.

    libvirt looks at a volume's file to tell its size, and while that hangs, as on NFS without its server, no question
    about a pool is answered. One question is under way at a time, and whoever asks waits half a second for it at most.

    Args:
        uri: of libvirt.
    """

    def __init__(self, uri: str) -> None:
        self._connection = Connection(uri, lambda: None)
        self._volumes: frozenset[DiskSource] = frozenset()
        self._asked: Limited[Storage] = Limited(self._ask, "libvirt's storage")

    def __call__(self, volumes: Iterable[DiskSource]) -> Storage:
        """The pools, and the sizes of those of the volumes that are told.

        Raises:
            OSError: libvirt does not answer in time, or refuses.
        """
        self._volumes = frozenset(volumes)
        return self._asked()

    def _ask(self) -> Storage:
        volumes = self._volumes
        return self._connection.call(
            lambda connection: Storage(storage_pools(connection), volume_bytes(connection, volumes)),
            threading.TIMEOUT_MAX,
        )


class PoolDisk:
    """The node's disk where it is pools of libvirt's.

    Args:
        names: of the pools; none: the disk is a file system, and what is not elsewhere takes room on it.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._file_systems: dict[str, Limited[Room]] = {}
        self._capacity = 0

    def takes(self, source: DiskSource, pools: Mapping[str, PoolState]) -> bool:
        """Whether a disk takes room on it."""
        if not self._names:
            state = pools.get(source.pool)
            return not source.pool or state is None or state.pool.is_local
        if source.pool:
            return source.pool in self._names
        return any(name in pools and pools[name].pool.has(source.path) for name in self._names)

    def capacity(self, pools: Mapping[str, PoolState]) -> int:
        """Bytes that it has, or had when it could last be told."""
        return self.read(pools, 0, {})[0]

    def read(self, pools: Mapping[str, PoolState], held_bytes: int, unknown: dict[str, str]) -> tuple[int, int]:
        """Bytes that it has, and bytes that are free.

        Args:
            pools: all of libvirt's.
            held_bytes: what guests hold of it.
            unknown: takes what is not known.
        """
        found: dict[object, tuple[int, int]] = {}
        for name in self._names:
            state = pools.get(name)
            if state is None or not state.is_active:
                unknown["disk_gb_available"] = f"libvirt has no active storage pool {name}; virsh pool-list --all"
                return self._capacity, 0
            if not state.pool.is_of_files:
                # libvirt learns of what others make there when it is told to refresh the pool.
                found[state.pool.target or name] = state.capacity, state.available
                continue
            try:
                # Pools of one file system have it in common.
                device, total, available = self._file_system(state.pool.target)()
            except PermissionError:
                found[state.pool.target] = state.capacity, state.available
            except OSError as error:
                unknown["disk_gb_available"] = f"storage pool {name}: {error}"
                return self._capacity, 0
            else:
                found[device] = total, available
        self._capacity = sum(total for total, _ in found.values())
        available = sum(available for _, available in found.values())
        if not any(pools[name].pool.is_of_files for name in self._names):
            available = min(available, max(0, self._capacity - held_bytes))
        return self._capacity, available

    def id(self, pools: Mapping[str, PoolState], disk_id: Callable[[Path, int | None], str | None]) -> str | None:
        """What it is, as all hosts call it that have it: of several pools the first that others may have as well.

        Args:
            pools: all of libvirt's.
            disk_id: says it of a path and its device.
        """
        found = []
        for pool in (pools[name].pool for name in self._names if name in pools):
            if pool.source:
                found.append(fitting(f"{pool.type}:{pool.source}"))
            elif pool.is_of_files:
                device = None
                with suppress(OSError):
                    device = self._file_system(pool.target)().device
                found.append(disk_id(Path(pool.target), device) or "")
        return next((each for each in sorted(found, key=lambda each: each.startswith("local:")) if each), None)

    def _file_system(self, path: str) -> Limited[Room]:
        if path not in self._file_systems:
            self._file_systems[path] = room_of(Path(path), f"the file system of {path}")
        return self._file_systems[path]


def storage_pools(connection: Any) -> dict[str, PoolState]:
    """The storage pools by name; none where this libvirt has no driver for them."""
    try:
        listed = connection.listAllStoragePools()
    except libvirt.libvirtError as error:
        if connection.isAlive() and error.get_error_code() in ABSENT:
            return {}
        raise
    pools = {}
    for pool in listed:
        try:
            state, capacity, _, available = pool.info()
            described = libvirt_xml.pool(pool.XMLDesc())
        except (libvirt.libvirtError, ValueError, ET.ParseError) as error:
            # It went meanwhile, or cannot be read now: it counts as one that is not there.
            if not is_of_itself(error, connection):
                raise
        else:
            pools[pool.name()] = PoolState(described, state == libvirt.VIR_STORAGE_POOL_RUNNING, capacity, available)
    return pools


def volume_bytes(connection: Any, volumes: Iterable[DiskSource]) -> dict[DiskSource, int]:
    """The virtual size of volumes, 0 of those that are not there; those that libvirt does not tell are missing."""
    found = {}
    for volume in volumes:
        try:
            of_pool = connection.storagePoolLookupByName(volume.pool)
            found[volume] = of_pool.storageVolLookupByName(volume.path).info()[1]
        except libvirt.libvirtError as error:
            if not is_of_itself(error, connection):
                raise
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                found[volume] = 0
    return found
