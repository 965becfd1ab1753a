"""The super blocks of a target: reading them, judging them, choosing the set to trust.

The tests are those of the reference check and of the Linux 6.1 target
(``drivers/md/dm-zoned-metadata.c``, ``dmz_check_sb`` and ``dmz_load_sb``), in the order in
which both apply them; the first that fails names the fault. Damage of names only, or of
limits that a dying drive changes, leaves a set *usable*: it serves when no set is valid.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import DeviceError
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, max_chunks
from zoned_tools.formats.dm_zoned.layout import (
    MAGIC,
    MAP_ENTRIES,
    MAX_VERSION,
    NR_SETS,
    MetadataLayout,
    SuperBlock,
    ceil_div,
    superblock_crc,
)

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from zoned_tools.formats.dm_zoned.open import TargetBlocks
    from zoned_tools.formats.dm_zoned.rebuild import Rebuilt

SET_NAMES = ("primary", "secondary")
UNREADABLE = "block-unreadable"
"""Code of a block that the medium does not give."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed test. ``fatal`` ones make the content of the set unreachable or untrustworthy."""

    code: str
    message: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Whose super block it is: that of set 0 or 1, or the tertiary one of a member.

    ``number`` is the set's, or the member's index.
    """

    number: int
    is_tertiary: bool = False

    @property
    def where(self) -> dict[str, Any]:
        """As findings have it."""
        return {"device" if self.is_tertiary else "set": self.number}

    @property
    def name(self) -> str:
        """In a sentence."""
        if self.is_tertiary:
            return f"tertiary super block of device {self.number}"
        return f"{SET_NAMES[self.number]} super block"


@dataclass(frozen=True, slots=True)
class SuperBlockState:
    """One super block as it was found.

    Attributes:
        place: the set, or the member, that it belongs to.
        block: absolute block where it was looked for.
        superblock: decoded, also when it is damaged; None when the block cannot be read.
        raw: the block; empty when it cannot be read.
        faults: failed tests, in order; only the first is meant to be reported.
        notes: ``(code, message)`` of oddities of an otherwise valid super block.
    """

    place: Place
    block: int
    superblock: SuperBlock | None
    raw: bytes = b""
    faults: tuple[Fault, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def valid(self) -> bool:
        return not self.faults

    @property
    def usable(self) -> bool:
        """Valid, or damaged only where the set's content does not depend on it."""
        return not any(f.fatal for f in self.faults)

    @property
    def plausible(self) -> bool:
        """Usable but for its magic or checksum: the user may vouch for it."""
        return bool(self.raw) and not any(f.fatal and f.code not in ("sb-bad-magic", "sb-bad-crc") for f in self.faults)

    @property
    def is_unreadable(self) -> bool:
        """The medium does not give the block."""
        return bool(self.faults) and self.faults[0].code == UNREADABLE

    @property
    def has_magic(self) -> bool:
        return self.superblock is not None and self.superblock.magic == MAGIC


@dataclass(slots=True)
class Names:
    """Names that super blocks of one target share, taken from the first good one."""

    dmz_uuid: uuid.UUID | None = None
    label_raw: bytes | None = None

    def adopt(self, superblock: SuperBlock) -> None:
        if superblock.version > 1:
            self.dmz_uuid = superblock.dmz_uuid
            self.label_raw = superblock.label_raw


def _identity_faults(sb: SuperBlock, known: Names) -> Iterator[Fault]:
    if sb.dmz_uuid == NIL_UUID:
        yield Fault("sb-null-uuid", "DM-Zoned UUID is null", fatal=False)
    elif known.dmz_uuid not in (None, NIL_UUID, sb.dmz_uuid):
        yield Fault("sb-uuid-mismatch", f"DM-Zoned UUID is {sb.dmz_uuid}, expected {known.dmz_uuid}")
    if not sb.label:
        yield Fault("sb-null-label", "DM-Zoned label is empty", fatal=False)
    elif known.label_raw is not None and any(known.label_raw) and sb.label_raw != known.label_raw:
        expected = known.label_raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
        yield Fault("sb-label-mismatch", f"DM-Zoned label is {sb.label!r}, expected {expected!r}", fatal=False)
    if sb.dev_uuid == NIL_UUID:
        yield Fault("sb-null-dev-uuid", "device UUID is null", fatal=False)


