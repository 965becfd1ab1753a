"""Writing generations so that a power cut at any moment leaves the last one whole.

Nothing that the durable generation refers to is ever overwritten: changed table and CRC
pages go into journal slots that it does not use (the reference overwrites them at home);
only pages that it reads from the journal are copied home. After data and pages a flush, then
write pointers, free estimates, journal map, cache pages and checksum blocks, flush, key
block, flush.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.errors import DeviceError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16, crc16_pages
from zoned_tools.formats.zdm.keys import KeyFields, area_of, cache_pages, md_blocks, pack_key
from zoned_tools.formats.zdm.layout import BLOCK_BYTES, Dialect, Geometry

if TYPE_CHECKING:
    import uuid as uuids

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.mapper.allocate import ZoneAllocator
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.pages import PageStore

MAX_PAGES = 240
"""Cache pages of one generation; with the journal map they must stay below 250 blocks."""


class GenerationWriter:
    """Writes one generation after the other, each from the mapper's state in memory."""

    def __init__(self, state: State, pages: PageStore, zones: ZoneAllocator, sb_uuid: uuids.UUID) -> None:
        self._volume = state.volume
        self._geometry: Geometry = state.geometry
        self._pages = pages
        self._zones = zones
        self._uuid = sb_uuid
        current = state.current
        self._area = current.window if current else -1
        # A first start records its empty zones one number ahead, in the area that the reference never reads.
        self._number = max(state.generations.highest_number, layout.FIRST_GENERATION - 2)
        self._md_crcs: Words = (
            current.md_crcs.copy() if current else np.full(4096, layout.EMPTY_CRC_PAGE_CRC, np.uint16)
        )
        self._nr_slots = self._geometry.journal_map_blocks * layout.PAGE_ENTRIES
        self._next_slot = int(current.key.wb_next) % self._nr_slots if current else 0
        self._slots: dict[int, int] = {}
        for home, copy in state.tables.journal.items():
            slot = copy - layout.JOURNAL_BLOCK
            if 0 <= slot < self._nr_slots:
                self._slots[home] = slot
            else:  # behind the map that this geometry has room for: written anew
                pages.dirty[home] = pages.page(home).copy()
        self._durable = set(self._slots.values())
        self._stored_pointers: dict[int, bytes] = {}

    @property
    def free_slots(self) -> int:
        """Pages that can be journaled by the next generation."""
        return self._nr_slots - len(self._durable | set(self._slots.values()))

    @property
    def crowded(self) -> bool:
        """More than half of the journal is in use."""
        return len(self._slots) > self._nr_slots // 2

    def pages_needed(self, homes: set[int]) -> int:
        """Slots that these table pages, those that are dirty already, and their CRC pages need."""
        tables = {h for h in self._pages.dirty if h < self._geometry.crc_start} | homes
        return len(tables | {self._pages.crc_home(h) for h in tables} | set(self._pages.dirty))

    def commit(self, cache: IntArray, discards: IntArray, *, closed: bool = False) -> None:
        """Write the next generation: everything dirty, the map cache and the discard extents.

        Args:
            cache: rows ``(table address, block)``.
            discards: rows ``(table address, blocks)``.
        """
        self._journal_dirty_pages()
        self._durable |= set(self._slots.values())  # from when its key is written, even if that seems to fail
        self._volume.device.flush()  # data first: no write pointer may be recorded ahead of the drive's
        crcs = self._write_pointers()
        self._write_generation(cache_pages(cache), cache_pages(discards), crcs, closed=closed)
        self._durable = set(self._slots.values())
        self._zones.settle()

    def avoid_blind_area(self) -> None:
        """Go on so that the last of the next three generations is not in the area that the reference never reads."""
        if area_of(self._number + 3) == layout.AREA_STARTS[Dialect.D3][2]:
            self._number += 1

    def checkpoint(self, cache: IntArray, discards: IntArray) -> None:
        """Copy journaled pages home and write a generation without them.

        The durable generation reads these pages from the journal, so their home is free.
        """
        for first, end in runs(np.array(sorted(self._slots), np.int64)):
            data = b"".join(self._volume.read(layout.JOURNAL_BLOCK + self._slots[h]) for h in range(first, end))
            self._volume.write(first, data)
        self._slots.clear()
        self._pages.tables.set_journal({})
        self.commit(cache, discards)

    # -- parts

    def _journal_dirty_pages(self) -> None:
        self._update_crc_pages()
        dirty = self._pages.dirty
        if not dirty:
            return
        homes = sorted(dirty)
        slots = self._allocate_slots(len(homes))
        by_slot = dict(sorted(zip(slots, homes, strict=True)))
        for first, end in runs(np.array(list(by_slot), np.int64)):
            data = b"".join(dirty[by_slot[slot]].tobytes() for slot in range(first, end))
            self._volume.write(layout.JOURNAL_BLOCK + first, data)
        self._slots.update((home, slot) for slot, home in by_slot.items())
        self._pages.tables.set_journal({h: layout.JOURNAL_BLOCK + s for h, s in self._slots.items()})
        self._pages.clean()

    def _update_crc_pages(self) -> None:
        """Enter the checksums of dirty table pages into CRC pages, and theirs into the CRC-of-CRC blocks."""
        geometry, pages = self._geometry, self._pages
        tables = [h for h in pages.dirty if h < geometry.crc_start]
        if tables:
            crcs = crc16_pages(np.stack([pages.dirty[h] for h in tables]).view(np.uint8))
            for home, crc in zip(tables, crcs.tolist(), strict=True):
                pages.mutable(pages.crc_home(home)).view("<u2")[pages.crc_index(home)] = crc
        for home in [h for h in pages.dirty if h >= geometry.crc_start]:
            reverse = home >= geometry.crc_reverse_start
            number = home - (geometry.crc_reverse_start if reverse else geometry.crc_start)
            self._md_crcs[number + (2048 if reverse else 0)] = crc16(pages.dirty[home].tobytes())

    def _allocate_slots(self, count: int) -> list[int]:
        """Free slots, cyclic from the last one used; slots of the durable generation are not free."""
        taken = self._durable | set(self._slots.values())
        order = ((self._next_slot + i) % self._nr_slots for i in range(self._nr_slots))
        slots: list[int] = []
        for slot in order:
            if len(slots) == count:
                break
            if slot not in taken:
                slots.append(slot)
        if len(slots) < count:
            raise DeviceError(f"the metadata journal has no room for {count} pages", device=self._volume.device.path)
        self._next_slot = (slots[-1] + 1) % self._nr_slots
        return slots

    def _write_pointers(self) -> tuple[list[int], list[int]]:
        """Write changed write pointer and free estimate blocks in place; their checksums."""
        blocks = self._zones.blocks()
        for index, data in enumerate(blocks):
            if self._stored_pointers.get(index) != data:
                self._volume.write(layout.WP_BLOCK + index, data)
                self._stored_pointers[index] = data
        crcs = crc16_pages(np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, BLOCK_BYTES)).tolist()
        return crcs[0::2], crcs[1::2]

    def _write_generation(
        self, maps: list[bytes], discards: list[bytes], crcs: tuple[list[int], list[int]], *, closed: bool
    ) -> None:
        self._number += 1
        while area_of(self._number) == self._area:  # never over the durable generation
            self._number += 1
        area, geometry, zones = area_of(self._number), self._geometry, self._zones
        journal_map = self._journal_map()
        md = md_blocks(self._md_crcs)
        fields = KeyFields(
            self._uuid,
            geometry.data_zones,
            geometry.zdstart,
            0 if closed else layout.FLAG_DIRTY,
            zones.streams_bytes(),
            zones.gc_reserve,
            zones.meta_reserve,
            geometry.journal_map_blocks,
            self._next_slot,
            self._number,
            *crcs,
        )
        key = pack_key(fields, journal_map, maps, discards, md)
        content = journal_map + b"".join(maps + discards)
        key_block = area + len(content) // BLOCK_BYTES
        self._volume.write(area, content)
        self._volume.write(key_block + 1, md)
        self._volume.device.flush()
        self._volume.write(key_block, key)
        self._volume.device.flush()
        self._area = area

    def _journal_map(self) -> bytes:
        slots = np.full(self._nr_slots, layout.SLOT_FREE, "<u4")
        for home, slot in self._slots.items():
            slots[slot] = home
        return slots.tobytes()
