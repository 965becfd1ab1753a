"""Where a zonefs volume lies on a device: its super block and its part of the zone table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.zones import ZoneTable, is_conventional
from zoned_tools.errors import GeometryError
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Target


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

    @property
    def zone0_conventional(self) -> bool:
        """Whether the super block can be overwritten in place."""
        return bool(is_conventional(self.table[:1])[0])

    def read_super_block(self) -> bytes:
        """The 4096 bytes where the super block is.

        Raises:
            DeviceError: they cannot be read (zone 0 is offline).
        """
        return self.device.read(0, SUPER_BLOCK_BYTES)


def open_volume(target: Target) -> Volume:
    """The volume of a check's or command's target.

    Raises:
        GeometryError: the device is not zoned, or too small; or the layout is said to begin elsewhere
            than at byte 0 of the device (a partition is handed over as a device of its own).
    """
    device, geometry = target.device, target.device.geometry
    if target.start_bytes:
        raise GeometryError("zonefs begins at the start of its device", device=device.path)
    if not geometry.is_zoned:
        raise GeometryError(
            "not a zoned device, zonefs needs one",
            device=device.path,
            hint="zoned image adopt --zone-size BYTES writes a zone table for a raw copy" if device.emulated else "",
        )
    if geometry.zone_bytes < SUPER_BLOCK_BYTES or geometry.size_bytes < SUPER_BLOCK_BYTES:
        raise GeometryError("too small for a zonefs super block", device=device.path)
    return Volume(device, device.zones())
