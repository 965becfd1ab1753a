"""Which zone size the super blocks of raw copies fit: every power of two is tried, and has to explain all but one fact.

Source: section 3.1, steps 1 to 3, of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import salvage_into
from zoned_tools.errors import MetadataError, RefusedError, UsageError
from zoned_tools.formats.dm_zoned.layout import (
    BLOCK_BYTES,
    MAX_VERSION,
    MOST_SET_ZONES,
    NR_SETS,
    UNMAPPED,
    SuperBlock,
    bitmap_blocks_of,
    ceil_div,
)
from zoned_tools.formats.dm_zoned.probe import is_sound, read_superblock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device

FEWEST_ZONE_BLOCKS = 8
MOST_ZONE_BLOCKS = 1 << 23


class Raw:
    """The files of a target in order, some of them raw copies; super blocks on them, read once."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = tuple(devices)
        self._found: dict[tuple[int, int], SuperBlock | None] = {}

    @property
    def is_single(self) -> bool:
        return len(self.devices) == 1

    @property
    def has_superblocks(self) -> bool:
        """A set's super block is where one can be."""
        return any(_reference(self, zone_blocks) is not None for zone_blocks in _candidates())

    def nr_zones(self, index: int, zone_blocks: int) -> int:
        """Zones of a file, one that is not whole counted."""
        return ceil_div(self.devices[index].geometry.size_bytes, zone_blocks * BLOCK_BYTES)

    def superblock(self, index: int, block: int, says: int | None = None) -> SuperBlock | None:
        """A valid super block in a block of a file; ``says`` is the place that it has to name."""
        key = (index, block)
        if key not in self._found:
            found = read_superblock(self.devices[index], block * BLOCK_BYTES)
            self._found[key] = found[0] if found is not None and is_sound(found) else None
        one = self._found[key]
        return one if one is None or says is None or one.sb_block == says else None


@dataclass(frozen=True, slots=True)
class Sized:
    """What the super blocks say about the zones of all members.

    Attributes:
        reference: a valid super block of a set.
        nr_zones: of all members.
        first_zones, zone_counts, sizes: of each member: zone id, zones, bytes of its drive.
    """

    reference: SuperBlock
    zone_blocks: int
    nr_zones: int
    first_zones: tuple[int, ...]
    zone_counts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def set_zones(self) -> int:
        return ceil_div(self.reference.nr_meta_blocks, self.zone_blocks)

    @property
    def bitmap_blocks(self) -> int:
        """Of one zone."""
        return bitmap_blocks_of(self.zone_blocks)


@dataclass(frozen=True, slots=True)
class _Fit:
    """How a zone size fits: the points of step 2. ``counts`` are the zones of each device."""

    zone_blocks: int
    reference: SuperBlock
    counts: tuple[int, ...]
    secondary: bool
    bitmaps: bool
    members: bool
    chunks: bool

    @property
    def points(self) -> int:
        return self.secondary + self.bitmaps + self.members + self.chunks

    @property
    def nr_zones(self) -> int:
        return sum(self.counts)

    @property
    def told_zones(self) -> int:
        """Zones of all members by the bitmaps; 0 when that is no number of zones."""
        zones, rest = divmod(self.reference.nr_bitmap_blocks, bitmap_blocks_of(self.zone_blocks))
        return 0 if rest else zones

    @property
    def is_short(self) -> bool:
        """The super blocks fit but for zones that the files lack."""
        return self.secondary and self.members and not self.bitmaps and self.told_zones > self.nr_zones


_ALL_POINTS = 4


def find_size(raw: Raw, wish: int = 0) -> Sized | None:
    """The zone size that the super blocks fit; None for the regular device of a target of several.

    Args:
        wish: blocks of a zone, as a user says; 0 for any.

    Raises:
        UsageError: the wish is no zone size.
        RefusedError: a zoned member without its regular device, or the metadata contradict the wish.
        MetadataError: no zone size fits, or several do.
    """
    path = raw.devices[0].path
    if wish and (wish & (wish - 1) or not FEWEST_ZONE_BLOCKS <= wish <= MOST_ZONE_BLOCKS):
        raise UsageError(f"{wish * BLOCK_BYTES} bytes are no size of a zone", hint="a power of two of 32 KiB or more")
    own = _own_sizes(raw)
    fits = [fit for size in _candidates() if (fit := _fit(raw, size)) is not None]
    best = _best(fits, own or wish) or _best_placed(raw, own or wish)
    _refuse_member(raw, best)
    if best is None:
        hint = "" if wish else "zoned image adopt --zone-size BYTES writes a zone table for it"
        raise MetadataError(
            "a raw copy, and its super blocks do not tell the size of its zones", device=path, hint=hint
        )
    if wish and wish != best.zone_blocks:
        raise RefusedError(
            f"zones of {wish * BLOCK_BYTES} bytes contradict the metadata, which are those of zones of "
            f"{best.zone_blocks * BLOCK_BYTES} bytes",
            device=path,
        )
    if raw.is_single and best.nr_zones < best.told_zones and not (wish or _is_certainly_single(raw, best)):
        return None
    return _sized(raw, best)


