"""One metadata set measured: everything that check reports and repair corrects, as arrays.

One pass over the mapping table (who owns which zone) and one over the bitmaps (how many
valid blocks, and where), both vectorised; time and memory grow with the number of zones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import run_starts
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED, MapArray, MetadataLayout
from zoned_tools.formats.dm_zoned.open import SetView, Words, bitmap_words, read_map, stream_zones

if TYPE_CHECKING:
    from zoned_tools.device.zones import BoolArray, IntArray

WORD_BITS = 64
_BLOCK_WORDS = BLOCK_BYTES // 8
_MAP_WORDS = BLOCK_BYTES // 4

NO_CHUNK = -1


@dataclass(frozen=True, slots=True)
class Shared:
    """Zones that are named by two chunks or in two roles, ascending.

    Attributes:
        zones: their ids, shape (n,).
        starts: where each one's chunks begin in ``chunks``, and their end: shape (n + 1,).
        chunks: chunks that name them, ascending for each zone; twice when one names it in both roles.
    """

    zones: IntArray
    starts: IntArray
    chunks: IntArray

    def __len__(self) -> int:
        return len(self.zones)

    def chunks_of(self, index: int) -> list[int]:
        """Chunks that name the zone with this index."""
        chunks: list[int] = self.chunks[self.starts[index] : self.starts[index + 1]].tolist()
        return chunks


@dataclass(frozen=True, slots=True)
class Owners:
    """Which chunks name each zone.

    Attributes:
        named: zones that any chunk names, shape (zones,).
        data, buffer: lowest chunk that names the zone in that role, else -1.
        shared: zones with more than one claim.
    """

    named: BoolArray
    data: IntArray
    buffer: IntArray
    shared: Shared

    def any_of(self, zones: IntArray) -> IntArray:
        """A chunk of each of ``zones``: the one whose data zone it is, else the one whose buffer zone."""
        data = self.data[zones]
        owners: IntArray = np.where(data != NO_CHUNK, data, self.buffer[zones])
        return owners


@dataclass(frozen=True, slots=True)
class MapSurvey:
    """The mapping table of a set.

    Masks have one element for each chunk; a chunk has at most one of the buffer faults.

    Attributes:
        table: whole table, tail included: shape (map blocks * 512, 2).
        data, buffer: zone ids of each chunk as int64, :data:`UNMAPPED` where there is none.
        data_usable, buffer_usable: the id names a zone of the target.
        data_range, data_meta: faults of the data zone.
        buffer_range ... buffer_on_random: faults of the buffer zone.
        empty_sequential: not buffered, and on an empty sequential zone.
        tail: entries after the last chunk that are not all ones.
    """

    table: MapArray
    data: IntArray
    buffer: IntArray
    data_usable: BoolArray
    buffer_usable: BoolArray
    data_range: BoolArray
    data_meta: BoolArray
    buffer_range: BoolArray
    buffer_without_data: BoolArray
    buffer_meta: BoolArray
    buffer_is_data: BoolArray
    buffer_not_random: BoolArray
    buffer_on_random: BoolArray
    empty_sequential: BoolArray
    tail: IntArray
    owners: Owners

    @property
    def hard_faults(self) -> tuple[BoolArray, ...]:
        """What no kernel and no repair tool writes: masks over the chunks."""
        return (
            self.data_range,
            self.data_meta,
            self.buffer_range,
            self.buffer_without_data,
            self.buffer_meta,
            self.buffer_is_data,
            self.buffer_not_random,
            self.buffer_on_random,
        )

    @property
    def nr_mapped(self) -> int:
        return int(np.count_nonzero(self.data != UNMAPPED))

    @property
    def nr_buffered(self) -> int:
        return int(np.count_nonzero(self.buffer != UNMAPPED))


def survey_map(geometry: TargetGeometry, layout: MetadataLayout, table: MapArray) -> MapSurvey:
    """Apply the mapping rules to ``table`` (whole blocks, as read)."""
    held = held_zones(geometry, layout)
    data = table[: layout.nr_chunks, 0].astype(np.int64)
    buffer = table[: layout.nr_chunks, 1].astype(np.int64)
    mapped, buffered = data != UNMAPPED, buffer != UNMAPPED
    data_usable, buffer_usable = data < geometry.nr_zones, buffer < geometry.nr_zones
    at_data, at_buffer = np.where(data_usable, data, 0), np.where(buffer_usable, buffer, 0)

    # A buffer zone is judged by the first rule that it breaks.
    pending = buffered.copy()

    def take(condition: BoolArray) -> BoolArray:
        nonlocal pending
        taken: BoolArray = pending & condition
        pending = pending & ~taken
        return taken

    return MapSurvey(
        table=table,
        data=data,
        buffer=buffer,
        data_usable=data_usable,
        buffer_usable=buffer_usable,
        data_range=mapped & ~data_usable,
        data_meta=data_usable & held[at_data],
        buffer_range=take(~buffer_usable),
        buffer_without_data=take(~mapped),
        buffer_meta=take(held[at_buffer]),
        buffer_is_data=take(buffer == data),
        buffer_not_random=take(~geometry.cache[at_buffer]),
        buffer_on_random=take(data_usable & ~geometry.sequential[at_data] & ~geometry.missing[at_data]),
        empty_sequential=data_usable
        & ~buffered
        & geometry.sequential[at_data]
        & (geometry.wp_blocks[at_data] == 0)
        & (not geometry.derived),
        tail=layout.nr_chunks + np.flatnonzero((table[layout.nr_chunks :] != UNMAPPED).any(axis=1)),
        owners=_owners(geometry.nr_zones, data, buffer, data_usable, buffer_usable),
    )


def _owners(
    nr_zones: int, data: IntArray, buffer: IntArray, data_usable: BoolArray, buffer_usable: BoolArray
) -> Owners:
    data_chunks = np.flatnonzero(data_usable)
    buffer_chunks = np.flatnonzero(buffer_usable & (buffer != data))
    zones = np.concatenate((data[data_chunks], buffer[buffer_chunks]))
    chunks = np.concatenate((data_chunks, buffer_chunks))
    data_owner = np.full(nr_zones, NO_CHUNK, np.int64)
    buffer_owner = np.full(nr_zones, NO_CHUNK, np.int64)
    # The last assignment wins, so descending order leaves the lowest chunk.
    data_owner[data[data_chunks[::-1]]] = data_chunks[::-1]
    buffer_owner[buffer[buffer_chunks[::-1]]] = buffer_chunks[::-1]
    uses = np.bincount(zones, minlength=nr_zones)
    return Owners(uses > 0, data_owner, buffer_owner, _shared(zones, chunks, uses))


def _shared(zones: IntArray, chunks: IntArray, uses: IntArray) -> Shared:
    often = uses[zones] > 1
    zones, chunks = zones[often], chunks[often]
    order = np.lexsort((chunks, zones))
    zones, chunks = zones[order], chunks[order]
    starts = run_starts(zones, 0)
    return Shared(zones[starts], np.append(starts, len(zones)), chunks)


@dataclass(frozen=True, slots=True)
class BitmapSurvey:
    """The bitmaps of a set; every array but ``overlap`` has one element for each zone.

    Attributes:
        weight: valid blocks inside the zone.
        after_wp: of these, those at or after the write pointer (zones that a chunk names).
        beyond: bits set past the end of the zone.
        overlap: blocks below the write pointer that are valid in a chunk's data zone and in its
            buffer zone; one element for each chunk.
        differing: bitmap blocks that differ from the set that was compared, ascending.
    """

    weight: IntArray
    after_wp: IntArray
    beyond: IntArray
    overlap: IntArray
    differing: IntArray


@dataclass(frozen=True, slots=True)
class SetSurvey:
    """A whole metadata set; ``differing`` are map and bitmap blocks unlike the other set's, counted from the map.

    Blocks that only one of the sets can be read of are not among them.
    """

    view: SetView
    map: MapSurvey
    bits: BitmapSurvey
    differing: IntArray

    @property
    def number(self) -> int:
        return self.view.number

    @property
    def layout(self) -> MetadataLayout:
        return self.view.layout

    @property
    def emptied_zones(self) -> BoolArray:
        """Data zones of buffered chunks that are empty although blocks in them are marked valid.

        The 6.1 target resets the zone after copying it to the buffer zone but before it commits that
        (section 6.2 of the specification), so the bytes may be in the buffer zone at the same places.
        """
        geometry, mapping = self.view.blocks.geometry, self.map
        chunks = mapping.owners.data
        chunk = np.where(chunks != NO_CHUNK, chunks, 0)
        buffered = (chunks != NO_CHUNK) & mapping.buffer_usable[chunk] & ~mapping.buffer_meta[chunk]
        buffers = np.where(buffered, mapping.buffer[chunk], 0)
        found: BoolArray = np.asarray(
            buffered & (geometry.wp_blocks == 0) & (self.bits.after_wp > 0) & geometry.cache[buffers]
        )
        return found


def survey_set(view: SetView, compare_with: int | None = None) -> SetSurvey:
    """Read and examine a set; find the blocks that differ from set ``compare_with``.

    Raises:
        DeviceError: the set cannot be read.
    """
    blocks, layout = view.blocks, view.layout
    table = view.read_map()
    differing: IntArray = np.zeros(0, np.int64)
    if compare_with is not None:
        other = read_map(blocks, layout, compare_with)
        differing = differing_blocks(table.reshape(-1, _MAP_WORDS), other.reshape(-1, _MAP_WORDS))
    mapping = survey_map(blocks.geometry, layout, table)
    bits = survey_bitmaps(view, mapping, compare_with)
    differing = np.concatenate((differing, bits.differing + layout.nr_map_blocks))
    if compare_with is not None and blocks.media:
        differing = differing[~(blocks.unreadable(layout, 0) | blocks.unreadable(layout, 1))[differing]]
    return SetSurvey(view, mapping, bits, differing)


def differing_blocks(one: npt.NDArray[np.unsignedinteger], other: npt.NDArray[np.unsignedinteger]) -> IntArray:
    """Rows in which two arrays of blocks differ, ascending."""
    if np.array_equal(one, other):
        return np.zeros(0, np.int64)
    rows: IntArray = np.flatnonzero((one != other).any(axis=1))
    return rows


def survey_bitmaps(view: SetView, mapping: MapSurvey, compare_with: int | None = None) -> BitmapSurvey:
    """Count the bits of a set zone by zone, in one pass."""
    blocks, layout = view.blocks, view.layout
    geometry = blocks.geometry
    weight = np.zeros(geometry.nr_zones, np.int64)
    beyond, after_wp = weight.copy(), weight.copy()
    # Only these need their bits counted on both sides of the write pointer.
    wp = geometry.wp_blocks
    cut = mapping.owners.named & geometry.sequential & (wp >= 0) & (wp < geometry.zone_blocks)
    differing: list[IntArray] = [np.zeros(0, np.int64)]
    other = bitmap_words(layout, min(stream_zones(layout), geometry.nr_zones)) if compare_with is not None else None
    for zone, words in view.stream():
        part = slice(zone, zone + len(words))
        if other is not None and compare_with is not None:
            same = other[: len(words)]
            blocks.read_around(layout.bitmap_block(compare_with, zone), same.data.cast("B"))
            rows = differing_blocks(words.reshape(-1, _BLOCK_WORDS), same.reshape(-1, _BLOCK_WORDS))
            differing.append(rows + zone * layout.bitmap_blocks_per_zone)
        beyond[part] = take_beyond(words, geometry.zone_blocks)
        counts = np.bitwise_count(words)
        weight[part] = counts.sum(axis=1, dtype=np.uint32)
        rows = np.flatnonzero(cut[part] & (weight[part] > 0))
        if len(rows):
            after_wp[zone + rows] = _bits_from(words, counts, rows, wp[zone + rows])
    overlap = _overlaps(view, mapping, weight)
    return BitmapSurvey(weight, after_wp, beyond, overlap, np.concatenate(differing))


def take_beyond(words: Words, zone_blocks: int) -> IntArray | int:
    """Clear the bits past the zone's end in ``words``; returns how many there were in each row."""
    whole, rest = divmod(zone_blocks, WORD_BITS)
    if whole >= words.shape[1]:
        return 0
    last = words[:, whole] >> np.uint64(rest)
    found: IntArray = np.bitwise_count(last).astype(np.int64)
    words[:, whole] &= np.uint64((1 << rest) - 1)
    tail = words[:, whole + 1 :]
    if tail.size:
        found += np.bitwise_count(tail).sum(axis=1, dtype=np.int64)
        tail[...] = 0
    return found


