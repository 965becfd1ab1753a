"""Finding key blocks, and telling complete generations from torn ones.

The position of a key depends on the number of cache pages in front of it, so every block
of the three areas is looked at. A *candidate* has the signature and the magic, a *valid*
key its checksum too; a *complete* generation is one whose every part is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.codec.crc import crc32c_raw
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16, crc16_pages
from zoned_tools.formats.zdm.keys import key_checksum, super_checksum
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, Dialect

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.volume import Bytes2D, Volume

SCAN_BLOCKS = layout.WP_BLOCK
"""All generation areas of every dialect are below this block."""

WINDOW_BLOCKS = 401
_NO_PAIRS = np.zeros((0, 3), np.int64)

UNREADABLE = "block-unreadable"
"""The fault of a generation of which the medium does not give a block."""


@dataclass(slots=True)
class Candidate:
    """A block that looks like a key.

    Attributes:
        block: where it is.
        valid: its checksum is right.
        fault: finding code of the first thing that makes the generation incomplete.
        window: start of the area it lies in.
        cache, discards: entries ``(table address, blocks, physical block)`` of a complete
            generation, physical 0 meaning unmapped; discards have physical 0.
        journal: rows ``(slot, home block, block of the copy)`` in slot order.
        slots: the journal map as stored.
        md_crcs: checksums of the CRC pages, forward ones first, reverse ones from 2048.
    """

    block: int
    key: Any
    raw: bytes
    valid: bool
    dialect: Dialect = Dialect.D3
    window: int = 0
    fault: str = ""
    cache: IntArray = field(default_factory=_NO_PAIRS.copy)
    discards: IntArray = field(default_factory=_NO_PAIRS.copy)
    journal: IntArray = field(default_factory=_NO_PAIRS.copy)
    slots: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    md_crcs: Words = field(default_factory=lambda: np.zeros(4096, np.uint16))

    @property
    def generation(self) -> int:
        return int(self.key.generation)

    @property
    def complete(self) -> bool:
        return self.valid and not self.fault

    @property
    def streams(self) -> IntArray:
        """Zone of each of the 256 streams, -1 for none."""
        zones = np.frombuffer(self.key.streams, "<u4").astype(np.int64)
        return np.where(zones == layout.NO_ZONE, -1, zones)

    @property
    def wp_crcs(self) -> Words:
        return np.frombuffer(self.key.wp_crc, "<u2").copy()

    @property
    def zf_crcs(self) -> Words:
        return np.frombuffer(self.key.zf_crc, "<u2").copy()

    @property
    def dirty(self) -> bool:
        return bool(self.key.super.flags & layout.FLAG_DIRTY)


@dataclass(slots=True)
class Generations:
    """Everything found in the areas.

    Attributes:
        candidates: ascending by block.
        chosen: the complete generation with the highest number; None when there is none.
        unsupported: what was recognised as a dialect that cannot be read; empty otherwise.
    """

    candidates: list[Candidate]
    chosen: Candidate | None
    unsupported: str = ""

    @property
    def highest_number(self) -> int:
        """The highest number on any valid key, 0 when there is none."""
        return max((c.generation for c in self.candidates if c.valid), default=0)

    @property
    def salvageable(self) -> list[Candidate]:
        """Keys with a wrong checksum whose generation is complete all the same."""
        return [c for c in self.candidates if not c.valid and not c.fault]

    @property
    def torn(self) -> list[Candidate]:
        """Valid keys newer than the chosen generation that are not complete."""
        floor = self.chosen.generation if self.chosen else -1
        return [c for c in self.candidates if c.valid and c.fault and c.generation > floor]


def looks_like_key(rows: Bytes2D) -> IntArray:
    """Indices of the blocks that have the second signature and the magic."""
    words = rows.view("<u8")
    mask = (words[:, 1] == layout.KEY_SIGNATURE) & (words[:, 511] == layout.KEY_MAGIC)
    return np.flatnonzero(mask)


def scan(volume: Volume, rows: Bytes2D | None = None) -> Generations:
    """Read the areas and judge every key in them; ``rows`` are the first :data:`SCAN_BLOCKS` blocks if at hand."""
    if not volume.has(0, SCAN_BLOCKS):
        return Generations([], None)
    if rows is None:
        blocks, stored = volume.read_data(0, SCAN_BLOCKS)
    else:
        blocks, stored = rows, np.arange(len(rows))
    found = []
    for block in stored[looks_like_key(blocks[stored])].tolist():
        raw = blocks[block].tobytes()
        key, valid = _parsed(raw)
        found.append(Candidate(block, key, raw, valid))
    for candidate in found:
        if candidate.valid:
            candidate.dialect = _dialect_of(candidate, blocks, volume)
    _settle_oldest(found)
    kept = []
    for candidate in found:
        window = _window_of(candidate)
        if window is not None:
            candidate.window = window
            kept.append(candidate)
    for candidate in kept:  # also those with a wrong checksum: everything else may still be there
        candidate.fault = _judge(candidate, blocks, volume)
    complete = [c for c in kept if c.complete]
    chosen = max(complete, key=lambda c: (c.generation, -c.block), default=None)
    return Generations(kept, chosen, "" if any(c.valid for c in kept) else _unsupported(blocks))


@lru_cache(maxsize=64)
def _parsed(raw: bytes) -> tuple[Any, bool]:
    """A key, which nobody changes, and whether its checksum is right; checks of one drive meet the same ones often."""
    key = layout.KEY.parse(raw)
    return key, key_checksum(raw) == key.crc32


def _settle_oldest(found: list[Candidate]) -> None:
    """D1 and D2 keys look alike before the first journal map is written: the newest of them decides for all."""
    oldest = [c for c in found if c.valid and c.dialect in (Dialect.D1, Dialect.D2)]
    if not oldest:
        return
    dialect = max(oldest, key=lambda c: c.generation).dialect
    for candidate in oldest + [c for c in found if not c.valid]:
        candidate.dialect = dialect


def _window_of(candidate: Candidate) -> int | None:
    """Start of the area that holds a key, None between the areas."""
    starts = layout.AREA_STARTS[candidate.dialect]
    length = 320 if candidate.dialect is Dialect.D1 else WINDOW_BLOCKS
    for start in starts:
        if start <= candidate.block < start + length:
            return start
    return None


def _unsupported(blocks: Bytes2D) -> str:
    """Releases of the oldest dialect, whose keys hold their super block at byte 4022, if it is that; or nothing."""
    magic = np.frombuffer(layout.SUPER_MAGIC.to_bytes(8, "little"), np.uint8)
    at = 4022 + 24
    return "r90-r97" if (blocks[:, at : at + 8] == magic).all(axis=1).any() else ""


def _dialect_of(candidate: Candidate, blocks: Bytes2D, volume: Volume) -> Dialect:
    """Which family of releases wrote a valid key."""
    key, block = candidate.key, candidate.block
    pages = key.maps + key.discards
    header = _header_tlba(blocks, block - pages) if pages and block > pages else None
    if key.wb_blocks:
        window = next((s for s in layout.AREA_STARTS[Dialect.D3] if s <= block < s + WINDOW_BLOCKS), block)
        first = _header_tlba(blocks, window + key.wb_blocks) if pages and key.wb_blocks <= 4 else None
        return Dialect.D4 if key.unused and first in (0, None) else Dialect.D3
    if key.unused or key.wbjrnl or header == 0:
        return Dialect.D5
    if key.wb_crc32:
        return Dialect.D2
    wp_block = layout.WP_BLOCKS[Dialect.D1]
    first_crc = int.from_bytes(key.wp_crc[:2], "little")
    if volume.has(wp_block) and crc16_pages(volume.read_rows(wp_block, 1))[0] == first_crc:
        return Dialect.D1
    return Dialect.D2 if crc16_pages(volume.read_rows(layout.WP_BLOCK, 1))[0] == first_crc else Dialect.D1


def _header_tlba(blocks: Bytes2D, block: int) -> int | None:
    if not 0 <= block < len(blocks):
        return None
    return int(blocks[block, :8].view("<u8")[0])


# -- completeness


def _judge(candidate: Candidate, blocks: Bytes2D, volume: Volume) -> str:
    """Code of the first fault of a valid key's generation, empty when complete; fills the decoded parts in."""
    key = candidate.key
    if key.super.magic != layout.SUPER_MAGIC or key.super.csum != super_checksum(candidate.raw):
        return "key.sb_csum"
    if key.super.version != layout.SUPER_VERSION:
        return "key.sb_version"
    first = _first_cache_page(candidate)
    if first is None or candidate.block + 2 >= len(blocks):
        return "gen.layout"
    begin = candidate.window if candidate.dialect in (Dialect.D3, Dialect.D4) else first
    if not volume.unread.keys().isdisjoint(range(begin, candidate.block + 3)):
        return UNREADABLE
    fault = _load_journal(candidate, blocks, volume)
    if fault:
        return fault
    rows = blocks[first : candidate.block]
    if not _cache_crcs_match(candidate, rows):
        return "cache.crc"
    if not _load_cache(candidate, rows):
        return "cache.count"
    after = blocks[candidate.block + 1 : candidate.block + 3]
    if crc16(after.tobytes()) != key.md_crc:
        return "md.crc"
    candidate.md_crcs = after.reshape(-1).view("<u2").copy()
    return ""


