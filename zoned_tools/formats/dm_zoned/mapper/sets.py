"""Opening a target's metadata: which set, is it fit to be written to, making both sets equal.

The kernel target activates the newer set, set 0 on a tie, and then goes on with whatever is
in the other one; after a power cut between the two halves of a commit that loses the newer
commit at the second activation after it. Here a mapper that writes copies the chosen set
over the other one before anything else, and does not start on damaged metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError, RefusedError
from zoned_tools.formats.dm_zoned.choice import SetChoice, Wishes, choose
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.foreign import ForeignZones, find_foreign
from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState, fits_without_deaths
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, NR_SETS, MetadataLayout, SuperBlock
from zoned_tools.formats.dm_zoned.mapper.commit import CURRENT_SET, MetadataStore
from zoned_tools.formats.dm_zoned.mapper.disk import TargetDisk
from zoned_tools.formats.dm_zoned.mapper.missing import MissingBits
from zoned_tools.formats.dm_zoned.open import STREAM_BYTES, SetView, TargetBlocks
from zoned_tools.formats.dm_zoned.pairing import Pairing, with_pairs
from zoned_tools.formats.dm_zoned.reclaim import find_emptied, judge_emptied
from zoned_tools.formats.dm_zoned.settings import ACCEPT_MEMBERS, BITMAPS, PAIR, RECLAIM, named_pairs
from zoned_tools.formats.dm_zoned.survey import SetSurvey, survey_map, survey_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Settings, Target
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.layout import MapArray

REPAIR_HINT = "check it and repair it first"
_NAMED_PAIRS = 4
_COMPARE_BLOCKS = STREAM_BYTES // BLOCK_BYTES
_MAX_GENERATION = (1 << 64) - (1 << 32)


@dataclass(slots=True)
class Opened:
    """What a mapper works on.

    Attributes:
        number: the metadata set that was chosen.
        view: what counts as its content.
        warnings: sentences for the user about the choice.
    """

    disk: TargetDisk
    store: MetadataStore
    number: int
    view: SetView
    warnings: list[str] = field(default_factory=list)


def open_for_reading(target: Target, settings: Settings) -> Opened:
    """Choose a set as the kernel target does, or the user's, and of two that differ the better blocks of each.

    Damaged entries of the mapping table get the zones that certainly belong to them, or that the user names.
    Nothing is written.

    Raises:
        MetadataError: no set is usable, or not the one that the user wants.
        RefusedError: a member is foreign or out of order.
        UsageError: zones that the user names are not there.
    """
    use_set = Wishes.of(settings).use_set
    return around_unreadable(target, lambda state: _open_for_reading(target, state, settings), use_set, rebuilds=True)


def _open_for_reading(target: Target, state: TargetState, settings: Settings) -> Opened:
    wishes = Wishes.of(settings)
    accept_members = settings.on(ACCEPT_MEMBERS)
    number, layout = _choose(state, wishes.use_set, target)
    warnings = [f"set {n}: {s.faults[0].message}" for n, s in enumerate(state.sets) if s.faults]
    for tertiary in state.tertiary:
        if _is_foreign(tertiary) and not accept_members:
            raise RefusedError(
                f"device {tertiary.place.number} does not belong here: {tertiary.faults[0].message}",
                device=target.devices[tertiary.place.number].path,
                hint="name the devices in the order of the format, the regular one first",
            )
        warnings += [f"device {tertiary.place.number}: {fault.message}" for fault in tertiary.faults[:1]]
    view = content_of(state, number)
    warnings += _borrowed(state, view)
    if state.rebuilt is not None and state.rebuilt.member is None and len(state.rebuilt.chunks) > 1:
        least = state.rebuilt.nr_chunks[0] * layout.zone_blocks * BLOCK_BYTES
        warnings.append(
            f"how long the logical device is went with the super blocks: at least {least} bytes, what follows is zeroes"
        )
    choice = _choice(state, layout, number, wishes) if _are_equally_new(state) else None
    if choice is not None:
        view = choice.kept.view
        warnings.append(_chosen(choice, number, wishes))
    view = _with_pairs(view, settings, warnings)
    disk = TargetDisk(target.devices, state.geometry)
    table = view.read_map()
    _refuse_foreign_zones(find_foreign(view, survey_map(state.geometry, layout, table)), target)
    added = _copied_blocks(view, table, settings.text(RECLAIM), warnings)
    missing = MissingBits(view, table, guesses=settings.text(BITMAPS) == "written")
    store = MetadataStore(disk, view, table, (_superblock(state, number),), added, missing)
    return Opened(disk, store, view.number, view, warnings)


def _borrowed(state: TargetState, view: SetView) -> Iterator[str]:
    """What is said of blocks that are read from an older set."""
    number = view.number
    if (
        not view.is_mixed
        or not state.both_valid
        or _superblock(state, number).gen <= _superblock(state, 1 - number).gen
    ):
        return
    unreadable = state.blocks.unreadable(view.layout, number)
    count = int(np.count_nonzero(unreadable & ~view.lost if view.lost is not None else unreadable))
    if count:
        yield (
            f"{count} metadata blocks of set {number} cannot be read; they are read from set {1 - number}, which is "
            "older and may lack the last commit"
        )


def _refuse_foreign_zones(found: ForeignZones | None, target: Target) -> None:
    """With another drive's write pointers nearly everything would read as zeroes."""
    if found is not None:
        raise RefusedError(
            found.sentence, device=target.device.path, hint="--zones content derives it from the content"
        )


