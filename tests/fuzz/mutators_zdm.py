"""ZDM: identity, key blocks with what hangs on their checksums, journal, tables, write pointers, zones."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER
from tests.formats.zdm.images import facts as image_facts
from tests.fuzz.drives import PAGE, Base, BaseDrive, FuzzDrive, SparseContent
from tests.fuzz.mutations import Mutation, damage, how_many, number, put_number, zone_change
from tests.fuzz.subjects import Subject, chosen
from zoned_tools.codec.crc import crc32c_raw
from zoned_tools.device.overlay import Overlay
from zoned_tools.formats.contract import Settings, Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import crc16
from zoned_tools.formats.zdm.keys import key_checksum, super_checksum
from zoned_tools.formats.zdm.mapper.open import open_mapper
from zoned_tools.formats.zdm.mapper.write import ZdmMapper
from zoned_tools.formats.zdm.open import load
from zoned_tools.formats.zdm.settings import SETTINGS

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.judge import Candidate
    from zoned_tools.formats.zdm.open import State

BASES = {
    "tiny-journal": 12,
    "tiny-closed": 8,
    "pop-small": 2,
    "pop-journal": 2,
    "pop-clean": 1,
    "stale-trim": 1,
    "cut-direct": 1,
    "cut-torn-md": 1,
    "cut-wp": 1,
    "pop-gc": 1,
    "gen-third-slot": 1,
    "fmt-16z": 1,
    "pop-1mib-hm": 1,
    "old-r108": 1,
    "old-r110": 1,
    "old-r127": 1,
}

_KEY_FIELDS = {
    "sig0": (0, 8),
    "nr_zones": (32, 8),
    "super_magic": (40, 8),
    "zdstart": (52, 4),
    "super_version": (56, 4),
    "flags": (64, 4),
    "stream": (72, 4),
    "gc_resv": (1096, 4),
    "meta_resv": (1100, 4),
    "n_crcs": (1104, 2),
    "discards": (2164, 2),
    "maps": (2166, 2),
    "unused": (2168, 2),
    "wbjrnl": (2170, 2),
    "wb_blocks": (4064, 4),
    "wb_next": (4068, 4),
    "generation": (4080, 8),
    "magic": (4088, 8),
}
_CRCS, _MD_CRC, _WP_CRC, _ZF_CRC, _WB_CRC = 1106, 1906, 1908, 2036, 4072
_LONG = 16 << 20
_IDENTITY_FIELDS = ((8, 8), (40, 4), (48, 8), (56, 8), (64, 4), (68, 4), (72, 8), (80, 4), (160, 8), (168, 8))


def _load(name: str) -> Base:
    if name.startswith("tiny-"):
        return _tiny(_load("fmt-16z"), closed=name == "tiny-closed")
    drive = zx1.open_vector(FOLDER, name, writable=False)
    start_sector = image_facts(name)["start_sector"]
    geometry = load(Target("zdm", (drive,), start_sector * 512)).geometry
    live = [
        (start_sector * 512 + start * PAGE, start_sector * 512 + (start + geometry.map_count) * PAGE)
        for start in (geometry.forward_start, geometry.reverse_start)
    ]
    content = SparseContent()
    for start, length in drive.store.data_extents(0, drive.geometry.size_bytes):
        # Empty tables are half a GiB of 0xff; nobody reads them where there are no data zones.
        parts = (
            [(start, start + length)] if length < _LONG else [(max(start, a), min(start + length, b)) for a, b in live]
        )
        for low, high in parts:
            if low < high:
                content.put(low, drive.read_stored(low, high - low))
    return Base((BaseDrive(name, drive.geometry, drive.zones(), content),), start_sector)


def _tiny(base: Base, *, closed: bool) -> Base:
    """Few blocks, some of them overwritten and discarded: in tables, in the journal, and in the cache."""
    (fresh,) = base.drives
    drive = FuzzDrive(fresh)
    drive.writable = True
    settings = Settings({"sb-uuid": "00112233-4455-6677-8899-aabbccddeeff"}, SETTINGS)
    start = (base.start_sector or 0) * 512
    mapper = open_mapper(Target("zdm", (drive,), start), writable=True, settings=settings)
    assert isinstance(mapper, ZdmMapper)
    for block, count in ((0, 40), (2000, 9), (30, 20), (70000, 5)):
        mapper.write(block, random.Random(block).randbytes(count * PAGE))
    mapper.sync(everything=True)
    mapper.write(10, random.Random(10).randbytes(8 * PAGE))
    mapper.discard(33, 4)
    mapper.discard(2000, 300)
    mapper.flush()
    if closed:
        mapper.close()
    drive.flush()
    content = fresh.content.copy() if isinstance(fresh.content, SparseContent) else SparseContent()
    for page, data in drive.stored.pages.items():
        content.put(page * PAGE, data)
    return Base((BaseDrive("tiny", drive.geometry, drive.table.copy(), content),), base.start_sector)


@dataclass
class Places:
    """Where the newest generation of a base image has its parts."""

    state: State
    offset: int

    @property
    def key(self) -> Candidate | None:
        return self.state.current

    def at(self, block: int) -> int:
        """Byte of a block of the partition."""
        return self.offset + block * PAGE


def _places(base: Base) -> Places:
    found = base.facts.get("places")
    if found is None:
        start = (base.start_sector or 0) * 512
        found = Places(load(Target("zdm", (Overlay(FuzzDrive(base.drives[0])),), start)), start)
        base.facts["places"] = found
    return cast("Places", found)


# -- checksums


def _seal_identity(drive: FuzzDrive, offset: int) -> None:
    raw = drive.peek(offset, layout.IDENTITY_BYTES)
    drive.poke(offset, zlib.crc32(bytes(4) + raw[4:]).to_bytes(4, "little"))


def _seal_key(drive: FuzzDrive, offset: int) -> None:
    block = bytearray(drive.peek(offset, PAGE))
    if len(block) < PAGE:
        return
    at = layout.SUPER_OFFSET + layout.SUPER_BYTES - 4
    block[at : at + 4] = super_checksum(bytes(block)).to_bytes(4, "little")
    at = layout.KEY_CRC_OFFSET
    block[at : at + 4] = key_checksum(bytes(block)).to_bytes(4, "little")
    drive.poke(offset, bytes(block))


def _put_crc(drive: FuzzDrive, source: int, length: int, place: int) -> None:
    drive.poke(place, crc16(drive.peek(source, length)).to_bytes(2, "little"))


def _seal_part(drive: FuzzDrive, offset: int, place: int, key: int) -> None:
    """A block whose checksum is in the key, at ``place``."""
    _put_crc(drive, offset, PAGE, place)
    _seal_key(drive, key)


def _seal_journal(drive: FuzzDrive, offset: int, blocks: int, key: int) -> None:
    crc = crc32c_raw(drive.peek(offset, blocks * 1024))
    drive.poke(key + _WB_CRC, crc.to_bytes(4, "little"))
    _seal_key(drive, key)


def _seal_page(drive: FuzzDrive, offset: int, entry: int, md_entry: int, key: int) -> None:
    """A table page: its checksum in the CRC page, that page's in the block of blocks, that one's in the key."""
    _put_crc(drive, offset, PAGE, entry)
    _put_crc(drive, entry // PAGE * PAGE, PAGE, md_entry)
    _put_crc(drive, key + PAGE, 2 * PAGE, key + _MD_CRC)
    _seal_key(drive, key)


class _Generator:
    def __init__(self, choose: random.Random, base: Base) -> None:
        self.choose = choose
        self.drive = base.drives[0]
        self.places = _places(base)
        self.state = self.places.state
        self.key = self.places.key
        self.seals: list[Mutation] = []

    def make(self) -> list[Mutation]:
        weighted = [(2, self.identity), (5, self.zone), (3, self.anything)]
        if self.key is not None:
            weighted += [(5, self.key_field), (4, self.cache), (8, self.table), (3, self.pointer), (3, self.exchange)]
            if self.key.journal.size:
                weighted += [(4, self.journal)]
        made: list[Mutation] = []
        for _ in range(how_many(self.choose)):
            made += chosen(self.choose, weighted)
        return made + (self.seals if self.choose.random() < 0.85 else [])

    def at(self, block: int) -> int:
        return self.places.at(block)

    @property
    def key_offset(self) -> int:
        assert self.key is not None
        return self.at(self.key.block)

    def field(self, offset: int, size: int, limit: int = 0) -> Mutation:
        old = int.from_bytes(self.drive.read(offset, size), "little")
        return put_number(number(self.choose, size, old, limit), size, 0, offset)

    def identity(self) -> list[Mutation]:
        at, size = self.choose.choice(_IDENTITY_FIELDS)
        self.seals.append(["seal", 0, "identity", self.at(0)])
        return [self.field(self.at(0) + at, size)]

    def key_field(self) -> list[Mutation]:
        candidates = self.state.generations.candidates
        key = self.choose.choice([self.key or candidates[0], *candidates])
        name = self.choose.choice(list(_KEY_FIELDS))
        at, size = _KEY_FIELDS[name]
        if name == "stream":
            at += 4 * self.choose.randrange(256)
        self.seals.append(["seal", 0, "key", self.at(key.block)])
        return [self.field(self.at(key.block) + at, size, self.state.geometry.data_zones + 2)]

    def address(self) -> int:
        """A table address: in the data, in the tables, or nowhere."""
        geometry, choose = self.state.geometry, self.choose
        end = geometry.table_base + geometry.area_blocks
        match choose.randrange(6):
            case 0:
                return choose.randrange(geometry.data_start)
            case 1:
                return choose.choice((0, end - 1, end, layout.UNMAPPED, layout.UNMAPPED_ALTERNATIVE, 1 << 40))
            case _:
                zone = choose.randrange(geometry.data_zones)
                return (
                    geometry.data_start + zone * layout.ZONE_BLOCKS + choose.randrange(choose.choice((8, 4096, 65536)))
                )

    def cache(self) -> list[Mutation]:
        """An entry, or the header, of a cache page."""
        assert self.key is not None
        pages = int(self.key.key.maps + self.key.key.discards)
        if not pages:
            return self.key_field()
        index = self.choose.randrange(pages)
        block = self.key.block - pages + index
        entry = self.choose.choice((0, 1, self.choose.randrange(256)))
        raw = (self.address() | (self.choose.choice((0, 0, 1, 40, 256, 0x4000)) << 48)).to_bytes(8, "little")
        first = int(self.key.key.n_crcs) - pages
        self.seals.append(
            ["seal", 0, "part", self.at(block), self.key_offset + _CRCS + 2 * (first + index), self.key_offset]
        )
        return [["put", 0, self.at(block) + 16 * entry + self.choose.choice((0, 8)), raw.hex()]]

    def table(self) -> list[Mutation]:
        """Entries of a table page, wherever its current copy is."""
        choose, geometry, tables = self.choose, self.state.geometry, self.state.tables
        page = choose.randrange(geometry.map_count)
        reverse = choose.random() < 0.5
        start = geometry.reverse_start if reverse else geometry.forward_start
        used = [h - start for h in tables.journal if 0 <= h - start < geometry.map_count]
        if choose.random() < 0.85:
            used += self._used_pages(start)
            page = choose.choice(used or [page])
        offset = self.at(tables.current(start + page))
        raw = np.frombuffer(self.drive.read(offset, PAGE), "<u4")
        live = np.flatnonzero(raw < layout.UNMAPPED_ALTERNATIVE).tolist()
        entry = choose.choice(live) if live and choose.random() < 0.7 else choose.randrange(1024)
        value = choose.choice((self.address() & 0xFFFFFFFF, int(raw[choose.choice(live)]) if live else 0, 0xFFFFFFFF))
        self._seal_page(page, offset, reverse=reverse)
        return [["put", 0, offset + 4 * entry, value.to_bytes(4, "little").hex()]]

    def _used_pages(self, start: int) -> list[int]:
        """Pages of a table that hold something; looked up once."""
        facts = self.places.__dict__.setdefault("used", {})
        if start not in facts:
            rows = self.state.volume.read_rows(start, self.state.geometry.map_count)
            facts[start] = np.flatnonzero((rows != 255).any(axis=1)).tolist()
        return list(facts[start])

    def _seal_page(self, page: int, offset: int, *, reverse: bool) -> None:
        geometry, tables = self.state.geometry, self.state.tables
        crc_home = (geometry.crc_reverse_start if reverse else geometry.crc_start) + page // layout.CRC_PAGE_ENTRIES
        entry = self.at(tables.current(crc_home)) + 2 * (page % layout.CRC_PAGE_ENTRIES)
        md_entry = self.key_offset + PAGE + 2 * (page // layout.CRC_PAGE_ENTRIES + (2048 if reverse else 0))
        self.seals.append(["seal", 0, "page", offset, entry, md_entry, self.key_offset])

    def pointer(self) -> list[Mutation]:
        """A recorded write pointer or free estimate."""
        kind = self.choose.randrange(2)
        offset = self.at(layout.WP_BLOCKS[self.state.dialect] + kind)
        self.seals.append(
            ["seal", 0, "part", offset, self.key_offset + (_ZF_CRC if kind else _WP_CRC), self.key_offset]
        )
        zone = self.choose.randrange(self.state.geometry.data_zones + 1)
        return [self.field(offset + 4 * zone, 4, layout.ZONE_BLOCKS + 1)]

    def journal(self) -> list[Mutation]:
        """A slot of the journal map."""
        assert self.key is not None
        choose, geometry = self.choose, self.state.geometry
        blocks = int(self.key.key.wb_blocks)
        offset = self.at(self.key.window)
        used = self.key.journal[:, 0].tolist()
        slot = choose.choice([*used, choose.randrange(max(blocks, 1) * 1024)])
        home = choose.choice(
            (
                geometry.forward_start + choose.randrange(geometry.map_count),
                geometry.crc_start + choose.randrange(geometry.crc_count),
                int(choose.choice(self.key.journal[:, 1].tolist())),
                layout.SLOT_FREE,
                layout.SLOT_RESERVED,
                choose.getrandbits(31),
            )
        )
        self.seals.append(["seal", 0, "journal", offset, blocks, self.key_offset])
        return [["put", 0, offset + 4 * slot, home.to_bytes(4, "little").hex()]]

    def exchange(self) -> list[Mutation]:
        """Blocks of one generation area over those of another, or pages over pages."""
        choose, geometry = self.choose, self.state.geometry
        areas = layout.AREA_STARTS[self.state.dialect]
        one, other = choose.sample(areas, 2)
        match choose.randrange(4):
            case 0:
                return [["copy", 0, self.at(other), self.at(one), choose.choice((8, 16, 256)) * PAGE]]
            case 1:
                return [["copy", 0, self.key_offset, self.at(one + choose.randrange(1, 12)), 3 * PAGE]]
            case 2:
                return [["swap", 0, self.at(one), self.at(other), 16 * PAGE]]
            case _:
                pages = self._used_pages(geometry.forward_start) or [0]
                one, other = choose.choice(pages), choose.choice(pages)
                return [["swap", 0, *(self.at(geometry.forward_start + p) for p in (one, other)), PAGE]]

    def zone(self) -> list[Mutation]:
        first = self.state.geometry.first_device_zone
        used = [first + z for z in range(self.state.geometry.data_zones) if first + z < len(self.drive.table)]
        return [zone_change(self.choose, 0, self.drive.table, used)] if len(self.drive.table) else []

    def anything(self) -> list[Mutation]:
        """Any block of the metadata, or the partition table in front."""
        geometry, choose = self.state.geometry, self.choose
        areas = layout.AREA_STARTS[self.state.dialect]
        blocks = [0, layout.WP_BLOCKS[self.state.dialect], layout.WP_BLOCKS[self.state.dialect] + 1]
        blocks += [area + index for area in areas for index in range(6)]
        blocks += [c.block + index for c in self.state.generations.candidates for index in range(3)]
        blocks += [geometry.crc_start, geometry.crc_reverse_start, *self.state.tables.journal.values()]
        places = [self.at(block) for block in blocks]
        if choose.random() < 0.1:
            return [damage(choose, 0, choose.choice((446, 510, 512)), 64)]
        return [damage(choose, 0, choose.choice(places), PAGE, places)]


def _mutate(choose: random.Random, base: Base) -> list[Mutation]:
    return _Generator(choose, base).make()


SUBJECT = Subject(
    "zdm",
    BASES,
    _load,
    _mutate,
    {
        "identity": _seal_identity,
        "key": _seal_key,
        "part": _seal_part,
        "journal": _seal_journal,
        "page": _seal_page,
    },
)
