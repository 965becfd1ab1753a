"""Reading a metadata document: every number is checked before it is used."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import MetadataError
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BITS,
    BLOCK_BYTES,
    LABEL_BYTES,
    MAGIC,
    MAP_ENTRIES,
    NR_SETS,
    UNMAPPED,
    MapArray,
    MetadataLayout,
    SuperBlock,
)
from zoned_tools.formats.shared.documents import DocumentPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.open import Words

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


VERSION = 1
VERSION_KEY = "dump_version"
_OLD_VERSION_KEY = "dm_zoned_dump_version"
"""How documents of earlier releases say it."""

LOST = "unreadable"
"""Key of a set's metadata blocks that could not be read anywhere."""

_RUN = "first block and number of blocks inside the zone"


@dataclass(frozen=True, slots=True)
class SuperBlockRecord:
    """A super block of a document: that of set ``number``, or of member ``device``."""

    number: int | None
    device: int | None
    block: int
    superblock: SuperBlock
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
                raise MetadataError(f"damaged document: chunk {chunk + count - 1} is beyond the mapping table")
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
        self._path = geometry.members[0].path
        self._document = DocumentPart.of(document, self._path)
        self._geometry = geometry

    def check_version(self) -> None:
        """Refuse documents of another layout or a newer tool."""
        key = VERSION_KEY if self._document.has(VERSION_KEY) else _OLD_VERSION_KEY
        self._document.require_version(key, VERSION)

    def check_geometry(self) -> None:
        """Refuse a document that was made for other devices."""
        found = self._document.part("geometry").values
        expected = [{"model": str(m.model), "zones": m.nr_zones} for m in self._geometry.members]
        if found.get("zone_bytes") != self._geometry.zone_bytes or found.get("members") != expected:
            raise MetadataError("the document was made for devices with other zones", device=self._path)

    def superblocks(self) -> Iterator[SuperBlockRecord]:
        """The super blocks, at the places where they were found."""
        seen: set[tuple[int | None, int | None]] = set()
        for row in self._document.parts("super_blocks"):
            record = self._superblock(row)
            if (record.number, record.device) in seen:
                raise row.damaged("block", "of a super block that is there once")
            seen.add((record.number, record.device))
            yield record

    def _superblock(self, row: DocumentPart) -> SuperBlockRecord:
        number = device = None
        if row.has("set"):
            number = row.number("set", NR_SETS)
            block = self._metadata_block(row)
        else:
            device = row.number("device", len(self._geometry.members), minimum=1)
            block = self._geometry.members[device].block_offset
            if row.values.get("block") != block:
                raise row.damaged("block", f"{block}, where device {device} begins")
        sb = _parse_superblock(row)
        return SuperBlockRecord(number, device, block, sb, _raw(sb, row))

    def _metadata_block(self, row: DocumentPart) -> int:
        zone_blocks = self._geometry.zone_blocks
        block = row.number("block", self._geometry.members[0].nr_zones * zone_blocks)
        if block % zone_blocks or self._geometry.sequential[block // zone_blocks]:
            raise row.damaged("block", "a place for a super block")
        return block

    def sets(self) -> Iterator[SetTables]:
        """The tables of each set that the document has."""
        found: dict[int, SetTables] = {}
        for row in self._document.parts("sets"):
            number = row.number("set", NR_SETS)
            if number in found:
                raise row.damaged("set", "a set that is there once")
            if row.has(LOST):
                raise MetadataError(
                    f"the document lacks metadata of set {number} that could not be read: it cannot be written back"
                )
            if row.has("same_as"):
                source = found.get(row.number("same_as", NR_SETS))
                if source is None:
                    raise row.damaged("same_as", "a set that comes before")
                found[number] = SetTables(number, source.map_rows, source.bitmap_rows)
            else:
                found[number] = SetTables(number, self._map_rows(row), self._bitmap_rows(row))
        yield from found.values()

    def _map_rows(self, part: DocumentPart) -> list[tuple[int, int, int, int]]:
        rows = []
        most = self._geometry.nr_zones + MAP_ENTRIES
        for row in part.items("map"):
            values = row if isinstance(row, list) and len(row) == 4 else [None] * 4
            chunk, count, data, buffer = (UNMAPPED if v is None and i > 1 else v for i, v in enumerate(values))
            if not (_is_number(chunk, UNMAPPED) and _is_number(count, most)):
                raise part.damaged("map", "rows of first chunk, chunks, data zone and buffer zone")
            if not (_is_number(data, UNMAPPED + 1) and _is_number(buffer, UNMAPPED + 1)):
                raise part.damaged("map", "rows with zones")
            if data != UNMAPPED and data + count > UNMAPPED:
                raise part.damaged("map", "rows with zones that exist")
            rows.append((chunk, count, data, buffer))
        return rows

    def _bitmap_rows(self, part: DocumentPart) -> list[tuple[int, int, list[list[int]]]]:
        rows = []
        next_zone = 0
        zones, blocks = self._geometry.nr_zones, self._geometry.bitmap_blocks_per_zone * BLOCK_BITS
        for row in part.items("bitmaps"):
            zone, count, runs = row if isinstance(row, list) and len(row) == 3 else [None] * 3
            if not (_is_number(zone, zones) and _is_number(count, zones - zone + 1) and isinstance(runs, list)):
                raise part.damaged("bitmaps", "rows of first zone, zones and runs")
            if zone < next_zone:
                raise part.damaged("bitmaps", f"in order at zone {zone}")
            next_zone = zone + count
            if not all(_is_run(run, blocks) for run in runs):
                raise part.damaged("bitmaps", f"runs of {_RUN}")
            rows.append((zone, count, runs))
        return rows


def _is_number(value: object, limit: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _is_run(run: object, blocks: int) -> bool:
    if not isinstance(run, list) or len(run) != 2:
        return False
    first, length = run
    return _is_number(first, blocks) and _is_number(length, blocks + 1 - first)


def _parse_superblock(row: DocumentPart) -> SuperBlock:
    numbers = {name: row.number(name, 1 << bits) for name, bits in _WIDTHS.items()}
    uuids = [row.uuid(name) if row.values.get(name) else NIL_UUID for name in ("dmz_uuid", "dev_uuid")]
    reserved = _hexadecimal(row, "reserved", _RESERVED_BYTES).ljust(_RESERVED_BYTES, b"\0")
    magic = _hexadecimal_number(row, "magic", MAGIC)
    return SuperBlock(
        **numbers, label_raw=_label(row), dmz_uuid=uuids[0], dev_uuid=uuids[1], reserved=reserved, magic=magic
    )


def _label(row: DocumentPart) -> bytes:
    """The label field; ``label_tail`` is the hexadecimal form of what follows its first NUL."""
    raw = row.text("label", LABEL_BYTES).encode("utf-8", "surrogateescape") if row.values.get("label") else b""
    tail = _hexadecimal(row, "label_tail", LABEL_BYTES)
    field = raw + b"\0" + tail if tail else raw
    if len(field) > LABEL_BYTES:
        raise row.damaged("label", f"{LABEL_BYTES} bytes at most")
    return field.ljust(LABEL_BYTES, b"\0")


def _hexadecimal(row: DocumentPart, name: str, most: int) -> bytes:
    """At most ``most`` bytes; empty when they are not there."""
    text = row.text(name, 2 * most) if row.values.get(name) else ""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise row.damaged(name, "hexadecimal") from None


def _hexadecimal_number(row: DocumentPart, name: str, default: int) -> int:
    """A 32-bit number like ``0x445a4244``."""
    if not row.has(name):
        return default
    try:
        value = int(row.text(name, 16), 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise row.damaged(name, "a hexadecimal number of 32 bits")
    return value


def _raw(sb: SuperBlock, row: DocumentPart) -> bytes:
    """The block: signed, or with the checksum that the document insists on."""
    raw = sb.pack()
    if row.values.get("crc") in (None, "right"):
        return raw
    value = _hexadecimal_number(row, "crc", 0)
    return raw[: _CRC.start] + value.to_bytes(4, "little") + raw[_CRC.stop :]