def _copied_blocks(view: SetView, table: MapArray, wish: str, warnings: list[str]) -> dict[int, int]:
    """Buffer zones to empty data zones whose blocks a reclaim copied there, or the user believes so."""
    mapping = survey_map(view.blocks.geometry, view.layout, table)
    emptied = judge_emptied(view, mapping, find_emptied(view, mapping))
    added = {}
    for row, reason in enumerate(emptied.reasons):
        zone, buffer = int(emptied.zones[row]), int(emptied.buffers[row])
        text = f"chunk {emptied.chunks[row]}: data zone {zone} was reset, and its {emptied.count[row]} valid blocks"
        if wish == "move" or (not wish and not reason):
            added[buffer] = zone
            warnings.append(f"{text} are read from buffer zone {buffer}")
        elif wish:
            warnings.append(f"{text} read as zeroes")
        else:
            warnings.append(
                f"{text} read as zeroes: it is not certain that buffer zone {buffer} has them ({reason}), "
                "reclaim=move reads them there"
            )
    return added


def _with_pairs(view: SetView, settings: Settings, warnings: list[str]) -> SetView:
    """Damaged entries with the zones that belong to them."""
    view = with_pairs(view, named_pairs(settings.text(PAIR)))
    mapping = survey_map(view.blocks.geometry, view.layout, view.read_map())
    if not len(mapping.owners.shared) and not any(mask.any() for mask in mapping.hard_faults):
        return view
    pairing = Pairing(survey_set(view))
    found = np.flatnonzero(pairing.zone >= 0)
    if not len(found):
        return view
    table = view.read_map()
    roles = np.where(pairing.claims.is_data[found], 0, 1)
    table[pairing.claims.chunk[found], roles] = pairing.zone[found]
    warnings += [
        f"chunk {pairing.claims.chunk[row]}: its entry is damaged; zone {pairing.zone[row]} is read, the only one "
        "without a chunk that fits"
        for row in found[:_NAMED_PAIRS].tolist()
    ]
    if len(found) > _NAMED_PAIRS:
        warnings.append(f"{len(found) - _NAMED_PAIRS} more chunks are read from zones that fit their damaged entries")
    return replace(view, table=table)


def _choice(state: TargetState, layout: MetadataLayout, number: int, wishes: Wishes) -> SetChoice | None:
    """What counts of two sets of one generation; None when they are equal, or of different sizes."""
    if state.layout_of(1 - number) != layout:
        return None
    blocks = state.blocks
    unreadable = blocks.unreadable(layout, 0), blocks.unreadable(layout, 1)
    differing = np.fromiter((block - 1 for block, _ in _differing_blocks(blocks, layout, number)), np.int64)
    differing = differing[~(unreadable[0] | unreadable[1])[differing]]
    if not len(differing):
        return None
    return choose(blocks, layout, differing, shown=number, wishes=wishes, unreadable=unreadable)


def _chosen(choice: SetChoice, number: int, wishes: Wishes) -> str:
    text = f"the metadata sets have the same generation, but {choice.differing} blocks differ"
    if choice.ties is not None:
        return (
            f"{text}, and both are equally good about {choice.ties.describe()}; set {number} is used there as the "
            f"kernel would, use_set={1 - number} shows the other"
        )
    if choice.decided_by_user:
        return f"{text}; where both are equally good " + (
            "the valid bits of both count" if wishes.use_set is None else f"set {wishes.use_set} is used"
        )
    if choice.kept.view.is_mixed:
        return f"{text}; the better blocks of each are used"
    return f"{text}; set {choice.source} is used, it is the better one"


