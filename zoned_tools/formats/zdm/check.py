"""The check: every rule of the format, read-only and in one streamed pass over the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.formats.contract import CheckOptions, Evidence, Target
from zoned_tools.formats.zdm import findings
from zoned_tools.formats.zdm.foreign import COMPARED, find_foreign
from zoned_tools.formats.zdm.open import load
from zoned_tools.formats.zdm.survey import survey
from zoned_tools.formats.zdm.unread import Unread

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.foreign import ForeignZones
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey


@dataclass(slots=True, kw_only=True)
class ZdmEvidence(Evidence):
    """What a check found.

    Attributes:
        state: the metadata as they were read.
        survey: the tables; None where they could not be judged.
        unread: metadata that cannot be read.
        foreign: the zone table is another drive's.
    """

    state: State
    survey: Survey | None = None
    unread: Unread
    foreign: ForeignZones | None = None


def check(target: Target, _options: CheckOptions) -> ZdmEvidence:
    """Check the ZDM at ``target.start_bytes``.

    Raises:
        MetadataError: there is no ZDM, or its map cache is impossible.
        GeometryError: its numbers cannot be those of this partition.
    """
    return check_state(target, load(target))


def check_state(target: Target, state: State) -> ZdmEvidence:
    """The check of metadata that are loaded already."""
    evidence = ZdmEvidence(target, facts=_facts(state), state=state, unread=Unread.of(state, None))
    _judge(evidence)
    if state.volume.unread:
        evidence.unread = Unread.of(state, evidence.survey)
        evidence.findings += evidence.unread.findings()
    return evidence


def _judge(evidence: ZdmEvidence) -> None:
    """Every rule; unreadable blocks break none."""
    state, found = evidence.state, evidence.findings
    found += findings.of_identity(state)
    found += findings.of_keys(state)
    current = state.current
    if current is None and not state.fresh:
        found += findings.of_lost_generations(state)
        return
    if state.refusal:
        return
    if current is not None:
        found += findings.of_generation(state, current)
    measured = evidence.survey = survey(state)
    if current is None:
        found += findings.of_fresh(measured)
        return
    found += findings.of_tables(state, measured)
    found += findings.of_zones(state, measured)
    evidence.foreign = find_foreign(state, measured)
    if evidence.foreign is not None:
        found.groups = [group for group in found.groups if group.code not in COMPARED]
        found += findings.of_foreign_zones(evidence.foreign)
    evidence.facts["mapped_blocks"] = measured.mapped


def _facts(state: State) -> dict[str, object]:
    geometry, current = state.geometry, state.current
    return {
        "start_sector": geometry.start_sector,
        "data_zones": geometry.data_zones,
        "logical_blocks": state.logical_blocks,
        "dialect": str(state.dialect),
        "generation": current.generation if current else None,
    }