def _count_faults(sb: SuperBlock, geometry: TargetGeometry) -> Iterator[Fault]:
    expected = 1 + sb.nr_map_blocks + sb.nr_bitmap_blocks
    if sb.nr_meta_blocks != expected:
        yield Fault("sb-bad-meta-blocks", f"{sb.nr_meta_blocks} metadata blocks, expected {expected}")
    nr_cache = int((geometry.cache | geometry.preferred).sum())
    if not 0 < sb.nr_reserved_seq <= nr_cache:
        yield Fault(
            "sb-bad-reserved", f"{sb.nr_reserved_seq} reserved sequential zones, expected 1 to {nr_cache}", fatal=False
        )
    yield from _chunk_faults(sb, geometry)
    expected = ceil_div(sb.nr_chunks, MAP_ENTRIES)
    if sb.nr_map_blocks != expected:
        yield Fault("sb-bad-map-blocks", f"{sb.nr_map_blocks} map blocks, expected {expected}")
    expected = geometry.nr_zones * geometry.bitmap_blocks_per_zone
    if sb.nr_bitmap_blocks != expected:
        yield Fault("sb-bad-bitmap-blocks", f"{sb.nr_bitmap_blocks} bitmap blocks, expected {expected}")


def set_zones_of(sb: SuperBlock, geometry: TargetGeometry) -> int:
    """Zones that one metadata set of ``sb`` occupies."""
    return ceil_div(sb.nr_meta_blocks, geometry.zone_blocks)


def _chunk_faults(sb: SuperBlock, geometry: TargetGeometry) -> Iterator[Fault]:
    set_zones = set_zones_of(sb, geometry)
    limit = max_chunks(geometry, set_zones, sb.nr_reserved_seq)
    if sb.nr_chunks and sb.nr_chunks <= limit:
        return
    # Zones that went read-only or offline lower the limit; what they held is still mapped.
    all_zones = int((geometry.counted).sum()) - NR_SETS * set_zones - 1
    fatal = not 0 < sb.nr_chunks <= all_zones
    yield Fault("sb-bad-chunks", _excess(sb, geometry, limit), fatal=fatal)


def _excess(sb: SuperBlock, geometry: TargetGeometry, limit: int) -> str:
    """Why there are too many chunks, and what the kernel waits for."""
    dead = int(np.count_nonzero(geometry.counted & geometry.dead))
    if not dead or not fits_without_deaths(sb, geometry):
        return f"{sb.nr_chunks} chunks, expected 1 to {max(limit, 0)}"
    died = "1 zone has" if dead == 1 else f"{dead} zones have"
    room = limit + sb.nr_reserved_seq
    text = (
        f"{died} died since the format: {sb.nr_chunks} chunks and a reserve of {sb.nr_reserved_seq} do not fit any "
        f"more (room for {room})"
    )
    reserve = room - sb.nr_chunks
    return f"{text}; the kernel refuses to start until the reserve is lowered to {reserve}" if reserve > 0 else text


def fits_without_deaths(sb: SuperBlock, geometry: TargetGeometry) -> bool:
    """True when the chunks would fit if no zone had become read-only or offline."""
    room = int(geometry.counted.sum()) - NR_SETS * set_zones_of(sb, geometry) - sb.nr_reserved_seq
    return 0 < sb.nr_chunks <= room


def judge(place: Place, block: int, raw: bytes, geometry: TargetGeometry, known: Names) -> SuperBlockState:
    """Run the tests over the block that was read from absolute block ``block``."""
    sb = SuperBlock.parse(raw)
    faults = tuple(_faults(block, raw, sb, geometry, known))
    notes = tuple(_notes(place, sb, geometry)) if not faults else ()
    return SuperBlockState(place, block, sb, raw, faults, notes)