def open_for_writing(target: Target, settings: Settings, *, resized_too: bool = False) -> Opened:
    """Check the chosen set and bring the other one up to date.

    Args:
        resized_too: also where the regular device has another size than at format, which no kernel starts.

    Raises:
        MetadataError: no set is usable, or not the one that the user wants.
        RefusedError: the metadata are damaged; writing could destroy what repair can still save.
    """
    return around_unreadable(target, lambda state: _open_for_writing(target, state, settings, resized_too=resized_too))


def _open_for_writing(target: Target, state: TargetState, settings: Settings, *, resized_too: bool) -> Opened:
    wishes = Wishes.of(settings)
    if not resized_too:
        refuse_resized(state.geometry)
    number, layout = _choose(state, wishes.use_set, target)
    refuse_dead_zones(state.geometry, layout, target.device.path)
    _refuse_damaged_superblocks(state, number, target)
    if state.blocks.media:
        raise RefusedError(
            f"{len(state.blocks.media.blocks)} metadata blocks cannot be read",
            device=target.device.path,
            hint=REPAIR_HINT,
        )
    examination: SetSurvey | None = None
    if _are_equally_new(state):
        number, examination = _agreed(state, layout, number, wishes, target)
    if examination is None:
        examination = survey_set(SetView(state.blocks, layout, number))
    _refuse_foreign_zones(find_foreign(examination.view, examination.map, examination.bits), target)
    damage = next(_damage(examination), None)
    if damage is not None:
        raise RefusedError(f"damaged metadata: {damage}", device=target.device.path, hint=REPAIR_HINT)
    disk = TargetDisk(target.devices, state.geometry)
    superblocks = _synchronize(disk, state, layout, number)
    view = SetView(state.blocks, layout, CURRENT_SET)
    store = MetadataStore(disk, view, view.read_map(), superblocks)
    warnings = []
    if any(one.pack() != found.raw for one, found in zip(superblocks, state.sets, strict=True)):
        warnings.append(_synchronized(state, number))
    return Opened(disk, store, number, view, warnings)


def _agreed(
    state: TargetState, layout: MetadataLayout, number: int, wishes: Wishes, target: Target
) -> tuple[int, SetSurvey | None]:
    """The set to go on with of two of one generation, and what it comes to if that is known.

    Raises:
        RefusedError: they differ, and the user did not choose one that is right as a whole.
    """
    choice = _choice(state, layout, number, wishes)
    if choice is None:
        return number, None
    if wishes.use_set is None or choice.kept.view.is_mixed:
        raise RefusedError(
            f"the metadata sets have the same generation, but {choice.differing} blocks differ",
            device=target.device.path,
            hint=REPAIR_HINT if wishes.use_set is not None else f"{REPAIR_HINT}, or choose one with use_set",
        )
    return choice.source, choice.kept


def _synchronized(state: TargetState, number: int) -> str:
    generations = " and ".join(str(_superblock(state, n).gen) for n in range(NR_SETS))
    return (
        f"the metadata sets had generations {generations}: set {number} was copied to set {1 - number} "
        "before anything was written"
    )


def _choose(state: TargetState, use_set: int | None, target: Target) -> tuple[int, MetadataLayout]:
    if use_set is not None and state.rebuilt is None:
        wanted = state.sets[use_set]
        if state.chosen != use_set and (not wanted.usable or state.layout is None):
            fault = wanted.faults[0].message if wanted.faults else "it does not fit the device"
            raise MetadataError(f"metadata set {use_set} cannot be used: {fault}", device=target.device.path)
        return use_set, state.layout_of(use_set)
    if state.chosen is None or state.layout is None:
        raise MetadataError(
            "no usable dm-zoned metadata set", device=target.device.path, hint=_first_faults(state) or REPAIR_HINT
        )
    return state.chosen, state.layout


def _first_faults(state: TargetState) -> str:
    return "; ".join(f"set {n}: {s.faults[0].message}" for n, s in enumerate(state.sets) if s.faults)


def _superblock(state: TargetState, number: int) -> SuperBlock:
    superblock = state.sets[number].superblock
    assert superblock is not None  # a usable set has one
    return superblock


def _is_sound(found: SuperBlockState, geometry: TargetGeometry) -> bool:
    """Valid, but for chunks that zones are missing for which died since the format."""
    if found.superblock is None or any(fault.code != "sb-bad-chunks" for fault in found.faults):
        return False
    return not found.faults or fits_without_deaths(found.superblock, geometry)