def any_from(words: Words, first: IntArray) -> BoolArray:
    """Whether row ``i`` has a bit at or after ``first[i]``."""
    late = words.copy()
    kept = words.copy()
    keep_below(kept, first)
    late ^= kept
    found: BoolArray = np.asarray(late.any(axis=1))
    return found


def _bits_from(words: Words, counts: npt.NDArray[np.uint8], rows: IntArray, first: IntArray) -> IntArray:
    """Bits at or after block ``first[i]`` of row ``rows[i]``."""
    column, bit = first // WORD_BITS, first % WORD_BITS
    after = np.arange(words.shape[1]) > column[:, None]
    total: IntArray = np.where(after, counts[rows], np.uint8(0)).sum(axis=1, dtype=np.int64)
    total += np.bitwise_count(words[rows, column] >> bit.astype(np.uint64))
    return total


def _overlaps(view: SetView, mapping: MapSurvey, weight: IntArray) -> IntArray:
    """Blocks valid in a data zone and in its buffer zone, below the write pointer of the former."""
    geometry, layout = view.blocks.geometry, view.layout
    overlap = np.zeros(len(mapping.data), np.int64)
    pairs = sound_pairs(geometry, held_zones(geometry, layout), mapping.data, mapping.buffer)
    zones, buffers = mapping.data[pairs], mapping.buffer[pairs]
    wanted = (geometry.wp_blocks[zones] > 0) & (weight[zones] > 0) & (weight[buffers] > 0)
    pairs, zones, buffers = pairs[wanted], zones[wanted], buffers[wanted]
    step = stream_zones(layout)
    for start in range(0, len(pairs), step):
        part = slice(start, start + step)
        both = view.rows(zones[part])
        both &= view.rows(buffers[part])
        keep_below(both, geometry.wp_blocks[zones[part]])
        overlap[pairs[part]] = np.bitwise_count(both).sum(axis=1, dtype=np.int64)
    return overlap


def narrow(numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Zone ids, chunks and counts as findings and actions keep them: all of them fit, and there may be millions."""
    return numbers.astype(np.uint32)


def keep_below(words: Words, counts: IntArray) -> None:
    """Clear the bits of row ``i`` of ``words`` from block ``counts[i]`` on."""
    column, bit = counts[:, None] // WORD_BITS, counts % WORD_BITS
    places = np.arange(words.shape[1])
    words[places > column] = 0
    rows = np.flatnonzero(counts // WORD_BITS < words.shape[1])
    last = counts[rows] // WORD_BITS
    words[rows, last] &= (np.uint64(1) << bit[rows].astype(np.uint64)) - np.uint64(1)


def sound_pairs(geometry: TargetGeometry, held: BoolArray, data: IntArray, buffer: IntArray) -> IntArray:
    """Chunks with a sequential data zone and a buffer zone of the right kind, neither in ``held``."""
    candidates = np.flatnonzero((data < geometry.nr_zones) & (buffer < geometry.nr_zones))
    data, buffer = data[candidates], buffer[candidates]
    sound = geometry.sequential[data] & geometry.cache[buffer] & ~held[data] & ~held[buffer]
    chosen: IntArray = candidates[sound]
    return chosen
