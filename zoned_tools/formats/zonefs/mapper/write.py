"""Changing files: appends, writes, truncates, as the kernel's driver does and refuses them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned_tools.device.base import Buffer, ZoneOperation
from zoned_tools.errors import DeviceError
from zoned_tools.formats.zonefs.mapper.read import TreeReader

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.mapper.files import FileError, FileRef
    from zoned_tools.formats.zonefs.mapper.mount_options import TreeOptions
    from zoned_tools.formats.zonefs.open import Volume


class TreeWriter(TreeReader):
    """Sequential files grow at their end, conventional ones are written anywhere below their size."""

    def __init__(self, volume: Volume, super_block: SuperBlock, *, writable: bool, options: TreeOptions) -> None:
        super().__init__(volume, super_block, writable=writable, options=options)
        self._written: set[int] = set()  # zones that may be implicitly open

    def write(self, path: str, offset_bytes: int, data: Buffer, *, direct: bool = True, at_end: bool = False) -> int:
        """Write to a file; returns how many bytes, fewer when the file's capacity is reached.

        Args:
            direct: as with O_DIRECT, the only way to write sequential files.
            at_end: as with O_APPEND; ``offset_bytes`` is ignored.

        Raises:
            FileError: EINVAL (unaligned, or not at the end of a sequential file), EFBIG (at or
                past the capacity), EIO (buffered write to a sequential file, or the device
                fails), EPERM (dead zone), EROFS.
        """
        ref = self.file(path)
        self._check_changeable(ref)
        view = memoryview(data).cast("B")
        if not len(view):
            return 0
        offset_bytes = self._place_of_write(ref, offset_bytes, direct=direct, at_end=at_end)
        view = view[: ref.capacity_bytes - offset_bytes]
        unit = self.volume.block_bytes
        if direct and (offset_bytes % unit or len(view) % unit):
            raise self._error(ref.path, f"direct writes must be multiples of {unit} bytes", errno.EINVAL)
        if ref.sequential and offset_bytes != ref.size_bytes:
            text = f"write at byte {offset_bytes}, but it can only be written at its end, byte {ref.size_bytes}"
            raise self._error(ref.path, text, errno.EINVAL)
        self._write_device(ref, offset_bytes, view, direct=direct)
        return len(view)

    def _place_of_write(self, ref: FileRef, offset_bytes: int, *, direct: bool, at_end: bool) -> int:
        """Where a write begins; refusals in the kernel's order (the offset counts even where it is ignored)."""
        if offset_bytes >= ref.capacity_bytes:
            raise self._too_big(ref)
        if ref.sequential and not direct:
            raise self._error(ref.path, "sequential files take only direct writes", errno.EIO)
        if at_end:
            if not ref.sequential:
                raise self._error(ref.path, "conventional files cannot be appended to", errno.EINVAL)
            offset_bytes = ref.size_bytes
        if offset_bytes < 0:
            raise self._error(ref.path, "negative offset", errno.EINVAL)
        if offset_bytes >= ref.capacity_bytes:
            raise self._too_big(ref)
        return offset_bytes

    def _too_big(self, ref: FileRef) -> FileError:
        return self._error(ref.path, f"its capacity is {ref.capacity_bytes} bytes", errno.EFBIG)

    def append(self, path: str, data: Buffer) -> int:
        """Write at the end of a sequential file; as :meth:`write` with ``at_end``."""
        return self.write(path, 0, data, at_end=True)

    def _write_device(self, ref: FileRef, offset_bytes: int, data: memoryview, *, direct: bool) -> None:
        device = self.volume.device
        at = ref.start_bytes + offset_bytes
        try:
            if direct:
                device.write(at, data)
            else:
                self._write_buffered(at, data)
        except DeviceError as error:
            self._handle_error(ref, writing=True)
            raise self._error(ref.path, error.message, error.errno or errno.EIO) from None
        if ref.sequential:
            self._written.add(ref.zone)
            self._set_size(ref, offset_bytes + len(data))

    def _write_buffered(self, at: int, data: memoryview) -> None:
        """A write of any alignment: read what surrounds it in its first and last block."""
        device, unit = self.volume.device, self.volume.block_bytes
        skip = at % unit
        span = -(-(skip + len(data)) // unit) * unit
        if skip == 0 and span == len(data):
            device.write(at, data)
            return
        blocks = bytearray(device.read(at - skip, span))
        blocks[skip : skip + len(data)] = data
        device.write(at - skip, blocks)

    def truncate(self, path: str, size_bytes: int) -> None:
        """Empty a sequential file (its zone is reset) or fill it to its capacity (finished).

        Raises:
            FileError: EPERM for any other size, conventional files and dead zones; EFBIG above
                the capacity of the largest file; EROFS; EIO when the device fails.
        """
        ref = self.check_truncate(path, size_bytes)
        if size_bytes == ref.size_bytes:
            return
        self._manage(ref, ZoneOperation.FINISH if size_bytes else ZoneOperation.RESET)
        reopen = ref.zone in self._explicit
        self._set_size(ref, size_bytes)
        if reopen and not size_bytes:
            self._manage(ref, ZoneOperation.OPEN)

    def check_truncate(self, path: str, size_bytes: int) -> FileRef:
        """Refuse what :meth:`truncate` refuses; returns the file."""
        ref = self.file(path)
        self._check_changeable(ref)
        largest = max(int(group.capacity_bytes.max()) for group in self.groups.values())
        if size_bytes > largest:
            raise self._error(ref.path, f"the largest file of the volume has {largest} bytes", errno.EFBIG)
        if not ref.sequential:
            raise self._error(ref.path, "conventional files cannot be truncated", errno.EPERM)
        if size_bytes not in (0, ref.capacity_bytes):
            text = f"sequential files can only be truncated to 0 or to their capacity of {ref.capacity_bytes} bytes"
            raise self._error(ref.path, text, errno.EPERM)
        return ref

    def _manage(self, ref: FileRef, operation: ZoneOperation) -> None:
        """Zone management; its failure is reported, but is none that the error policy is for."""
        try:
            self.volume.device.manage(operation, ref.zone)
        except DeviceError as error:
            raise self._error(ref.path, error.message, error.errno or errno.EIO) from None

    def _set_size(self, ref: FileRef, size_bytes: int) -> None:
        ref.group.size_bytes[ref.index] = size_bytes
        self._refresh_condition(ref)
        if size_bytes == ref.capacity_bytes:
            self._explicit.discard(ref.zone)

    def _refresh_condition(self, ref: FileRef) -> None:
        zone = self.volume.device.zones(ref.zone, 1)
        ref.group.condition[ref.index] = int(zone["condition"][0])
