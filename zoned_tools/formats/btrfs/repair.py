"""Repair of the super block rings: a good block, unchanged, where the kernel looks for the newest.

Every recipe leaves at each moment a ring that is no worse than before: nothing that holds
the newest valid super block is reset, and a zone is reset only right before the block is
written to it.
"""

from __future__ import annotations

from collections.abc import Callable

from zoned_tools.device.plan import Plan
from zoned_tools.errors import RefusedError
from zoned_tools.findings import CheckReport
from zoned_tools.formats.btrfs.check_ring import head_fault, wrong_choice
from zoned_tools.formats.btrfs.filesystem import (
    FileSystem,
    Good,
    choose_good,
    open_file_system,
    without_log,
)
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
from zoned_tools.formats.registry import RepairOptions, Target


def plan_repair(target: Target, report: CheckReport, options: RepairOptions) -> Plan:
    """Plan what makes the kernel find a good super block in every mirror.

    ``options.allow`` may name ``roots-unreadable`` (roll back to the newest super block
    whose roots can be read) and ``log-unreadable`` (drop the tree log).
    """
    plan = Plan("repair btrfs super blocks")
    fs = open_file_system(target)
    for index, device in enumerate(fs.surveys):
        for survey in device.mirrors:
            _repair_mirror(fs, index, survey, plan)
    if not plan:
        _repair_trees(fs, plan, options)
    return plan


def needs_repair(survey: MirrorSurvey) -> bool:
    """Whether the kernel would not find the newest good super block of a mirror."""
    if survey.state is RingState.INVALID:
        return True
    return head_fault(survey) is not None or wrong_choice(survey) or _unaligned(survey) is not None


def _unaligned(survey: MirrorSurvey) -> int | None:
    pair = survey.mirror.pair or ()
    return next((i for i, zone in enumerate(pair) if zone.fill is Fill.IN_USE and not zone.wp_is_aligned), None)


def _repair_mirror(fs: FileSystem, index: int, survey: MirrorSurvey, plan: Plan) -> None:
    if not needs_repair(survey):
        return
    number = survey.mirror.number
    name = f"{fs.surveys[index].device.path}: mirror {number}"
    pair = survey.mirror.pair
    if pair is not None and Fill.DEAD in (pair[0].fill, pair[1].fill):
        plan.messages.append(f"{name} cannot be repaired: one of its zones is read-only or offline")
        return
    good = choose_good(fs, index, survey)
    if good is None:
        plan.messages.append(f"{name} cannot be repaired: no mirror holds a valid super block")
        return
    if not survey.mirror.capacity_known:
        plan.messages.append(
            f"{name}: the zone capacity is not known; check the image's zone table before restoring it"
        )
    place_good(plan, index, survey, good)
    if good.readable is False:
        plan.messages.append(f"{name}: no super block with readable roots is left; the newest valid one is used")
    newest = fs.newest
    if newest is not None and good.generation < newest.generation:
        plan.messages.append(
            f"{name}: goes back to generation {good.generation}; {newest.generation} has no usable roots here"
        )


def place_good(plan: Plan, index: int, survey: MirrorSurvey, good: Good, *, always: bool = False) -> None:
    """Bring a mirror into a valid state whose newest super block is good.

    Finishing zones may be enough when the newest valid block then is the kernel's choice;
    with ``always`` the good block is written in any case.

    Raises:
        RefusedError: a zone of the ring is read-only or offline.
    """
    writer = RingWriter(plan, index, survey.mirror)
    note = f"mirror {survey.mirror.number}: super block of generation {good.generation} from byte {good.offset_bytes}"
    if survey.mirror.pair is None:
        writer.overwrite(good.block, note)
        return
    if any(zone.fill is Fill.DEAD for zone in writer.pair):
        raise RefusedError(f"mirror {survey.mirror.number} has a zone that is read-only or offline")
    copies = survey.copies
    older = older_zone(smallest_generations(copies["zone"], copies["valid"], copies["generation"]))
    unaligned = _unaligned(survey)
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
    return row is not None and row == survey.newest and survey.readable.get(row) is not False


def _last_generation(survey: MirrorSurvey, writer: RingWriter) -> Callable[[int], int]:
    find = RowFinder(survey.copies)

    def look(index: int) -> int:
        row = find(writer.pair[index].last_slot_bytes)
        return 0 if row is None else int(survey.copies["generation"][row])

    return look


def _zone_to_write(writer: RingWriter, older: int) -> int:
    """Which zone takes the good block, so that it becomes the kernel's choice."""
    fills = (writer.pair[0].fill, writer.pair[1].fill)
    if fills == (Fill.FULL, Fill.FULL):
        return older
    if fills[0] is Fill.FULL:
        return 1
    return 0


def _repair_trees(fs: FileSystem, plan: Plan, options: RepairOptions) -> None:
    """Go back to readable roots, or drop an unreadable log, where the user agreed to lose what comes after."""
    for index, device in enumerate(fs.surveys):
        first = device.mirror(0)
        if first is None or not first.head_is_valid:
            continue
        block = device.super_block(first.head)
        if "roots-unreadable" in options.allow and fs.reader.roots_readable(block).readable is False:
            for survey in device.mirrors:
                good = choose_good(fs, index, survey)
                if good is not None and good.readable is not False:
                    place_good(plan, index, survey, good, always=True)
                    plan.messages.append(f"goes back from generation {block.generation} to {good.generation}")
        elif "log-unreadable" in options.allow and fs.reader.log_readable(block).readable is False:
            raw = device.block(first.head)
            head = first.head
            assert head is not None
            good = Good(without_log(raw), int(block.generation), int(head["offset_bytes"]), 0, readable=True)
            place_good(plan, index, first, good, always=True)
            plan.messages.append(f"drops the tree log at {block.log_root}: what was only synced with fsync is lost")
