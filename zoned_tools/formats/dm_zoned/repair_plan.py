"""Repair: everything is decided from what check measured, before anything is written.

Version, UUIDs and labels stay. What guesses or loses something waits for consent; a device that may not be
a member at all, and two sets that are equally good, hold up everything that depends on them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Consent, Consents, RepairPlan
from zoned_tools.formats.dm_zoned.check import DmZonedEvidence, NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.choice import without
from zoned_tools.formats.dm_zoned.chunks import raised
from zoned_tools.formats.dm_zoned.geometry import held_zones
from zoned_tools.formats.dm_zoned.judge import SET_NAMES, UNREADABLE
from zoned_tools.formats.dm_zoned.layout import NR_SETS
from zoned_tools.formats.dm_zoned.lost import written_bits
from zoned_tools.formats.dm_zoned.pairing import with_pairs
from zoned_tools.formats.dm_zoned.repair_bits import BitmapRepair
from zoned_tools.formats.dm_zoned.repair_map import MapRepair
from zoned_tools.formats.dm_zoned.repair_superblocks import (
    doubtful_members,
    rebuilt_superblock,
    repaired_superblock,
    rewritten,
    tertiary_repairs,
)
from zoned_tools.formats.dm_zoned.repair_writes import (
    healing_steps,
    plan_in_place,
    plan_resets,
    plan_sets,
    plan_tertiary,
    refuse_dead_zones,
    set_superblocks,
    table_steps,
)
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import PAIR, USE_SET, named_pairs
from zoned_tools.formats.dm_zoned.survey import narrow, survey_map, survey_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.dm_zoned.choice import Ties
    from zoned_tools.formats.dm_zoned.judge import TargetState
    from zoned_tools.formats.dm_zoned.layout import SuperBlock
    from zoned_tools.formats.dm_zoned.survey import SetSurvey
    from zoned_tools.formats.shared.rules import ActionGroup

_MAX_ROUNDS = 8
"""Of decisions that make others certain; each one settles an entry, and what is left waits."""


def plan_repair(evidence: DmZonedEvidence, consents: Consents) -> RepairPlan:
    """Plan that leaves no error, as far as the user's consent goes; empty when there is nothing to do.

    Raises:
        NoValidSuperBlockError: no set can be used.
        RefusedError: members are in the wrong order, too many zones died, or a zone that has to be written
            cannot be written any more.
        UsageError: the evidence was gathered with another ``use-set``.
    """
    if not evidence.surveys:
        raise NoValidSuperBlockError(evidence)
    trusted = consents.settings.number(USE_SET)
    if trusted is not None and trusted != evidence.trusted:
        raise UsageError(f"{USE_SET}={trusted} is for the check, whose findings are repaired")
    repair = RepairPlan(Plan("repair dm-zoned metadata"))
    taken = [doubt.action(agreed=doubt.code in consents.allow) for doubt in doubtful_members(evidence.state)]
    for action in _first_questions(evidence, taken, consents.allow):
        repair.add(action)
    if repair.waiting:  # everything else was measured on what they are about
        return repair
    if evidence.kept is None:
        _leave_sets(repair, evidence)
    else:
        _repair_sets(repair, evidence, evidence.kept, consents, taken)
    refuse_dead_zones(repair.plan, evidence.geometry, evidence.chosen.layout)
    return repair


def _first_questions(
    evidence: DmZonedEvidence, taken: list[ActionGroup], allow: frozenset[str]
) -> Iterator[ActionGroup]:
    """What everything else depends on; after one that waits no other is asked."""
    if evidence.foreign is not None:
        action = RULES.action(
            "zones-foreign",
            "the zone table is believed, and what it contradicts is given up",
            consent=Consent.LOSES,
            agreed="zones-foreign" in allow,
        )
        yield action
        if action.waits:
            return
    if any(action.waits for action in taken):
        yield from taken
        return
    for later in (
        _made_anew(evidence, agreed="sb-lost" in allow),
        _from_the_older_set(evidence, agreed=UNREADABLE in allow),
    ):
        if later is not None:
            yield later
            if later.waits:
                return


def _made_anew(evidence: DmZonedEvidence, *, agreed: bool) -> ActionGroup | None:
    """Lost super blocks; while the sets differ about something nothing says which is right, they cannot be made."""
    rebuilt = evidence.state.rebuilt
    if rebuilt is None:
        return None
    undecided = evidence.ties is not None
    source = "a member's" if rebuilt.member is not None else "what mapping table and bitmaps fit"
    return RULES.action(
        "sb-lost",
        f"the super blocks of both metadata sets are made anew from {source}",
        consent=Consent.GUESSES,
        agreed=agreed and not undecided,
        needs="--use-set N" if agreed and undecided else "",
    )


def _from_the_older_set(evidence: DmZonedEvidence, *, agreed: bool) -> ActionGroup | None:
    """Blocks that one set has and that are written into one of another generation; None when there are none."""
    state, kept = evidence.state, evidence.kept
    if kept is None or "sets-gen-differ" not in evidence.findings.codes:
        return None
    mask = state.blocks.unreadable(kept.layout, kept.number)
    count = int(np.count_nonzero(mask if kept.view.lost is None else mask & ~kept.view.lost))
    if not count:
        return None
    return RULES.action(
        UNREADABLE,
        f"{count} blocks of the {SET_NAMES[kept.number]} metadata set that cannot be read are taken from the other "
        "set, which is of another generation; until then the sets are not synchronized",
        consent=Consent.GUESSES,
        agreed=agreed,
        set=kept.number,
    )


def _read_again(evidence: DmZonedEvidence) -> Iterator[ActionGroup]:
    """Blocks that cannot be read and that the other set has."""
    state, kept = evidence.state, evidence.kept
    assert kept is not None
    if _from_the_older_set(evidence, agreed=True) is not None:
        return  # that is said already
    for number in range(NR_SETS):
        mask = state.blocks.unreadable(kept.layout, number)
        count = int(np.count_nonzero(mask if kept.view.lost is None else mask & ~kept.view.lost))
        if count:
            text = f"{count} blocks of the {SET_NAMES[number]} metadata set that cannot be read are written again"
            yield RULES.action(UNREADABLE, text, set=number)


def _with_lost(
    kept: SetSurvey, pairs: Mapping[int, tuple[int, int | None]], *, agreed: bool
) -> tuple[SetSurvey, list[ActionGroup]]:
    """The content with what no set has made anew, where that is agreed to or certain."""
    view = kept.view
    if view.lost is None:
        return kept, []
    table = with_pairs(view, pairs).read_map()
    zones = np.flatnonzero(view.lost_zones)
    mapping = survey_map(view.blocks.geometry, view.layout, table)
    left = (kept.bits.weight > 0) & ~mapping.owners.named & ~held_zones(view.blocks.geometry, view.layout)
    certain = bool(view.lost_map.any()) and not left.any() and not len(zones)
    actions = []
    for block in np.flatnonzero(view.lost_map).tolist():
        text = f"map block {block} is written anew: chunks that no setting names are unmapped"
        consent = Consent.CERTAIN if certain else Consent.LOSES
        actions.append(RULES.action("metadata-lost", text, consent=consent, agreed=agreed, what="map", block=block))
    if len(zones):
        actions.append(
            RULES.actions(
                "metadata-lost",
                "zone {zone}: every block that was written is valid from now on",
                zone=narrow(zones),
                consent=Consent.LOSES,
                agreed=agreed,
            )
        )
    if any(action.waits for action in actions):
        return kept, actions
    made = {zone: written_bits(view, table, zone) | view.rows(np.array([zone]))[0] for zone in zones.tolist()}
    return survey_set(replace(view, table=table, made=made or None, lost=None)), actions


def _leave_sets(repair: RepairPlan, evidence: DmZonedEvidence) -> None:
    """Somebody has to choose a whole set before anything can be done about either."""
    if "sets-gen-differ" in evidence.findings.codes:
        code, text = "sets-gen-differ", "the newer metadata set has errors that the older one does not have"
    else:
        code, text = "sets-content-differ", "the metadata sets are of different sizes and equally good"
    repair.add(
        RULES.action(
            code,
            f"{text}: one of them is copied to the other, and repaired, when --use-set N decides which",
            consent=Consent.GUESSES,
            needs="--use-set N",
        )
    )


def _repair_sets(
    repair: RepairPlan, evidence: DmZonedEvidence, kept: SetSurvey, consents: Consents, taken: list[ActionGroup]
) -> None:
    """Repair the content that counts, and give it to both sets; what is undecided stays in each as it is."""
    state, source, ties = evidence.state, kept.number, evidence.ties
    pairs = named_pairs(consents.settings.text(PAIR))
    kept, made = _with_lost(kept, pairs, agreed="metadata-lost" in consents.allow)
    if _is_doubtful(state, kept):
        for action in made:
            repair.add(action)
        return
    mapping, earlier = _decide_map(kept, pairs, ties, consents)
    bitmaps = BitmapRepair(mapping, consents)
    if state.rebuilt is None:
        superblock, actions = repaired_superblock(state, source, consents.allow)
    else:
        superblock, actions = rebuilt_superblock(state, source, consents.settings), []
    healing = healing_steps(kept.view)
    tables = table_steps(mapping.survey, kept.view, mapping.table, bitmaps.edits, equal=evidence.equal, ties=ties)
    done = [
        *made,
        *raised(state, source),
        *_read_again(evidence),
        *_as_named(pairs),
        *earlier,
        *mapping.actions,
        *bitmaps.actions,
    ]
    if ties is None:
        changed = bool(healing or tables[source])
        wanted = set_superblocks(state, source, superblock, changed=changed)
        repair.plan.steps += healing
        if healing:
            repair.plan.flush(0, f"{SET_NAMES[source]} tables are durable before the other set changes")
        sound = not tables[source] and not any(action.waits for action in done)
        plan_sets(repair.plan, state, source, wanted, tables, sound=sound)
        done = [*actions, *rewritten(state, wanted), *done]
    else:
        plan_in_place(repair.plan, source, healing, tables)
    done = [*_copied(evidence, source), *done]
    for action in (*(a for a in done if not a.waits), *taken):
        repair.add(action)
    _repair_members(repair, evidence, superblock, consents.allow)
    for action in (a for a in done if a.waits):
        repair.add(action)
    _repair_zones(repair, mapping, ties, agreed="zone-unmapped-not-empty" in consents.allow)


def _is_doubtful(state: TargetState, kept: SetSurvey) -> bool:
    """The other set can be read where the kept one is lost, and does not serve: a sound super block would make it."""
    lost = kept.view.lost
    return lost is not None and bool((lost & ~state.blocks.unreadable(kept.layout, 1 - kept.number)).any())


def _decide_map(
    kept: SetSurvey, pairs: Mapping[int, tuple[int, int | None]], ties: Ties | None, consents: Consents
) -> tuple[MapRepair, list[ActionGroup]]:
    """The mapping table, and what was done on the way to it: a decision can make another one certain."""
    survey = survey_set(with_pairs(kept.view, pairs)) if pairs else kept
    done: list[ActionGroup] = []
    mapping: MapRepair | None = None
    for _ in range(_MAX_ROUNDS):
        survey = survey if ties is None else without(survey, ties)
        mapping = MapRepair(kept.view.blocks.geometry, survey, consents, mapping)
        mapping.run()
        if np.array_equal(mapping.table, survey.map.table) or not (
            any(action.waits for action in mapping.actions) or _is_faulty(kept, mapping)
        ):
            break
        done += [action for action in mapping.actions if not action.waits]
        survey = survey_set(replace(kept.view, table=mapping.table))
    assert mapping is not None
    return mapping, done


def _is_faulty(kept: SetSurvey, mapping: MapRepair) -> bool:
    """Whether a decided table breaks the rules: written so, a power cut before the next round would leave it."""
    found = survey_map(kept.view.blocks.geometry, kept.layout, mapping.table)
    return bool(len(found.owners.shared.zones)) or any(bool(mask.any()) for mask in found.hard_faults)


def _as_named(pairs: Mapping[int, tuple[int, int | None]]) -> Iterator[ActionGroup]:
    """Chunks that get the zones that the user named."""
    for chunk, (zone, buffer) in pairs.items():
        text = f"chunk {chunk} gets zone {zone}" + (f" and buffer zone {buffer}" if buffer is not None else "")
        yield RULES.action(
            "bits-unmapped", text, consent=Consent.LOSES, agreed=True, needs=f"--set {PAIR}", chunk=chunk
        )


def _copied(evidence: DmZonedEvidence, source: int) -> list[ActionGroup]:
    """That sets replace each other, where they differ."""
    codes = evidence.findings.codes & {"sets-content-differ", "sets-gen-differ"}
    if not codes and source == evidence.state.chosen:
        return []
    code = next(iter(codes), "sets-content-differ")
    choice = evidence.choice
    actions = []
    if choice is not None and choice.kept.view.is_mixed:
        text = (
            f"blocks that the {SET_NAMES[1 - source]} metadata set has better are copied to the {SET_NAMES[source]} one"
        )
        actions.append(RULES.action(code, text))
    if choice is not None and choice.ties is not None:
        actions.append(
            RULES.action(
                code,
                f"the metadata sets are equally good about {choice.ties.describe()}: nothing is written there until "
                "--use-set N decides which set is right",
                consent=Consent.GUESSES,
                needs="--use-set N",
            )
        )
        return actions
    guessed = evidence.trusted is not None and (choice is None or choice.decided_by_user)
    guessed = guessed and (code == "sets-content-differ" or evidence.newer_is_worse)
    consent = Consent.GUESSES if guessed else Consent.CERTAIN
    text = f"the {SET_NAMES[source]} metadata set is copied to the {SET_NAMES[1 - source]} one"
    return [*actions, RULES.action(code, text, consent=consent, agreed=True, needs="--use-set N" if guessed else "")]


def _repair_members(
    repair: RepairPlan, evidence: DmZonedEvidence, superblock: SuperBlock, allow: frozenset[str]
) -> None:
    for member, tertiary, action in tertiary_repairs(evidence.state, superblock, allow):
        if not action.waits:
            plan_tertiary(repair.plan, evidence.geometry, member, tertiary)
        repair.add(action)


def _repair_zones(repair: RepairPlan, mapping: MapRepair, ties: Ties | None, *, agreed: bool) -> None:
    """Written zones that no chunk names: with consent they are reset."""
    geometry = mapping.geometry
    idle = geometry.sequential & geometry.not_empty & ~geometry.dead & ~mapping.held & ~mapping.named
    if ties is not None:
        idle &= ~ties.zones
    if mapping.survey.view.lost_map.any():  # they may be the lost chunks' zones
        idle[:] = False
    zones: IntArray = np.flatnonzero(idle)
    repair.add(
        RULES.actions(
            "zone-unmapped-not-empty",
            "zone {zone} is reset: what was written to it ({wp} blocks) is lost, no chunk names it",
            zone=narrow(zones),
            words={"wp": narrow(geometry.wp_blocks[zones])},
            consent=Consent.LOSES,
            agreed=agreed,
        )
    )
    if agreed:
        plan_resets(repair.plan, geometry, zones)
