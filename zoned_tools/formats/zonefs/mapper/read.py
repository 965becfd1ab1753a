"""Reading files, and what a failed request makes of a file."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import BadAreas, salvage_into
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition, has_condition
from zoned_tools.errors import DeviceError
from zoned_tools.formats.zonefs.constants import ACCESS_MASK
from zoned_tools.formats.zonefs.mapper.mount_options import TreeOptions, after_error
from zoned_tools.formats.zonefs.mapper.tree import sequential_sizes
from zoned_tools.formats.zonefs.mapper.view import WRITE_BITS, TreeView

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.mapper.files import FileRef
    from zoned_tools.formats.zonefs.open import Volume


class TreeReader(TreeView):
    """The content of the files; what the device refuses is dealt with as ``errors=`` says.

    Attributes:
        options: mount options; explicit-open means nothing on drives without limits.
    """

    def __init__(self, volume: Volume, super_block: SuperBlock, *, writable: bool, options: TreeOptions) -> None:
        super().__init__(volume, super_block, read_only=not writable, old_root_size=options.old_root_size)
        geometry = volume.device.geometry
        limited = bool(geometry.max_open_zones or geometry.max_active_zones)
        self.options = replace(options, explicit_open=options.explicit_open and limited)
        self._explicit: set[int] = set()  # zones that are explicitly open

    def read(self, path: str, offset_bytes: int, length_bytes: int, *, direct: bool = False) -> bytes:
        """Bytes of a file, fewer at its end.

        Raises:
            FileError: EPERM for a zone that was read-only or offline at mount, EINVAL for a
                direct read that is not block-aligned, EIO when the device fails.
        """
        ref, length = self._request(path, offset_bytes, length_bytes)
        if length <= 0:
            return b""
        unit = self.volume.block_bytes
        if direct and (offset_bytes % unit or length % unit):
            raise self._error(ref.path, f"direct reads must be multiples of {unit} bytes", errno.EINVAL)
        try:
            return self.volume.device.read(ref.start_bytes + offset_bytes, length)
        except DeviceError as error:
            self._handle_error(ref, writing=False)
            raise self._error(ref.path, error.message, error.errno or errno.EIO) from None

    def _request(self, path: str, offset_bytes: int, length_bytes: int) -> tuple[FileRef, int]:
        """The file of a read, and how many bytes there are to read."""
        ref = self.file(path)
        if not self.is_readable(ref):
            raise self._error(ref.path, "its zone is read-only or offline", errno.EPERM)
        if offset_bytes < 0 or length_bytes < 0:
            raise self._error(ref.path, "negative offset or length", errno.EINVAL)
        return ref, min(length_bytes, ref.size_bytes - offset_bytes)

    def salvage(self, path: str, offset_bytes: int, length_bytes: int, *, raw: bool = False) -> tuple[bytes, BadAreas]:
        """As :meth:`read`, or with ``raw`` :meth:`read_raw`, with zeroes for sectors that cannot be read.

        Returns:
            the bytes, and what was not read, counted from the start of the file.

        Raises:
            FileError: as those, but for media errors.
        """
        if raw:
            ref = self.file(path)
            length = min(length_bytes, ref.capacity_bytes - offset_bytes)
        else:
            ref, length = self._request(path, offset_bytes, length_bytes)
        if offset_bytes < 0 or length <= 0:
            return b"", BadAreas()
        content = bytearray(length)
        try:
            bad = salvage_into(
                self.volume.device, ref.start_bytes + offset_bytes, memoryview(content), unit_bytes=SECTOR_BYTES
            )
        except DeviceError as error:
            raise self._error(ref.path, error.message, error.errno or errno.EIO) from None
        return bytes(content), bad.shifted(-ref.start_bytes)

    def read_raw(self, path: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Bytes of a file's zones up to their capacity, whatever the state of the file.

        Raises:
            FileError: the device fails (offline zones cannot be read at all).
        """
        ref = self.file(path)
        length = min(length_bytes, ref.capacity_bytes - offset_bytes)
        if offset_bytes < 0 or length <= 0:
            return b""
        try:
            return self.volume.device.read(ref.start_bytes + offset_bytes, length)
        except DeviceError as error:
            raise self._error(ref.path, error.message, error.errno or errno.EIO) from None

    # -- errors

    def _handle_error(self, ref: FileRef, *, writing: bool) -> None:
        """Look at the zones again after a failed request, and apply the error policy."""
        try:
            zones = self.volume.device.zones(ref.zone, int(ref.group.zone_count[ref.index]))
        except DeviceError:
            return
        if has_condition(zones, ZoneCondition.OFFLINE).any():
            condition = int(ZoneCondition.OFFLINE)
        elif has_condition(zones, ZoneCondition.READ_ONLY).any():
            condition = int(ZoneCondition.READ_ONLY)
        else:
            condition = int(zones["condition"][0])
        written = int(sequential_sizes(zones)[0]) if ref.sequential else ref.capacity_bytes
        outcome = after_error(
            self.options.errors, condition, writing=writing, size_bytes=ref.size_bytes, written_bytes=written
        )
        ref.group.condition[ref.index] = condition
        if outcome is None:
            return
        self.read_only |= outcome.remount_read_only
        ref.group.size_bytes[ref.index] = outcome.size_bytes
        self._readable[ref.group.name][ref.index] = outcome.readable
        self._writable[ref.group.name][ref.index] = outcome.writable
        removed = 0 if outcome.writable else (WRITE_BITS if outcome.readable else ACCESS_MASK)
        ref.group.mode[ref.index] &= ~removed
        if not outcome.writable:
            self._explicit.discard(ref.zone)
