"""Chunks whose blocks were all discarded lose their zones; and what an idle kernel target would reclaim.

A discarded chunk in a sequential zone stays mapped for ever in the kernel target. Here such chunks are unmapped by one
commit, and their sequential zones are reset after it: before it, a power cut would leave mapped empty zones.

Source: section 11.2 of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.dm_zoned.figures import Usage, usage_of
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.workspace import Workspace, checked

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.contract import Target


@dataclass(frozen=True, slots=True)
class Freed:
    """What becomes of a target.

    Attributes:
        plan: the changes; empty when there is nothing to do.
        chunks: chunks that are unmapped, ascending.
        zones_reset: sequential zones that are reset, ascending ids of the target.
        moved_blocks: valid blocks that compacting moves.
        left: chunks that stay buffered, or in cache or random zones, for want of a free sequential zone.
        before: what was free.
    """

    plan: Plan
    chunks: list[int]
    zones_reset: list[int]
    moved_blocks: int
    left: int
    before: Usage


def plan_free(target: Target, *, compact: bool = False) -> Freed:
    """Unmap the chunks without a valid block.

    Args:
        compact: merge buffer zones into their chunks, and move chunks out of cache and random zones, too.

    Raises:
        RefusedError: check finds an error, the sets need a sync, or a metadata zone cannot be written.
        ZonedError: the target cannot be read.
    """
    evidence = checked(target)
    before = usage_of(evidence.chosen)
    work = Workspace(target, evidence, "free emptied chunks" if not compact else "free emptied chunks and compact")
    if len(before.empty):
        work.unmap(before.empty)
        work.commit()
    left = _compact(work) if compact else 0
    if left:
        work.plan.messages.append(f"{left} chunks stay where they are: no sequential zone is free for them")
    return Freed(work.plan, before.empty.tolist(), work.zones_reset(), work.moved_blocks, left, before)


def _compact(work: Workspace) -> int:
    """Merge buffers, then empty the cache and random zones; how many chunks could not be moved."""
    data, buffer = (work.table[: work.layout.nr_chunks, column].astype(np.int64) for column in (0, 1))
    left = 0
    for chunk in np.flatnonzero(buffer != UNMAPPED).tolist():
        if work.is_dead(work.zones_of(chunk)):
            left += 1
        elif work.can_append(chunk):
            work.append(chunk)
        elif not work.move(chunk):
            left += 1
    work.commit()  # the data zones that were merged are free again
    mapped = data != UNMAPPED
    for chunk in np.flatnonzero(mapped & ~work.geometry.sequential[np.where(mapped, data, 0)]).tolist():
        # The reserve is for merging, which gives a zone back for each that it takes.
        if work.is_dead(work.zones_of(chunk)[:1]) or not work.free_sequential() or not work.move(chunk):
            left += 1
    work.commit()
    return left
