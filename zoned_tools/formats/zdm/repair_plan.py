"""What a repair does: tables rebuilt from each other, an identity from geometry and key.

The tables are rebuilt as a whole or not at all, so that what waits for consent holds up everything but
the identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.device.runs import value_runs
from zoned_tools.formats.contract import Consent, Consents, RepairPlan, Severity
from zoned_tools.formats.zdm import findings, layout
from zoned_tools.formats.zdm.constants import NAME
from zoned_tools.formats.zdm.layout import GROUP_ZONES, ZONE_BLOCKS, Dialect
from zoned_tools.formats.zdm.rebuild import Drop, Rebuilt, rebuild
from zoned_tools.formats.zdm.repair_identity import rebuilt_identity
from zoned_tools.formats.zdm.repair_writes import write_empty_crc_pages, write_identity, write_rebuilt
from zoned_tools.formats.zdm.rules import RULES
from zoned_tools.formats.zdm.salvage import Salvage, salvage
from zoned_tools.formats.zdm.survey import survey
from zoned_tools.formats.zdm.unread import LOST, Unread
from zoned_tools.formats.zdm.volume import metadata_zone_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.shared.columns import Column
    from zoned_tools.formats.shared.rules import ActionGroup
    from zoned_tools.formats.zdm.check import ZdmEvidence
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

_WRONG_PLACE = ("key.zdstart", "key.nr_zones", "ident.geometry")
_BESIDE_THE_TABLES = frozenset({"ident.magic", "ident.crc", "zone.cond"})
FOREIGN = "zones-foreign"
_BECAUSE = {
    "fwd.range": "their forward entries name nothing in the data area, and the reverse table has no place for them",
    "fwd.beyond_wp": "their entries name blocks above a write pointer, where nothing was written",
    "map.double": "the blocks that they name belong to others by both tables",
    "lut.crc.fwd": "their table page is damaged, and the reverse table does not confirm them",
    "cache.range": "their map cache entries name nothing in the data area",
}
"""Why mappings become unmapped, by the rule that they break."""


def plan_repair(evidence: ZdmEvidence, consents: Consents) -> RepairPlan:
    """What to write so that a check finds nothing but notes.

    The plan is empty when there is nothing to repair, or nothing that repair may touch; its
    messages then say why.
    """
    return _Planner(evidence, consents).run()


class _Planner:
    """Makes one plan."""

    def __init__(self, evidence: ZdmEvidence, consents: Consents) -> None:
        self._evidence = evidence
        self._state = evidence.state
        self._allow = consents.allow
        self._codes = {group.code for group in evidence.findings.groups if group.severity is not Severity.INFO}
        self._repair = RepairPlan(Plan("repair ZDM metadata"))
        self._told: set[str] = set()

    @property
    def _plan(self) -> Plan:
        return self._repair.plan

    def run(self) -> RepairPlan:
        if not self._may_repair() or self._waits_for_zones():
            return self._repair
        self._plan_identity()
        if self._codes <= _BESIDE_THE_TABLES or (self._codes == {LOST} and not self._evidence.unread.ranges):
            return self._repair
        if self._state.fresh and "key.none" not in self._codes:
            write_empty_crc_pages(self._state, self._plan)
            self._repair.add(RULES.action("crcpage.crc", "the CRC pages of a ZDM that was never started are emptied"))
            return self._repair
        tables = self._salvaged() if self._state.current is None else (self._state, self._evidence.survey)
        if tables is not None and tables[1] is not None:
            self._plan_tables(tables[0], tables[1])
        return self._repair

    def _may_repair(self) -> bool:
        """Whether anything may be written at all."""
        if not self._codes:
            return False
        messages = self._plan.messages
        if self._state.dialect is not Dialect.D3:
            messages.append(f"metadata of releases {self._state.dialect} are only read; copy the content to a new ZDM")
            return False
        wrong = [code for code in _WRONG_PLACE if code in self._codes]
        if wrong:
            messages.append(_wrong_place(wrong))
            return False
        unwritable = metadata_zone_refusal(self._state.volume, self._state.geometry)
        if unwritable:
            messages.append(f"{unwritable}; copy the content elsewhere")
            return False
        if "zone.cond" in self._codes:
            messages.append("live data lie in zones that are read-only or offline; copy the content elsewhere")
        return True

    def _waits_for_zones(self) -> bool:
        """Whether the zone table is another drive's, and nobody said that it is right all the same."""
        if self._evidence.foreign is None:
            return False
        action = RULES.action(
            FOREIGN,
            "the zone table is believed, and what it contradicts is given up",
            consent=Consent.LOSES,
            agreed=FOREIGN in self._allow,
        )
        return self._repair.add(action).waits

    def _plan_identity(self) -> None:
        if self._state.identity.usable:
            return
        if self._evidence.unread.identity:
            self._plan_lost_identity()
            return
        write_identity(self._state, rebuilt_identity(self._state), self._plan)
        code = "ident.magic" if "ident.magic" in self._codes else "ident.crc"
        sentence = "the identity super block is rebuilt; check label and options with zdmadm --probe"
        self._repair.add(RULES.action(code, sentence, block=layout.IDENTITY_BLOCK))

    def _plan_lost_identity(self) -> None:
        identity = rebuilt_identity(self._state)
        sentence = (
            f"the identity super block is rebuilt for {identity.zdm_blocks // layout.BLOCK_SECTORS} logical blocks, "
            "with the default over provision and a new uuid, without label"
        )
        action = RULES.action(
            LOST, sentence, consent=Consent.GUESSES, agreed=LOST in self._allow, block=layout.IDENTITY_BLOCK
        )
        if not self._repair.add(action).waits:
            write_identity(self._state, identity, self._plan)

    # -- no generation

    def _salvaged(self) -> tuple[State, Survey] | None:
        """What to go on with where no generation counts; None when that waits, or would be somewhere else."""
        found = salvage(self._state)
        state = found.state
        if state.current is not None:
            codes = {group.code for group in findings.of_generation(state, state.current)}
            wrong = [code for code in _WRONG_PLACE if code in codes]
            if wrong or state.refusal:
                self._plan.messages.append(_wrong_place(wrong or ["ident.geometry"]))
                return None
        measured = survey(state)
        action = self._repair.add(
            RULES.action(
                "key.none",
                _salvage_sentence(found, measured),
                consent=found.consent,
                agreed="key.none" in self._allow,
                mapped_blocks=measured.mapped,
            )
        )
        return None if action.waits else (state, measured)

    # -- tables

    def _plan_tables(self, state: State, measured: Survey) -> None:
        rebuilt = rebuild(state, measured)
        lost = Unread.of(state, measured).logical
        actions = [*self._losses(state, rebuilt), self._lost_pages(lost), self._guesses(rebuilt)]
        for action in actions:
            self._repair.add(action)
        if any(action.waits for action in actions if len(action)):
            return
        self._note_fallback(state)
        self._note_drops(state, rebuilt)
        self._note_doubled_entries(state)
        self._note_the_rest()
        write_rebuilt(state, measured, rebuilt, self._plan)

    def _losses(self, state: State, rebuilt: Rebuilt) -> Iterator[ActionGroup]:
        """Mappings of data that the drive had and has no longer; whoever believes its zone table agreed to them."""
        for drop in rebuilt.drops:
            gone = _lost_by_drive(state, drop)
            if gone.any():
                yield _range_actions(
                    "fwd.beyond_wp",
                    "logical blocks {logical_block} to {last} ({blocks}) lie above the write pointer of data "
                    "zone {data_zone}: the drive has lost these data, and their mappings are dropped",
                    drop.logical[gone],
                    _zone_of(state, drop.physical[gone]),
                    consent=Consent.LOSES,
                    agreed="fwd.beyond_wp" in self._allow or self._evidence.foreign is not None,
                )

    def _lost_pages(self, logical: IntArray) -> ActionGroup:
        """Mappings that nothing is left of."""
        return _range_actions(
            LOST,
            "logical blocks {logical_block} to {last} ({blocks}) become unmapped: their table page cannot be read, and "
            "the reverse table does not name them",
            logical,
            consent=Consent.LOSES,
            agreed=LOST in self._allow,
        )

    def _guesses(self, rebuilt: Rebuilt) -> ActionGroup:
        """Blocks that several logical blocks claim alike."""
        physical, kept, given_up = rebuilt.ties.T
        return RULES.actions(
            "map.double",
            "block {physical_block} is claimed by logical blocks {kept} and {logical_block}, and nothing but their "
            "order decides: {kept} keeps it, {logical_block} loses it",
            consent=Consent.GUESSES,
            agreed="map.double" in self._allow,
            physical_block=physical,
            logical_block=given_up,
            words={"kept": kept},
        )

    # -- what is told

    def _note_fallback(self, state: State) -> None:
        """Newer generations that are given up."""
        current, torn = state.current, state.generations.torn
        if current is None or not torn:
            return
        sentence = (
            "generation {generation} (key in block {block}) is incomplete ({fault}) and is given up; "
            f"generation {current.generation} is used"
        )
        faults = [c.fault for c in torn]
        self._repair.add(
            RULES.actions(
                "gen.torn",
                sentence,
                words={"fault": faults},
                generation=[c.generation for c in torn],
                block=[c.block for c in torn],
            )
        )
        self._told.update({"gen.torn", *faults})

    def _note_drops(self, state: State, rebuilt: Rebuilt) -> None:
        """Name every mapping that moves or goes."""
        self._repair.add(
            _range_actions(
                "rev.nofwd",
                "logical blocks {logical_block} to {last} ({blocks}) are recovered from the reverse table",
                rebuilt.recovered,
            )
        )
        for drop in rebuilt.drops:
            sentence = "logical blocks {logical_block} to {last} ({blocks}) become unmapped: "
            damaged = ~_lost_by_drive(state, drop)
            self._repair.add(_range_actions(drop.code, sentence + _BECAUSE[drop.code], drop.logical[damaged]))

    def _note_doubled_entries(self, state: State) -> None:
        """Map cache entries that give way to another one for the same logical block."""
        current = state.current
        if current is None:
            return
        rows = current.cache[np.argsort(current.cache[:, 0], kind="stable")]
        again = np.flatnonzero(rows[1:, 0] == rows[:-1, 0])
        self._repair.add(
            RULES.actions(
                "cache.dup",
                "logical block {logical_block} has map cache entries for blocks {given_up} and {kept} (0: none): "
                "the second one is kept",
                logical_block=rows[again, 0] - state.geometry.data_start,
                words={"given_up": rows[again, 2], "kept": rows[again + 1, 2]},
            )
        )

    def _note_the_rest(self) -> None:
        """What else the findings lead to, each thing once."""
        told = self._told | {LOST} | {action.id.removeprefix(f"{NAME}.") for action in self._repair.actions}
        sentences: dict[str, str] = {}
        for code in (group.code for group in self._evidence.findings.groups):
            repair = RULES[code].repair
            if repair and code in self._codes and code not in told | _BECAUSE.keys():
                sentences.setdefault(repair.split(". ")[0].removesuffix("."), code)
        for sentence, code in sentences.items():
            self._repair.add(RULES.action(code, sentence))


