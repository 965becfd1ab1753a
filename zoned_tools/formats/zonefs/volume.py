"""Where a zonefs volume lies on a device: its super block and its part of the zone table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.device.zones import SECTOR_BYTES, ZoneTable
from zoned_tools.errors import DeviceError, GeometryError, MetadataError
from zoned_tools.formats.registry import Target
from zoned_tools.formats.zonefs import layout


@dataclass(frozen=True, slots=True)
class Volume:
    """A zoned device and its zone table, as it was when the volume was opened or last looked at."""

    device: Device
    table: ZoneTable

    @property
    def zone_bytes(self) -> int:
        return self.device.geometry.zone_bytes

    @property
    def block_bytes(self) -> int:
        """Unit of direct I/O and ``st_blksize``: the drive's write granularity."""
        return self.device.geometry.write_granularity_bytes

    def read_super_block(self) -> bytes:
        """The 4096 bytes where the super block is.

        Raises:
            DeviceError: they cannot be read (zone 0 is offline).
        """
        return self.device.read(0, layout.SUPER_BLOCK_BYTES)


def open_volume(device: Device) -> Volume:
    """The volume on a device.

    Raises:
        GeometryError: the device is not zoned, or too small.
    """
    geometry = device.geometry
    if not geometry.is_zoned:
        raise GeometryError("not a zoned device, zonefs needs one", device=device.path)
    if geometry.zone_bytes < layout.SUPER_BLOCK_BYTES or geometry.size_bytes < layout.SUPER_BLOCK_BYTES:
        raise GeometryError("too small for a zonefs super block", device=device.path)
    return Volume(device, device.zones())


def target_volume(target: Target) -> Volume:
    """The volume of a check's or command's target.

    Raises:
        GeometryError: as :func:`open_volume`, or the layout is said to begin elsewhere than at
            byte 0 of the device (a partition is handed over as a device of its own).
    """
    if target.start_bytes:
        raise GeometryError("zonefs begins at the start of its device", device=target.device.path)
    return open_volume(target.device)


def load_super_block(volume: Volume) -> layout.SuperBlock:
    """The super block of a volume that a kernel would mount.

    Raises:
        MetadataError: a kernel would refuse it; the message names the first reason.
        DeviceError: it cannot be read.
    """
    path = volume.device.path
    try:
        raw = volume.read_super_block()
    except DeviceError as error:
        raise MetadataError(f"cannot read the super block: {error.message}", device=path) from None
    if layout.recognise(raw) is None:
        raise MetadataError("no zonefs super block found", device=path)
    fault = next(layout.mount_faults(raw), None)
    if fault is not None:
        raise MetadataError(fault.message, device=path, hint="zoned check --repair can rewrite the super block")
    return layout.decode(raw)


def check_zone_table(volume: Volume) -> None:
    """Refuse a zone table that makes a kernel fail the mount with EIO.

    Raises:
        GeometryError: zones of an unknown type, of a wrong length, or not covering the device.
    """
    table, path = volume.table, volume.device.path
    zone_sectors = volume.zone_bytes // SECTOR_BYTES
    unknown = np.flatnonzero(~np.isin(table["type"][1:], (1, 2, 3)))
    if len(unknown):
        zone = int(unknown[0]) + 1
        raise GeometryError(f"zone {zone} is of unknown type {int(table['type'][zone]):#x}", device=path)
    longer = np.flatnonzero(table["length_sectors"] > zone_sectors)
    if len(longer):
        raise GeometryError(f"zone {int(longer[0])} is longer than the zone size", device=path)
    if len(table) != -(-volume.device.geometry.size_bytes // volume.zone_bytes):
        raise GeometryError(f"{len(table)} zones do not make up the device", device=path)
