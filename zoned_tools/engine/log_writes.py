"""Logs of the dm-log-writes target (and of QEMU's ``blklogwrites``) as traces.

Layout: Documentation/admin-guide/device-mapper/log-writes.rst and the on-disk structures
that it describes. Sector 0 holds the super block; then each entry is one sector with its
header, followed by the data of a write. All numbers are little-endian; positions and
lengths count in the log's own sector size.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import TYPE_CHECKING, BinaryIO

from zoned_tools.engine.trace import CHUNK_BYTES, Action, Request
from zoned_tools.errors import DeviceError, MetadataError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0x6A736677736872
VERSION = 1
_SUPER = struct.Struct("<QQQI")  # magic, version, entries, sector size
_ENTRY = struct.Struct("<QQQQ")  # sector, number of sectors, flags, length of a mark's text
_SECTOR_SIZES = (512, 1024, 2048, 4096)


class EntryFlag(IntFlag):
    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


_KNOWN = EntryFlag.FLUSH | EntryFlag.FUA | EntryFlag.DISCARD | EntryFlag.MARK | EntryFlag.METADATA


def parse_log_writes(file: BinaryIO, path: str) -> Iterator[Request]:
    """The requests of a log, in the order in which they completed.

    A flush comes before the data of its entry, FUA after; long writes come in parts.

    Raises:
        MetadataError: not such a log, or it ends too early or holds nonsense; the entry is named.
        DeviceError: the file cannot be read.
    """
    magic, version, entries, sector_bytes = _SUPER.unpack(_take(file, path, _SUPER.size, "the super block"))
    if magic != MAGIC or version != VERSION or sector_bytes not in _SECTOR_SIZES:
        raise MetadataError("not a log of dm-log-writes", device=path)
    _take(file, path, sector_bytes - _SUPER.size, "the super block")
    for number in range(entries):
        place = f"entry {number}"
        header = _take(file, path, sector_bytes, place)
        sector, sectors, flags, text_bytes = _ENTRY.unpack_from(header)
        if flags & ~int(_KNOWN) or text_bytes > sector_bytes or max(sector, sectors) >= 1 << 54:
            raise MetadataError(f"{place} is damaged", device=path)
        yield from _entry_requests(file, path, place, flags, sector * sector_bytes, sectors * sector_bytes)


def _entry_requests(
    file: BinaryIO, path: str, place: str, flags: int, offset_bytes: int, length_bytes: int
) -> Iterator[Request]:
    if flags & EntryFlag.MARK:
        return
    if flags & EntryFlag.FLUSH:
        yield Request(place, Action.FLUSH)
    if flags & EntryFlag.DISCARD:
        yield Request(place, Action.TRIM, offset_bytes, length_bytes)
    else:
        for done in range(0, length_bytes, CHUNK_BYTES):
            count = min(CHUNK_BYTES, length_bytes - done)
            yield Request(place, Action.WRITE, offset_bytes + done, count, _take(file, path, count, place))
    if flags & EntryFlag.FUA:
        yield Request(place, Action.FLUSH)


def _take(file: BinaryIO, path: str, length_bytes: int, place: str) -> bytes:
    try:
        data = file.read(length_bytes)
    except OSError as error:
        raise DeviceError.from_os_error(error, path, "cannot read the log") from None
    if len(data) != length_bytes:
        raise MetadataError(f"ends inside {place}", device=path)
    return data
