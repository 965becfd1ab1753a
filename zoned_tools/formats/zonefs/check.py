"""Check of a zonefs volume: the super block, zone 0 and the zone table; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from zoned_tools.formats.contract import CheckOptions, Evidence, Target
from zoned_tools.formats.zonefs.constants import feature_names
from zoned_tools.formats.zonefs.findings import volume_findings
from zoned_tools.formats.zonefs.open import open_volume
from zoned_tools.formats.zonefs.rules import RULES
from zoned_tools.formats.zonefs.survey import Survey, survey_volume


@dataclass(slots=True)
class ZonefsEvidence(Evidence):
    """What a check found; ``survey`` is None for a device that is not zoned."""

    survey: Survey | None = None


def check(target: Target, _options: CheckOptions) -> ZonefsEvidence:
    """Check one volume; there is nothing that a deep check would read besides.

    Raises:
        GeometryError: the device is too small for a super block.
    """
    evidence = ZonefsEvidence(target)
    if not target.device.geometry.is_zoned:
        evidence.findings.add(RULES.finding("not-zoned", "the device is not zoned, a kernel does not mount it"))
        return evidence
    survey = survey_volume(open_volume(target))
    evidence.survey = survey
    evidence.findings.extend(volume_findings(survey))
    block = survey.super_block
    if block is not None:
        evidence.facts.update(label=block.label_text, uuid=str(block.uuid), features=feature_names(block.features))
    return evidence