def _are_equally_new(state: TargetState) -> bool:
    if state.rebuilt is not None:
        return True
    return (
        all(_is_sound(s, state.geometry) for s in state.sets) and _superblock(state, 0).gen == _superblock(state, 1).gen
    )


def _is_foreign(tertiary: SuperBlockState) -> bool:
    """An intact super block that names another target, or another place in this one."""
    codes = {fault.code for fault in tertiary.faults}
    damaged = codes & {"sb-bad-magic", "sb-bad-crc"}
    return not damaged and bool(codes & {"sb-uuid-mismatch", "sb-bad-location"})


# -- may it be written to?


def _sizes(superblock: SuperBlock) -> tuple[int, int]:
    """What the other sizes follow from."""
    return superblock.nr_chunks, superblock.nr_reserved_seq


def refuse_resized(geometry: TargetGeometry) -> None:
    """A target whose regular device has another size than at format is read only.

    Raises:
        RefusedError: it has.
    """
    if geometry.formatted_zones is not None:
        raise RefusedError(
            f"it has {geometry.nr_cache_zones_now} zones, the format had {geometry.formatted_zones}",
            device=geometry.members[0].path,
            hint="bring it back to that size, or zoned dm-zoned detach it and attach it again",
        )


def refuse_dead_zones(geometry: TargetGeometry, layout: MetadataLayout, path: str) -> None:
    """A set that cannot be written ends every commit, after data that only it would have made durable.

    Raises:
        RefusedError: names the zone, and the set that it holds.
    """
    for zone in layout.metadata_zones:
        if geometry.dead[zone]:
            raise dead_metadata_zone(geometry, layout, zone, path)


def dead_metadata_zone(geometry: TargetGeometry, layout: MetadataLayout, zone: int, path: str) -> RefusedError:
    """What is wrong with a target, a zone of whose metadata is read-only or offline."""
    number = (zone - layout.first_zone) // layout.set_zones
    state = "offline" if geometry.offline[zone] else "read-only"
    return RefusedError(
        f"zone {zone} holds metadata set {number} and is {state}: the target cannot be written",
        device=path,
        hint="it can be read: zoned export takes its content",
    )


def _refuse_damaged_superblocks(state: TargetState, number: int, target: Target) -> None:
    faults = [(f"set {number}", state.sets[number])]
    faults += [(f"device {t.place.number}", t) for t in state.tertiary]
    chosen = _superblock(state, number)
    other = state.sets[1 - number]
    if other.superblock is None:
        text = f"super block of set {1 - number}: {other.faults[0].message}"
        raise RefusedError(text, device=target.device.path, hint=REPAIR_HINT)
    for name, found in faults:
        if not _is_sound(found, state.geometry):
            raise RefusedError(
                f"super block of {name}: {found.faults[0].message}", device=target.device.path, hint=REPAIR_HINT
            )
        if found.superblock is not None and _sizes(found.superblock) != _sizes(chosen):
            raise RefusedError(
                f"super block of {name}: its sizes are not those of set {number}",
                device=target.device.path,
                hint=REPAIR_HINT,
            )
    if max(_superblock(state, n).gen for n in range(NR_SETS)) > _MAX_GENERATION:
        raise RefusedError("the generation counter is at its end", device=target.device.path, hint=REPAIR_HINT)


def _damage(found: SetSurvey) -> Iterator[str]:
    """What makes writing dangerous, worst first."""
    mapping, bits = found.map, found.bits
    chunk_faults = {
        "data zone is not on the device": mapping.data_range,
        "data zone is a metadata zone": mapping.data_meta,
        "buffer zone is not on the device": mapping.buffer_range,
        "buffer zone is a metadata zone": mapping.buffer_meta,
        "has a buffer zone but no data zone": mapping.buffer_without_data,
        "buffer zone is its data zone": mapping.buffer_is_data,
        "buffer zone is not a random zone": mapping.buffer_not_random,
        "has a buffer zone for a random zone": mapping.buffer_on_random,
    }
    for text, mask in chunk_faults.items():
        if mask.any():
            yield f"chunk {int(np.argmax(mask))}: {text}"
    shared = mapping.owners.shared
    if len(shared):
        yield f"zone {shared.zones[0]} is used by chunks {', '.join(map(str, shared.chunks_of(0)[:8]))}"
    zone_faults = {
        "valid blocks after the write pointer": bits.after_wp,
        "valid blocks, but no chunk names the zone": np.where(mapping.owners.named, 0, bits.weight),
    }
    for text, counts in zone_faults.items():
        if counts.any():
            zone = int(np.argmax(counts > 0))
            yield f"zone {zone}: {int(counts[zone])} {text}"
    if bits.overlap.any():
        chunk = int(np.argmax(bits.overlap > 0))
        yield f"chunk {chunk}: {int(bits.overlap[chunk])} blocks valid in the data zone and in the buffer zone"


