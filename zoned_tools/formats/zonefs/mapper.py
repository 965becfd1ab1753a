"""zonefs without the kernel: the file tree of a volume, and what may be done to its files.

:class:`ZonefsTree` answers and refuses as the kernel's driver does, with the same errno:
sequential files are appended to at their write pointer with direct, block-sized writes and
truncated to nothing or to their capacity; conventional files are written anywhere below
their size. Sources: ``Documentation/filesystems/zonefs.rst``, ``fs/zonefs/file.c`` (checks of
reads, writes and truncates), ``fs/zonefs/super.c`` (modes of dead zones, accounting).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from zoned_tools.device.base import Buffer, ZoneOperation
from zoned_tools.device.zones import OPEN_CONDITIONS, ZoneCondition, has_condition, is_sequential
from zoned_tools.errors import DeviceError, GeometryError
from zoned_tools.formats.registry import Target
from zoned_tools.formats.zonefs.constants import ACCESS_MASK
from zoned_tools.formats.zonefs.files import FileError, FileRef, Handle
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.mount_options import TreeOptions, after_error, parse_options
from zoned_tools.formats.zonefs.tree import sequential_sizes
from zoned_tools.formats.zonefs.view import WRITE_BITS, TreeView
from zoned_tools.formats.zonefs.volume import Volume, check_zone_table, load_super_block, target_volume


class ZonefsTree(TreeView):
    """The files of a volume; made by :func:`open_tree`. Opening for writing closes
    the zones that are open, as a mount does; :meth:`close` closes those that were written.
    """

    def __init__(self, volume: Volume, super_block: SuperBlock, *, writable: bool, options: TreeOptions) -> None:
        if writable:
            _close_open_zones(volume)
        super().__init__(volume, super_block, read_only=not writable, old_root_size=options.old_root_size)
        geometry = volume.device.geometry
        limited = bool(geometry.max_open_zones or geometry.max_active_zones)
        self.options = replace(options, explicit_open=options.explicit_open and limited)
        self._write_opens: dict[int, int] = {}
        self._explicit: set[int] = set()
        self._written: set[int] = set()

    # -- reading

    def read(self, path: str, offset_bytes: int, length_bytes: int, *, direct: bool = False) -> bytes:
        """Bytes of a file, fewer at its end.

        Raises:
            FileError: EPERM for a zone that was read-only or offline at mount, EINVAL for a
                direct read that is not block-aligned, EIO when the device fails.
        """
        ref = self.file(path)
        if not self.is_readable(ref):
            raise self._error(ref.path, "its zone is read-only or offline", errno.EPERM)
        length = min(length_bytes, ref.size_bytes - offset_bytes)
        if offset_bytes < 0 or length_bytes < 0:
            raise self._error(ref.path, "negative offset or length", errno.EINVAL)
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

    # -- writing

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
        view = view[: ref.capacity_bytes - offset_bytes]
        unit = self.volume.block_bytes
        if direct and (offset_bytes % unit or len(view) % unit):
            raise self._error(ref.path, f"direct writes must be multiples of {unit} bytes", errno.EINVAL)
        if ref.sequential and offset_bytes != ref.size_bytes:
            text = f"write at byte {offset_bytes}, but it can only be written at its end, byte {ref.size_bytes}"
            raise self._error(ref.path, text, errno.EINVAL)
        self._write_device(ref, offset_bytes, view, direct=direct)
        return len(view)

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

    # -- open files

    def open(self, path: str, *, writing: bool = False, truncate: bool = False) -> Handle:
        """Open a file.

        Raises:
            FileError: EPERM or EROFS when ``writing`` is not allowed; with explicit-open EBUSY
                when ``max_wro_seq_files`` files are open for writing, or the drive's error.
        """
        ref = self.file(path)
        if writing:
            self._check_changeable(ref)
            if ref.sequential:
                self._open_for_writing(ref)
        handle = Handle(ref, writing)
        if truncate and writing:
            try:
                self.truncate(path, 0)
            except FileError:
                self.release(handle)
                raise
        return handle

    def _open_for_writing(self, ref: FileRef) -> None:
        count = self._write_opens.get(ref.zone, 0)
        if count == 0 and self.options.explicit_open:
            limit = self.volume.device.geometry.max_open_zones
            if limit and len(self._write_opens) >= limit:
                raise self._error(ref.path, f"{limit} sequential files are open for writing", errno.EBUSY)
            if ref.size_bytes < ref.capacity_bytes:
                self._manage(ref, ZoneOperation.OPEN)
                self._explicit.add(ref.zone)
                self._refresh_condition(ref)
        self._write_opens[ref.zone] = count + 1

    def release(self, handle: Handle) -> None:
        """Close a file; the last close of an explicitly open one closes its zone.

        A zone that cannot be closed goes by the error policy; closing a file never fails.
        """
        ref = handle.ref
        if not handle.writing or not ref.sequential or ref.zone not in self._write_opens:
            return
        self._write_opens[ref.zone] -= 1
        if self._write_opens[ref.zone]:
            return
        del self._write_opens[ref.zone]
        if ref.zone in self._explicit:
            self._explicit.discard(ref.zone)
            # A zone that nothing was written to would stay active on ZNS drives if it were only closed.
            try:
                self._manage(ref, ZoneOperation.CLOSE if ref.size_bytes else ZoneOperation.RESET)
                self._refresh_condition(ref)
            except FileError:
                self._handle_error(ref, writing=False)

    def attributes(self) -> dict[str, int]:
        """The counters under ``/sys/fs/zonefs/NAME/``."""
        geometry = self.volume.device.geometry
        return {
            "max_wro_seq_files": geometry.max_open_zones,
            "nr_wro_seq_files": len(self._write_opens),
            "max_active_seq_files": geometry.max_active_zones,
            "nr_active_seq_files": self._count_active(),
        }

    def _count_active(self) -> int:
        group = self.groups.get("seq")
        if group is None:
            return 0
        partly = (group.size_bytes > 0) & (group.size_bytes < group.capacity_bytes)
        explicit = np.isin(group.zone, list(self._explicit))
        return int(np.count_nonzero((partly | explicit) & self._writable["seq"]))

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

    # -- end

    def flush(self) -> None:
        """Make what was written durable."""
        self.volume.device.flush()

    def close(self) -> None:
        """Close the zones that are still open, and make everything durable. The device stays open."""
        for zone in sorted(self._written | self._explicit):
            number = zone
            if has_condition(self.volume.device.zones(number, 1), *OPEN_CONDITIONS)[0]:
                self.volume.device.manage(ZoneOperation.CLOSE, number)
        self._written.clear()
        self._explicit.clear()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close_open_zones(volume: Volume) -> None:
    """As a mount does: close the open zones, and reset those that nothing was written to."""
    table, device = volume.table, volume.device
    used = table["wp_sector"] != table["start_sector"]
    for zone in np.flatnonzero(is_sequential(table) & has_condition(table, *OPEN_CONDITIONS)).tolist():
        device.manage(ZoneOperation.CLOSE if used[zone] else ZoneOperation.RESET, zone)
    table[:] = device.zones()


def open_tree(target: Target, *, writable: bool, options: Mapping[str, str] | None = None) -> ZonefsTree:
    """The file tree of a volume; ``writable`` needs a device that is open for writing.

    Raises:
        MetadataError: no super block that a kernel accepts.
        GeometryError: not a zoned device, or no zone besides the super block's.
        UsageError: an unknown mount option.
    """
    parsed = parse_options(options or {})
    volume = target_volume(target)
    super_block = load_super_block(volume)
    check_zone_table(volume)
    if len(volume.table) < 2:
        raise GeometryError("no usable zone besides the super block's", device=volume.device.path)
    return ZonefsTree(volume, super_block, writable=writable, options=parsed)
