"""fsck, read-only: every rule of the format over the super blocks, both sets and the zones.

The set that is reported is the user's, or the one that the kernel would activate: the only valid one, the
newer one, or set 0 when the generations are equal. Equal generations with different content are not
trusted: the other set is surveyed too (its findings carry ``"set"``), and :attr:`DmZonedEvidence.source`
is the one with fewer findings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.formats.contract import CheckOptions, Evidence, NothingToCheckError, Target
from zoned_tools.formats.dm_zoned.findings import (
    content_differs,
    generations_differ,
    runt_findings,
    set_findings,
    superblock_findings,
)
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, nr_first_write_zones
from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState, read_state
from zoned_tools.formats.dm_zoned.open import open_blocks
from zoned_tools.formats.dm_zoned.settings import USE_SET
from zoned_tools.formats.dm_zoned.survey import SetSurvey, survey_set
from zoned_tools.formats.shared.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.dm_zoned.layout import MetadataLayout, SuperBlock

_STATUS_OF_THE_REFERENCE = 255


@dataclass(slots=True, kw_only=True)
class DmZonedEvidence(Evidence):
    """What a check of a target found.

    Attributes:
        state: the super blocks.
        trusted: the set that the user vouches for.
        surveys: the chosen set first, then the other one if it was surveyed; empty when no set can be used.
        source: set whose content a repair keeps; None on a tie, or when no set can be used.
        compared: the sets' tables were compared, block by block.
    """

    state: TargetState
    trusted: int | None = None
    surveys: list[SetSurvey] = field(default_factory=list)
    source: int | None = None
    compared: bool = False

    @property
    def geometry(self) -> TargetGeometry:
        return self.state.geometry

    @property
    def is_tie(self) -> bool:
        """Two valid sets differ, and nothing says which is the better one."""
        return bool(self.surveys) and self.source is None

    @property
    def chosen(self) -> SetSurvey:
        """The survey of the set that is reported."""
        return self.surveys[0]

    def survey_of(self, number: int) -> SetSurvey:
        """The survey of the chosen set, or of the one that was surveyed along with it."""
        return next(survey for survey in self.surveys if survey.number == number)

    @property
    def kernel_dangers(self) -> tuple[str, ...]:
        """What the kernel target does badly with sound metadata on these zones."""
        return tuple(kernel_dangers(self.geometry, self.chosen.layout)) if self.surveys else ()


class NoValidSuperBlockError(NothingToCheckError):
    """Neither metadata set can be used, or not the one that the user wants."""

    clone_status = _STATUS_OF_THE_REFERENCE
    evidence: DmZonedEvidence

    def __init__(self, evidence: DmZonedEvidence) -> None:
        super().__init__("No valid superblock found", evidence, hint=_advice(evidence))

    @property
    def found_any(self) -> bool:
        """False when there is no trace of dm-zoned at all."""
        return self.evidence.state.found_magic


def _advice(evidence: DmZonedEvidence) -> str:
    """What is wrong with the set that somebody would want to trust."""
    sets, trusted = evidence.state.sets, evidence.trusted
    if trusted is not None:
        return f"set {trusted} cannot be used: {_wrong(sets[trusted])}; set {1 - trusted}: {_wrong(sets[1 - trusted])}"
    plausible = next((n for n, s in enumerate(sets) if s.plausible), None)
    if plausible is None:
        return ""
    return f"set {plausible} looks plausible except that its {_wrong(sets[plausible])}: --use-set {plausible} trusts it"


def _wrong(found: SuperBlockState) -> str:
    if found.faults:
        return found.faults[0].message
    return "it is valid" if found.superblock is not None else "it does not fit the device"


def check(target: Target, options: CheckOptions) -> DmZonedEvidence:
    """Check a target; every rule is always checked.

    Raises:
        NoValidSuperBlockError: no metadata set can be used (exit status 255 of the clone), or not the one
            that the setting ``use-set`` names.
        GeometryError: the devices cannot form a target.
        DeviceError: metadata cannot be read.
    """
    trusted = options.settings.number(USE_SET)
    evidence = DmZonedEvidence(target=target, state=read_state(open_blocks(target), trusted), trusted=trusted)
    evidence.findings.extend(superblock_findings(evidence.state))
    if evidence.state.chosen is None or evidence.state.layout is None:
        raise NoValidSuperBlockError(evidence)
    _check_sets(evidence, evidence.state.chosen, evidence.state.layout)
    evidence.findings.add(runt_findings(evidence.geometry))
    evidence.facts.update(_facts(evidence, evidence.state.superblock))
    return evidence


def _check_sets(evidence: DmZonedEvidence, chosen: int, layout: MetadataLayout) -> None:
    """Survey the chosen set, the other one where it could be as good, and decide between them."""
    state, other = evidence.state, 1 - chosen
    generations = [s.superblock.gen if s.superblock is not None else 0 for s in state.sets]
    evidence.compared = state.both_valid and generations[0] == generations[1]
    survey = survey_set(state.blocks, layout, chosen, other if evidence.compared else None)
    evidence.surveys.append(survey)
    evidence.source = chosen
    own, theirs = Findings(set_findings(state.geometry, survey)), Findings()
    if state.both_valid and not evidence.compared:
        evidence.findings.add(generations_differ(generations))
    elif evidence.compared and (survey.differing_blocks or state.layout_of(other) != layout):
        rival = survey_set(state.blocks, state.layout_of(other), other)
        evidence.surveys.append(rival)
        theirs = Findings(set_findings(state.geometry, rival))
        evidence.source = _better(evidence.trusted, chosen, len(own), len(theirs))
        if survey.differing_blocks:  # else only the super blocks disagree, about the number of chunks
            evidence.findings.add(content_differs(survey, len(own), len(theirs)))
        else:
            theirs = Findings()
    evidence.findings.extend(own.groups)
    evidence.findings.extend(group.with_place("set", other) for group in theirs.groups)


def _better(trusted: int | None, chosen: int, own: int, theirs: int) -> int | None:
    """The set to keep: the user's, the one with fewer findings; nobody's on a tie."""
    if trusted is not None:
        return trusted
    if own == theirs:
        return None
    return chosen if own < theirs else 1 - chosen


def _facts(evidence: DmZonedEvidence, sb: SuperBlock) -> dict[str, object]:
    survey = evidence.chosen
    return {
        "set_used": evidence.state.chosen,
        "recommended_set": evidence.source,
        "version": sb.version,
        "generation": sb.gen,
        "uuid": str(sb.dmz_uuid) if sb.version > 1 else "",
        "label": sb.label,
        "zones": evidence.geometry.nr_zones,
        "chunks": sb.nr_chunks,
        "mapped_chunks": survey.map.nr_mapped,
        "buffered_chunks": survey.map.nr_buffered,
        "valid_blocks": int(survey.bits.weight.sum()),
        "kernel_dangers": list(evidence.kernel_dangers),
    }


def kernel_dangers(geometry: TargetGeometry, layout: MetadataLayout) -> Iterator[str]:
    """What the kernel target does badly with sound metadata on these zones."""
    if not nr_first_write_zones(geometry, layout):
        yield "no conventional or cache zone is left for data: it activates, but every write waits for ever"
    zones = layout.metadata_zones
    if not bool(geometry.cache[zones.start : zones.stop].all()):
        yield "metadata are outside of the conventional or cache zones: activating fails or crashes the kernel"