# -- making both sets equal


def _differing_blocks(blocks: TargetBlocks, layout: MetadataLayout, number: int) -> Iterator[tuple[int, bytes]]:
    """``(block, content)`` of the map and bitmap blocks of set ``number`` that the other set has otherwise.

    Blocks are counted from the super block. Parts that both sets never stored anything in
    (holes of an image) are not read.
    """
    device_index, _ = blocks.geometry.locate(layout.set_block(0))
    device = blocks.devices[device_index]
    for first in range(1, layout.nr_meta_blocks, _COMPARE_BLOCKS):
        count = min(_COMPARE_BLOCKS, layout.nr_meta_blocks - first)
        places = [layout.set_block(n) + first for n in (number, 1 - number)]
        offsets = [blocks.geometry.locate(place)[1] for place in places]
        if not any(any(True for _ in device.data_extents(offset, count * BLOCK_BYTES)) for offset in offsets):
            continue
        good, other = bytearray(count * BLOCK_BYTES), bytearray(count * BLOCK_BYTES)
        for place, raw in zip(places, (good, other), strict=True):
            blocks.read_around(place, memoryview(raw))
        if good == other:
            continue
        rows = [np.frombuffer(raw, np.uint64).reshape(count, -1) for raw in (good, other)]
        for row in np.flatnonzero((rows[0] != rows[1]).any(axis=1)).tolist():
            yield first + row, bytes(good[row * BLOCK_BYTES : (row + 1) * BLOCK_BYTES])


def _same_names(one: SuperBlock, other: SuperBlock) -> bool:
    """True when two super blocks differ only in generation, place and reserved bytes."""
    aside = {"gen": 0, "sb_block": 0, "crc": 0, "reserved": b""}
    return replace(one, **aside) == replace(other, **aside)  # type: ignore[arg-type]  # mypy takes the values for a union


def _synchronize(
    disk: TargetDisk, state: TargetState, layout: MetadataLayout, number: int
) -> tuple[SuperBlock, SuperBlock]:
    """Copy set ``number`` over the other one, super block last; nothing is written when they are equal.

    The chosen set stays the one that every reader prefers until the copy is complete.

    Returns:
        Both super blocks as they are now on the drive, of one generation that is at least 1.
    """
    good = _superblock(state, number)
    found = state.sets[1 - number]
    other = found.superblock if _is_sound(found, state.geometry) else None
    changes = _differing_blocks(state.blocks, layout, number)
    first_change = next(changes, None)
    in_sync = (
        other is not None
        and first_change is None
        and other.gen == good.gen
        and good.gen > 0
        and _same_names(good, other)
    )
    if in_sync and other is not None:
        return (good, other) if number == CURRENT_SET else (other, good)
    writer = _SetWriter(disk, layout)
    generation = good.gen
    if other is not None and other.gen >= good.gen:
        # Equal or newer, and not trusted: it has to be the older one before its content changes.
        generation = other.gen + 1
        if good.gen > 0:
            writer.superblock(1 - number, replace(other, gen=good.gen - 1))
        else:
            good = writer.superblock(number, replace(good, gen=generation))
    generation = max(generation, 1)
    while first_change is not None:
        writer.block(1 - number, *first_change)
        first_change = next(changes, None)
    disk.flush_metadata()
    reserved = other.reserved if other is not None else good.reserved
    other = writer.superblock(
        1 - number, replace(good, gen=generation, sb_block=layout.set_block(1 - number), reserved=reserved)
    )
    if good.gen != generation:
        good = writer.superblock(number, replace(good, gen=generation))
    return (good, other) if number == CURRENT_SET else (other, good)


class _SetWriter:
    """Writes into the metadata sets; a super block is durable when its method returns."""

    def __init__(self, disk: TargetDisk, layout: MetadataLayout) -> None:
        self._disk = disk
        self._layout = layout

    def block(self, number: int, relative: int, content: bytes) -> None:
        self._disk.write_blocks(self._layout.set_block(number) + relative, content)

    def superblock(self, number: int, superblock: SuperBlock) -> SuperBlock:
        self._disk.write_blocks(self._layout.set_block(number), superblock.pack())
        self._disk.flush_metadata()
        return superblock