def _wrong_place(codes: list[str]) -> str:
    return f"{', '.join(codes)}: the partition or its start sector is probably wrong, nothing is changed"


def _salvage_sentence(found: Salvage, measured: Survey) -> str:
    best = found.state.current
    if best is None:
        return (
            "no generation can be salvaged: map cache, discards and journaled pages are lost, and what the tables "
            f"hold at their home place is left, {measured.mapped} mapped blocks"
        )
    sentence = f"every key is damaged; the generation of block {best.block} is complete but for the key's checksum"
    if found.consent is Consent.CERTAIN:
        return sentence
    others = ", ".join(str(c.block) for c in found.state.generations.salvageable if c is not best)
    return f"{sentence}, but so are those of blocks {others}, and nothing proves which is the newest"


def _zone_of(state: State, physical: IntArray) -> IntArray:
    zones: IntArray = (physical - state.geometry.table_base) // ZONE_BLOCKS
    return zones


def _lost_by_drive(state: State, drop: Drop) -> BoolArray:
    """Which dropped mappings named data that the drive once had: the write pointer of their zone fell.

    The record tells that it did. Where the record is damaged, a mapping on which both tables agree tells it.
    """
    if drop.code != "fwd.beyond_wp":
        return np.zeros(len(drop.logical), np.bool_)
    zones = state.zones
    recorded = np.minimum((state.wp & layout.WP_MASK).astype(np.int64), ZONE_BLOCKS)
    damaged = np.zeros(state.geometry.groups, np.bool_)
    damaged[state.wp_bad] = True
    unknown = np.repeat(damaged, GROUP_ZONES)[: len(recorded)]
    fell = zones.sequential & ~zones.dead & np.where(unknown, drop.proved, recorded > zones.wp_blocks)
    mask: BoolArray = fell[_zone_of(state, drop.physical)]
    return mask


def _range_actions(
    code: str,
    sentence: str,
    logical: IntArray,
    zones: IntArray | None = None,
    *,
    consent: Consent = Consent.CERTAIN,
    agreed: bool = False,
) -> ActionGroup:
    """One action for each run of ``logical`` blocks, ascending, and each data zone if ``zones`` are given."""
    offset = logical - np.arange(len(logical))
    bounds = value_runs(offset if zones is None else offset * layout.MAX_DATA_ZONES + zones)
    places: dict[str, Column] = {"logical_block": logical[bounds[:, 0]], "blocks": bounds[:, 1] - bounds[:, 0]}
    if zones is not None:
        places["data_zone"] = zones[bounds[:, 0]]
    words = {"last": logical[bounds[:, 1] - 1]}
    return RULES.actions(code, sentence, consent=consent, agreed=agreed, needs="", words=words, **places)
