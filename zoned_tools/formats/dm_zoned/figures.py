"""What monitoring wants to know of a target: chunks and zones by kind, what is free, what waits.

Zones that hold metadata or a member's super block, offline zones and a runt zone are of no kind.

Source: section 11.4 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import CheckOptions, Figure
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError, check
from zoned_tools.formats.dm_zoned.geometry import ZoneKind, held_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, UNMAPPED
from zoned_tools.formats.dm_zoned.running import running_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.survey import SetSurvey


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Zones of one kind, and what is in them.

    Attributes:
        zones, free: all of them and the unmapped ones; of sequential zones without the reserve.
        chunks: chunks whose data zone is one.
        valid_blocks: blocks that are marked valid in them.
    """

    zones: int
    free: int
    chunks: int
    valid_blocks: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What of a target is in use, by a metadata set.

    Attributes:
        kinds: figures of each kind of zone.
        reserved: unmapped sequential zones that are kept for reclaim.
        buffered: chunks with a buffer zone.
        empty: mapped chunks without a valid block, ascending.
    """

    kinds: dict[ZoneKind, KindFigures]
    reserved: int
    buffered: int
    empty: IntArray


def usage_of(survey: SetSurvey) -> Usage:
    """Count zones and chunks as the kernel target's status line does."""
    geometry, mapping, weight = survey.view.blocks.geometry, survey.map, survey.bits.weight
    counted = ~held_zones(geometry, survey.layout) & ~geometry.offline & ~geometry.runt
    unmapped = ~mapping.owners.named
    data = mapping.data[mapping.data_usable]
    reserved = min(survey.layout.nr_reserved_seq, _count(counted & unmapped & geometry.sequential))
    kinds = {}
    for kind in ZoneKind:
        mask = counted & (geometry.kinds == kind)
        kept = reserved if kind is ZoneKind.SEQUENTIAL else 0
        kinds[kind] = KindFigures(
            zones=_count(mask) - kept,
            free=_count(mask & unmapped) - kept,
            chunks=_count(mask[data]),
            valid_blocks=int(weight[mask].sum()),
        )
    return Usage(kinds, reserved, mapping.nr_buffered, empty_chunks(survey))


def empty_chunks(survey: SetSurvey) -> IntArray:
    """Mapped chunks without a valid block in their zones, ascending; those with damaged entries are none."""
    mapping, weight = survey.map, survey.bits.weight
    sound = mapping.data_usable & (mapping.buffer_usable | (mapping.buffer == UNMAPPED))
    chunks = np.flatnonzero(sound)
    blocks = weight[mapping.data[chunks]]
    buffered = mapping.buffer_usable[chunks]
    blocks[buffered] += weight[mapping.buffer[chunks[buffered]]]
    found: IntArray = chunks[blocks == 0]
    return found


def _count(mask: BoolArray) -> int:
    return int(np.count_nonzero(mask))


def figures(target: Target) -> Iterator[Figure]:
    """The figures of a target, each with its kind of zone where it has one.

    While the kernel runs it, zones and free zones are the kernel's own count; the rest is what its last commit left.

    Raises:
        NoValidSuperBlockError: no metadata set can be used, or none has a super block.
        GeometryError: the devices cannot form a target.
        DeviceError: metadata cannot be read.
    """
    evidence = check(target, CheckOptions())
    if evidence.state.rebuilt is not None:
        raise NoValidSuperBlockError(evidence)
    superblock, survey = evidence.state.superblock, evidence.chosen
    usage = usage_of(survey)
    needs_sync = "sets-gen-differ" in evidence.findings.codes
    whole = {
        "generation": superblock.gen,
        "sets_equal": int(evidence.equal),
        "needs_sync": int(needs_sync),
        "logical_bytes": superblock.nr_chunks * evidence.geometry.zone_bytes,
        "chunks": superblock.nr_chunks,
        "buffered_chunks": usage.buffered,
        "empty_chunks": len(usage.empty),
        "reserved_zones": usage.reserved,
    }
    running = running_on(target)
    if running is not None:
        whole["running"] = 1
    label = ("label", superblock.label)
    for name, value in whole.items():
        yield Figure(name, _HELP[name], (label,), value)
    for kind, row in usage.kinds.items():
        live = running.zones.get(kind) if running is not None else None
        free, zones = live or (row.free, row.zones)
        by_kind = {
            "mapped_chunks": row.chunks,
            "zones": zones,
            "free_zones": free,
            "valid_bytes": row.valid_blocks * BLOCK_BYTES,
        }
        for name, value in by_kind.items():
            yield Figure(name, _HELP[name], (label, ("kind", kind.name.lower())), value)


_HELP = {
    "generation": "Generation of the metadata set in use.",
    "sets_equal": "1 when both metadata sets are valid and equal, generation and content.",
    "needs_sync": "1 when the metadata sets have different generations, as a power cut leaves them.",
    "running": "The kernel runs the target: zones and free zones are what it says, the rest is its last commit.",
    "logical_bytes": "Size of the logical device.",
    "chunks": "Chunks of the logical device.",
    "buffered_chunks": "Chunks with a buffer zone.",
    "empty_chunks": "Mapped chunks without a valid block; zoned dm-zoned free gives their zones back.",
    "reserved_zones": "Unmapped sequential zones that are kept for reclaim.",
    "mapped_chunks": "Chunks by the kind of their data zone.",
    "zones": "Zones by kind, sequential ones without the reserve.",
    "free_zones": "Zones that no chunk names by kind, sequential ones without the reserve.",
    "valid_bytes": "Valid blocks by the kind of their zone.",
}
"""Name to help text."""