def _faults(block: int, raw: bytes, sb: SuperBlock, geometry: TargetGeometry, known: Names) -> Iterator[Fault]:
    if sb.magic != MAGIC:
        yield Fault("sb-bad-magic", f"magic is {sb.magic:#010x}, expected {MAGIC:#010x}")
    crc = superblock_crc(raw, sb.gen)
    if sb.crc != crc:
        yield Fault("sb-bad-crc", f"checksum is {sb.crc:#010x}, expected {crc:#010x}")
    if sb.version > MAX_VERSION:
        yield Fault("sb-bad-version", f"metadata version {sb.version} is not known")
    elif geometry.is_multi and sb.version < MAX_VERSION:
        yield Fault("sb-bad-version", f"metadata version {sb.version} is for single devices")
    elif sb.version == 0:
        yield Fault("sb-bad-version", "metadata version 0 was never released", fatal=False)
    if sb.version > 1:
        yield from _identity_faults(sb, known)
    if sb.sb_block != block:
        yield Fault("sb-bad-location", f"super block says that it is block {sb.sb_block}, found at {block}")
    yield from _count_faults(sb, geometry)


def _notes(place: Place, sb: SuperBlock, geometry: TargetGeometry) -> Iterator[tuple[str, str]]:
    limit = max_chunks(geometry, set_zones_of(sb, geometry), sb.nr_reserved_seq)
    if sb.nr_chunks < limit:
        yield "sb-short-chunks", f"{sb.nr_chunks} chunks where {limit} would fit"
    if not sb.padding_is_zero:
        yield "sb-reserved-nonzero", "reserved bytes of the super block are not zero"
    if place.is_tertiary and sb.gen:
        yield "sb-tertiary-gen", f"generation of a tertiary super block is {sb.gen}, expected 0"


@dataclass(slots=True)
class TargetState:
    """What the super blocks of a target say.

    Attributes:
        sets: primary and secondary.
        tertiary: one for each zoned member of a multi-device target.
        layout: sizes and places, from the chosen set; None when no set can be used.
        chosen: set that the kernel would activate, None when no set can be used.
        rebuilt: the super blocks are lost, and what stands for them was found out; None when they are there.
        alike: every block but the super blocks that can be read of both sets is the same in both; None: not compared.
    """

    blocks: TargetBlocks
    sets: list[SuperBlockState]
    tertiary: list[SuperBlockState] = field(default_factory=list)
    layout: MetadataLayout | None = None
    chosen: int | None = None
    rebuilt: Rebuilt | None = None
    alike: bool | None = None

    @property
    def geometry(self) -> TargetGeometry:
        return self.blocks.geometry

    @property
    def superblock(self) -> SuperBlock:
        """Super block of the chosen set."""
        assert self.chosen is not None
        found = self.sets[self.chosen].superblock
        assert found is not None
        return found

    def layout_of(self, number: int) -> MetadataLayout:
        """Layout of a set from its own super block; that of the chosen set where it is not usable."""
        sb, base = self.sets[number].superblock, self.layout
        assert base is not None
        if sb is None or (number != self.chosen and not self.sets[number].usable):
            return base
        return MetadataLayout.of(self.geometry, base.first_zone, sb.nr_chunks, sb.nr_reserved_seq)

    @property
    def both_valid(self) -> bool:
        return all(s.valid for s in self.sets)

    @property
    def both_count(self) -> bool:
        """Neither set is the worse one for its super block."""
        return self.both_valid or self.rebuilt is not None

    @property
    def found_magic(self) -> bool:
        """True when anything of dm-zoned was found at all."""
        return any(s.has_magic for s in (*self.sets, *self.tertiary))


def read_state(blocks: TargetBlocks, trust: int | None = None) -> TargetState:
    """Read and judge all super blocks, and choose the set that the kernel would use.

    ``trust`` is a set that the user vouches for; it is chosen if anything in its super block
    makes sense. A damaged target gives faults, not an exception.
    """
    geometry = blocks.geometry
    known = Names()
    primary, secondary = _read_sets(blocks, known)
    state = TargetState(blocks, [primary, secondary])
    _choose(state, trust)
    if state.chosen is not None and known.dmz_uuid is None:
        known.adopt(state.superblock)
    for member in geometry.members[1:]:
        place = Place(member.index, is_tertiary=True)
        state.tertiary.append(_read_and_judge(blocks, place, member.block_offset, known))
    return state


