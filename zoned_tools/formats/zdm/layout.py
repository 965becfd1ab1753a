"""Where things are on a ZDM partition, and what they look like; no I/O.

Addresses are 4096-byte blocks from the start of the partition, unless a name says
otherwise. A *table address* (tLBA) is a logical block plus the first data block.
The layout is that of Seagate's out-of-tree mapper, releases 112 to 114 (target ``zdm``),
and of ``zdmadm`` 0.125.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from construct import Array, Bytes, Int16ul, Int32ul, Int64ul, Padding, Struct

from zoned_tools.codec.fields import Label, Uuid
from zoned_tools.errors import GeometryError

BLOCK_BYTES = 4096
BLOCK_SECTORS = 8
ZONE_BLOCKS = 65536
ZONE_SECTORS = 524288
ZONE_BYTES = ZONE_BLOCKS * BLOCK_BYTES
GROUP_ZONES = 1024
"""Data zones that one pair of write pointer and free estimate blocks describes."""

MAX_DATA_ZONES = 64 * GROUP_ZONES
PAGE_ENTRIES = 1024
ZONE_PAGES = ZONE_BLOCKS // PAGE_ENTRIES
CRC_PAGE_ENTRIES = 2048

IDENTITY_BLOCK = 0
WP_BLOCK = 1536
JOURNAL_BLOCK = 1676
MAX_JOURNAL_SLOTS = 4096
ZEROED_BLOCKS = 1689
"""Blocks 0 to 1688 hold nothing but what create and the generations put there."""

UNMAPPED = 0xFFFFFFFF
UNMAPPED_ALTERNATIVE = 0xFFFFFFFE
"""Table entries from this value upwards are unmapped."""

SLOT_FREE = 0xFFFFFFFF
SLOT_RESERVED = 0xFFFFFFFE
NO_ZONE = 0xFFFFFFFF

EMPTY_PAGE = b"\xff" * BLOCK_BYTES
EMPTY_PAGE_CRC = 0xBFFE
EMPTY_CRC_PAGE = b"\xfe\xbf" * CRC_PAGE_ENTRIES
EMPTY_CRC_PAGE_CRC = 0x5249

WP_MASK = 0xFFFFFF
WP_RRECALC = 1 << 26
WP_NON_SEQ = 1 << 27
WP_GC_READY = 1 << 28
WP_GC_TARGET = 1 << 29
WP_GC_ACTIVE = 1 << 30
WP_GC_FULL = 1 << 31
ZF_MASK = 0xFFFFFF
ZF_STREAM_SHIFT = 24
RESERVE_ZONE_MASK = 0xFFFFFF

KEY_SIGNATURE = 0xFEDCBA987654321F
KEY_MAGIC = 0x123456787654321E
SUPER_MAGIC = 0x5A6F4E65
SUPER_CSUM_XOR = 0x08BBFF8D
SUPER_VERSION = 1
FLAG_DIRTY = 2
FIRST_GENERATION = 3
MAX_CACHE_PAGES = 400
CACHE_PAGE_ENTRIES = 255
CACHE_HEADER_TLBA = 0x0000FFFFFFFFFFFF
ADDRESS_MASK = (1 << 48) - 1


class Dialect(StrEnum):
    """Families of releases whose metadata differ; only D3 is ever written."""

    D1 = "r101-r108"
    D2 = "r110"
    D3 = "r112-r114"
    D4 = "r119-r120"
    D5 = "r127"


AREA_STARTS = dict.fromkeys(Dialect, (1, 512, 1024)) | {Dialect.D1: (1, 320, 640)}
"""First block of each generation area; generation number modulo 3 chooses."""

WP_BLOCKS = dict.fromkeys(Dialect, WP_BLOCK) | {Dialect.D1: 8264}

_MD_START_MINIMUM = {
    Dialect.D1: 61440,
    Dialect.D2: 1688 + 4096,
}
_MD_START_MINIMUM_D3 = JOURNAL_BLOCK + MAX_JOURNAL_SLOTS

SUPER = Struct(
    "uuid" / Uuid(),
    "nr_zones" / Int64ul,
    "magic" / Int64ul,
    Padding(4),
    "zdstart" / Int32ul,
    "version" / Int32ul,
    "packed_meta" / Int32ul,
    "flags" / Int32ul,
    "csum" / Int32ul,
)
SUPER_OFFSET, SUPER_BYTES = 16, 56

KEY = Struct(
    "sig0" / Int64ul,
    "sig1" / Int64ul,
    "super" / SUPER,
    "streams" / Bytes(1024),
    "gc_resv" / Int32ul,
    "meta_resv" / Int32ul,
    "n_crcs" / Int16ul,
    "crcs" / Bytes(800),
    "md_crc" / Int16ul,
    "wp_crc" / Bytes(128),
    "zf_crc" / Bytes(128),
    "discards" / Int16ul,
    "maps" / Int16ul,
    "unused" / Int16ul,
    "wbjrnl" / Int16ul,
    Padding(4064 - 2172),
    "wb_blocks" / Int32ul,
    "wb_next" / Int32ul,
    "wb_crc32" / Int32ul,
    "crc32" / Int32ul,
    "generation" / Int64ul,
    "magic" / Int64ul,
)
"""Key block of a generation. ``unused`` and ``wbjrnl`` are page counts of D5 (in D4 the first is in use, too)."""

KEY_CRC_OFFSET = 4076

IDENTITY_MAGIC = bytes.fromhex("7a6f6e6563444556 8265f57f48ba6d81")
IDENTITY_BYTES = 512
IDENTITY_SHORT_BYTES = 176
IDENTITY_VERSION = 0x00010000

IDENTITY_SHORT = Struct(
    "crc32" / Int32ul,
    Padding(4),
    "magic" / Bytes(16),
    "uuid" / Uuid(),
    "version" / Int32ul,
    Padding(4),
    "sect_start" / Int64ul,
    "sect_size" / Int64ul,
    "mz_metadata_zones" / Int32ul,
    "mz_over_provision" / Int32ul,
    "zdm_blocks" / Int64ul,
    "discard" / Int32ul,
    "disk_type" / Int32ul,
    "zac_zbc" / Int32ul,
    "label" / Label(64),
    Padding(4),
    "data_start" / Int64ul,
    "zone_size" / Int64ul,
)
"""What every identity since 0.101 has; releases before 0.119 have nothing more."""

IDENTITY_PARAMETERS = Struct(
    "uuid_meta" / Uuid(),
    "is_meta" / Int32ul,
    "io_queue" / Int32ul,
    "gc_prio" / Array(4, Int32ul),
    "gc_wm" / Array(3, Int32ul),
    "gc_status" / Int32ul,
    "cache_size" / Int32ul,
    "cache_reada" / Int32ul,
    "cache_ageout_ms" / Int32ul,
    "cache_to_pagecache" / Int32ul,
    "journal_age" / Int32ul,
)
"""Run-time parameters behind the short identity; ``gc_prio`` default, low, high, critical; ``gc_wm`` critical,
high, low."""

DISCARD_TRIM, DISCARD_RAID = 1, 1 << 16
DISK_HOST_AWARE, DISK_HOST_MANAGED = 1 << 16, 1 << 17
ZAC_ZBC_ZBC, ZAC_ZBC_ZAC = 1, 2


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Places of everything on one partition.

    Attributes:
        start_sector: first sector of the partition on the drive.
        size_blocks: length of the partition.
        zdstart: zone of the drive where data zone 0 lies.
        md_start: first block of the forward table.
        bumped: one zone was skipped because the gap before ``md_start`` was too small.
        data_zones, table_zones: data zones; zones of one table.
        table_base: first block of data zone 0, which entry 0 of the tables describes: the
            first block behind the metadata, except in D5 (``md_start``).
    """

    start_sector: int
    size_blocks: int
    zdstart: int
    md_start: int
    bumped: bool
    data_zones: int
    table_zones: int
    table_base: int

    @classmethod
    def compute(
        cls, start_sector: int, size_blocks: int, zdstart: int, dialect: Dialect = Dialect.D3, *, device: str = ""
    ) -> Geometry:
        """Geometry as the mapper of ``dialect`` derives it.

        Raises:
            GeometryError: no data zone remains, or more than the format can address.
        """
        if start_sector % BLOCK_SECTORS:
            raise GeometryError(f"start sector {start_sector} is not a multiple of 8", device=device)
        start_block = start_sector // BLOCK_SECTORS
        md_start = ceil_div(start_block, ZONE_BLOCKS) * ZONE_BLOCKS - start_block
        bumped = md_start < _MD_START_MINIMUM.get(dialect, _MD_START_MINIMUM_D3)
        if bumped:
            md_start += ZONE_BLOCKS
        data_zones = size_blocks // ZONE_BLOCKS - (0 if dialect is Dialect.D5 else zdstart)
        if not 0 < data_zones <= MAX_DATA_ZONES:
            raise GeometryError(
                f"{data_zones} data zones (1 to {MAX_DATA_ZONES} are possible) on a partition of "
                f"{size_blocks} blocks with data from zone {zdstart}",
                device=device,
            )
        table_zones = ceil_div(data_zones, GROUP_ZONES)
        end = md_start + (2 * table_zones + 1) * ZONE_BLOCKS
        first = md_start if dialect is Dialect.D5 else end
        return cls(start_sector, size_blocks, zdstart, md_start, bumped, data_zones, table_zones, first)

    @property
    def start_block(self) -> int:
        """First block of the partition on the drive."""
        return self.start_sector // BLOCK_SECTORS

    @property
    def forward_start(self) -> int:
        return self.md_start

    @property
    def reverse_start(self) -> int:
        return self.md_start + self.table_zones * ZONE_BLOCKS

    @property
    def crc_start(self) -> int:
        """First CRC page of the forward table."""
        return self.md_start + 2 * self.table_zones * ZONE_BLOCKS

    @property
    def crc_reverse_start(self) -> int:
        return self.crc_start + self.table_zones * (ZONE_BLOCKS // CRC_PAGE_ENTRIES)

    @property
    def data_start(self) -> int:
        """First block behind the metadata; logical block 0 has this table address."""
        return self.crc_start + ZONE_BLOCKS

    @property
    def area_blocks(self) -> int:
        """Blocks that the data zones span, from ``table_base``."""
        return self.data_zones * ZONE_BLOCKS

    @property
    def map_count(self) -> int:
        """Live table pages of one direction."""
        return self.data_zones * ZONE_PAGES

    @property
    def crc_count(self) -> int:
        """Live CRC pages of one direction."""
        return ceil_div(self.map_count, CRC_PAGE_ENTRIES)

    @property
    def groups(self) -> int:
        """Pairs of write pointer and free estimate blocks in use."""
        return ceil_div(self.data_zones, GROUP_ZONES)

    @property
    def journal_map_blocks(self) -> int:
        return max(min(4, (self.md_start - JOURNAL_BLOCK) >> 12), 0)

    @property
    def first_device_zone(self) -> int:
        """Zone of the drive that holds data zone 0."""
        return (self.start_block + self.table_base) // ZONE_BLOCKS

    def is_table_page(self, block: int) -> bool:
        """Whether ``block`` is a live table or CRC page, the only ones that are ever journaled."""
        return (
            0 <= block - self.forward_start < self.map_count
            or 0 <= block - self.reverse_start < self.map_count
            or 0 <= block - self.crc_start < self.crc_count
            or 0 <= block - self.crc_reverse_start < self.crc_count
        )


@dataclass(frozen=True, slots=True)
class CreateLayout:
    """What create computes from the partition and the reserve; lengths are blocks unless named otherwise.

    Attributes:
        table_zones: zones laid out for one table.
        data_start_zone: zone of the drive where data begins.
        logical_sectors: size of the logical device; may be nonsense on a drive too small.
        pool_start: first block of the tables.
        crc_pages: CRC pages written (a multiple of 256).
    """

    start_sector: int
    size_sectors: int
    reserved: int
    table_zones: int
    data_start_zone: int
    logical_sectors: int
    pool_start: int

    @classmethod
    def compute(cls, start_sector: int, size_sectors: int, reserved: int) -> CreateLayout:
        table_zones = ceil_div(size_sectors // ZONE_SECTORS * ZONE_PAGES, ZONE_BLOCKS)
        gap_used = _gap_of(start_sector) > 46272 // BLOCK_SECTORS
        data_start = ceil_div(start_sector, ZONE_SECTORS) + 2 * table_zones + 2 - gap_used + (start_sector == 0)
        zones = size_sectors >> 19
        logical = (zones - reserved * ceil_div(zones, GROUP_ZONES) - (data_start - 1)) << 19
        pool = _gap_of(start_sector) + (0 if gap_used else ZONE_BLOCKS)
        return cls(start_sector, size_sectors, reserved, table_zones, data_start, logical, pool)

    @property
    def aligning_blocks(self) -> int:
        """Blocks in front of the first zone boundary where they are used for metadata, else 0."""
        gap = _gap_of(self.start_sector)
        return gap if gap == self.pool_start else 0

    @property
    def metadata_zones(self) -> int:
        """Zones of the drive in front of the data, as the original counts them."""
        return self.data_start_zone - 1

    @property
    def crc_pages(self) -> int:
        return ceil_div(64 * self.table_zones, 256) * 256


def _gap_of(start_sector: int) -> int:
    """Blocks from the start of a partition to the next zone boundary."""
    return -start_sector % ZONE_SECTORS // BLOCK_SECTORS


def refusal(geometry: Geometry, created: CreateLayout) -> str:
    """Why the mapper would corrupt this layout; empty when it is usable.

    The reference's create and mapper disagree on some geometries: data start one zone too
    high on a whole drive, different numbers of table zones just above a multiple of 1024
    zones, different table starts for some distances to the zone boundary; and a table that
    does not fit below the data is mapped as data.
    """
    g = geometry
    place = g.start_block + g.data_start
    if place != g.zdstart * ZONE_BLOCKS:
        return (
            f"data would begin in zone {g.zdstart}, but the tables end at block {place}, "
            f"zone {place / ZONE_BLOCKS:g}: a ZDM needs a partition, not the whole drive"
        )
    if g.table_zones != created.table_zones:
        return (
            f"create lays out {created.table_zones} zones for each table, the mapper expects {g.table_zones}, "
            "so every checksum page would be in the wrong place"
        )
    if g.md_start != created.pool_start:
        return f"create puts the tables at block {created.pool_start}, the mapper expects them at {g.md_start}"
    if g.data_zones < 4:
        return f"only {g.data_zones} data zones remain, 4 are needed"
    return ""
