"""An inplace-compress volume on its device: super block, positions, bulk reading of the bitmap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from errno import EIO
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import BadAreas, salvage_into
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor, compressor_by_number
from zoned_tools.formats.inplace_compress.entries import (
    ALIGNED_BYTES,
    ALIGNED_ENTRIES,
    Array,
    mark_unknown,
    swap_words,
    unpack_entries,
)
from zoned_tools.formats.inplace_compress.judge import is_version_1, super_block_faults
from zoned_tools.formats.inplace_compress.layout import ENTRY_BITS, SuperBlock, Version1SuperBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device

CHUNK_ENTRIES = 1 << 20
"""Entries that a scan has in memory at a time (4 GiB of data blocks); a multiple of 32."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Where everything of one volume is.

    Attributes:
        device: the backing device.
        start_bytes: where the layout begins.
        meta_blocks, data_blocks: ``M`` and ``D``.
        comp_alg: the compressor's number as stored.
        reversed_words: the bitmap was written by a big-endian host.
        is_assumed: the super block cannot be read; sizes and compressor are what they most likely were.
        strict: no block of the bitmap may fail: entries that are not known would be written back.
    """

    device: Device
    start_bytes: int
    meta_blocks: int
    data_blocks: int
    comp_alg: int
    reversed_words: bool = False
    is_assumed: bool = False
    strict: bool = field(default=False, compare=False)

    @property
    def compressor(self) -> Compressor | None:
        return compressor_by_number(self.comp_alg)

    @property
    def bitmap_offset_bytes(self) -> int:
        return self.start_bytes + layout.BLOCK_BYTES

    @property
    def bitmap_bytes(self) -> int:
        return layout.bitmap_bytes_for(self.data_blocks)

    @property
    def data_offset_bytes(self) -> int:
        return self.start_bytes + (1 + self.meta_blocks) * layout.BLOCK_BYTES

    @property
    def device_blocks(self) -> int:
        """Whole blocks of the device from the start of the layout."""
        return (self.device.geometry.size_bytes - self.start_bytes) // layout.BLOCK_BYTES

    @property
    def super_block(self) -> SuperBlock:
        return SuperBlock(layout.MAGIC, self.meta_blocks, self.data_blocks, self.comp_alg)

    def block_offset_bytes(self, block: int) -> int:
        """Where data block ``block`` is on the device."""
        return self.data_offset_bytes + block * layout.BLOCK_BYTES

    def other_byte_order(self) -> Volume:
        """The same volume with the bitmap's words read the other way round."""
        return replace(self, reversed_words=not self.reversed_words)

    def read_words(self, offset_bytes: int, length_bytes: int) -> bytes:
        """A part of the bitmap in the order of a little-endian host; zeroes behind its end.

        ``offset_bytes`` counts from the start of the bitmap; both are multiples of 4.
        """
        return self._read_words(offset_bytes, length_bytes)[0]

    def _read_words(self, offset_bytes: int, length_bytes: int) -> tuple[bytes, BadAreas]:
        """As :meth:`read_words`, with what cannot be read (zeroes), in bytes from the start of the bitmap.

        Raises:
            DeviceError: there is any, and the volume is strict (``EIO``).
        """
        present = max(0, min(length_bytes, self.bitmap_bytes - offset_bytes))
        if not present:
            return bytes(length_bytes), BadAreas()
        start = offset_bytes // layout.BLOCK_BYTES * layout.BLOCK_BYTES
        end = -(-(offset_bytes + present) // layout.BLOCK_BYTES) * layout.BLOCK_BYTES
        blocks = bytearray(end - start)
        bad = salvage_into(self.device, self.bitmap_offset_bytes + start, memoryview(blocks))
        if self.strict and len(bad):
            raise DeviceError(f"cannot read the bitmap at byte {bad.starts[0]}", device=self.device.path, errno=EIO)
        raw = bytes(memoryview(blocks)[offset_bytes - start : offset_bytes - start + present])
        if self.reversed_words:
            raw = swap_words(raw)
        return raw.ljust(length_bytes, b"\0"), bad.shifted(-self.bitmap_offset_bytes)

    def read_entries(self, first_block: int, count: int) -> Array:
        """Entries (uint8) of ``count`` blocks; ``first_block`` is a multiple of 32.

        Those of which a bit lies in a block that cannot be read are unknown (:func:`~.entries.mark_unknown`).
        """
        offset = first_block // ALIGNED_ENTRIES * ALIGNED_BYTES
        length = -(-count // ALIGNED_ENTRIES) * ALIGNED_BYTES
        raw, bad = self._read_words(offset, length)
        entries = unpack_entries(raw)[:count]
        for start, end, _ in bad:
            first, last = start // layout.BLOCK_BYTES, (end - 1) // layout.BLOCK_BYTES
            low, high = first * layout.BITS_PER_META_BLOCK, (last + 1) * layout.BITS_PER_META_BLOCK
            mark_unknown(entries, low // ENTRY_BITS - first_block, -(-high // ENTRY_BITS) - first_block)
        return entries

    def entry_chunks(self, first_block: int = 0, end_block: int | None = None) -> Iterator[tuple[int, Array]]:
        """``(first block, entries)`` of consecutive chunks; ``first_block`` is a multiple of 32."""
        end = self.data_blocks if end_block is None else end_block
        for start in range(first_block, end, CHUNK_ENTRIES):
            yield start, self.read_entries(start, min(CHUNK_ENTRIES, end - start))

    def slack_bits(self) -> int:
        """The bits between the last entry and the end of its 32-bit word, as a number."""
        used = layout.ENTRY_BITS * self.data_blocks - 8 * (self.bitmap_bytes - layout.WORD_BYTES)
        word = self.read_words(self.bitmap_bytes - layout.WORD_BYTES, layout.WORD_BYTES)
        return int.from_bytes(word, "little") >> used


def read_super_block(device: Device, start_bytes: int) -> SuperBlock | None:
    """The super block at ``start_bytes`` whatever it holds; None when the device ends before it.

    Raises:
        DeviceError: a byte of its block cannot be read (``EIO``).
    """
    if device.geometry.size_bytes - start_bytes < layout.BLOCK_BYTES:
        return None
    return SuperBlock.parse(device.read(start_bytes, layout.BLOCK_BYTES))


def is_old_series(device: Device, start_bytes: int) -> bool:
    """Whether this is a volume of the 2013 series (:func:`~.judge.is_version_1`)."""
    size_bytes = device.geometry.size_bytes - start_bytes
    if size_bytes < layout.BLOCK_BYTES:
        return False
    raw = device.read(start_bytes, layout.VERSION_1_SUPER_BLOCK_BYTES)
    return is_version_1(Version1SuperBlock.parse(raw), size_bytes)


_FAULT_TEXTS = {
    "SB_MAGIC": "no inplace-compress super block",
    "SB_SIZE": "the super block's sizes contradict each other",
    "SB_DEVICE": "the volume is larger than its device",
    "SB_ALG": "the super block names an unknown compressor",
}


def open_volume(device: Device, start_bytes: int = 0, *, data_blocks: int | None = None) -> Volume:
    """The volume at ``start_bytes`` of ``device``, its super block verified, or assumed where it cannot be read.

    Args:
        data_blocks: how many there are, if the user knows it; for a super block that cannot be read.

    Raises:
        MetadataError: there is none, its sizes are impossible, or its series is not supported.
    """
    try:
        super_block = read_super_block(device, start_bytes)
    except DeviceError as error:
        if error.errno != EIO:
            raise
        return _assumed_volume(device, start_bytes, data_blocks, error)
    if super_block is None:
        raise MetadataError("no inplace-compress super block", device=device.path)
    if super_block.magic == layout.MAGIC and is_old_series(device, start_bytes):
        raise MetadataError(
            "a volume of the 2013 series (target insitu-comp, version 1)",
            device=device.path,
            hint="only the series from 2016 on are supported",
        )
    faults = super_block_faults(super_block, device.geometry.size_bytes - start_bytes)
    if faults:
        raise MetadataError(_FAULT_TEXTS[faults[0]], device=device.path, hint="see zoned inplace-compress check")
    return volume_of(device, start_bytes, super_block)


def _assumed_volume(device: Device, start_bytes: int, data_blocks: int | None, error: DeviceError) -> Volume:
    from zoned_tools.formats.inplace_compress.assume import assume_volume

    volume = assume_volume(device, start_bytes, data_blocks)
    if volume is None:
        raise MetadataError(f"the super block cannot be read ({error.message}), and nothing fits without it",
                            device=device.path)  # fmt: skip
    return volume


def volume_of(device: Device, start_bytes: int, super_block: SuperBlock) -> Volume:
    """A volume with the sizes of ``super_block``, which the caller has judged."""
    return Volume(device, start_bytes, super_block.meta_blocks, super_block.data_blocks, super_block.comp_alg)


def known_compressor(volume: Volume) -> Compressor:
    """The compressor that the super block names.

    Raises:
        MetadataError: it names none that is known.
    """
    compressor = volume.compressor
    if compressor is None:
        raise MetadataError(_FAULT_TEXTS["SB_ALG"], device=volume.device.path)
    return compressor
