"""Metadata as a document, and back.

Extents are listed as runs ``[first block, blocks, payload sectors, how many in a row]``;
what is irregular (tails without a payload, invalid entries) as ``[first block, entries]``.
Volumes of very many runs carry the packed bitmap instead (zlib, base64).
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.entries import (
    ALIGNED_BYTES,
    ALIGNED_ENTRIES,
    Array,
    extent_entries,
    pack_entries,
)
from zoned_tools.formats.inplace_compress.extents import Extents, scan
from zoned_tools.formats.inplace_compress.judge import super_block_faults
from zoned_tools.formats.inplace_compress.layout import BLOCK_SECTORS, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.media import unknown_ranges, unreadable_bitmap
from zoned_tools.formats.inplace_compress.open import Volume, open_volume, volume_of
from zoned_tools.formats.shared.documents import DocumentPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.formats.contract import Target

DUMP_VERSION = 1
_LOST_KEY = "lost"
"""``[first block, blocks]`` whose entries could not be read; there only where metadata could not be read."""

_OLD_VERSION_KEY = "version"
"""Spelling of the version's key in dumps of earlier releases."""

RUNS_MAX = 200_000
"""Runs that are listed; volumes with more carry the packed bitmap."""

_CHUNK_BYTES = 1 << 20


def dump(target: Target) -> dict[str, object]:
    """Super block and bitmap of a volume.

    Raises:
        MetadataError: the super block is damaged.
    """
    volume = open_volume(target.device, target.start_bytes)
    document: dict[str, object] = {
        "dump_version": DUMP_VERSION,
        "meta_blocks": volume.meta_blocks,
        "data_blocks": volume.data_blocks,
        "comp_alg": volume.comp_alg,
    }
    runs: list[list[int]] = []
    irregular: list[list[object]] = []
    lost = [[first, end - first] for first, end in unknown_ranges(volume)] if unreadable_bitmap(volume) else []
    if lost or volume.is_assumed:
        document[_LOST_KEY] = lost
    first_is_tail = bool(volume.read_entries(0, 1)[0] & layout.TAIL)
    for batch in scan(volume.entry_chunks()):
        extents = batch.select(~batch.unknown)
        odd = extents.bad_nibble | extents.uneven | (extents.payload == 0) | (first_is_tail & (extents.head == 0))
        runs += _runs(extents.select(~odd))
        irregular += _irregular(volume, extents.select(odd))
        if len(runs) + len(irregular) > RUNS_MAX:
            return document | {"bitmap_zlib_base64": _packed(volume)}
    slack = volume.slack_bits()
    return document | {"extents": runs, "irregular": irregular, "slack_bits": slack}


def _runs(extents: Extents) -> Iterator[list[int]]:
    """Equal extents that follow each other without a gap, joined."""
    if not len(extents):
        return
    head, blocks, payload = extents.head, extents.blocks, extents.payload
    new = np.ones(len(head), bool)
    new[1:] = (blocks[1:] != blocks[:-1]) | (payload[1:] != payload[:-1]) | (head[1:] != head[:-1] + blocks[:-1])
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(head)))
    for row in zip(head[first].tolist(), blocks[first].tolist(), payload[first].tolist(), count.tolist(), strict=True):
        yield list(row)


def _irregular(volume: Volume, extents: Extents) -> Iterator[list[object]]:
    for head, blocks in zip(extents.head.tolist(), extents.blocks.tolist(), strict=True):
        start = head // ALIGNED_ENTRIES * ALIGNED_ENTRIES
        entries = volume.read_entries(start, head + min(blocks, RUNS_MAX) - start)[head - start :]
        yield [head, entries.tolist()]


