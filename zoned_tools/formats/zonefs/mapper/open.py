"""zonefs without the kernel: the file tree of a volume, and what may be done to its files.

:class:`ZonefsTree` answers and refuses as the kernel's driver does, with the same errno:
sequential files are appended to at their write pointer with direct, block-sized writes and
truncated to nothing or to their capacity; conventional files are written anywhere below
their size. Sources: ``Documentation/filesystems/zonefs.rst``, ``fs/zonefs/file.c`` (checks of
reads, writes and truncates), ``fs/zonefs/super.c`` (modes of dead zones, accounting).
"""

from __future__ import annotations

import errno
import warnings
from typing import TYPE_CHECKING, Self

import numpy as np

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.zones import OPEN_CONDITIONS, has_condition, is_sequential
from zoned_tools.errors import ZonedWarning
from zoned_tools.formats.zonefs.judge import UnreadableSuperBlockError, load_super_block, require_zone_table
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.mapper.files import FileError, FileRef, Handle
from zoned_tools.formats.zonefs.mapper.mount_options import TreeOptions, parse_options
from zoned_tools.formats.zonefs.mapper.write import TreeWriter
from zoned_tools.formats.zonefs.open import Volume, open_volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from zoned_tools.formats.contract import Target


class ZonefsTree(TreeWriter):
    """The files of a volume; made by :func:`open_tree`. Opening for writing closes
    the zones that are open, as a mount does; :meth:`close` closes those that were written.
    """

    def __init__(self, volume: Volume, super_block: SuperBlock, *, writable: bool, options: TreeOptions) -> None:
        if writable:
            _close_open_zones(volume)
        super().__init__(volume, super_block, writable=writable, options=options)
        self._write_opens: dict[int, int] = {}

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

    # -- end

    def flush(self) -> None:
        """Make what was written durable."""
        self.volume.device.flush()

    def close(self) -> None:
        """Close the zones that are still open, and make everything durable. The device stays open."""
        for zone in sorted(self._written | self._explicit):
            if has_condition(self.volume.device.zones(zone, 1), *OPEN_CONDITIONS)[0]:
                self.volume.device.manage(ZoneOperation.CLOSE, zone)
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

    A super block that cannot be read is assumed to have the default parameters: contents are certain then, names
    are without aggr_cnv (rescues, section 1.5).

    Raises:
        MetadataError: no super block that a kernel accepts, or none that can be read and ``writable``.
        GeometryError: not a zoned device, or no zone besides the super block's.
        UsageError: an unknown mount option.
    """
    parsed = parse_options(options or {})
    volume = open_volume(target)
    try:
        super_block = load_super_block(volume)
    except UnreadableSuperBlockError as error:
        if writable:
            raise
        assumed = f"{volume.device.path}: {error.message}; names, modes and owners are those of the default parameters"
        warnings.warn(assumed, ZonedWarning, stacklevel=2)
        super_block = SuperBlock()
    require_zone_table(volume)
    return ZonefsTree(volume, super_block, writable=writable, options=parsed)
