"""Plans repairs: the certain ones always, those that guess or lose data only with consent.

Consent comes as a finding's code (``allow``), which covers that code alone and never gives content up, or as
a setting: ``relink`` (use payloads that verify behind wrong entries, whatever the code), ``zero-unreadable``
and ``salvage-raw`` (what becomes of unreadable extents without such a payload), ``decode-mistagged``,
``swap-words``, ``clear-slack``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.formats.contract import Consent, Consents, RepairPlan
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.check import InplaceEvidence, require_consistent, survey_volume
from zoned_tools.formats.inplace_compress.deep import raw_shadow
from zoned_tools.formats.inplace_compress.entries import extent_entries
from zoned_tools.formats.inplace_compress.judge import BLOCKING
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, NIBBLE, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import Volume, volume_of
from zoned_tools.formats.inplace_compress.places import Phrases, count, place
from zoned_tools.formats.inplace_compress.recovery import find_super_block
from zoned_tools.formats.inplace_compress.repair_writes import Changes, write_changes
from zoned_tools.formats.inplace_compress.rules import RULES, UNREADABLE_CODES
from zoned_tools.formats.inplace_compress.slack import Meaning, judge_slack
from zoned_tools.formats.inplace_compress.table import known_data_blocks
from zoned_tools.formats.inplace_compress.verify import VerifyingPayload, verifying_payload

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.deep import Shadow
    from zoned_tools.formats.inplace_compress.survey import Problem, Survey
    from zoned_tools.formats.shared.rules import ActionGroup

_SETTINGS = {"MAP_ENDIAN": "swap-words", "MAP_SLACK": "clear-slack", "EXT_MISTAG": "decode-mistagged"}
"""Settings that agree to the repair of one code; all others have ``relink``."""

_SHADOWS = ("RAW_SHADOW", "HOLE_SHADOW")
_GIVE_UP = "--set zero-unreadable=yes or --set salvage-raw=yes"


def agreed(consents: Consents, code: str) -> bool:
    """Whether the user agreed to what the rule of ``code`` says."""
    return code in consents.allow or consents.settings.on(_SETTINGS.get(code, "relink"))


def plan_repair(evidence: InplaceEvidence, consents: Consents) -> RepairPlan:
    """The changes that repair what ``evidence`` says, and what waits for consent.

    The plan's messages say what stays broken because something is not known.

    Raises:
        UsageError: settings contradict each other.
    """
    require_consistent(consents.settings)
    result = RepairPlan(Plan(f"repair {layout.NAME} metadata"))
    stored = evidence.super_block
    wants_more = any(agreed(consents, code) for code in _SHADOWS)
    if stored is None or evidence.is_old_series or not (len(evidence.findings) or wants_more):
        return result
    wanted = stored
    if BLOCKING & set(evidence.faults):
        found = _lost_super_block(evidence, consents, result)
        if found is None:
            return result
        wanted = found
    volume = volume_of(evidence.target.device, evidence.target.start_bytes, wanted)
    changes = Changes(volume, stored)
    if evidence.other_byte_order:
        changes.swaps_words = agreed(consents, "MAP_ENDIAN")
        sentence = "the bitmap's 32-bit words are reversed, for use on little-endian hosts only"
        result.add(
            RULES.action("MAP_ENDIAN", sentence, consent=Consent.GUESSES, agreed=changes.swaps_words,
                         offset_bytes=volume.bitmap_offset_bytes)
        )  # fmt: skip
    else:
        _plan_map(evidence, consents, result, changes)
    write_changes(result.plan, changes)
    return result


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


def _plan_map(evidence: InplaceEvidence, consents: Consents, result: RepairPlan, changes: Changes) -> None:
    """Decide about compressor, number of data blocks, and every problem of the bitmap."""
    shadows = any(agreed(consents, code) for code in _SHADOWS)
    deep = shadows or (evidence.survey is not None and evidence.survey.shadows is not None)

    def survey_again(volume: Volume) -> Survey:
        return survey_volume(volume, consents.settings, payloads=True, deep=deep)

    survey = evidence.survey
    if survey is None or survey.volume != changes.volume or not survey.payloads:
        survey = survey_again(changes.volume)  # the check had another volume before it, or did not read payloads
    if survey.volume.compressor is None or survey.accepting:
        changes.volume = _choose_compressor(survey, result)
        if changes.volume.compressor is None:
            return
        if changes.volume != survey.volume:
            survey = survey_again(changes.volume)
    slack_is_doubtful = False
    if "MAP_SLACK" in survey.problems:
        slack = judge_slack(survey.volume, known_data_blocks(consents.settings))
        slack_is_doubtful = slack.meaning is Meaning.DOUBTFUL
        if slack.meaning is Meaning.ENTRIES:
            changes.volume = slack.volume
            result.add(_more_blocks(survey.volume, slack.volume))
            survey = survey_again(changes.volume)
    if shadows:
        survey.find_shadows()
    _MapRepair(survey, consents, result, changes, slack_is_doubtful=slack_is_doubtful).run()


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


@dataclass(frozen=True, slots=True)
class _Kind:
    """Actions that share a sentence."""

    code: str
    sentence: str
    consent: Consent = Consent.CERTAIN
    agreed: bool = True
    needs: str = ""


class _MapRepair:
    """Changes of the bitmap in the making, ascending by block: what is decided in front may make room behind."""

    def __init__(
        self, survey: Survey, consents: Consents, result: RepairPlan, changes: Changes, *, slack_is_doubtful: bool
    ) -> None:
        self.survey = survey
        self.volume = survey.volume
        self.consents = consents
        self.result = result
        self.changes = changes
        self.slack_is_doubtful = slack_is_doubtful
        self.bitmap = Bitmap(survey.volume, SECTOR_BYTES)
        changes.bitmap = self.bitmap
        self._rows: defaultdict[_Kind, list[tuple[int, int, int]]] = defaultdict(list)

    def run(self) -> None:
        """Decide about everything, and list the actions."""
        unreadable = frozenset(self.survey.unreadable_heads.tolist())
        for problem in self.survey.in_order():
            self._repair(problem, unreadable)
        if self.survey.shadows is not None:
            for shadow in self.survey.shadows:
                found: Shadow | None = shadow
                while found is not None:
                    found = self._relink_shadow(found)
        for kind, rows in self._rows.items():
            block, blocks, payload_blocks = np.array(rows, np.int64).T
            self.result.add(
                RULES.actions(
                    kind.code, kind.sentence, consent=kind.consent, agreed=kind.agreed, needs=kind.needs,
                    words={
                        "place": Phrases(place, block, blocks),
                        "size": Phrases(count, blocks),
                        "payload": Phrases(count, payload_blocks),
                    },
                    block=block, blocks=blocks,
                )
            )  # fmt: skip

    def _note(self, kind: _Kind, block: int, blocks: int, payload_blocks: int = 0) -> None:
        self._rows[kind].append((block, blocks, payload_blocks))

    def _set_extent(self, block: int, blocks: int, payload_sectors: int, cleared_blocks: int = 0) -> None:
        """Make an extent, and holes of the rest of ``cleared_blocks``."""
        self.bitmap.put(block, extent_entries(blocks, payload_sectors))
        if cleared_blocks > blocks:
            self._clear(block + blocks, cleared_blocks - blocks)

    def _clear(self, block: int, blocks: int) -> None:
        self.bitmap.put(block, np.zeros(blocks, np.uint8))

    def _repair(self, problem: Problem, unreadable: frozenset[int]) -> None:
        match problem.code:
            case "MAP_TAIL0":
                self.bitmap.put(0, self.bitmap.entries(0, 1) & NIBBLE)
                self._note(_Kind("MAP_TAIL0", "{place} becomes a head"), problem.block, problem.blocks)
            case "MAP_ORPHAN":
                self._repair_orphan(problem)
            case "MAP_CANON" if problem.block not in unreadable:
                self._set_extent(problem.block, problem.blocks, problem.payload_sectors)
                sentence = "{place}: the payload's sectors are accounted to the first blocks"
                self._note(_Kind("MAP_CANON", sentence), problem.block, problem.blocks)
            case "MAP_SLACK":
                self._clear_slack(problem)
            case "EXT_MISTAG":
                self._decode_mistagged(problem)
            case code if code in UNREADABLE_CODES and not self._shorten(problem):
                self._repair_unreadable(problem)

    def _repair_orphan(self, problem: Problem) -> None:
        """Turn tails without a payload into holes, or at once into the extent that lost its head."""
        block, blocks = problem.block, problem.blocks
        payload = verifying_payload(self.volume, block) if self.consents.settings.on("relink") else None
        if payload is not None and self._fits(payload, blocks):
            self._link(_Kind("HOLE_SHADOW", _LINKED, Consent.GUESSES), payload, blocks)
        else:
            self._clear(block, blocks)
            self._note(_Kind("MAP_ORPHAN", "{place}: tails without a payload become holes"), block, blocks)

    def _clear_slack(self, problem: Problem) -> None:
        kind = _Kind("MAP_SLACK", "the bits behind the last entry are cleared")
        if self.slack_is_doubtful:
            is_agreed = agreed(self.consents, "MAP_SLACK")
            sentence = (
                f"the bits behind the last entry are cleared: block {problem.block} may hold raw data that the super "
                "block left out, which is lost then; --set data-blocks=N tells how many blocks the volume has"
            )
            kind = _Kind("MAP_SLACK", sentence, Consent.LOSES, is_agreed)
        if kind.agreed:
            self.bitmap.touch(problem.block - 1)
        self._note(kind, problem.block, problem.blocks)

    def _decode_mistagged(self, problem: Problem) -> None:
        is_agreed = agreed(self.consents, "EXT_MISTAG")
        if is_agreed:
            self.changes.decoded.append((problem.block, problem.blocks))
        sentence = "{place}: the decoded content is stored in the place of the stream"
        self._note(_Kind("EXT_MISTAG", sentence, Consent.GUESSES, is_agreed), problem.block, problem.blocks)

    def _shorten(self, problem: Problem) -> bool:
        """Cut an extent to what its payload decodes to; the rest reads as zeroes as before."""
        if problem.code != "EXT_SHORT":
            return False
        blocks, rest = divmod(problem.decoded_bytes, BLOCK_BYTES)
        if rest or blocks == 0 or problem.payload_sectors >= blocks * BLOCK_SECTORS:
            return False
        self._set_extent(problem.block, blocks, problem.payload_sectors, problem.blocks)
        sentence = "{place}: made holes; the driver returned zeroes there"
        self._note(_Kind("EXT_SHORT", sentence), problem.block + blocks, problem.blocks - blocks)
        return True

    def _repair_unreadable(self, problem: Problem) -> None:
        code, block, blocks = problem.code, problem.block, problem.blocks
        settings = self.consents.settings
        payload = self.survey.find_verifying().at(block)
        if payload is not None and not self._fits(payload, blocks):
            payload = None
        if payload is not None and agreed(self.consents, code):
            self._link(_Kind(code, _LINKED, Consent.GUESSES), payload, blocks)
        elif settings.on("zero-unreadable"):
            self._clear(block, blocks)
            sentence = "{place}: the content of {size} is lost, it becomes zeroes"
            self._note(_Kind(code, sentence, Consent.LOSES), block, blocks)
        elif settings.on("salvage-raw"):
            self._set_extent(block, blocks, blocks * BLOCK_SECTORS)
            sentence = "{place}: the content of {size} becomes the bytes as they are stored"
            self._note(_Kind(code, sentence, Consent.LOSES), block, blocks)
        elif payload is not None:
            self._note(_Kind(code, _LINKED, Consent.GUESSES, agreed=False), block, blocks, payload.blocks)
        else:
            sentence = (
                "{place}: nothing that verifies lies there; the content of {size} would be lost, or become "
                "the bytes as they are stored"
            )
            self._note(_Kind(code, sentence, Consent.LOSES, agreed=False, needs=_GIVE_UP), block, blocks)

    def _relink_shadow(self, shadow: Shadow) -> Shadow | None:
        """Use the payload; blocks of a raw extent behind it stay raw, the shadow at their start is returned."""
        payload, block = shadow.payload, shadow.block
        is_raw = shadow.code == "RAW_SHADOW"
        if not self._fits(payload, shadow.blocks if is_raw else 0):
            if is_raw and agreed(self.consents, shadow.code):
                self.result.plan.messages.append(
                    f"{place(block, shadow.blocks)} (RAW_SHADOW): left alone, the payload reaches into other extents"
                )
            return None
        kind = _Kind(shadow.code, _LINKED, Consent.GUESSES, agreed(self.consents, shadow.code))
        if kind.agreed:
            if payload.blocks < shadow.blocks:
                rest = shadow.blocks - payload.blocks
                self.bitmap.put(block + payload.blocks, extent_entries(rest, rest * BLOCK_SECTORS))
            self.bitmap.put(block, extent_entries(payload.blocks, payload.payload_sectors))
        self._note(kind, block, shadow.blocks, payload.blocks)
        behind = block + payload.blocks
        return raw_shadow(self.volume, behind, block + shadow.blocks - behind) if is_raw and kind.agreed else None

    def _link(self, kind: _Kind, payload: VerifyingPayload, blocks: int) -> None:
        self._set_extent(payload.block, payload.blocks, payload.payload_sectors, blocks)
        self._note(kind, payload.block, blocks, payload.blocks)

    def _fits(self, payload: VerifyingPayload, blocks: int) -> bool:
        """Whether a payload lies in the ``blocks`` at its start and in holes behind them that nothing continues."""
        first, end = payload.block + blocks, payload.block + payload.blocks
        if end <= first:
            return True
        if end > self.volume.data_blocks:
            return False
        entries = self.bitmap.entries(first, min(end + 1, self.volume.data_blocks) - first)
        return not entries[: end - first].any() and (len(entries) <= end - first or not entries[-1] & layout.TAIL)


_LINKED = "{place}: linked to a payload that decodes to {payload}"