def _read_and_judge(
    blocks: TargetBlocks, place: Place, block: int, known: Names, *, adopt: bool = False
) -> SuperBlockState:
    try:
        raw = blocks.read(block, 1)
    except DeviceError as error:
        code = UNREADABLE if error.errno == errno.EIO else "sb-bad-magic"
        fault = Fault(code, f"super block cannot be read: {error.message}")
        return SuperBlockState(place, block, None, b"", (fault,))
    state = judge(place, block, raw, blocks.geometry, known)
    if state.valid and adopt and state.superblock is not None:
        known.adopt(state.superblock)
    return state


def _read_sets(blocks: TargetBlocks, known: Names) -> tuple[SuperBlockState, SuperBlockState]:
    geometry = blocks.geometry
    zone_blocks = geometry.zone_blocks
    missing = Fault("sb-bad-magic", "no zone can hold metadata")
    first: int | None = None
    primary: SuperBlockState | None = None
    for zone in geometry.primary_candidates():
        found = _read_and_judge(blocks, Place(0), zone * zone_blocks, known, adopt=True)
        if primary is None or (found.valid and not primary.valid):
            first, primary = zone, found
    if first is None or primary is None:
        return (
            SuperBlockState(Place(0), 0, None, b"", (missing,)),
            SuperBlockState(Place(1), 0, None, b"", (missing,)),
        )
    distances = _set_distances(geometry)
    if primary.plausible and primary.superblock is not None:
        distances = [set_zones_of(primary.superblock, geometry)]
    return primary, _find_secondary(blocks, first, distances, known)


def _set_distances(geometry: TargetGeometry) -> list[int]:
    """Every number of zones that a metadata set of this target can have."""
    bitmap_blocks = geometry.nr_zones * geometry.bitmap_blocks_per_zone
    most_map_blocks = ceil_div(geometry.nr_zones, MAP_ENTRIES)
    least = ceil_div(2 + bitmap_blocks, geometry.zone_blocks)
    return list(range(least, ceil_div(1 + most_map_blocks + bitmap_blocks, geometry.zone_blocks) + 1))


def _find_secondary(blocks: TargetBlocks, first: int, distances: list[int], known: Names) -> SuperBlockState:
    """The secondary super block: a valid one if there is any, else the likeliest place."""
    best: SuperBlockState | None = None
    for distance in distances:
        zone = first + distance
        if zone >= blocks.geometry.nr_zones:
            continue
        found = _read_and_judge(blocks, Place(1), zone * blocks.geometry.zone_blocks, known)
        if (
            found.usable
            and found.superblock is not None
            and set_zones_of(found.superblock, blocks.geometry) != distance
        ):
            fault = Fault("sb-bad-location", f"super block of a set of another size found in zone {zone}")
            found = SuperBlockState(found.place, found.block, found.superblock, found.raw, (*found.faults, fault))
        if best is None or _rank(found) > _rank(best):
            best = found
    if best is None:
        fault = Fault("sb-bad-magic", "the device ends before the secondary super block")
        return SuperBlockState(Place(1), 0, None, b"", (fault,))
    if best.valid and best.superblock is not None and known.dmz_uuid is None:
        known.adopt(best.superblock)
    return best


def _rank(state: SuperBlockState) -> int:
    return 4 * state.valid + 2 * state.usable + state.has_magic


def _choose(state: TargetState, trust: int | None) -> None:
    """Set that the kernel activates: the only valid one, the newer one, set 0 when equal."""
    pool = [n for n, s in enumerate(state.sets) if s.valid] or [n for n, s in enumerate(state.sets) if s.usable]
    if trust is not None:
        pool = [n for n, s in enumerate(state.sets) if n == trust and s.plausible]
    generations = {n: sb.gen for n in pool if (sb := state.sets[n].superblock) is not None}
    if not generations:
        return
    chosen = max(generations, key=lambda n: (generations[n], -n))
    sb = state.sets[chosen].superblock
    if sb is None:
        return
    geometry = state.geometry
    set_zones = set_zones_of(sb, geometry)
    first_zone = state.sets[chosen].block // geometry.zone_blocks - chosen * set_zones
    layout = MetadataLayout.of(geometry, first_zone, sb.nr_chunks, sb.nr_reserved_seq)
    if first_zone < 0 or layout.metadata_zones.stop > geometry.members[0].nr_zones:
        return
    state.chosen = chosen
    state.layout = layout
