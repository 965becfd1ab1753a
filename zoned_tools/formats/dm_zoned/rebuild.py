"""Where the metadata are when no super block is left: from a member's, or from geometry, mapping table and bitmaps.

The sizes follow from the number of reserved zones; the few layouts that any number gives are tried, and the one whose
tables fit the zones is it. What stays open is the reserve, and with it how long the logical device is: reading takes
the longest.

Source: sections 4 and 4.1 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.dm_zoned.content import content_of
from zoned_tools.formats.dm_zoned.judge import TargetState
from zoned_tools.formats.dm_zoned.layout import (
    MAP_ENTRIES,
    NR_SETS,
    UNMAPPED,
    MetadataLayout,
    SuperBlock,
    ceil_div,
)
from zoned_tools.formats.dm_zoned.media import read_media
from zoned_tools.formats.dm_zoned.sizing import chunks_with, fitting_reserve
from zoned_tools.formats.dm_zoned.survey import SetSurvey, survey_set

if TYPE_CHECKING:
    from zoned_tools.formats.dm_zoned.geometry import TargetGeometry
    from zoned_tools.formats.dm_zoned.judge import SuperBlockState

_ENTRY_WEIGHT = 4
"""A wrong entry of the mapping table counts as much as that many zones with wrong bits."""
_MOST_WRONG = 10
"""Where more than one of that many named zones is wrong, nothing was found."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What is known of a target without a super block.

    Attributes:
        chunks: the possible numbers of chunks, by the reserve that gives each.
        member: a tertiary super block that has every count and the names; None when there is none.
        default: the reserve that a format takes for this drive.
    """

    chunks: dict[int, int]
    member: SuperBlock | None
    default: int

    @property
    def reserved(self) -> tuple[int, int]:
        """The smallest and the largest possible reserve."""
        return min(self.chunks), max(self.chunks)

    @property
    def nr_chunks(self) -> tuple[int, int]:
        """The smallest and the largest possible number of chunks."""
        return min(self.chunks.values()), max(self.chunks.values())

    @property
    def assumed(self) -> int:
        """The reserve that is written when nobody says another one."""
        return self.default if self.default in self.chunks else max(self.chunks)


def is_lost(state: TargetState) -> bool:
    """Nothing is left of both super blocks that somebody could vouch for, or that another version wrote."""
    return state.chosen is None and not any(found.plausible or _is_intact(found) for found in state.sets)


def _is_intact(found: SuperBlockState) -> bool:
    """Magic and checksum are right, whatever it says."""
    return found.has_magic and not any(fault.code in ("sb-bad-magic", "sb-bad-crc") for fault in found.faults)


def rebuild(state: TargetState) -> None:
    """Find the metadata sets of a target whose super blocks are lost, and choose one; nothing changes without a result.

    Raises:
        DeviceError: a read failed otherwise than at the medium.
    """
    geometry = state.geometry
    first = next(iter(geometry.primary_candidates()), None)
    if first is None:
        return
    member = next((s.superblock for s in state.tertiary if s.valid and s.superblock is not None), None)
    sizes = _sizes(geometry, member)
    best: tuple[tuple[int, int, int], SetSurvey, TargetState, dict[int, int]] | None = None
    for chunks in sizes.values():
        reserve = min(chunks)
        layout = MetadataLayout.of(geometry, first, chunks[reserve], reserve)
        if layout.metadata_zones.stop > geometry.members[0].nr_zones:
            continue
        tried = _tried(state, layout)
        for number in range(NR_SETS):
            survey = survey_set(content_of(tried, number), 1 - number)
            rank = _score(survey), len(survey.differing), number
            if best is None or rank < best[0]:
                best = rank, survey, tried, chunks
    if best is None:
        return
    (score, _, number), survey, tried, chunks = best
    if score * _MOST_WRONG > int(np.count_nonzero(survey.map.owners.named)):
        return
    used = np.flatnonzero((survey.map.table[: max(chunks.values())] != UNMAPPED).any(axis=1))
    last = int(used[-1]) + 1 if len(used) else 0
    possible = {reserve: count for reserve, count in chunks.items() if count >= last}
    _take(state, tried, number, Rebuilt(possible, member, max(fitting_reserve(None, geometry.nr_cache), 1)))


def _sizes(geometry: TargetGeometry, member: SuperBlock | None) -> dict[tuple[int, int], dict[int, int]]:
    """For each number of map blocks and of zones of a set: the chunks that some reserves give."""
    if member is not None:
        zones = ceil_div(member.nr_meta_blocks, geometry.zone_blocks)
        return {(member.nr_map_blocks, zones): {member.nr_reserved_seq: member.nr_chunks}}
    sizes: dict[tuple[int, int], dict[int, int]] = {}
    bitmap_blocks = geometry.nr_zones * geometry.bitmap_blocks_per_zone
    for reserve in range(1, int(np.count_nonzero(geometry.cache | geometry.preferred)) + 1):
        nr_chunks = chunks_with(geometry, reserve)
        if nr_chunks is None:
            continue
        map_blocks = ceil_div(nr_chunks, MAP_ENTRIES)
        zones = ceil_div(1 + map_blocks + bitmap_blocks, geometry.zone_blocks)
        sizes.setdefault((map_blocks, zones), {})[reserve] = nr_chunks
    return sizes


def _tried(state: TargetState, layout: MetadataLayout) -> TargetState:
    """The target as if its sets were there; either one's blocks stand for those that cannot be read of the other."""
    ranges = [(layout.map_block(number), layout.nr_meta_blocks - 1) for number in range(NR_SETS)]
    blocks = replace(state.blocks, media=read_media(state.blocks.devices, state.geometry, ranges))
    sets = [replace(found, superblock=None) for found in state.sets]
    return TargetState(blocks, sets, state.tertiary, layout, 0, alike=True)


def _score(survey: SetSurvey) -> int:
    """What speaks against tables of a set; 0 is sound."""
    mapping, bits = survey.map, survey.bits
    entries = sum(
        int(np.count_nonzero(mask))
        for mask in (mapping.data_range, mapping.buffer_range, mapping.data_meta, mapping.buffer_meta)
    )
    zones = int(np.count_nonzero((bits.after_wp > 0) | (bits.beyond > 0)))
    if not survey.view.lost_map.any():
        zones += int(np.count_nonzero((bits.weight > 0) & ~mapping.owners.named))
    return _ENTRY_WEIGHT * (entries + len(mapping.owners.shared)) + zones


def _take(state: TargetState, tried: TargetState, number: int, rebuilt: Rebuilt) -> None:
    """Go on with what was found, with the longest logical device."""
    layout = tried.layout
    assert layout is not None
    reserve = min(rebuilt.chunks)
    layout = replace(layout, nr_chunks=rebuilt.chunks[reserve], nr_reserved_seq=reserve)
    for index, found in enumerate(state.sets):
        superblock = layout.superblock(index, gen=0)
        if rebuilt.member is not None:
            names = {"label_raw": rebuilt.member.label_raw, "dmz_uuid": rebuilt.member.dmz_uuid}
            superblock = replace(superblock, **names)  # type: ignore[arg-type]  # mypy takes the values for a union
        state.sets[index] = replace(found, block=layout.set_block(index), superblock=superblock, raw=b"")
    state.blocks, state.layout, state.chosen = tried.blocks, layout, number
    state.rebuilt, state.alike = rebuilt, True
