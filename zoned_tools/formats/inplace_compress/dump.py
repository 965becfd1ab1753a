"""Metadata as a document, and back.

Extents are listed as runs ``[first block, blocks, payload sectors, how many in a row]``;
what is irregular (tails without a payload, invalid entries) as ``[first block, entries]``.
Volumes of very many runs carry the packed bitmap instead (zlib, base64).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.extents import Extents, scan
from zoned_tools.formats.inplace_compress.layout import BLOCK_SECTORS, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.metadata import ALIGNED_ENTRIES, Array, extent_entries, pack_entries
from zoned_tools.formats.inplace_compress.volume import SuperBlock, Volume, open_volume, super_block_faults, volume_of
from zoned_tools.formats.registry import Target

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
        "version": 1,
        "meta_blocks": volume.meta_blocks,
        "data_blocks": volume.data_blocks,
        "comp_alg": volume.comp_alg,
    }
    runs: list[list[int]] = []
    irregular: list[list[object]] = []
    first_is_tail = bool(volume.read_entries(0, 1)[0] & layout.TAIL)
    for extents in scan(volume.entry_chunks()):
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


def _number(document: Mapping[str, object], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise MetadataError(f"the document's {key!r} is not a number of this layout")
    return value


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Changes that write a dumped super block and bitmap back; payloads are left alone.

    Raises:
        MetadataError: the document is not a dump of this layout, or does not fit the device.
    """
    device, start = target.device, target.start_bytes
    sizes = SuperBlock(
        layout.MAGIC, _number(document, "meta_blocks"), _number(document, "data_blocks"), _number(document, "comp_alg")
    )
    if sizes.comp_alg > 255 or super_block_faults(sizes, device.geometry.size_bytes - start):
        raise MetadataError("the document's sizes or compressor do not fit the device", device=device.path)
    volume = volume_of(device, start, sizes)
    raw = _unpacked(document, volume) if "bitmap_zlib_base64" in document else _rebuilt(document, volume)
    plan = Plan(f"restore {layout.NAME} metadata: {sizes.data_blocks} data blocks")
    stored = -(-len(raw) // SECTOR_BYTES) * SECTOR_BYTES
    raw = raw.ljust(stored, b"\0")
    for offset in range(0, stored, _CHUNK_BYTES):
        plan.write(0, volume.bitmap_offset_bytes + offset, raw[offset : offset + _CHUNK_BYTES], "bitmap")
    plan.flush(0)
    head = sizes.build()
    rest = device.read(start + len(head), SECTOR_BYTES - len(head))
    plan.write(0, start, head + rest, "super block")
    plan.flush(0)
    return plan


def _unpacked(document: Mapping[str, object], volume: Volume) -> bytes:
    try:
        packed = base64.b64decode(str(document["bitmap_zlib_base64"]), validate=True)
        raw = zlib.decompressobj().decompress(packed, volume.bitmap_bytes + 1)
    except (ValueError, zlib.error):
        raise MetadataError("the document's bitmap is damaged") from None
    if len(raw) != volume.bitmap_bytes:
        raise MetadataError("the document's bitmap has another size than its data blocks need")
    return raw


def _rebuilt(document: Mapping[str, object], volume: Volume) -> bytes:
    total = volume.bitmap_bytes // 20 * ALIGNED_ENTRIES + ALIGNED_ENTRIES
    entries = np.zeros(total, np.uint8)
    try:
        for first, blocks, payload, count in _rows(document, "extents", 4):
            _place(
                entries, volume, first, np.tile(extent_entries(_extent(volume, blocks, payload, count), payload), count)
            )
        for first, values in _rows(document, "irregular", 2):
            _place(entries, volume, first, np.array([int(v) for v in values], np.uint8))
    except (TypeError, ValueError, OverflowError):
        raise MetadataError("the document's extents are damaged") from None
    raw = bytearray(pack_entries(entries)[: volume.bitmap_bytes])
    slack = _number(document, "slack_bits") if "slack_bits" in document else 0
    used = layout.ENTRY_BITS * volume.data_blocks - 8 * (volume.bitmap_bytes - layout.WORD_BYTES)
    word = int.from_bytes(raw[-layout.WORD_BYTES :], "little") | slack << used
    if word >= 1 << 32:
        raise MetadataError("the document's slack bits do not fit")
    raw[-layout.WORD_BYTES :] = word.to_bytes(layout.WORD_BYTES, "little")
    return bytes(raw)


def _rows(document: Mapping[str, object], key: str, width: int) -> Iterator[list[Any]]:
    rows = document.get(key, [])
    if not isinstance(rows, list):
        raise MetadataError(f"the document's {key!r} is not a list")
    for row in rows:
        if not isinstance(row, list) or len(row) != width:
            raise MetadataError(f"a row of the document's {key!r} is damaged")
        yield row


def _extent(volume: Volume, blocks: int, payload: int, count: int) -> int:
    """The length of a listed extent, verified so that nothing too large is built."""
    whole = all(isinstance(n, int) for n in (blocks, payload, count))
    if (
        not whole
        or blocks < 1
        or count < 1
        or blocks * count > volume.data_blocks
        or not 0 < payload <= BLOCK_SECTORS * blocks
    ):
        raise ValueError
    return blocks


def _place(entries: Array, volume: Volume, first: int, values: Array) -> None:
    if not isinstance(first, int) or first < 0 or first + len(values) > volume.data_blocks or (values > 31).any():
        raise ValueError
    entries[first : first + len(values)] = values
