"""Mapping table and bitmaps of an open target: changed in memory, written by commits.

The order of a commit is the kernel target's (``dmz_flush_metadata`` in
``drivers/md/dm-zoned-metadata.c``): changed blocks to the set that is not current, flush,
its super block with the next generation, flush; then the same for the current set. Three
differences, each for a loss that the kernel target has:

* every member is flushed before the first super block, not the metadata device alone;
* both sets are equal once a target is open for writing (:mod:`mapper_open` sees to it), so that writing
  only changed blocks leaves two complete sets;
* before anything else the set that is about to change gets the generation *before* the
  current one. A power cut while its blocks are written then leaves two sets of which one is
  plainly older, instead of equal generations over different content.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MAP_ENTRIES, UNMAPPED, MapArray, SuperBlock
from zoned_tools.formats.dm_zoned.mapper.bitmaps import BitmapCache, ZoneBitmap, block_runs
from zoned_tools.formats.dm_zoned.open import bitmap_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk
    from zoned_tools.formats.dm_zoned.mapper.missing import MissingBits
    from zoned_tools.formats.dm_zoned.open import SetView

CURRENT_SET, LOG_SET = 0, 1
"""Roles of the sets while a target is written to; with equal sets this is the kernel's choice too."""

MAX_WRITE_BLOCKS = 1024
"""Metadata blocks in one write."""


class MetadataStore:
    """The metadata of one set, and how changes get into both.

    Args:
        disk: the devices.
        view: the set to read.
        table: its mapping table, shape (map blocks * 512, 2); owned from now on.
        superblocks: super blocks of both sets, equal in generation; only one when nothing is written.
        added: buffer zone to data zone whose valid blocks it has, too.
        missing: what is not known because no set has its blocks; None when everything is.
    """

    def __init__(
        self,
        disk: TargetDisk,
        view: SetView,
        table: MapArray,
        superblocks: Sequence[SuperBlock],
        added: Mapping[int, int] = MappingProxyType({}),
        missing: MissingBits | None = None,
    ) -> None:
        self._disk = disk
        layout = self.layout = view.layout
        self.table = table
        self._view = view
        self._added = added
        self.missing = missing if missing is not None and missing else None
        self._superblocks = list(superblocks)
        self._bitmap_blocks = layout.bitmap_blocks_per_zone
        self.bitmaps = BitmapCache(
            self._load_bitmaps, self._bitmap_blocks * BLOCK_BYTES, layout.zone_blocks, layout.nr_zones
        )
        self._changed: set[int] = set()  # blocks counted from the super block of a set
        self._broken = False

    def _load_bitmaps(self, first_zone: int, count: int) -> bytes:
        words = bitmap_words(self.layout, count)
        self._view.bitmaps_into(first_zone, words)
        for buffer, zone in self._added.items():
            if first_zone <= buffer < first_zone + count:
                words[buffer - first_zone] |= self._view.rows(np.array([zone]))[0]
        if self.missing is not None:
            self.missing.guess(first_zone, words)
        return words.tobytes()

    # -- the mapping table

    def zones_of(self, chunk: int) -> tuple[int, int]:
        """Data zone id and buffer zone id of a chunk; ``UNMAPPED`` for none."""
        data_zone, buffer_zone = self.table[chunk].tolist()
        return data_zone, buffer_zone

    def map_chunk(self, chunk: int, data_zone: int, buffer_zone: int = UNMAPPED) -> None:
        """Change the entry of a chunk."""
        self.table[chunk] = data_zone, buffer_zone
        self._changed.add(1 + chunk // MAP_ENTRIES)

    # -- bitmaps

    def assign(self, zone: int, block: int, count: int, *, valid: bool) -> None:
        """Set or clear validity bits."""
        bitmap = self.bitmaps[zone]
        self._note(zone, bitmap, bitmap.assign(block, count, valid=valid))

    def replace(self, zone: int, bits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        """Set all bits of a zone at once."""
        bitmap = self.bitmaps[zone]
        self._note(zone, bitmap, bitmap.replace(bits))

    def _note(self, zone: int, bitmap: ZoneBitmap, blocks: list[int]) -> None:
        if not blocks:
            return
        self.bitmaps.keep(zone, bitmap)
        first = 1 + self.layout.nr_map_blocks + zone * self._bitmap_blocks
        self._changed.update(first + block for block in blocks)

    # -- commit

    @property
    def nr_changed_blocks(self) -> int:
        """Metadata blocks that the next commit has to write."""
        return len(self._changed)

    @property
    def generation(self) -> int:
        """Generation of the current set."""
        return self._superblocks[CURRENT_SET].gen

    def require_intact(self) -> None:
        """Raise when an earlier commit failed half way: only opening again tells what is on the drive."""
        if self._broken:
            raise DeviceError(
                "an earlier commit of the metadata failed", hint="close and open again, which recovers the last commit"
            )

    def commit(self) -> None:
        """Make all data and all metadata durable.

        Raises:
            DeviceError: a device failed; nothing more can be written before it is opened again.
        """
        self.require_intact()
        self._broken = True
        if self._changed:
            self._commit_changes()
        else:
            self._disk.flush()
        self._broken = False

    def _commit_changes(self) -> None:
        generation = self.generation
        runs = [(first, self._content(first, count)) for first, count in self._runs()]
        self._write_superblock(LOG_SET, generation - 1)
        self._disk.flush_metadata()
        self._write_blocks(LOG_SET, runs)
        self._disk.flush()
        self._write_superblock(LOG_SET, generation + 1)
        self._disk.flush_metadata()  # the commit point
        self._write_blocks(CURRENT_SET, runs)
        self._disk.flush_metadata()
        self._write_superblock(CURRENT_SET, generation + 1)
        self._disk.flush_metadata()
        self._changed.clear()
        self.bitmaps.all_written()

    def _runs(self) -> list[tuple[int, int]]:
        pieces: list[tuple[int, int]] = []
        for first, count in block_runs(self._changed):
            pieces += [
                (first + done, min(MAX_WRITE_BLOCKS, count - done)) for done in range(0, count, MAX_WRITE_BLOCKS)
            ]
        return pieces

    def _content(self, first: int, count: int) -> bytes:
        return b"".join(self._block(block) for block in range(first, first + count))

    def _block(self, block: int) -> bytes:
        """Content of a block counted from the super block."""
        index = block - 1
        if index < self.layout.nr_map_blocks:
            return self.table[index * MAP_ENTRIES : (index + 1) * MAP_ENTRIES].tobytes()
        zone, part = divmod(index - self.layout.nr_map_blocks, self._bitmap_blocks)
        return bytes(self.bitmaps[zone].raw[part * BLOCK_BYTES : (part + 1) * BLOCK_BYTES])

    def _write_blocks(self, number: int, runs: list[tuple[int, bytes]]) -> None:
        start = self.layout.set_block(number)
        for first, content in runs:
            self._disk.write_blocks(start + first, content)

    def _write_superblock(self, number: int, generation: int) -> None:
        superblock = with_generation(self._superblocks[number], generation)
        self._superblocks[number] = superblock
        self._disk.write_blocks(self.layout.set_block(number), superblock.pack())


def with_generation(superblock: SuperBlock, generation: int) -> SuperBlock:
    """The same super block at another generation."""
    return replace(superblock, gen=generation)
