"""Repair of a zonefs volume: a new super block from what is left of the old one and what is given.

The super block is all the metadata there is, so no repair touches a file. Where its parameters are known
for certain it is written without asking; where they would be a guess, it waits until the user agrees to
it (``--allow`` with the code that the action belongs to) or gives parameters (``--set``).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.formats.contract import Consent, Consents, RepairPlan, Settings
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.parameters import describe, with_settings
from zoned_tools.formats.zonefs.recover import recover
from zoned_tools.formats.zonefs.repair_writes import finish_zone0, rewrite_super_block
from zoned_tools.formats.zonefs.rules import RULES

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.check import ZonefsEvidence

_REWRITTEN = (
    *("metadata-lost", "zone0-empty", "sb-magic", "sb-crc"),
    *("sb-features", "sb-uid", "sb-gid", "sb-reserved", "sb-perm-bits"),
)
"""Codes that a new super block mends. The first that was found explains it, and is what can be agreed to: the
codes before ``sb-features`` say how much of the old super block is left."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The decision to write a super block.

    Attributes:
        code: the finding that it is for.
        how: where its parameters come from, a phrase.
    """

    code: str
    block: SuperBlock
    how: str
    consent: Consent


def plan_repair(evidence: ZonefsEvidence, consents: Consents) -> RepairPlan:
    """Plan what mends the findings of ``evidence``; there is nothing to do for a device that is not zoned.

    While a new super block waits, zone 0 stays as it is: it may be somebody else's.
    """
    result = RepairPlan(Plan("repair the zonefs super block"))
    survey = evidence.survey
    if survey is None:
        return result
    if survey.zones.dead[0]:
        result.plan.messages.append("zone 0 cannot be written, the super block stays as it is")
        return result
    rewrite = _decide(evidence, survey.raw, consents.settings)
    if rewrite is not None:
        agreed = rewrite.code in consents.allow or bool(consents.settings)
        text = f"{rewrite.how}; the super block is written with {describe(rewrite.block)}"
        action = result.add(RULES.action(rewrite.code, text, consent=rewrite.consent, agreed=agreed, zone=0))
        if not action.waits:
            rewrite_super_block(result.plan, survey.volume, rewrite.block)
    elif "zone0-not-full" in evidence.findings.codes:
        result.add(RULES.action("zone0-not-full", "the super block's zone is finished", zone=0))
        finish_zone0(result.plan)
    return result


def _decide(evidence: ZonefsEvidence, raw: bytes | None, given: Settings) -> Rewrite | None:
    """The super block to write, None when the one that is there is good."""
    found = evidence.findings.codes
    code = next((code for code in _REWRITTEN if code in found), None)
    if code is None and "sb-uuid-nil" in found and "uuid" in given:
        code = "sb-uuid-nil"
    if code is None:
        return None
    recovered = None if raw is None else recover(raw)
    if recovered is None:
        how = "no super block is left: parameters that were not given by --set are the defaults"
        return Rewrite(code, with_settings(SuperBlock(uuid=uuid.uuid4()), given), how, Consent.GUESSES)
    consent = Consent.CERTAIN if recovered.sure else Consent.GUESSES
    return Rewrite(code, with_settings(recovered.block, given), recovered.how, consent)
