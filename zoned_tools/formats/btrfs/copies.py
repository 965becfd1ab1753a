"""All super blocks of a stretch of a device as one numpy table, checksums verified."""

from __future__ import annotations

import mmap
import uuid
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoned_tools.errors import DeviceError
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, crc32c_bulk
from zoned_tools.formats.btrfs.crc_runs import sound_runs
from zoned_tools.formats.btrfs.layout import (
    ALL_ONES,
    CSUM_BYTES,
    DEV_ITEM_FSID_OFFSET,
    GENERATION_OFFSET,
    INCOMPAT_METADATA_UUID,
    MAGIC,
    MAGIC_OFFSET,
    SUPER_BLOCK_OFFSETS,
    SUPER_BYTES,
    TEMPORARY_MAGIC,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.base import Device

SCAN_CHUNK_BYTES = 2 << 20
"""How much is read at a time: little enough to stay in the processor's caches while its checksums are computed."""


class Magic(IntEnum):
    NONE = 0
    OK = 1
    TEMPORARY = 2
    """mkfs was at work when it was written."""

    @property
    def text(self) -> str:
        return self.name.lower()


class Csum(IntEnum):
    UNTESTED = 0
    OK = 1
    BAD = 2
    UNKNOWN_TYPE = 3


COPY_DTYPE = np.dtype(
    [
        ("offset_bytes", "<u8"),
        ("generation", "<u8"),
        ("root", "<u8"),
        ("chunk_root", "<u8"),
        ("log_root", "<u8"),
        ("bytenr", "<u8"),
        ("fsid", "V16"),
        ("zone", "u1"),
        ("magic", "u1"),
        ("csum", "u1"),
        ("zero", "?"),
        ("unreadable", "?"),
        ("bytenr_ok", "?"),
        ("fsid_ok", "?"),
        ("valid", "?"),
    ]
)
"""One place where a super block can be: what is there, and the verdicts.

``zone`` is 0 or 1 in the pair. The numbers are those on disk even when the magic is
missing: a ring whose zones are both full is decided by such a number. ``valid`` is the
rescue's rule: magic, known checksum type, checksum, the mirror's ``bytenr`` and a
``dev_item.fsid`` that belongs to the block.
"""

UNREADABLE_GENERATION = 1 << 64
"""Of a block that decides between two full zones and cannot be read: the kernel ends there, so it is what it takes."""

Copies: TypeAlias = npt.NDArray[np.void]
"""1-D array of :data:`COPY_DTYPE`."""

Copy: TypeAlias = np.void
"""One row of it."""

_LEADING_WORDS = 38
_METADATA_UUID_WORDS = slice(71, 74)
_HEADER_WORDS = _LEADING_WORDS + 3
"""64-bit words of a block that hold the fields that a scan looks at: its first ones, and around the metadata uuid."""


def _header_dtype() -> np.dtype[np.void]:
    names = ["bytenr", "magic", "generation", "root", "chunk_root", "log_root", "incompat_flags", "fsid", "csum_type"]
    formats = ["<u8"] * 7 + ["V16", "<u2"]
    offsets = [SUPER_BLOCK_OFFSETS[name] for name in names]
    skipped = _METADATA_UUID_WORDS.start - _LEADING_WORDS
    for name, at in (
        ("own", SUPER_BLOCK_OFFSETS["fsid"]),
        ("device", DEV_ITEM_FSID_OFFSET),
        ("metadata", SUPER_BLOCK_OFFSETS["metadata_uuid"] - 8 * skipped),
    ):  # a uuid as two numbers compares a hundred times faster than as 16 raw bytes
        names += [f"{name}_low", f"{name}_high"]
        formats += ["<u8", "<u8"]
        offsets += [at, at + 8]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": _HEADER_WORDS * 8})


_HEADER_DTYPE = _header_dtype()
_CRC32C = 0
_BATCH_SLOTS = 4096
_CHUNK_SLOTS = SCAN_CHUNK_BYTES // SUPER_BYTES
_RUN_SLOTS = 64
"""Super blocks whose CRC-32C is computed with one call."""


class Scanner:
    """Decodes super blocks in bulk through one reused buffer.

    Args:
        device: where they are.
        bytenr: what their ``bytenr`` field has to be.
    """

    def __init__(self, device: Device, bytenr: int) -> None:
        self._device = device
        self._bytenr = bytenr
        # page-aligned: the kernel copies into it twice as fast as into a bytearray
        self._buffer = memoryview(mmap.mmap(-1, SCAN_CHUNK_BYTES))
        self._blocks = Blocks(self._buffer)
        run_bytes = _RUN_SLOTS * SUPER_BYTES
        self._runs = [self._buffer[at : at + run_bytes] for at in range(0, SCAN_CHUNK_BYTES, run_bytes)]
        self._headers = np.zeros((_BATCH_SLOTS, _HEADER_WORDS), np.uint64)

    def scan(self, start_bytes: int, count: int, zone: int = 0, into: Copies | None = None) -> Copies:
        """The ``count`` super block places from ``start_bytes``; holes of an image are not read.

        Args:
            into: a table of ``count`` zeroed rows to fill and return.
        """
        table = np.zeros(count, COPY_DTYPE) if into is None else into
        table["offset_bytes"] = start_bytes + np.arange(count, dtype=np.uint64) * np.uint64(SUPER_BYTES)
        table["zone"] = zone
        table["zero"] = True  # until it is read
        for first, last in _data_slots(self._device, start_bytes, count):
            for at in range(first, last, _BATCH_SLOTS):
                self._scan_batch(table[at : min(at + _BATCH_SLOTS, last)], start_bytes + at * SUPER_BYTES)
        return table

    def scan_written(self, start_bytes: int, limit: int, zone: int = 0) -> Copies:
        """The leading places that hold something, at most ``limit``: for content without a zone table.

        Blocks of zeroes are not written, nor are blocks of ones: some drives return those
        above the write pointer.
        """
        parts = []
        for at in range(0, limit, _CHUNK_SLOTS):
            part = self.scan(start_bytes + at * SUPER_BYTES, min(_CHUNK_SLOTS, limit - at), zone)
            ones = (part["magic"] == Magic.NONE) & (part["generation"] == ALL_ONES) & (part["bytenr"] == ALL_ONES)
            blank = np.flatnonzero(part["zero"] | ones)
            if len(blank):
                parts.append(part[: blank[0]])
                break
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, COPY_DTYPE)

    def _scan_batch(self, table: Copies, start_bytes: int) -> None:
        headers = self._headers[: len(table)]
        checksums: list[int] | None = [] if len(table) == _BATCH_SLOTS else None
        for first in range(0, len(table), _CHUNK_SLOTS):
            rows = table[first : first + _CHUNK_SLOTS]
            self._read(rows, start_bytes + first * SUPER_BYTES)
            self._blocks.copy_headers(headers[first : first + len(rows)])
            rows["zero"] = self._blocks.blank(len(rows)) & ~rows["unreadable"]
            if first == 0 and self._blocks.csum_type(len(rows)) != _CRC32C:
                checksums = None
            if checksums is None:
                rows["csum"] = self._blocks.verify(len(rows))
            else:
                checksums += map(crc32c_bulk(), self._runs)
        if checksums is not None:
            self._judge_runs(table, headers, checksums, start_bytes)
        judge(table, headers, self._bytenr)

    def _judge_runs(
        self, table: Copies, headers: npt.NDArray[np.uint64], checksums: list[int], start_bytes: int
    ) -> None:
        """Verdicts for whole runs at a time; only those that hold anything bad are read again."""
        fields = headers[:, : CSUM_BYTES // 8].reshape(len(checksums), _RUN_SLOTS, -1)
        sound = sound_runs(_RUN_SLOTS).sound(fields, np.array(checksums, np.uint32))
        types = headers.view(_HEADER_DTYPE)["csum_type"].reshape(len(checksums), -1)
        sound &= (types == _CRC32C).all(axis=1)
        table["csum"] = Csum.OK
        for run in np.flatnonzero(~sound).tolist():
            first = run * _RUN_SLOTS
            rows = table[first : first + _RUN_SLOTS]
            self._read(rows, start_bytes + first * SUPER_BYTES)
            rows["csum"] = self._blocks.verify(len(rows))

    def _read(self, rows: Copies, start_bytes: int) -> None:
        try:
            self._device.read_into(start_bytes, self._buffer[: len(rows) * SUPER_BYTES])
        except DeviceError:
            self._read_singly(rows, start_bytes)

    def _read_singly(self, rows: Copies, start_bytes: int) -> None:
        """After a failed read: get what can be read, zeroes for the rest."""
        for index in range(len(rows)):
            part = self._buffer[index * SUPER_BYTES : (index + 1) * SUPER_BYTES]
            try:
                self._device.read_into(start_bytes + index * SUPER_BYTES, part)
            except DeviceError:
                part[:] = bytes(SUPER_BYTES)
                rows["unreadable"][index] = True


def _data_slots(device: Device, start_bytes: int, count: int) -> Iterator[tuple[int, int]]:
    """Ranges of slots that may hold something, widened to whole slots and disjoint."""
    done = 0
    try:
        for offset, length in device.data_extents(start_bytes, count * SUPER_BYTES):
            first = max((offset - start_bytes) // SUPER_BYTES, done)
            last = min(-(-(offset + length - start_bytes) // SUPER_BYTES), count)
            if last > first:
                yield first, last
                done = last
    except DeviceError:
        if done < count:
            yield done, count


class Blocks:
    """Views of a buffer of whole super blocks, made once for many rounds of filling it."""

    def __init__(self, buffer: memoryview) -> None:
        starts = range(0, len(buffer), SUPER_BYTES)
        self.words = np.frombuffer(buffer, np.uint64).reshape(-1, SUPER_BYTES // 8)
        self._bytes = self.words.view(np.uint8)
        type_at = SUPER_BLOCK_OFFSETS["csum_type"]
        self._types = self._bytes[:, type_at : type_at + 2].view(np.uint16)[:, 0]  # a view: it follows the buffer
        # cutting the slices anew for every round would cost a third of the checksums' time
        self._covered = [buffer[at + CSUM_BYTES : at + SUPER_BYTES] for at in starts]

    def copy_headers(self, into: npt.NDArray[np.uint64]) -> None:
        """The words that :func:`judge` wants, of the first ``len(into)`` blocks."""
        into[:, :_LEADING_WORDS] = self.words[: len(into), :_LEADING_WORDS]
        into[:, _LEADING_WORDS:] = self.words[: len(into), _METADATA_UUID_WORDS]

    def blank(self, count: int) -> npt.NDArray[np.bool_] | bool:
        """Which of the first ``count`` blocks hold nothing but zeroes; False for none."""
        without_magic: npt.NDArray[np.bool_] = self.words[:count, MAGIC_OFFSET // 8] == 0
        if not without_magic.any():
            return False
        rows = np.flatnonzero(without_magic)
        without_magic[rows] = ~self.words[rows].any(axis=1)
        return without_magic

    def csum_type(self, count: int) -> int | None:
        """The checksum type of the first ``count`` blocks; None when they differ."""
        types = self._types[:count]
        return int(types[0]) if (types == types[0]).all() else None

    def verify(self, count: int) -> npt.NDArray[np.uint8]:
        """:class:`Csum` verdicts of the first ``count`` blocks."""
        common = self.csum_type(count)
        if common is not None:
            covered = self._covered if count == len(self._covered) else self._covered[:count]
            return self._verify_type(common, covered, self._bytes[:count, :CSUM_BYTES])
        types = self._types[:count]
        verdicts = np.zeros(count, np.uint8)
        for csum_type in np.unique(types).tolist():
            rows = np.flatnonzero(types == csum_type)
            covered = [self._covered[row] for row in rows.tolist()]
            verdicts[rows] = self._verify_type(csum_type, covered, self._bytes[rows, :CSUM_BYTES])
        return verdicts

    @staticmethod
    def _verify_type(csum_type: int, covered: list[memoryview], stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        algorithm = ALGORITHMS.get(csum_type)
        if algorithm is None:
            return np.full(len(covered), Csum.UNKNOWN_TYPE, np.uint8)
        compute: Callable[[Any], Any] = algorithm.make_bulk()
        used = stored[:, : algorithm.size]
        if algorithm.size <= 8:
            number = f"<u{algorithm.size}"
            same = used.view(number).ravel() == np.fromiter(map(compute, covered), number, len(covered))
        else:
            digests = np.frombuffer(b"".join(map(compute, covered)), np.uint8)
            same = (used == digests.reshape(len(covered), algorithm.size)).all(axis=1)
        return np.where(same, np.uint8(Csum.OK), np.uint8(Csum.BAD))


def judge(table: Copies, headers: npt.NDArray[np.uint64], bytenr: int) -> None:
    """Fill in the fields and verdicts of copies whose checksums are verified.

    Args:
        headers: ``(len(table), 41)`` words of each block, see :meth:`Blocks.copy_headers`.
        bytenr: what a valid block's field has to be.
    """
    fields = headers.view(_HEADER_DTYPE).ravel()
    for name in ("generation", "root", "chunk_root", "log_root", "bytenr", "fsid"):
        table[name] = fields[name]
    ok = fields["magic"] == MAGIC
    table["magic"] = ok  # Magic.OK is 1
    if not ok.all():
        table["magic"][fields["magic"] == TEMPORARY_MAGIC] = Magic.TEMPORARY
        table["csum"][table["magic"] == Magic.NONE] = Csum.UNTESTED
    bytenr_ok = fields["bytenr"] == bytenr
    fsid_ok = _fsid_ok(fields)
    table["bytenr_ok"], table["fsid_ok"] = bytenr_ok, fsid_ok
    table["valid"] = ok & (table["csum"] == Csum.OK) & bytenr_ok & fsid_ok


def _fsid_ok(fields: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Whether the device item has the fsid, or the metadata uuid where that feature is on."""

    def is_device(name: str) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = fields["device_low"] == fields[f"{name}_low"]
        same &= fields["device_high"] == fields[f"{name}_high"]
        return same

    flagged = (fields["incompat_flags"] & np.uint64(INCOMPAT_METADATA_UUID)) != 0
    return np.where(flagged, is_device("metadata"), is_device("own")) if flagged.any() else is_device("own")


def decode_one(block: bytes, offset_bytes: int, bytenr: int, zone: int = 0) -> Copies:
    """A table of one row for one block."""
    table = np.zeros(1, COPY_DTYPE)
    table["offset_bytes"] = offset_bytes
    table["zone"] = zone
    blocks = Blocks(memoryview(block))
    table["csum"] = blocks.verify(1)
    table["zero"] = blocks.blank(1)
    headers = np.empty((1, _HEADER_WORDS), np.uint64)
    blocks.copy_headers(headers)
    judge(table, headers, bytenr)
    return table


def unreadable_copy(offset_bytes: int) -> Copies:
    """A table of one row for a block that cannot be read."""
    table = np.zeros(1, COPY_DTYPE)
    table["offset_bytes"], table["unreadable"] = offset_bytes, True
    return table


def deciding_generation(copies: Copies, row: int | None) -> int:
    """The number that decides between two full zones, of the last block of one; 0 where there is none."""
    if row is None:
        return 0
    return UNREADABLE_GENERATION if copies["unreadable"][row] else int(copies["generation"][row])


def copy_fsid(row: Copy) -> uuid.UUID:
    """The fsid of one copy."""
    return uuid.UUID(bytes=bytes(row["fsid"]))


def read_block(device: Device, offset_bytes: int) -> bytes | None:
    """One super block's bytes; None when it lies outside the device or cannot be read."""
    if offset_bytes < 0 or offset_bytes + SUPER_BYTES > device.geometry.size_bytes:
        return None
    try:
        return device.read(offset_bytes, SUPER_BYTES)
    except DeviceError:
        return None


def generation_of(block: bytes | None) -> int:
    """The 64-bit number in the place of the generation, whatever is there; above all for what cannot be read."""
    return (
        UNREADABLE_GENERATION
        if block is None
        else int.from_bytes(block[GENERATION_OFFSET : GENERATION_OFFSET + 8], "little")
    )