def _own_sizes(raw: Raw) -> int:
    """Blocks of a zone where a member has its zone table; 0 where none has."""
    return next((d.geometry.zone_bytes // BLOCK_BYTES for d in raw.devices if d.geometry.is_zoned), 0)


def _candidates() -> Iterator[int]:
    size = FEWEST_ZONE_BLOCKS
    while size <= MOST_ZONE_BLOCKS:
        yield size
        size *= 2


def _fit(raw: Raw, zone_blocks: int) -> _Fit | None:
    """The points of a zone size; None without a super block to begin with."""
    reference = _reference(raw, zone_blocks)
    if reference is None:
        return None
    counts = tuple(raw.nr_zones(index, zone_blocks) for index in range(len(raw.devices)))
    return _pointed(raw, zone_blocks, reference, counts)


def _pointed(raw: Raw, zone_blocks: int, reference: SuperBlock, counts: tuple[int, ...]) -> _Fit:
    nr_zones, set_zones = sum(counts), ceil_div(reference.nr_meta_blocks, zone_blocks)
    place = set_zones * zone_blocks
    own = [sum(counts[:index]) * zone_blocks for index in range(len(counts))]
    return _Fit(
        zone_blocks,
        reference,
        counts,
        secondary=raw.superblock(0, place, says=place) is not None,
        bitmaps=reference.nr_bitmap_blocks == nr_zones * bitmap_blocks_of(zone_blocks),
        members=all(raw.superblock(index, 0, says=own[index]) is not None for index in range(1, len(counts))),
        chunks=0 < reference.nr_chunks <= nr_zones - NR_SETS * set_zones - reference.nr_reserved_seq,
    )


def _best_placed(raw: Raw, wish: int) -> _Fit | None:
    """The one zone size that fits in every point when the files are as long as the members' super blocks say.

    A copy that ended early, or has something behind its drive, moves none of them; neither does a regular device that
    grew or shrank (dm-zoned.md 8.6). Of several zone sizes that one counts with which most files have their length.
    """
    fits = [fit for size in _candidates() if (fit := _placed_fit(raw, size)) is not None and fit.points == _ALL_POINTS]
    agreeing = [_nr_agreeing(raw, fit) for fit in fits]
    most = max(agreeing, default=0)
    best = [fit for fit, count in zip(fits, agreeing, strict=True) if count == most > 0]
    if len(best) > 1:
        best = [fit for fit in best if fit.zone_blocks == wish]
    return best[0] if len(best) == 1 else None


def _nr_agreeing(raw: Raw, fit: _Fit) -> int:
    """Files that have as many zones as the super blocks say."""
    return sum(raw.nr_zones(index, fit.zone_blocks) == count for index, count in enumerate(fit.counts))


def _placed_fit(raw: Raw, zone_blocks: int) -> _Fit | None:
    """The points of a zone size with each device from where its super block says to where the next one begins."""
    reference = _reference(raw, zone_blocks)
    if raw.is_single or reference is None:
        return None
    starts = [0]
    for index in range(1, len(raw.devices)):
        found = raw.superblock(index, 0)
        if found is None or found.sb_block % zone_blocks or found.dmz_uuid != reference.dmz_uuid:
            return None
        starts.append(found.sb_block // zone_blocks)
    told, rest = divmod(reference.nr_bitmap_blocks, bitmap_blocks_of(zone_blocks))
    counts = tuple(end - start for start, end in pairwise([*starts, told]))
    tables = (index for index, device in enumerate(raw.devices) if device.geometry.is_zoned)
    if rest or min(counts) < 1 or any(counts[index] != raw.nr_zones(index, zone_blocks) for index in tables):
        return None
    return _pointed(raw, zone_blocks, reference, counts)


def _reference(raw: Raw, zone_blocks: int) -> SuperBlock | None:
    """Step 1: the primary super block, or a secondary one that says where it is."""
    primary = raw.superblock(0, 0, says=0)
    if primary is not None:
        return primary
    for set_zones in range(1, MOST_SET_ZONES + 1):
        place = set_zones * zone_blocks
        found = raw.superblock(0, place, says=place)
        if found is not None and ceil_div(found.nr_meta_blocks, zone_blocks) == set_zones:
            return found
    return None


def _best(fits: Sequence[_Fit], wish: int) -> _Fit | None:
    """The one zone size with the most points, of which one at most may be missing.

    A tie is decided by what a user or another member's zone table says. Files that lack zones miss two points; they
    are taken for that when only one zone size fits them otherwise.
    """
    most = max((fit.points for fit in fits), default=0)
    best = [fit for fit in fits if fit.points == most] if most >= _ALL_POINTS - 1 else [f for f in fits if f.is_short]
    if len(best) > 1 or not best:
        best = [fit for fit in best or fits if fit.zone_blocks == wish]
    return best[0] if len(best) == 1 else None


def _refuse_member(raw: Raw, best: _Fit | None) -> None:
    """Refuse a zoned member that is named without its regular device; nothing behind its super block counts.

    Raises:
        RefusedError: it is one (dm-zoned.md 8.6).
    """
    first = raw.superblock(0, 0)
    if first is None or not first.sb_block or first.version != MAX_VERSION:
        return
    if best is not None and first.nr_bitmap_blocks <= best.nr_zones * bitmap_blocks_of(best.zone_blocks):
        return  # a target of its own, whose super block names another place
    raise RefusedError(
        f"zoned member of dm-zoned target {first.label!r} ({first.dmz_uuid}), blocks from {first.sb_block} on; "
        "name its regular device first",
        device=raw.devices[0].path,
    )


def _is_certainly_single(raw: Raw, fit: _Fit) -> bool:
    """Whether a file with fewer zones than its metadata is a drive's copy that ended early.

    The regular device of a target of several looks the same, but for that: version 1 knows no such targets, and data
    zones of buffered chunks are never on it.
    """
    if fit.reference.version < MAX_VERSION:
        return True
    device = raw.devices[0]
    set_zones = ceil_div(fit.reference.nr_meta_blocks, fit.zone_blocks)
    for place in (0, set_zones * fit.zone_blocks):
        if raw.superblock(0, place, says=place) is None:
            continue
        at, length = (place + 1) * BLOCK_BYTES, fit.reference.nr_map_blocks * BLOCK_BYTES
        content = np.full(max(min(length, device.geometry.size_bytes - at), 0), 0xFF, np.uint8)
        bad = salvage_into(device, at, memoryview(content.data))
        for start, end, _ in bad:
            content[start - at : end - at] = 0xFF
        data, buffer = content[: len(content) // 8 * 8].view("<u4").reshape(-1, 2)[: fit.reference.nr_chunks].T
        if bool(((buffer != UNMAPPED) & (buffer < fit.nr_zones) & (data < fit.nr_zones)).any()):
            return True
    return False


def _sized(raw: Raw, fit: _Fit) -> Sized:
    """Step 3: the drives, of which files may lack the end, or have something behind it."""
    zone_bytes = fit.zone_blocks * BLOCK_BYTES
    there = [raw.nr_zones(index, fit.zone_blocks) for index in range(len(raw.devices))]
    counts = list(fit.counts)
    sizes = [device.geometry.size_bytes for device in raw.devices]
    last = len(counts) - 1
    if fit.told_zones > sum(counts[:last]) and not raw.devices[last].geometry.is_zoned:
        counts[last] = fit.told_zones - sum(counts[:last])
    copies = [i for i, device in enumerate(raw.devices) if (i or raw.is_single) and not device.geometry.is_zoned]
    torn = [index for index in copies if sizes[index] % zone_bytes and counts[index] == there[index]]
    # A last zone that is not whole holds no chunk: with more chunks than that leaves, it is the copy that is short.
    room = sum(counts) - NR_SETS * ceil_div(fit.reference.nr_meta_blocks, fit.zone_blocks)
    room -= fit.reference.nr_reserved_seq + fit.reference.nr_chunks
    for index in copies:
        if counts[index] != there[index] or (index in torn and room < len(torn)):
            sizes[index] = counts[index] * zone_bytes
    first = tuple(sum(counts[:index]) for index in range(len(counts)))
    return Sized(fit.reference, fit.zone_blocks, sum(counts), first, tuple(counts), tuple(sizes))
