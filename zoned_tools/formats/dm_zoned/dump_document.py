"""Reading a metadata document: every number is checked before it is used."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import MetadataError
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BITS,
    BLOCK_BYTES,
    LABEL_BYTES,
    MAGIC,
    MAP_ENTRIES,
    UNMAPPED,
    MapArray,
    MetadataLayout,
    Superblock,
    TargetGeometry,
)
from zoned_tools.formats.dm_zoned.metadata import Words

_RESERVED_BYTES = BLOCK_BYTES - 112
_CRC = slice(44, 48)
_WIDTHS = {
    "version": 32,
    "gen": 64,
    "sb_block": 64,
    "nr_meta_blocks": 32,
    "nr_reserved_seq": 32,
    "nr_chunks": 32,
    "nr_map_blocks": 32,
    "nr_bitmap_blocks": 32,
}


def _fail(what: str) -> MetadataError:
    return MetadataError(f"the document is damaged: {what}")


def _number(value: Any, what: str, limit: int) -> int:
    """An integer from 0 to below ``limit``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise _fail(f"{what} is {value!r:.60}")
    return value


def _list(value: Any, what: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise _fail(f"{what} is not a list" + (f" of {length}" if length else ""))
    return value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _fail(f"{what} is not an object")
    return value


@dataclass(frozen=True, slots=True)
class SuperblockRecord:
    """A super block of a document: that of set ``number``, or of member ``device``."""

    number: int | None
    device: int | None
    block: int
    superblock: Superblock
    raw: bytes


@dataclass(frozen=True, slots=True)
class SetTables:
    """Mapping table and bitmaps of a set; the rows are those of the document, checked."""

    number: int
    map_rows: list[tuple[int, int, int, int]]
    bitmap_rows: list[tuple[int, int, list[list[int]]]]

    def map_table(self, layout: MetadataLayout) -> MapArray:
        """The table in whole blocks."""
        table = np.full((layout.nr_map_blocks * MAP_ENTRIES, 2), UNMAPPED, "<u4")
        for chunk, count, data, buffer in self.map_rows:
            if chunk + count > len(table):
                raise _fail(f"chunk {chunk + count - 1} is beyond the mapping table")
            table[chunk : chunk + count, 0] = data if data == UNMAPPED else np.arange(data, data + count)
            table[chunk : chunk + count, 1] = buffer
        return table

    def fill_bitmaps(self, first_zone: int, words: Words) -> None:
        """Set ``words`` to the bitmaps of the zones from ``first_zone`` on."""
        words[...] = 0
        end_zone = first_zone + len(words)
        index = max(bisect_left(self.bitmap_rows, first_zone, key=lambda row: row[0]) - 1, 0)
        while index < len(self.bitmap_rows) and self.bitmap_rows[index][0] < end_zone:
            zone, count, runs = self.bitmap_rows[index]
            start, end = max(zone, first_zone), min(zone + count, end_zone)
            if start < end:
                words[start - first_zone : end - first_zone] = _row(runs, words.shape[1])
            index += 1


def _row(runs: list[list[int]], nr_words: int) -> Words:
    bits = np.zeros(nr_words * 64, np.uint8)
    for block, count in runs:
        bits[block : block + count] = 1
    row: Words = np.packbits(bits, bitorder="little").view("<u8")
    return row


class DocumentReader:
    """A document for a target of a known geometry; every method raises MetadataError for nonsense."""

    def __init__(self, document: Mapping[str, object], geometry: TargetGeometry) -> None:
        self._document = document
        self._geometry = geometry

    def check_version(self, version: int) -> None:
        """Refuse documents of another layout or a newer tool."""
        if self._document.get("dm_zoned_dump_version") != version:
            raise _fail("it is not a dm-zoned document of a known version")

    def check_geometry(self) -> None:
        """Refuse a document that was made for other devices."""
        found = _mapping(self._document.get("geometry"), "geometry")
        expected = [{"model": str(m.model), "zones": m.nr_zones} for m in self._geometry.members]
        if found.get("zone_bytes") != self._geometry.zone_bytes or found.get("members") != expected:
            raise MetadataError(
                "the document was made for devices with other zones", device=self._geometry.members[0].path
            )

    def superblocks(self) -> Iterator[SuperblockRecord]:
        """The super blocks, at the places where they were found."""
        seen: set[tuple[str, int]] = set()
        for row in _list(self._document.get("super_blocks"), "super_blocks"):
            record = self._superblock(_mapping(row, "a super block"))
            key = ("set", record.number) if record.number is not None else ("device", record.device or 0)
            if key in seen:
                raise _fail(f"two super blocks for {key[0]} {key[1]}")
            seen.add(key)
            yield record

    def _superblock(self, row: Mapping[str, Any]) -> SuperblockRecord:
        number = device = None
        if "set" in row:
            number = _number(row["set"], "set", 2)
            block = self._metadata_block(row.get("block"))
        else:
            device = _number(row.get("device"), "device", len(self._geometry.members))
            block = self._geometry.members[device].block_offset
            if device == 0 or row.get("block") != block:
                raise _fail(f"the super block of device {device} is in the wrong place")
        sb = _parse_superblock(row)
        return SuperblockRecord(number, device, block, sb, _raw(sb, row.get("crc")))

    def _metadata_block(self, value: Any) -> int:
        zone_blocks = self._geometry.zone_blocks
        block = _number(value, "block", self._geometry.members[0].nr_zones * zone_blocks)
        if block % zone_blocks or self._geometry.sequential[block // zone_blocks]:
            raise _fail(f"block {block} is no place for a super block")
        return block

    def sets(self) -> Iterator[SetTables]:
        """The tables of each set that the document has."""
        found: dict[int, SetTables] = {}
        for row in _list(self._document.get("sets"), "sets"):
            fields = _mapping(row, "a set")
            number = _number(fields.get("set"), "set", 2)
            if number in found:
                raise _fail(f"set {number} is there twice")
            if "same_as" in fields:
                source = found.get(_number(fields["same_as"], "same_as", 2))
                if source is None:
                    raise _fail(f"set {number} is the same as one that comes later")
                found[number] = SetTables(number, source.map_rows, source.bitmap_rows)
            else:
                found[number] = SetTables(number, self._map_rows(fields), self._bitmap_rows(fields))
        yield from found.values()

    def _map_rows(self, fields: Mapping[str, Any]) -> list[tuple[int, int, int, int]]:
        rows = []
        for row in _list(fields.get("map"), "map"):
            chunk, count, data, buffer = _list(row, "a row of map", 4)
            chunk = _number(chunk, "chunk", UNMAPPED)
            count = _number(count, "number of chunks", self._geometry.nr_zones + MAP_ENTRIES)
            data = UNMAPPED if data is None else _number(data, "data zone", UNMAPPED - count + 1)
            buffer = UNMAPPED if buffer is None else _number(buffer, "buffer zone", UNMAPPED)
            rows.append((chunk, count, data, buffer))
        return rows

    def _bitmap_rows(self, fields: Mapping[str, Any]) -> list[tuple[int, int, list[list[int]]]]:
        rows = []
        next_zone = 0
        blocks = self._geometry.bitmap_blocks_per_zone * BLOCK_BITS
        for row in _list(fields.get("bitmaps"), "bitmaps"):
            zone, count, runs = _list(row, "a row of bitmaps", 3)
            zone = _number(zone, "zone", self._geometry.nr_zones)
            count = _number(count, "number of zones", self._geometry.nr_zones - zone + 1)
            if zone < next_zone:
                raise _fail(f"the bitmap of zone {zone} is there twice or out of order")
            next_zone = zone + count
            for run in _list(runs, "runs"):
                first, length = _list(run, "a run", 2)
                _number(length, "length of a run", blocks + 1 - _number(first, "first block of a run", blocks))
            rows.append((zone, count, runs))
        return rows


def _parse_superblock(row: Mapping[str, Any]) -> Superblock:
    numbers = {name: _number(row.get(name), name, 1 << bits) for name, bits in _WIDTHS.items()}
    try:
        label = _label(str(row.get("label") or ""), str(row.get("label_tail") or ""))
        uuids = [uuid.UUID(str(row[k])) if row.get(k) else NIL_UUID for k in ("dmz_uuid", "dev_uuid")]
        reserved = bytes.fromhex(str(row.get("reserved") or "")).ljust(_RESERVED_BYTES, b"\0")
        magic = _number(int(str(row.get("magic", hex(MAGIC))), 16), "magic", 1 << 32)
    except ValueError as error:
        raise _fail(str(error)) from None
    if len(reserved) != _RESERVED_BYTES:
        raise _fail("reserved is too long")
    return Superblock(**numbers, label_raw=label, dmz_uuid=uuids[0], dev_uuid=uuids[1], reserved=reserved, magic=magic)


def _label(text: str, tail: str) -> bytes:
    """The label field; ``tail`` is the hexadecimal form of what follows its first NUL."""
    raw = text.encode("utf-8", "surrogateescape")
    field = raw + b"\0" + bytes.fromhex(tail) if tail else raw
    if len(field) > LABEL_BYTES:
        raise ValueError("the label is too long")
    return field.ljust(LABEL_BYTES, b"\0")


def _raw(sb: Superblock, crc: Any) -> bytes:
    """The block: signed, or with the checksum that the document insists on."""
    raw = sb.pack()
    if crc in (None, "right"):
        return raw
    try:
        value = _number(int(str(crc), 16), "crc", 1 << 32)
    except ValueError:
        raise _fail(f"crc is {crc!r:.60}") from None
    return raw[: _CRC.start] + value.to_bytes(4, "little") + raw[_CRC.stop :]
