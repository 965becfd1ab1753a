"""Going back to an older super block: it is appended once more, and the kernel takes it for the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import RefusedError
from zoned_tools.formats.btrfs.chosen import find_generation
from zoned_tools.formats.btrfs.judge import Good, make_good
from zoned_tools.formats.btrfs.repair_writes import place_good
from zoned_tools.formats.btrfs.ring import Fill
from zoned_tools.formats.btrfs.supers import refuse_nothing
from zoned_tools.formats.btrfs.survey import FileSystem, MirrorSurvey, survey_file_system
from zoned_tools.formats.btrfs.tree_survey import survey_trees

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.contract import Target


def plan_rollback(target: Target, generation: int, *, drop_log: bool = False) -> Plan:
    """Plan to make the super block of ``generation`` the newest in every mirror of every device.

    When several super blocks have the generation, the last in the ring is taken: it has
    the newest tree log.

    Args:
        drop_log: clear the tree log instead of leaving it to be replayed at the next mount.

    Raises:
        MetadataError: a device holds no super block at all, or no valid one of the generation.
        RefusedError: a device is missing, the roots cannot be read, or the tree log that it names cannot.
    """
    fs = survey_file_system(target)
    for survey in fs.surveys:
        refuse_nothing(survey)
    fs.refuse_missing("rolling back")
    plan = Plan(f"roll btrfs back to generation {generation}")
    for index in range(len(fs.surveys)):
        _plan_device(fs, index, generation, plan, drop_log=drop_log)
    return plan


def _plan_device(fs: FileSystem, index: int, generation: int, plan: Plan, *, drop_log: bool) -> None:
    source, row = find_generation(fs, index, generation)
    path = fs.surveys[index].device.path
    block = fs.surveys[index].super_block(source.copies[row])
    if index == 0:
        _explain(fs, index, block, plan, drop_log=drop_log)
    for survey in fs.surveys[index].mirrors:
        good = make_good(fs, index, source, row, survey.mirror.bytenr)
        if drop_log and block.log_root:
            good = good.without_log()
        if _has_as_head(fs, index, survey, good):
            plan.messages.append(f"{path}: mirror {survey.number} has it as its newest already")
            continue
        place_good(plan, index, survey, good, always=True)
        _warn_of_comparison(path, survey, good, plan)


def _has_as_head(fs: FileSystem, index: int, survey: MirrorSurvey, good: Good) -> bool:
    head = survey.valid_head
    return head is not None and fs.surveys[index].block(head) == good.block


def _explain(fs: FileSystem, index: int, block: SuperBlock, plan: Plan, *, drop_log: bool) -> None:
    """Refuse what cannot be mounted; say what is lost, what will be replayed and what the kernel will object to."""
    path = fs.surveys[index].device.path
    roots = fs.reader.roots_readable(block)
    if not roots.readable:
        what = "cannot be read" if roots.readable is False else "cannot be tested"
        raise RefusedError(f"the roots of generation {block.generation} {what}: {roots.reason}", device=path)
    newest = fs.newest
    assert newest is not None
    if newest.generation > block.generation:
        lost = newest.generation - block.generation
        plan.messages.append(f"everything written after generation {block.generation} is lost ({lost} commits)")
    if block.log_root and drop_log:
        plan.messages.append(f"the tree log at {block.log_root} is cleared: what was only synced with fsync is lost")
    elif block.log_root:
        log = fs.reader.log_readable(block)
        if log.readable is False:
            raise RefusedError(
                f"the tree log of generation {block.generation} cannot be read: {log.reason}",
                device=path,
                hint="--drop-log clears it",
            )
        plan.messages.append(f"the next mount replays the tree log at {block.log_root} (--drop-log clears it)")
    lost_trees = survey_trees(fs.reader, block, fs.zone_states(block)).lost_root_sentences()
    plan.messages.extend(f"the kernel will refuse to mount it: {lost}" for lost in lost_trees)


def _warn_of_comparison(path: str, survey: MirrorSurvey, good: Good, plan: Plan) -> None:
    """Two full zones are told apart by their last generations: a zone full of higher ones can win later."""
    pair = survey.mirror.pair
    if pair is None:
        return
    full = [zone.last_slot_bytes for zone in pair if zone.fill is Fill.FULL]
    lasts = survey.copies["generation"][np.isin(survey.copies["offset_bytes"], full)]
    higher = int(lasts.max()) if len(lasts) else 0
    if higher > good.generation:
        plan.messages.append(
            f"{path}: mirror {survey.number} keeps a zone that ends with generation {higher}; "
            f"should the next zone be full before the file system gets there, the kernel takes that super block again"
        )
