"""How a good super block gets where the kernel looks for the newest: steps that a power cut may end anywhere.

Every recipe leaves at each moment a ring that is no worse than before: nothing that holds
the newest valid super block is reset, and a zone is reset only right before the block is
written to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import RefusedError
from zoned_tools.formats.btrfs.copies import deciding_generation
from zoned_tools.formats.btrfs.judge import Good, unaligned_zone
from zoned_tools.formats.btrfs.ring import (
    Fill,
    RingState,
    head_position,
    older_zone,
    ring_state,
    smallest_generations,
    write_position,
)
from zoned_tools.formats.btrfs.ring_writer import RingWriter
from zoned_tools.formats.btrfs.survey import MirrorSurvey, RowFinder

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.plan import Plan


def place_good(plan: Plan, index: int, survey: MirrorSurvey, good: Good, *, always: bool = False) -> None:
    """Bring a mirror into a valid state whose newest super block is good.

    Finishing zones may be enough when the newest valid block then is the kernel's choice;
    with ``always`` the good block is written in any case.

    Args:
        index: number of the device in the plan.

    Raises:
        RefusedError: a zone of the ring is read-only, offline or too small.
    """
    writer = RingWriter(plan, index, survey.mirror)
    note = f"mirror {survey.number}: super block of generation {good.generation} from byte {good.offset_bytes}"
    if survey.is_dead:
        raise RefusedError(f"mirror {survey.number} has a zone that is read-only or offline")
    if survey.is_too_small:
        raise RefusedError(f"mirror {survey.number} has a zone with room for fewer than two super blocks")
    if survey.mirror.pair is None:
        writer.overwrite(good.block, note)
        return
    copies = survey.copies
    older = older_zone(smallest_generations(copies["zone"], copies["valid"], copies["generation"]))
    unaligned = unaligned_zone(survey)
    if unaligned is not None:
        writer.finish(unaligned)
    if ring_state(writer.pair) is RingState.INVALID:
        writer.finish(0 if writer.pair[0].fill is Fill.EMPTY else older)
    if not always and _head_is_newest(survey, writer):
        return
    chosen = _zone_to_write(writer, older)
    writer.write(chosen, good.block, note)
    if _loses_comparison(survey, writer, chosen, good.generation):
        writer.write(1 - chosen, good.block, note)


def _loses_comparison(survey: MirrorSurvey, writer: RingWriter, written: int, generation: int) -> bool:
    """Whether the write filled its zone and the other full zone's last generation beats it."""
    if any(zone.fill is not Fill.FULL for zone in writer.pair):
        return False
    other = _last_generation(survey, writer)(1 - written)
    return other >= generation if written == 0 else other > generation


def _head_is_newest(survey: MirrorSurvey, writer: RingWriter) -> bool:
    """Whether the kernel's choice, after the steps so far, is the newest valid copy and its roots are not known bad."""
    find = RowFinder(survey.copies)
    position = head_position(writer.pair, write_position(writer.pair, _last_generation(survey, writer)))
    row = None if position is None else find(position)
    return row is not None and row == survey.newest and survey.roots_readable(row) is not False


def _last_generation(survey: MirrorSurvey, writer: RingWriter) -> Callable[[int], int]:
    find = RowFinder(survey.copies)

    def look(index: int) -> int:
        return deciding_generation(survey.copies, find(writer.pair[index].last_slot_bytes))

    return look


def _zone_to_write(writer: RingWriter, older: int) -> int:
    """Which zone takes the good block, so that it becomes the kernel's choice."""
    fills = (writer.pair[0].fill, writer.pair[1].fill)
    if fills == (Fill.FULL, Fill.FULL):
        return older
    if fills[0] is Fill.FULL:
        return 1
    return 0