def _first_cache_page(candidate: Candidate) -> int | None:
    """First of the pages that the key's groups fill up to the key; None when the numbers do not fit."""
    key, base = candidate.key, candidate.window
    pages = int(key.maps + key.discards)
    match candidate.dialect:
        case Dialect.D3 | Dialect.D4:
            fits = (
                1 <= key.wb_blocks <= 4
                and key.n_crcs == pages <= layout.MAX_CACHE_PAGES
                and base + key.wb_blocks + pages == candidate.block
            )
            first = candidate.block - pages
        case Dialect.D5:
            pages += int(key.unused + key.wbjrnl)
            fits = pages <= layout.MAX_CACHE_PAGES and base + pages == candidate.block
            first = base
        case _:  # stray pages may lie between the start of the area and the cache pages
            fits = pages <= key.n_crcs <= layout.MAX_CACHE_PAGES and base + pages <= candidate.block
            first = candidate.block - pages
    return first if fits else None


def _load_journal(candidate: Candidate, blocks: Bytes2D, volume: Volume) -> str:
    """Decode the journal map; the code of its fault or nothing."""
    key = candidate.key
    if candidate.dialect in (Dialect.D3, Dialect.D4):
        rows = blocks[candidate.window : candidate.window + key.wb_blocks]
        slots = rows.reshape(-1).view("<u4")
        # The reference passes the number of entries as the number of bytes.
        if crc32c_raw(rows.tobytes()[: len(slots)]) != key.wb_crc32:
            return "journal.crc"
        _set_journal(candidate, slots.astype(np.int64), layout.JOURNAL_BLOCK)
    elif candidate.dialect is Dialect.D2:
        slots = volume.read_entries(1672, 16).reshape(-1)
        if not volume.unread.keys().isdisjoint(range(1672, 1688)):
            return UNREADABLE
        raw = slots.tobytes()
        # Their number follows from the gap in front of the tables; library builds stop at 4096.
        for entries in range(16384, 0, -1024):
            if crc32c_raw(raw[:entries]) == key.wb_crc32:
                _set_journal(candidate, slots[:entries].astype(np.int64), 1688)
                break
    return ""


