"""Plans repairs: the certain ones always, those that guess or lose data only with consent.

Consent comes as a finding's code (``allow``), which covers that code alone, or as a setting: ``relink`` (use
payloads that verify behind wrong entries, whatever the code), ``zero-unreadable`` and ``salvage-raw`` (what becomes
of unreadable extents without such a payload, zeroes where only a code agrees), ``decode-mistagged``, ``swap-words``,
``clear-slack``. A plan leaves nothing for a second one: what its actions bring to light is in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.formats.contract import Consent, Consents, RepairPlan
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.check import InplaceEvidence, require_consistent, survey_volume
from zoned_tools.formats.inplace_compress.judge import BLOCKING
from zoned_tools.formats.inplace_compress.map_repair import MapRepair, agreed
from zoned_tools.formats.inplace_compress.media import unreadable_bitmap
from zoned_tools.formats.inplace_compress.open import Volume, volume_of
from zoned_tools.formats.inplace_compress.places import place
from zoned_tools.formats.inplace_compress.recovery import find_super_block
from zoned_tools.formats.inplace_compress.repair_writes import Changes, write_changes
from zoned_tools.formats.inplace_compress.rules import RULES, SHADOW_CODES, UNREADABLE_CODES
from zoned_tools.formats.inplace_compress.slack import Meaning, judge_slack
from zoned_tools.formats.inplace_compress.survey import is_other_byte_order
from zoned_tools.formats.inplace_compress.table import known_data_blocks

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.layout import SuperBlock
    from zoned_tools.formats.inplace_compress.survey import Survey
    from zoned_tools.formats.shared.rules import ActionGroup

_MOST_SURVEYS = 8
"""Byte order, compressor, size and entries can each ask for another look at everything, once or twice."""


def plan_repair(evidence: InplaceEvidence, consents: Consents) -> RepairPlan:
    """The changes that repair what ``evidence`` says, and what waits for consent.

    The plan's messages say what stays broken because something is not known.

    Raises:
        UsageError: settings contradict each other.
    """
    require_consistent(consents.settings)
    result = RepairPlan(Plan(f"repair {layout.NAME} metadata"))
    blind = sorted(consents.allow.intersection(SHADOW_CODES)) if not evidence.deep else []
    result.plan.messages += [
        f"--allow {code} agrees to nothing here: only a deep check (--deep, or --set relink=yes) finds such payloads"
        for code in blind
    ]
    wanted = _super_block(evidence, consents, result)
    if wanted is None:
        return result
    stored = evidence.super_block
    changes = Changes.of(volume_of(evidence.target.device, evidence.target.start_bytes, wanted), stored)
    if unreadable_bitmap(changes.volume):
        result.plan.messages.append("the bitmap is left alone: blocks of it cannot be read")
    else:
        changes.volume = replace(changes.volume, strict=True)
        _plan_volume(evidence, consents, result, changes)
    write_changes(result.plan, changes)
    return result


def _super_block(evidence: InplaceEvidence, consents: Consents, result: RepairPlan) -> SuperBlock | None:
    """The super block that the volume shall have; None where nothing is to be done, or it waits or is not known."""
    if evidence.is_old_series or not len(evidence.findings):
        return None
    if evidence.super_block is None:
        return _unreadable_super_block(evidence, consents, result)
    if BLOCKING & set(evidence.faults):
        return _lost_super_block(evidence, consents, result)
    return evidence.super_block


def _unreadable_super_block(evidence: InplaceEvidence, consents: Consents, result: RepairPlan) -> SuperBlock | None:
    """The one that is assumed, if the user agrees to it."""
    assumed = evidence.assumed
    if assumed is None:
        result.plan.messages.append("the super block is left alone: no sizes fit what is behind it")
        return None
    is_agreed = "metadata-lost" in consents.allow
    sentence = f"super block of {assumed.data_blocks} data blocks, compressor number {assumed.comp_alg}: assumed"
    result.add(
        RULES.action("metadata-lost", sentence, consent=Consent.GUESSES, agreed=is_agreed, what="super",
                     meta_blocks=assumed.meta_blocks, data_blocks=assumed.data_blocks)
    )  # fmt: skip
    return assumed if is_agreed else None


def _lost_super_block(evidence: InplaceEvidence, consents: Consents, result: RepairPlan) -> SuperBlock | None:
    """The super block that the volume must have had; None, with a message, where it cannot be known."""
    target, faults = evidence.target, set(evidence.faults)
    assert evidence.super_block is not None
    found: SuperBlock | None = None
    if not faults & {"SB_MAGIC", "SB_SIZE"} and not {"table", "data-blocks"} & set(consents.settings):
        reason = "the device may have been shrunk; enlarge it, or give the volume's table line"
    else:
        found, reason = find_super_block(target.device, target.start_bytes, evidence.super_block, consents.settings)
    if found is None:
        result.plan.messages.append(f"the super block is left alone: {reason}")
        return None
    code = next(code for code in ("SB_MAGIC", "SB_SIZE", "SB_DEVICE") if code in faults)
    sentence = f"super block of {found.data_blocks} data blocks: {reason}"
    result.add(RULES.action(code, sentence, meta_blocks=found.meta_blocks, data_blocks=found.data_blocks))
    return found


def _plan_volume(evidence: InplaceEvidence, consents: Consents, result: RepairPlan, changes: Changes) -> None:
    """Decide about byte order, compressor, number of data blocks, and every problem of the bitmap."""
    for attempt in range(_MOST_SURVEYS):
        survey, is_of_check = _survey(evidence, consents, changes, first=attempt == 0)
        if evidence.other_byte_order if is_of_check else is_other_byte_order(survey):
            if not _swap_words(consents, result, changes):
                return
            continue
        if survey.volume.compressor is None or survey.accepting:
            chosen = _choose_compressor(survey, result)
            if chosen.compressor is None:
                return
            if chosen != survey.volume:
                changes.volume = chosen
                continue
        doubtful = False
        if "MAP_SLACK" in survey.problems:
            slack = judge_slack(changes.volume, known_data_blocks(consents.settings))
            if slack.meaning is Meaning.ENTRIES:
                result.add(_more_blocks(changes.volume, slack.volume))
                changes.volume = slack.volume
                continue
            doubtful = slack.meaning is Meaning.DOUBTFUL
        repair = MapRepair(survey, consents, result, changes, deep=evidence.deep, doubtful=doubtful)
        repair.run()
        if not _changes_the_whole(survey, repair):
            repair.list_waiting()
            return


def _survey(evidence: InplaceEvidence, consents: Consents, changes: Changes, *, first: bool) -> tuple[Survey, bool]:
    """What is wrong with the volume as far as it is repaired; True when that is what the check saw."""
    device, deep = evidence.target.device, evidence.deep
    survey = evidence.survey
    if first and survey is not None and survey.payloads and survey.volume == replace(changes.volume, device=device):
        return replace(survey, volume=changes.volume), True
    if not changes.is_view_unchanged:
        return survey_volume(changes.volume, consents.settings, payloads=True, deep=deep), False
    # the device itself can be read by several processes
    found = survey_volume(replace(changes.volume, device=device), consents.settings, payloads=True, deep=deep)
    return replace(found, volume=changes.volume), False


def _changes_the_whole(survey: Survey, repair: MapRepair) -> bool:
    """Whether what was done to some extents can change what the others, or bits behind the last entry, mean."""
    if not repair.changed:
        return False
    waiting = {problem.code for problem in repair.waiting}
    # another compressor may decode all that are left, where this one decodes nothing
    is_compressor_doubtful = repair.replaced and not survey.good_compressed and waiting.intersection(UNREADABLE_CODES)
    return "MAP_SLACK" in waiting or bool(is_compressor_doubtful) or repair.is_other_byte_order


def _swap_words(consents: Consents, result: RepairPlan, changes: Changes) -> bool:
    is_agreed = agreed(consents, "MAP_ENDIAN")
    sentence = "the bitmap's 32-bit words are reversed, for use on little-endian hosts only"
    result.add(
        RULES.action("MAP_ENDIAN", sentence, consent=Consent.GUESSES, agreed=is_agreed,
                     offset_bytes=changes.volume.bitmap_offset_bytes)
    )  # fmt: skip
    if is_agreed:
        changes.swap_words()
    return is_agreed


def _more_blocks(stored: Volume, found: Volume) -> ActionGroup:
    """The action that makes entries of the bits behind the last one; an extent in front may go on there."""
    sentence = f"{found.data_blocks} data blocks: the bits behind the last entry are entries"
    where: dict[str, object] = {"data_blocks": found.data_blocks}
    head = Bitmap(found).head_of(stored.data_blocks) if stored.data_blocks < found.data_blocks else stored.data_blocks
    if head < stored.data_blocks:
        blocks = stored.data_blocks - head
        sentence += f", and {place(head, blocks)} belong to an extent that goes on there"
        where |= {"block": head, "blocks": blocks}
    return RULES.action("MAP_SLACK", sentence, **where)  # type: ignore[arg-type] # places alone


def _choose_compressor(survey: Survey, result: RepairPlan) -> Volume:
    """The volume with the compressor that decodes everything, or unchanged."""
    volume = survey.volume
    code = "SB_ALG" if volume.compressor is None else "SB_ALG_MISMATCH"
    if len(survey.accepting) == 1:
        chosen = next(iter(survey.accepting))
        sentence = f"compressor {chosen.label}: it decodes every compressed extent"
        result.add(RULES.action(code, sentence, comp_alg=int(chosen)))
        return replace(volume, comp_alg=int(chosen))
    if volume.compressor is None:
        result.plan.messages.append("the compressor is left alone: not exactly one decodes every compressed extent")
    return volume