def _packed(volume: Volume) -> str:
    packer = zlib.compressobj(6)
    parts = [
        packer.compress(volume.read_words(offset, min(_CHUNK_BYTES, volume.bitmap_bytes - offset)))
        for offset in range(0, volume.bitmap_bytes, _CHUNK_BYTES)
    ]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode()


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Changes that write a dumped super block and bitmap back; payloads are left alone.

    Raises:
        MetadataError: the document is not a dump of this layout, or does not fit the device.
    """
    device, start = target.device, target.start_bytes
    part = DocumentPart.of(document, device.path)
    part.require_version("dump_version" if part.has("dump_version") else _OLD_VERSION_KEY, DUMP_VERSION)
    if part.has(_LOST_KEY):
        raise MetadataError("the dump was made while metadata could not be read: it is not whole", device=device.path)
    sizes = SuperBlock(
        layout.MAGIC,
        part.number("meta_blocks", 1 << 63),
        part.number("data_blocks", 1 << 63),
        part.number("comp_alg", 256),
    )
    if super_block_faults(sizes, device.geometry.size_bytes - start):
        raise MetadataError("the document's sizes or compressor do not fit the device", device=device.path)
    volume = volume_of(device, start, sizes)
    raw = _unpacked(part, volume) if part.has("bitmap_zlib_base64") else _rebuilt(part, volume)
    plan = Plan(f"restore {layout.NAME} metadata: {sizes.data_blocks} data blocks")
    stored = -(-len(raw) // SECTOR_BYTES) * SECTOR_BYTES
    raw = raw.ljust(stored, b"\0")
    for offset in range(0, stored, _CHUNK_BYTES):
        plan.write(0, volume.bitmap_offset_bytes + offset, raw[offset : offset + _CHUNK_BYTES], "bitmap")
    plan.flush(0)
    head = sizes.pack()
    rest = device.read(start + len(head), SECTOR_BYTES - len(head))
    plan.write(0, start, head + rest, "super block")
    plan.flush(0)
    return plan


def _unpacked(part: DocumentPart, volume: Volume) -> bytes:
    """The packed bitmap, no more of it than the volume has."""
    text = part.text("bitmap_zlib_base64", 2 * volume.bitmap_bytes + 1024)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), volume.bitmap_bytes + 1)
    except (ValueError, zlib.error):
        raise part.damaged("bitmap_zlib_base64", "a packed bitmap") from None
    if len(raw) != volume.bitmap_bytes:
        raise part.damaged("bitmap_zlib_base64", f"a bitmap of {volume.bitmap_bytes} bytes")
    return raw


def _rebuilt(part: DocumentPart, volume: Volume) -> bytes:
    total = volume.bitmap_bytes // ALIGNED_BYTES * ALIGNED_ENTRIES + ALIGNED_ENTRIES
    entries = np.zeros(total, np.uint8)
    for name, first, blocks, payload, count in _extent_rows(part, volume):
        _place(part, name, entries[: volume.data_blocks], first, np.tile(extent_entries(blocks, payload), count))
    for name, first, values in _irregular_rows(part):
        _place(part, name, entries[: volume.data_blocks], first, values)
    raw = bytearray(pack_entries(entries)[: volume.bitmap_bytes])
    used = layout.ENTRY_BITS * volume.data_blocks - 8 * (volume.bitmap_bytes - layout.WORD_BYTES)
    slack = part.number("slack_bits", 1 << (32 - used)) if part.has("slack_bits") else 0
    word = int.from_bytes(raw[-layout.WORD_BYTES :], "little") | slack << used
    raw[-layout.WORD_BYTES :] = word.to_bytes(layout.WORD_BYTES, "little")
    return bytes(raw)


def _rows(part: DocumentPart, name: str, width: int) -> Iterator[tuple[str, list[object]]]:
    """Rows of a list with their places in it; an absent list has none."""
    for number, row in enumerate(part.items(name) if part.has(name) else ()):
        if not isinstance(row, list) or len(row) != width:
            raise part.damaged(f"{name}[{number}]", f"a list of {width}")
        yield f"{name}[{number}]", row


def _extent_rows(part: DocumentPart, volume: Volume) -> Iterator[tuple[str, int, int, int, int]]:
    """``(place, first block, blocks, payload sectors, count)``, verified so that nothing too large is built."""
    for name, row in _rows(part, "extents", 4):
        first, blocks, payload, count = DocumentPart({"row": row}, part.path, name).numbers("row", 1 << 63)
        good = blocks and count and blocks * count <= volume.data_blocks and 0 < payload <= BLOCK_SECTORS * blocks
        if not good:
            raise part.damaged(name, "a row of extents that fit the volume")
        yield name, first, blocks, payload, count


def _irregular_rows(part: DocumentPart) -> Iterator[tuple[str, int, Array]]:
    """``(place, first block, entries)``."""
    for name, (first, values) in _rows(part, "irregular", 2):
        row = DocumentPart({"first": first, "entries": values}, part.path, name)
        yield name, row.number("first", 1 << 63), np.array(row.numbers("entries", 1 << layout.ENTRY_BITS), np.uint8)


def _place(part: DocumentPart, name: str, entries: Array, first: int, values: Array) -> None:
    if first + len(values) > len(entries):
        raise part.damaged(name, "a row of blocks that the volume has")
    entries[first : first + len(values)] = values
