"""What a survey means: findings by the rules of the format, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import mask_runs
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, ZoneKind, held_zones
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, UNREADABLE
from zoned_tools.formats.dm_zoned.layout import MAP_ENTRIES, NR_SETS
from zoned_tools.formats.dm_zoned.lost import LostRanges, lost_ranges
from zoned_tools.formats.dm_zoned.reclaim import judge_emptied
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.strays import words_of
from zoned_tools.formats.dm_zoned.survey import MapSurvey, SetSurvey, Shared, narrow
from zoned_tools.formats.shared.columns import Computed, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.choice import SetChoice
    from zoned_tools.formats.dm_zoned.foreign import ForeignZones
    from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState
    from zoned_tools.formats.dm_zoned.open import SetView
    from zoned_tools.formats.dm_zoned.rebuild import Rebuilt
    from zoned_tools.formats.shared.findings import FindingGroup

_REFUSED = "(the kernel refuses to activate)"
_EXPOSED = "(the kernel activates and overwrites its own metadata)"
_SHOWN_CHUNKS = 8
_SHOWN_RANGES = 4
_EMPTIED = (
    "",
    "; the zone was reset during reclaim, the blocks are still in the buffer zone",
    "; the zone was reset, and it is not certain that the buffer zone has the blocks",
)
_UNUSABLE = frozenset({"sb-bad-magic", "sb-bad-crc", "sb-bad-version", "sb-bad-location", UNREADABLE})
"""Faults of a super block that the kernel handles badly while activating; the others it refuses."""
_KERNELS_SET = 0
"""What the kernel uses of two valid sets with one generation."""


# -- super blocks


def superblock_findings(state: TargetState) -> Iterator[FindingGroup]:
    """The first fault of each super block, and the oddities of valid ones."""
    both_bad = not any(s.valid for s in state.sets)
    if state.rebuilt is not None:
        yield _lost_superblocks(state.rebuilt)
    for found in (*(state.sets if state.rebuilt is None else ()), *state.tertiary):
        if found.faults and not (found.is_unreadable and not found.place.is_tertiary):
            fault = found.faults[0]
            words = words_of(state, found)
            danger = _kernel_danger(state, found, both_bad=both_bad)
            text = f"{found.place.name}: {words.sentence or fault.message}{danger}"
            yield RULES.finding(fault.code, text, repairable=words.repairable, **found.place.where)
        for code, message in found.notes:
            yield RULES.finding(code, f"{found.place.name}: {message}", **found.place.where)


def _lost_superblocks(rebuilt: Rebuilt) -> FindingGroup:
    """No super block is left; what stands for them."""
    reserved, chunks = rebuilt.reserved, rebuilt.nr_chunks
    if rebuilt.member is not None:
        text = f"a member's has their counts ({chunks[0]} chunks, reserve {reserved[0]}) and names"
    else:
        text = (
            f"mapping table and bitmaps fit {chunks[0]} to {chunks[1]} chunks (a reserve of {reserved[1]} to "
            f"{reserved[0]}); {chunks[1]} are read"
        )
    return RULES.finding(
        "sb-lost",
        f"no metadata set has a super block: {text}; activating crashes the kernel",
        nr_reserved_seq=list(reserved),
        nr_chunks=list(chunks),
    )


def _kernel_danger(state: TargetState, found: SuperBlockState, *, both_bad: bool) -> str:
    """What the 6.1 kernel target does with this fault, when that is worse than refusing."""
    if found.place.is_tertiary or found.faults[0].code not in _UNUSABLE:
        return ""
    if both_bad:
        return "; both super blocks are bad: activating crashes the kernel"
    if found.place.number != 0:
        return ""
    geometry = state.geometry
    conventional = int(np.count_nonzero((geometry.kinds == ZoneKind.RANDOM) & ~geometry.dead))
    if conventional <= 1:
        return "; activating crashes the kernel, repair first"
    if state.layout is not None and state.layout.set_zones > 1:
        return "; the kernel looks for the other set in the wrong place and refuses, repair first"
    return ""


def size_changed(geometry: TargetGeometry) -> Iterator[FindingGroup]:
    """The regular device has another size than at format."""
    formatted = geometry.formatted_zones
    if formatted is None:
        return
    zones = geometry.nr_cache_zones_now
    others = "" if zones > formatted else ", or a zoned member between the devices is not named"
    yield RULES.finding(
        "regular-size-changed",
        f"device 0 has {zones} zones, the format had {formatted} ({formatted * geometry.zone_sectors} sectors){others}",
        zones=zones,
        formatted=formatted,
    )


# -- what cannot be read


def unreadable_findings(state: TargetState, view: SetView) -> Iterator[FindingGroup]:
    """Runs of blocks of each set that cannot be read and that the other set has; ``view`` is what counts."""
    for number, found in enumerate(state.sets):
        layout = state.layout_of(number)
        is_unreadable = found.is_unreadable and state.rebuilt is None
        mask = np.concatenate(([is_unreadable], state.blocks.unreadable(layout, number)))
        if view.lost is not None and layout == view.layout:
            mask[1:] &= ~view.lost
        older = state.both_valid and number == view.number and _gen(state, 1 - number) < _gen(state, number)
        serves = "the older set is read there, which may lack the last commit" if older else "the other set has them"
        for first, end in mask_runs(mask).tolist():
            danger = _kernel_danger(state, found, both_bad=False) if not first else ""
            blocks = f"block {first}" if end == first + 1 else f"blocks {first} to {end - 1}"
            yield RULES.finding(
                UNREADABLE,
                f"{blocks} of the {SET_NAMES[number]} metadata set cannot be read; {serves}{danger}",
                set=number,
                block=first,
                blocks=end - first,
            )


def _gen(state: TargetState, number: int) -> int:
    superblock = state.sets[number].superblock
    return superblock.gen if superblock is not None else 0


def lost_findings(view: SetView) -> Iterator[FindingGroup]:
    """Map blocks and bitmaps that no set has, with the ranges of the logical device that depend on them."""
    if view.lost is None:
        return
    ranges, layout = lost_ranges(view), view.layout
    blocks = np.flatnonzero(view.lost_map)
    chunks = blocks * MAP_ENTRIES
    yield RULES.findings(
        "metadata-lost",
        "map block {block} cannot be read in any set: chunks {first} to {last} are lost{ranges}",
        block=narrow(blocks),
        what=["map"] * len(blocks),
        words={
            "first": chunks,
            "last": np.minimum(chunks + MAP_ENTRIES, layout.nr_chunks) - 1,
            "ranges": [_range_names(ranges, ranges.source == block) for block in blocks.tolist()],
        },
    )
    zones = np.flatnonzero(view.lost_zones)
    of_range = np.where(
        ranges.source >= layout.nr_map_blocks,
        (ranges.source - layout.nr_map_blocks) // layout.bitmap_blocks_per_zone,
        -1,
    )
    order = np.argsort(of_range, kind="stable")
    edges = np.searchsorted(of_range[order], [zones, zones + 1])
    yield RULES.findings(
        "metadata-lost",
        "the bitmap of zone {zone} cannot be read in any set: it is not known which of its blocks are valid{ranges}",
        zone=narrow(zones),
        what=["bitmap"] * len(zones),
        words={
            "ranges": Computed(
                len(zones),
                lambda rows: [_range_names(ranges, np.sort(order[edges[0, row] : edges[1, row]])) for row in rows],
            )
        },
    )


def _range_names(ranges: LostRanges, rows: BoolArray | IntArray) -> str:
    """``; logical blocks a to b, c to d and 3 ranges more are lost``."""
    first, end = ranges.first[rows], ranges.end[rows]
    if not len(first):
        return ""
    shown = [
        f"{a} to {b - 1}" for a, b in zip(first[:_SHOWN_RANGES].tolist(), end[:_SHOWN_RANGES].tolist(), strict=True)
    ]
    more = f" and {len(first) - _SHOWN_RANGES} ranges more" if len(first) > _SHOWN_RANGES else ""
    return f"; logical blocks {', '.join(shown)}{more} are lost"


# -- the two sets


def generations_differ(generations: Sequence[int]) -> FindingGroup:
    """One set is older."""
    return RULES.finding(
        "sets-gen-differ",
        f"metadata sets have generations {generations[0]} and {generations[1]} and need a sync "
        "(the kernel would go on without one and can lose a commit)",
        gen=list(generations),
    )


def content_differs(choice: SetChoice) -> FindingGroup:
    """Sets of one generation differ: what decides between them, and what nothing decides."""
    reasons = [
        f"{count} blocks of set {number} break the rules" for number, count in enumerate(choice.damaged) if count
    ]
    reasons += [f"set {number} fits the drive better in {won} places" for number, won in enumerate(choice.won) if won]
    against = [choice.damaged[n] + choice.won[1 - n] for n in range(NR_SETS)]
    if choice.ties is not None:
        reasons.append(
            f"both sets are equally good about {choice.ties.describe()}: only --use-set N can decide "
            f"(set {choice.source} is shown)"
        )
    elif bool(against[0]) != bool(against[1]):
        better = int(bool(against[0]))
        kernel = f" (the kernel would use set {_KERNELS_SET})" if better != _KERNELS_SET else ""
        reasons.append(f"set {better} is the better one{kernel}")
    return RULES.finding(
        "sets-content-differ",
        f"metadata sets have the same generation but {choice.differing} blocks differ: {', '.join(reasons)}",
        blocks=choice.differing,
    )


def sizes_differ(chosen: SetSurvey, own: int, theirs: int) -> FindingGroup:
    """Sets of one generation and of different sizes; ``own`` and ``theirs`` are the numbers of their findings."""
    other = 1 - chosen.number
    if own == theirs:
        verdict = "neither is the better one, only --use-set N can decide"
    else:
        verdict = f"set {other if theirs < own else chosen.number} is the better one"
    return RULES.finding(
        "sets-content-differ",
        f"metadata sets have the same generation but not the same number of chunks, and {len(chosen.differing)} blocks "
        f"differ; set {chosen.number} has {own} findings, set {other} has {theirs}: {verdict}",
        blocks=len(chosen.differing),
    )


# -- one set


def set_findings(geometry: TargetGeometry, survey: SetSurvey) -> Iterator[FindingGroup]:
    """Everything about the content of one set, in the order of the specification."""
    yield from _chunk_findings(survey.map)
    yield _shared_findings(survey.map.owners.shared)
    yield RULES.findings(
        "map-tail", "mapping table entry {entry} after the last chunk is in use", entry=survey.map.tail
    )
    yield from _bitmap_findings(geometry, survey)
    yield from _condition_findings(geometry, survey)


def _chunk_findings(found: MapSurvey) -> Iterator[FindingGroup]:
    data_rules = [
        ("map-dzone-range", found.data_range, f"data zone {{zone}} does not exist {_REFUSED}"),
        ("map-meta-zone", found.data_meta, f"data zone {{zone}} holds metadata {_EXPOSED}"),
        (
            "map-bzone-on-random",
            found.buffer_on_random,
            "data zone {zone} is not sequential but there is a buffer zone",
        ),
        ("map-empty-seq", found.empty_sequential, "data zone {zone} is sequential and empty"),
    ]
    buffer_rules = [
        ("map-bzone-range", found.buffer_range, f"buffer zone {{zone}} does not exist {_REFUSED}"),
        ("map-bzone-without-dzone", found.buffer_without_data, "buffer zone {zone} without a data zone"),
        ("map-meta-zone", found.buffer_meta, f"buffer zone {{zone}} holds metadata {_EXPOSED}"),
        ("map-bzone-is-dzone", found.buffer_is_data, f"buffer zone {{zone}} is the data zone {_REFUSED}"),
        ("map-bzone-not-random", found.buffer_not_random, f"buffer zone {{zone}} is of the wrong kind {_REFUSED}"),
    ]
    for rules, zones in ((data_rules, found.data), (buffer_rules, found.buffer)):
        for code, mask, text in rules:
            chunks = np.flatnonzero(mask)
            yield RULES.findings(code, f"chunk {{chunk}}: {text}", chunk=narrow(chunks), zone=narrow(zones[chunks]))


def _chunk_names(chunks: list[int]) -> str:
    shown = ", ".join(map(str, chunks[:_SHOWN_CHUNKS]))
    more = f" and {len(chunks) - _SHOWN_CHUNKS} more" if len(chunks) > _SHOWN_CHUNKS else ""
    return f"chunks {shown}{more}" if len(set(chunks)) > 1 else f"chunk {chunks[0]} twice"


def _shared_findings(shared: Shared) -> FindingGroup:
    return RULES.findings(
        "map-zone-shared",
        "zone {zone} is named by {names} (activating it crashes the kernel)",
        zone=shared.zones,
        chunks=Computed(len(shared), lambda rows: [shared.chunks_of(row) for row in rows]),
        words={"names": Computed(len(shared), lambda rows: [_chunk_names(shared.chunks_of(row)) for row in rows])},
    )


def _bitmap_findings(geometry: TargetGeometry, survey: SetSurvey) -> Iterator[FindingGroup]:
    bits, mapping = survey.bits, survey.map
    late = np.flatnonzero(bits.after_wp)
    reset = np.zeros(len(late), np.int8)
    emptied = judge_emptied(survey.view, mapping, np.flatnonzero(survey.emptied_zones))
    reset[np.isin(late, emptied.zones)] = 2
    reset[np.isin(late, emptied.zones[emptied.copied])] = 1
    yield RULES.findings(
        "bits-after-wp",
        "zone {zone} of chunk {chunk}: {count} blocks are marked valid at or after the write pointer "
        "(block {wp}){hint}",
        zone=narrow(late),
        count=narrow(bits.after_wp[late]),
        words={
            "chunk": narrow(mapping.owners.any_of(late)),
            "wp": narrow(geometry.wp_blocks[late]),
            "hint": Words(reset, _EMPTIED),
        },
    )
    both = np.flatnonzero(bits.overlap)
    yield RULES.findings(
        "bits-overlap-buffer",
        "chunk {chunk}: {count} blocks are marked valid in data zone {zone} and in buffer zone {bzone}",
        zone=mapping.data[both],
        bzone=mapping.buffer[both],
        count=bits.overlap[both],
        words={"chunk": both},
    )
    unnamed = ~mapping.owners.named
    if survey.view.lost_map.any():  # they may be the lost chunks' zones
        unnamed &= held_zones(geometry, survey.layout)
    yield _counted("bits-unmapped", bits.weight, unnamed, "{count} blocks are marked valid but no chunk names it")
    yield _counted("bits-beyond-zone", bits.beyond, None, "{count} bits are set past its end")


def _counted(code: str, counts: IntArray, mask: BoolArray | None, text: str) -> FindingGroup:
    """Zones with a count above 0, in ``mask`` if given."""
    zones = np.flatnonzero((counts > 0) & mask if mask is not None else counts > 0)
    return RULES.findings(code, f"zone {{zone}}: {text}", zone=narrow(zones), count=narrow(counts[zones]))


def _condition_findings(geometry: TargetGeometry, survey: SetSurvey) -> Iterator[FindingGroup]:
    owners = survey.map.owners
    held = held_zones(geometry, survey.layout)
    idle = np.flatnonzero(
        geometry.sequential & ~owners.named & geometry.not_empty & ~geometry.dead & ~held
        if not survey.view.lost_map.any()
        else np.zeros(geometry.nr_zones, np.bool_)
    )
    yield RULES.findings(
        "zone-unmapped-not-empty",
        "zone {zone}: no chunk names it but {wp} blocks were written (normal after a crash)",
        zone=narrow(idle),
        wp=narrow(geometry.wp_blocks[idle]),
    )
    conditions = (
        ("zone-offline-mapped", geometry.offline, "is offline: its data are lost"),
        ("zone-readonly-mapped", geometry.read_only, "is read-only: writes to it fail"),
    )
    for code, mask, text in conditions:
        zones = np.flatnonzero(mask & owners.named)
        chunks = owners.any_of(zones)
        first = chunks * geometry.zone_blocks
        yield RULES.findings(
            code,
            f"zone {{zone}} of chunk {{chunk}} (logical blocks {{first}} to {{last}}) {text}",
            chunk=chunks,
            zone=zones,
            words={"first": first, "last": first + geometry.zone_blocks - 1},
        )


def foreign_zones(found: ForeignZones) -> FindingGroup:
    """The zone table is another drive's."""
    return RULES.finding("zones-foreign", found.sentence, zones=found.zones, empty=found.empty)


def runt_findings(geometry: TargetGeometry) -> FindingGroup:
    """Runt zones of zoned members; the runt emulated zone of a regular device is never used."""
    return RULES.findings(
        "zone-runt",
        "zone {zone} is shorter than the others (kernel 6.1 may choose it for reclaim and then hangs all writers)",
        zone=np.flatnonzero(geometry.runt & (geometry.kinds != ZoneKind.CACHE)),
    )
