"""fsck, read-only: every rule of the format over the super blocks, both sets and the zones.

The set that is reported is the user's, or the one that the kernel would activate: the only valid one, the
newer one, or set 0 when the generations are equal. Equal generations with different content are decided block by
block (:mod:`~zoned_tools.formats.dm_zoned.choice`): the other set is surveyed too (its findings carry ``"set"``), and
:attr:`DmZonedEvidence.kept` is what counts. A newer set with errors that the older one has not is nobody's choice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.formats.contract import CheckOptions, Evidence, NothingToCheckError, Target
from zoned_tools.formats.dm_zoned.choice import SetChoice, Ties, Wishes, choose
from zoned_tools.formats.dm_zoned.chunks import raise_chunks
from zoned_tools.formats.dm_zoned.constants import MEASURED
from zoned_tools.formats.dm_zoned.content import around_unreadable, content_of
from zoned_tools.formats.dm_zoned.findings import (
    content_differs,
    foreign_zones,
    generations_differ,
    lost_findings,
    runt_findings,
    set_findings,
    size_changed,
    sizes_differ,
    superblock_findings,
    unreadable_findings,
)
from zoned_tools.formats.dm_zoned.foreign import ForeignZones, find_foreign
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, nr_first_write_zones
from zoned_tools.formats.dm_zoned.layout import NR_SETS
from zoned_tools.formats.dm_zoned.settings import CHUNKS, USE_SET
from zoned_tools.formats.dm_zoned.survey import SetSurvey, survey_set
from zoned_tools.formats.shared.findings import Findings, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState
    from zoned_tools.formats.dm_zoned.layout import MetadataLayout, SuperBlock

_STATUS_OF_THE_REFERENCE = 255


@dataclass(slots=True, kw_only=True)
class DmZonedEvidence(Evidence):
    """What a check of a target found.

    Attributes:
        state: the super blocks.
        trusted: the set that the user vouches for.
        surveys: the chosen set first, then the other one if it was surveyed; empty when no set can be used.
        kept: the content that a repair keeps; None when no set can be used, or when somebody has to choose a whole one.
        choice: how two sets of one generation were decided between; None where they are equal or not comparable.
        equal: the tables of both sets are the same.
        foreign: the zone table is not this drive's.
        newer_is_worse: the newer of two sets has errors that the older one has not.
    """

    state: TargetState
    trusted: int | None = None
    surveys: list[SetSurvey] = field(default_factory=list)
    kept: SetSurvey | None = None
    choice: SetChoice | None = None
    equal: bool = False
    foreign: ForeignZones | None = None
    newer_is_worse: bool = False

    @property
    def geometry(self) -> TargetGeometry:
        return self.state.geometry

    @property
    def ties(self) -> Ties | None:
        """What both sets have equally well, and differently."""
        return self.choice.ties if self.choice is not None else None

    @property
    def source(self) -> int | None:
        """The set that is copied to the other one; None when somebody has to choose."""
        return self.kept.number if self.kept is not None and self.ties is None else None

    @property
    def chosen(self) -> SetSurvey:
        """The survey of the set that is reported."""
        return self.surveys[0]

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


def _advice(evidence: DmZonedEvidence) -> str:
    """What is wrong with the set that somebody would want to trust."""
    sets, trusted = evidence.state.sets, evidence.trusted
    if trusted is not None:
        return f"set {trusted} cannot be used: {_wrong(sets[trusted])}; set {1 - trusted}: {_wrong(sets[1 - trusted])}"
    if evidence.state.rebuilt is not None:
        return "zoned check --repair --layout dm-zoned --allow sb-lost makes them anew, zoned export reads without them"
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
    return around_unreadable(target, lambda state: _check(target, state, options, trusted), trusted, rebuilds=True)


def _check(target: Target, state: TargetState, options: CheckOptions, trusted: int | None) -> DmZonedEvidence:
    raise_chunks(state, options.settings.number(CHUNKS))
    evidence = DmZonedEvidence(target=target, state=state, trusted=trusted)
    evidence.findings.extend(size_changed(evidence.geometry))
    evidence.findings.extend(superblock_findings(state))
    if state.chosen is None or state.layout is None:
        raise NoValidSuperBlockError(evidence)
    _check_sets(evidence, state.chosen, state.layout, Wishes.of(options.settings))
    _judge_media(evidence)
    _judge_zones(evidence)
    evidence.findings.add(runt_findings(evidence.geometry))
    evidence.facts.update(_facts(evidence, evidence.state.superblock))
    return evidence


def _check_sets(evidence: DmZonedEvidence, chosen: int, layout: MetadataLayout, wishes: Wishes) -> None:
    """Survey the chosen set, the other one where it could be as good, and decide between them."""
    state, other = evidence.state, 1 - chosen
    generations = [s.superblock.gen if s.superblock is not None else 0 for s in state.sets]
    compared = state.both_count and generations[0] == generations[1]
    survey = survey_set(content_of(state, chosen), other if compared else None)
    if not state.both_count:
        _report(evidence, survey)
        evidence.kept = survey
    elif not compared:
        evidence.findings.add(generations_differ(generations))
        _report(evidence, survey)
        newer = chosen if generations[chosen] > generations[other] else other
        evidence.newer_is_worse = _is_worse(evidence, newer)
        evidence.kept = None if evidence.trusted is None and evidence.newer_is_worse else survey
    elif state.layout_of(other) != layout:
        _choose_whole_set(evidence, survey)
    elif len(survey.differing):
        unreadable = state.blocks.unreadable(layout, 0), state.blocks.unreadable(layout, 1)
        choice = choose(state.blocks, layout, survey.differing, shown=chosen, wishes=wishes, unreadable=unreadable)
        evidence.choice, evidence.kept = choice, choice.kept
        evidence.findings.add(content_differs(choice))
        shown = sorted(choice.surveys, key=lambda one: one.number != chosen)
        _report(evidence, *shown)
    else:
        _report(evidence, survey)
        evidence.kept = survey
        evidence.equal = not any(state.blocks.unreadable(layout, number).any() for number in range(NR_SETS))


def _judge_media(evidence: DmZonedEvidence) -> None:
    """What cannot be read of the metadata, and what depends on what no set has."""
    view = (evidence.kept or evidence.chosen).view
    evidence.findings.extend(unreadable_findings(evidence.state, view))
    evidence.findings.extend(lost_findings(view))


def _judge_zones(evidence: DmZonedEvidence) -> None:
    """A zone table that is another drive's is one finding, and what follows from it is none."""
    survey = evidence.kept or evidence.chosen
    evidence.foreign = find_foreign(survey.view, survey.map, survey.bits)
    if evidence.foreign is not None:
        evidence.findings.groups = [g for g in evidence.findings.groups if g.code not in MEASURED]
        evidence.findings.add(foreign_zones(evidence.foreign))