def _set_journal(candidate: Candidate, slots: IntArray, first_block: int) -> None:
    used = np.flatnonzero(slots < layout.SLOT_RESERVED)
    candidate.slots = slots
    candidate.journal = np.stack([used, slots[used], first_block + used], axis=1)


def _cache_crcs_match(candidate: Candidate, rows: Bytes2D) -> bool:
    if not len(rows):
        return True
    key = candidate.key
    stored = np.frombuffer(key.crcs, "<u2")
    found = crc16_pages(rows)
    if candidate.dialect is Dialect.D5:
        counts = rows.view("<u8")[:, 1] >> np.uint64(45)
        before = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.int64)
        by_entry = np.array([stored[i] if i < len(stored) else 0 for i in before.tolist()], np.uint16)
        return bool(((found == stored[: len(found)]) | (found == by_entry)).all())
    start = int(key.n_crcs) - len(found)
    return any(np.array_equal(found, stored[at : at + len(found)]) for at in {start, 0})


def _load_cache(candidate: Candidate, rows: Bytes2D) -> bool:
    """Decode the cache pages into extents; False when a count is impossible."""
    key = candidate.key
    wide = candidate.dialect in (Dialect.D4, Dialect.D5)
    groups = [int(key.maps), int(key.discards)]
    if candidate.dialect is Dialect.D5:
        groups += [int(key.unused), int(key.wbjrnl)]
    at = 0
    decoded = []
    for pages in groups:
        part = _decode_pages(rows[at : at + pages], wide=wide)
        if part is None:
            return False
        decoded.append(part)
        at += pages
    candidate.cache, candidate.discards = decoded[0], decoded[1]
    if not wide:
        # One block each; a discard page holds the number of blocks where a map page holds the address.
        candidate.discards = candidate.discards[:, [0, 2, 1]] * np.array([1, 1, 0])
    if candidate.dialect is Dialect.D5:
        candidate.journal = _extent_journal(decoded[3])
    return True


def _decode_pages(rows: Bytes2D, *, wide: bool) -> IntArray | None:
    """Entries ``(address, blocks, physical)`` of pages; 48+16-bit words, or 45+19-bit ones when ``wide``."""
    words = rows.view("<u8").reshape(len(rows), BLOCK_BYTES // 16, 2)
    bits = np.uint64(45 if wide else 48)
    counts = (words[:, 0, 1] >> bits).astype(np.int64)
    if (counts > layout.CACHE_PAGE_ENTRIES).any():
        return None
    live = np.arange(layout.CACHE_PAGE_ENTRIES) < counts[:, np.newaxis]
    entries = words[:, 1:, :][live]
    mask = (np.uint64(1) << bits) - np.uint64(1)
    flags = (entries[:, 0] >> bits).astype(np.int64)
    address = (entries[:, 0] & mask).astype(np.int64)
    physical = (entries[:, 1] & mask).astype(np.int64)
    blocks = (entries[:, 1] >> bits).astype(np.int64) if wide else np.ones(len(entries), np.int64)
    result = np.stack([address, blocks, physical], axis=1)
    return result[(flags & 0x4000) == 0] if wide else result


def _extent_journal(extents: IntArray) -> IntArray:
    """D5: extents of table pages that live inside data zones, one row a page."""
    total = int(extents[:, 1].sum())
    if total > 1 << 22:  # more than all extents of 400 pages can sensibly hold
        return _NO_PAIRS.copy()
    index = np.repeat(np.arange(len(extents)), extents[:, 1])
    within = np.arange(total) - np.repeat(np.cumsum(extents[:, 1]) - extents[:, 1], extents[:, 1])
    home, copy = extents[index, 0] + within, extents[index, 2] + within
    return np.stack([np.arange(total), home, copy], axis=1)
