"""Repairs of the bitmap and of what it accounts for, to the point where nothing more is to be done.

First comes what is certain, then what was agreed to, ascending by block; then the extents that this touched are
judged again, and so on. What waits is said at the end, of the volume as the rest leaves it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import Consent, Consents, RepairPlan
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.deep import find_shadows, raw_shadow
from zoned_tools.formats.inplace_compress.entries import extent_entries
from zoned_tools.formats.inplace_compress.extents import Ranges
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, NIBBLE, SECTOR_BYTES
from zoned_tools.formats.inplace_compress.places import Phrases, count, place
from zoned_tools.formats.inplace_compress.rules import RULES, UNREADABLE_CODES
from zoned_tools.formats.inplace_compress.survey import survey_ranges, verifies
from zoned_tools.formats.inplace_compress.verify import verifying_payload

if TYPE_CHECKING:
    from zoned_tools.formats.inplace_compress.deep import Shadow, Shadows
    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.repair_writes import Changes
    from zoned_tools.formats.inplace_compress.survey import Problem, Survey
    from zoned_tools.formats.inplace_compress.verify import Payloads, VerifyingPayload

_SETTINGS = {"MAP_ENDIAN": "swap-words", "MAP_SLACK": "clear-slack", "EXT_MISTAG": "decode-mistagged"}
"""Settings that agree to the repair of one code; all others have ``relink``."""

_MOST_ROUNDS = 16
"""Bounds what content that was made for it can cost; two are usual."""

_LINKED = "{place}: linked to a payload that decodes to {payload}"
_ZEROED = "{place}: the content of {size} is lost, it becomes zeroes"
_SALVAGED = "{place}: the content of {size} becomes the bytes as they are stored"
_WOULD_LOSE = (
    "{place}: nothing that verifies lies there; the content of {size} would be lost, it becomes zeroes "
    "(with --set salvage-raw=yes the bytes as they are stored)"
)


def agreed(consents: Consents, code: str) -> bool:
    """Whether the user agreed to what the rule of ``code`` says, short of giving content up."""
    return code in consents.allow or consents.settings.on(_SETTINGS.get(code, "relink"))


@dataclass(frozen=True, slots=True)
class _Kind:
    """Actions that share a sentence."""

    code: str
    sentence: str
    consent: Consent = Consent.CERTAIN
    agreed: bool = True


class MapRepair:
    """Changes of the bitmap in the making.

    Attributes:
        changed: whether anything was done.
        replaced: whether an unreadable extent was linked or given up.
        is_other_byte_order: after what was certain the bitmap makes sense with its words reversed; no more is done.
        waiting: problems whose repair nobody agreed to, after :meth:`run`.
    """

    def __init__(
        self, survey: Survey, consents: Consents, result: RepairPlan, changes: Changes, *, deep: bool, doubtful: bool
    ) -> None:
        """Args:
        deep: also use payloads that a deep check finds.
        doubtful: the bits behind the last entry may account for raw data.
        """
        self.survey = survey
        self.volume = changes.volume
        self.consents = consents
        self.result = result
        self.changes = changes
        self.deep = deep
        self.doubtful = doubtful
        keeps_slack = doubtful and not agreed(consents, "MAP_SLACK")
        self.bitmap = Bitmap(self.volume, SECTOR_BYTES, keeps_slack=keeps_slack)
        self.changed = self.replaced = self.is_other_byte_order = False
        self.waiting: list[Problem] = []
        self._shadows: Shadows | None = survey.shadows
        self._known: Payloads | None = survey.shadows.payloads if survey.shadows is not None else None
        self._progress = False
        self._new_raw: list[tuple[int, int]] = []
        self._payloads: dict[int, VerifyingPayload | None] = {}
        self._rows: defaultdict[_Kind, list[tuple[int, int, int]]] = defaultdict(list)

    def run(self) -> None:
        """Do what is certain or agreed to, and list those actions."""
        heads = self.survey.unreadable_heads.tolist()
        self._payloads = dict.fromkeys(heads) | {payload.block: payload for payload in self.survey.find_verifying()}
        self.waiting = list(self.survey.in_order())
        for _ in range(_MOST_ROUNDS):
            self._repair_problems()
            if self.is_other_byte_order:
                self.changed = True
                break
            if self.deep and not self._progress:
                self._use_shadows()
            if not self._progress:
                break
            self.changed, self._progress = True, False
            self._judge_new_raw()
        self.changes.take(self.bitmap)
        self._list_actions()

    def list_waiting(self) -> None:
        """List the actions that nobody agreed to."""
        for problem in self.waiting:
            self._say_waiting(problem)
        for shadow in self._shadows or ():
            if not agreed(self.consents, shadow.code):
                self._follow(shadow)
            elif shadow.code == "RAW_SHADOW":
                self.result.plan.messages.append(
                    f"{place(shadow.block, shadow.blocks)} (RAW_SHADOW): left alone, the payload reaches into other "
                    "extents"
                )
        self._list_actions()

    # -- rounds

    def _repair_problems(self) -> None:
        """What is certain, then what is agreed to."""
        unreadable = frozenset(p.block for p in self.waiting if p.code in UNREADABLE_CODES)
        self.waiting = [problem for problem in self.waiting if not self._is_certain(problem, unreadable)]
        if self._progress and any(problem.code in ("MAP_NIBBLE", "EXT_TAG") for problem in self.waiting):
            self.changes.take(self.bitmap)
            self.is_other_byte_order = verifies(self.volume.other_byte_order())
        if not self.is_other_byte_order:
            self.waiting = [problem for problem in self.waiting if not self._is_agreed(problem)]

    def _use_shadows(self) -> None:
        """Payloads behind wrong entries, as far as they are agreed to."""
        if self.changed or self._shadows is None:
            mistagged = frozenset(p.block for p in self.waiting if p.code == "EXT_MISTAG")
            self._shadows = find_shadows(self.volume, self.survey.find_tagged(), mistagged, self._known)
        for shadow in self._shadows:
            if agreed(self.consents, shadow.code):
                self._follow(shadow)

    def _judge_new_raw(self) -> None:
        """Find what is wrong with extents that became raw; of all others it is known that nothing is."""
        self.changes.take(self.bitmap)
        if self._new_raw:
            found = survey_ranges(self.volume, Ranges(self._new_raw))
            self.waiting = sorted(self.waiting + found, key=lambda problem: problem.block)
            self._new_raw.clear()

    # -- changes

    def _put_extent(self, block: int, blocks: int, payload_sectors: int, cleared_blocks: int = 0) -> None:
        """Make an extent, and holes of the rest of ``cleared_blocks``."""
        self._put(block, extent_entries(blocks, payload_sectors))
        if cleared_blocks > blocks:
            self._clear(block + blocks, cleared_blocks - blocks)

    def _put_raw(self, block: int, blocks: int) -> None:
        self._put(block, extent_entries(blocks, blocks * BLOCK_SECTORS))
        self._new_raw.append((block, block + blocks))

    def _clear(self, block: int, blocks: int) -> None:
        self._put(block, np.zeros(blocks, np.uint8))

    def _put(self, block: int, entries: Array) -> None:
        self.bitmap.put(block, entries)
        self._progress = True

    # -- what is certain

    def _is_certain(self, problem: Problem, unreadable: frozenset[int]) -> bool:
        """Do what needs no consent; True where the problem needs nothing else."""
        block, blocks = problem.block, problem.blocks
        match problem.code:
            case "MAP_TAIL0":
                self._put(0, self.bitmap.entries(0, 1) & NIBBLE)
                self._note(_Kind("MAP_TAIL0", "{place} becomes a head"), block, blocks)
            case "MAP_ORPHAN":
                self._clear(block, blocks)
                self._note(_Kind("MAP_ORPHAN", "{place}: tails without a payload become holes"), block, blocks)
            case "MAP_CANON" if block not in unreadable:
                self._put_extent(block, blocks, problem.payload_sectors)
                sentence = "{place}: the payload's sectors are accounted to the first blocks"
                self._note(_Kind("MAP_CANON", sentence), block, blocks)
            case "MAP_SLACK" if not self.doubtful:
                self.bitmap.touch(block - 1)
                self._progress = True
                self._note(_Kind("MAP_SLACK", "the bits behind the last entry are cleared"), block, blocks)
            case "EXT_SHORT":
                return self._shorten(problem)
            case code:
                return code not in ("EXT_MISTAG", "MAP_SLACK", *UNREADABLE_CODES)
        return True

    def _shorten(self, problem: Problem) -> bool:
        """Cut an extent to what its payload decodes to; the rest reads as zeroes as before."""
        blocks, rest = divmod(problem.decoded_bytes, BLOCK_BYTES)
        if rest or blocks == 0 or problem.payload_sectors >= blocks * BLOCK_SECTORS:
            return False
        self._put_extent(problem.block, blocks, problem.payload_sectors, problem.blocks)
        sentence = "{place}: made holes; the driver returned zeroes there"
        self._note(_Kind("EXT_SHORT", sentence), problem.block + blocks, problem.blocks - blocks)
        return True

    # -- what asks

    def _is_agreed(self, problem: Problem) -> bool:
        """Do what the user agreed to; False where the problem waits."""
        kind, payload = self._asking(problem)
        if not kind.agreed:
            return False
        block, blocks = problem.block, problem.blocks
        if problem.code == "MAP_SLACK":
            self.bitmap.touch(block - 1)
        elif problem.code == "EXT_MISTAG":
            self.changes.decode(block, blocks)
            self._new_raw.append((block, block + blocks))
            self._progress = True
            self._forget_data(block)
        else:
            self.replaced = True
            self._replace(problem, payload, salvages=kind.sentence == _SALVAGED)
        self._note(kind, block, blocks, payload.blocks if payload is not None else 0)
        return True

    def _replace(self, problem: Problem, payload: VerifyingPayload | None, *, salvages: bool) -> None:
        """Link an unreadable extent to a payload, or give it up."""
        if payload is not None:
            self._put_extent(problem.block, payload.blocks, payload.payload_sectors, problem.blocks)
        elif salvages:
            self._put_raw(problem.block, problem.blocks)
        else:
            self._clear(problem.block, problem.blocks)

    def _forget_data(self, block: int) -> None:
        """Know no payload any more, because one was overwritten; another may begin at ``block`` now."""
        self._payloads.clear()
        self._known = None
        if self.deep:
            self.survey.tagged = np.union1d(self.survey.find_tagged(), [block])

    def _say_waiting(self, problem: Problem) -> None:
        kind, payload = self._asking(problem)
        self._note(kind, problem.block, problem.blocks, payload.blocks if payload is not None else 0)

    def _asking(self, problem: Problem) -> tuple[_Kind, VerifyingPayload | None]:
        """The action that a problem asks for, and the payload to use."""
        code, settings = problem.code, self.consents.settings
        is_agreed = agreed(self.consents, code)
        if code == "MAP_SLACK":
            sentence = (
                f"the bits behind the last entry are cleared: block {problem.block} may hold raw data that the super "
                "block left out, which is lost then; --set data-blocks=N tells how many blocks the volume has"
            )
            return _Kind(code, sentence, Consent.LOSES, is_agreed), None
        if code == "EXT_MISTAG":
            sentence = "{place}: the decoded content is stored in the place of the stream"
            return _Kind(code, sentence, Consent.GUESSES, is_agreed), None
        payload = self._payload_at(problem)
        if payload is not None:
            return _Kind(code, _LINKED, Consent.GUESSES, is_agreed), payload
        if settings.on("salvage-raw"):
            return _Kind(code, _SALVAGED, Consent.LOSES), None
        if settings.on("zero-unreadable") or code in self.consents.allow:
            return _Kind(code, _ZEROED, Consent.LOSES), None
        return _Kind(code, _WOULD_LOSE, Consent.LOSES, agreed=False), None

    def _payload_at(self, problem: Problem) -> VerifyingPayload | None:
        """The payload at the head of an unreadable extent that verifies and has room."""
        block = problem.block
        if block not in self._payloads:
            self._payloads[block] = verifying_payload(self.volume, block)
        payload = self._payloads[block]
        return payload if payload is not None and self._fits(payload, problem.blocks) else None

    def _follow(self, shadow: Shadow) -> None:
        """Use the payload, or say that it waits; blocks of a raw extent behind it stay raw, and may begin with more."""
        found: Shadow | None = shadow
        is_raw = shadow.code == "RAW_SHADOW"
        kind = _Kind(shadow.code, _LINKED, Consent.GUESSES, agreed(self.consents, shadow.code))
        while found is not None and self._fits(found.payload, found.blocks if is_raw else 0):
            payload, block, rest = found.payload, found.block, found.blocks - found.payload.blocks
            if kind.agreed:
                self._put_extent(block, payload.blocks, payload.payload_sectors)
                if rest > 0:
                    self._put_raw(block + payload.blocks, rest)
            self._note(kind, block, found.blocks, payload.blocks)
            found = raw_shadow(self.volume, block + payload.blocks, rest) if is_raw else None

    def _fits(self, payload: VerifyingPayload, blocks: int) -> bool:
        """Whether a payload lies in the ``blocks`` at its start and in holes behind them that nothing continues."""
        first, end = payload.block + blocks, payload.block + payload.blocks
        if end <= first:
            return True
        if end > self.volume.data_blocks:
            return False
        entries = self.bitmap.entries(first, min(end + 1, self.volume.data_blocks) - first)
        return not entries[: end - first].any() and (len(entries) <= end - first or not entries[-1] & layout.TAIL)

    # -- actions

    def _note(self, kind: _Kind, block: int, blocks: int, payload_blocks: int = 0) -> None:
        self._rows[kind].append((block, blocks, payload_blocks))

    def _list_actions(self) -> None:
        for kind, rows in self._rows.items():
            block, blocks, payload_blocks = np.array(sorted(rows), np.int64).T
            self.result.add(
                RULES.actions(
                    kind.code, kind.sentence, consent=kind.consent, agreed=kind.agreed,
                    words={
                        "place": Phrases(place, block, blocks),
                        "size": Phrases(count, blocks),
                        "payload": Phrases(count, payload_blocks),
                    },
                    block=block, blocks=blocks,
                )
            )  # fmt: skip
        self._rows.clear()