def _report(evidence: DmZonedEvidence, survey: SetSurvey, rival: SetSurvey | None = None) -> None:
    """Findings of the set that is shown, and of its rival with a mark."""
    evidence.surveys += [survey, rival] if rival is not None else [survey]
    evidence.findings.extend(set_findings(evidence.geometry, survey))
    if rival is not None:
        groups = Findings(set_findings(evidence.geometry, rival)).groups
        evidence.findings.extend(group.with_place("set", rival.number) for group in groups)


def _is_worse(evidence: DmZonedEvidence, newer: int) -> bool:
    """Whether the newer of two sets has errors that the older one has not."""
    errors = _errors_of(evidence, newer)
    return bool(errors and errors - _errors_of(evidence, 1 - newer))


def _errors_of(evidence: DmZonedEvidence, number: int) -> Counter[str]:
    """How many errors of each code there are in the content of a set."""
    state, survey = evidence.state, evidence.chosen
    if survey.number != number:
        survey = survey_set(content_of(state, number))
    groups = Findings(set_findings(evidence.geometry, survey)).groups
    return Counter({group.code: len(group) for group in groups if group.severity is Severity.ERROR})


def _choose_whole_set(evidence: DmZonedEvidence, survey: SetSurvey) -> None:
    """Two sets of one generation whose super blocks disagree about the sizes: blocks cannot be compared."""
    state, other = evidence.state, 1 - survey.number
    rival = survey_set(content_of(state, other))
    own, theirs = (len(Findings(set_findings(evidence.geometry, one))) for one in (survey, rival))
    if len(survey.differing):
        evidence.findings.add(sizes_differ(survey, own, theirs))
        _report(evidence, survey, rival)
    else:
        _report(evidence, survey)
    if evidence.trusted is not None or own < theirs:
        evidence.kept = survey
    elif theirs < own:
        evidence.kept = rival


def _facts(evidence: DmZonedEvidence, sb: SuperBlock) -> dict[str, object]:
    survey = evidence.chosen
    return {
        "set_used": evidence.state.chosen,
        "recommended_set": evidence.source,
        "needs_sync": "sets-gen-differ" in evidence.findings.codes,
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
