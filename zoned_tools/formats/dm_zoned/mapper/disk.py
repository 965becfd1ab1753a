"""The devices of a target addressed by zone id: data, write pointers, resets, flushes."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from zoned_tools.device.base import Buffer, Device, ZoneOperation
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES
from zoned_tools.formats.shared.zones import ZoneFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry


class TargetDisk:
    """Zones of all members of a target, with the write pointers as they are now.

    Attributes:
        wp_blocks: for each zone id, blocks that may be read: those below the write pointer of
            a sequential zone, all of another zone or where the pointer is undefined.
        sequential, read_only, offline: for each zone id; lists, for they are asked one by one.
    """

    def __init__(self, devices: Sequence[Device], geometry: TargetGeometry) -> None:
        self.devices = devices
        self.geometry = geometry
        self.zone_blocks = geometry.zone_blocks
        self.sequential: list[bool] = geometry.sequential.tolist()
        self.read_only: list[bool] = geometry.read_only.tolist()
        self.offline: list[bool] = geometry.offline.tolist()
        readable = np.where(geometry.wp_blocks >= 0, geometry.wp_blocks, geometry.zone_blocks)
        for zone in np.flatnonzero(geometry.runt):
            readable[zone] = min(int(readable[zone]), geometry.zone_length_blocks(int(zone)))
        self.wp_blocks: list[int] = readable.tolist()

    @property
    def size_blocks(self) -> int:
        """Blocks of the first device; a place that begins there is behind its end."""
        return self.devices[0].geometry.size_bytes // BLOCK_BYTES

    def is_dead(self, zone: int) -> bool:
        """Read-only or offline."""
        return self.read_only[zone] or self.offline[zone]

    def place(self, zone: int, block: int) -> tuple[int, int]:
        """``(device index, 4096-byte block of that device)``."""
        index, offset_bytes = self.geometry.locate(zone * self.zone_blocks + block)
        return index, offset_bytes // BLOCK_BYTES

    def _where(self, zone: int, block: int) -> tuple[Device, int]:
        index, offset_bytes = self.geometry.locate(zone * self.zone_blocks + block)
        return self.devices[index], offset_bytes

    def read_into(self, zone: int, block: int, view: memoryview) -> None:
        """Fill ``view`` from block ``block`` of a zone.

        Raises:
            DeviceError: the zone is offline, or the device says no.
        """
        if self.offline[zone]:
            raise DeviceError(f"zone {zone} is offline", errno=errno.EIO)
        device, offset_bytes = self._where(zone, block)
        device.read_into(offset_bytes, view)

    def write(self, zone: int, block: int, data: Buffer) -> None:
        """Write whole blocks; in a sequential zone ``block`` has to be the write pointer.

        Raises:
            DeviceError: ``EROFS`` for a read-only zone, ``EIO`` for an offline one, or the
                device's own; the zone's state is then read from the device again.
        """
        self.require_writable(zone)
        device, offset_bytes = self._where(zone, block)
        try:
            device.write(offset_bytes, data)
        except DeviceError:
            self.refresh(zone)
            raise
        if self.sequential[zone]:
            self.wp_blocks[zone] = max(self.wp_blocks[zone], block + len(memoryview(data).cast("B")) // BLOCK_BYTES)

    def require_writable(self, zone: int) -> None:
        """Raise the error that a dead zone gives to writers."""
        if self.read_only[zone]:
            self._fail(f"zone {zone} is read-only", zone, errno.EROFS)
        if self.offline[zone]:
            self._fail(f"zone {zone} is offline", zone, errno.EIO)

    def _fail(self, message: str, zone: int, number: int) -> NoReturn:
        raise DeviceError(message, device=self.geometry.member_of(zone).path, errno=number)

    def refresh(self, zone: int) -> None:
        """Take condition and write pointer of a zone from the device."""
        if not self.sequential[zone]:
            return
        device, index = self._zone_on_device(zone)
        facts = ZoneFacts(device.zones(index, 1), BLOCK_BYTES)
        self.read_only[zone] = bool(facts.read_only[0])
        self.offline[zone] = bool(facts.offline[0])
        if not facts.dead[0]:
            self.wp_blocks[zone] = int(facts.wp_blocks[0])

    def reset(self, zone: int) -> None:
        """Empty a sequential zone."""
        device, index = self._zone_on_device(zone)
        try:
            device.manage(ZoneOperation.RESET, index)
        finally:
            self.refresh(zone)

    def settle(self, zone: int) -> None:
        """Finish a zone on a drive with a limit of active zones, where a half full one would keep a place."""
        device, index = self._zone_on_device(zone)
        if not self.sequential[zone] or not device.geometry.max_active_zones:
            return
        try:
            device.manage(ZoneOperation.FINISH, index)
        finally:
            self.refresh(zone)

    def _zone_on_device(self, zone: int) -> tuple[Device, int]:
        member = self.geometry.member_of(zone)
        index = member.start_bytes // self.geometry.zone_bytes + zone - member.first_zone
        return self.devices[member.index], index

    def write_blocks(self, block: int, data: Buffer) -> None:
        """Write blocks from an absolute block on (metadata; inside one member)."""
        index, offset_bytes = self.geometry.locate(block)
        self.devices[index].write(offset_bytes, data)

    def flush(self) -> None:
        """Make everything on every member durable.

        The kernel target flushes the metadata device only, so data on the other members of a
        multi-device target may be lost after they were acknowledged; not here.
        """
        for device in self.devices:
            device.flush()

    def flush_metadata(self) -> None:
        """Make the metadata device durable."""
        self.devices[0].flush()
