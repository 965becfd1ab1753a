"""Drives with bytes that cannot be read: known beforehand as of an image with a map file, or found by reading."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import BAD_SECTOR, BadAreas
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.overlay import Overlay, _OverlayStore
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Buffer, Device


class _DamagedStore(_OverlayStore):
    """Bytes of another device of which some give EIO until they are written."""

    def __init__(self, base: Device, bad: Iterable[tuple[int, int]], *, known: bool) -> None:
        super().__init__(base)
        self.bad = sorted(bad)
        self.known = known

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        end_bytes = offset_bytes + len(buffer)
        for start, end in self.bad:
            if start < end_bytes and offset_bytes < end:
                raise DeviceError(f"bytes {start} to {end - 1} give a medium error", device="drive", errno=errno.EIO)
        super().read_into(offset_bytes, buffer)

    def pwrite(self, offset_bytes: int, data: Buffer) -> None:
        end_bytes = offset_bytes + len(memoryview(data))
        left = [part for s, e in self.bad for part in ((s, min(e, offset_bytes)), (max(s, end_bytes), e))]
        self.bad = [(start, end) for start, end in left if start < end]
        super().pwrite(offset_bytes, data)

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        rows = BadAreas.of((start, end, BAD_SECTOR) for start, end in self.bad)
        return rows.within(offset_bytes, length_bytes) if self.known else BadAreas()


class DamagedDrive(Overlay):
    """A copy-on-write view of ``base`` with unreadable bytes.

    Args:
        bad: ``(start, end)`` bytes that give EIO until they are written.
        known: as of an image with a map file; False for a drive on which they are found by reading.
    """

    def __init__(self, base: Device, bad: Iterable[tuple[int, int]], *, known: bool = False) -> None:
        family = base.machine.family if isinstance(base, EmulatedDrive) else None
        self._pages = _DamagedStore(base, bad, known=known)
        EmulatedDrive.__init__(self, base.path, base.geometry, base.zones(), self._pages, writable=True, family=family)
        self.emulated = known  # else it is found by reading, as on a drive

    @property
    def bad(self) -> list[tuple[int, int]]:
        """What still gives EIO."""
        assert isinstance(self._pages, _DamagedStore)
        return self._pages.bad
