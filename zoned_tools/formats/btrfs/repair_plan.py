"""Repair of the super block rings: a good block, unchanged, where the kernel looks for the newest; then block groups.

What gives nothing up is certain. Going back to an older super block, because the roots of the
newer ones cannot be read, and dropping a tree log lose something and wait for consent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.formats.btrfs.judge import Good, choose_good, repair_code
from zoned_tools.formats.btrfs.layout import RootFields
from zoned_tools.formats.btrfs.repair_block_groups import plan_block_groups
from zoned_tools.formats.btrfs.repair_writes import place_good
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.contract import Consent, Consents, RepairPlan

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.check import BtrfsEvidence
    from zoned_tools.formats.btrfs.survey import DeviceSurvey, FileSystem, MirrorSurvey


def plan_repair(evidence: BtrfsEvidence, consents: Consents) -> RepairPlan:
    """Plan what makes the kernel find a good super block in every mirror, and block groups fit their zones.

    ``consents.allow`` may name ``roots-unreadable`` (go back to the newest super block
    whose roots can be read), ``log-unreadable`` (drop the tree log), ``bg-wp-differs`` (copy tails although nodes are
    lost) and ``zone-orphan`` (reset zones that nothing owns).

    Raises:
        RefusedError: going back is agreed to, and a ring has a zone that is read-only or offline; that or dropping
            the tree log is, and a device of the file system was not given.
    """
    repair = RepairPlan(Plan("repair btrfs"))
    for index in range(len(evidence.survey.surveys)):
        _DeviceRepair(evidence.survey, index, consents.allow, repair).decide()
    plan_block_groups(evidence, consents.allow, repair)
    return repair


@dataclass(frozen=True, slots=True)
class _Broken:
    """A mirror in which the kernel does not find a good super block: the finding, and a good one."""

    code: str
    mirror: MirrorSurvey
    good: Good


@dataclass(frozen=True, slots=True)
class _Placement:
    """A super block for a mirror; ``always``: also where finishing zones would do."""

    mirror: MirrorSurvey
    good: Good
    always: bool


@dataclass(slots=True)
class _DeviceRepair:
    """Decides about the mirrors of one device, and then adds the steps for all of them.

    Attributes:
        placements: what is decided, by number of the mirror.
    """

    fs: FileSystem
    index: int
    allow: frozenset[str]
    repair: RepairPlan
    placements: dict[int, _Placement] = field(default_factory=dict)

    def decide(self) -> None:
        broken = self._broken()
        given_up = self._given_up(broken)
        goes_back = given_up is not None and self._go_back(given_up)
        if not goes_back:
            self._restore([one for one in broken if given_up is None or one.good.passed_over is None])
        if given_up is None or goes_back:
            self._drop_log(broken)
        for _, placement in sorted(self.placements.items()):
            place_good(self.repair.plan, self.index, placement.mirror, placement.good, always=placement.always)

    @property
    def survey(self) -> DeviceSurvey:
        return self.fs.surveys[self.index]

    @property
    def path(self) -> str:
        return self.survey.device.path

    def _note(self, mirror: MirrorSurvey, text: str) -> None:
        self.repair.plan.messages.append(f"{self.path}: mirror {mirror.number}{text}")

    # -- mirrors

    def _broken(self) -> list[_Broken]:
        """The mirrors that can be repaired; the others that need it are noted."""
        broken = []
        for mirror in self.survey.mirrors:
            code = repair_code(mirror)
            if code is None:
                continue
            good = None if mirror.is_dead or mirror.is_too_small else choose_good(self.fs, self.index, mirror)
            if mirror.is_dead:
                self._note(mirror, " cannot be repaired: one of its zones is read-only or offline")
            elif mirror.is_too_small:
                self._note(mirror, " cannot be repaired: one of its zones has room for fewer than two super blocks")
            elif good is None:
                self._note(mirror, " cannot be repaired: no mirror holds a valid super block")
            elif mirror.head_is_valid and good.is_refused:
                self._note(mirror, f" is left: the kernel refuses generation {good.generation}, its newest valid one")
            else:
                broken.append(_Broken(code, mirror, good))
                if not mirror.mirror.capacity_known:
                    self._note(
                        mirror, ": the zone capacity is not known; check the image's zone table before restoring it"
                    )
        return broken

    def _restore(self, broken: list[_Broken]) -> None:
        """Nothing is given up: the good block becomes the newest."""
        for one in broken:
            good = one.good
            sentence = (
                f"{self.path}: mirror {one.mirror.number}: the super block of generation {good.generation} "
                f"at byte {good.offset_bytes} becomes the newest"
            )
            if good.readable is False:
                sentence += "; it is the newest valid one, none is left whose roots can be read"
            self.repair.add(RULES.action(one.code, sentence, **self.fs.where(self.index, one.mirror)))
            self.placements[one.mirror.number] = _Placement(one.mirror, good, always=False)

    # -- going back

    def _given_up(self, broken: list[_Broken]) -> int | None:
        """Generation of the newest super block when an older one has to be taken for readable roots; else None.

        Mirror 0 leads: while its roots can be read, an older block in another mirror loses nothing.
        """
        head = self._sound_head(broken)
        if head is None:
            return max((one.good.passed_over for one in broken if one.good.passed_over is not None), default=None)
        fields = RootFields.of(head.block)
        if self.fs.reader.roots_readable(fields).readable is not False:
            return None
        return None if self._way_back() is None else fields.generation

    def _sound_head(self, broken: list[_Broken]) -> Good | None:
        """The kernel's choice in mirror 0, where that needs no repair."""
        first = self.survey.mirror(0)
        if first is None or first.valid_head is None or any(one.mirror is first for one in broken):
            return None
        head = first.valid_head
        return Good(self.survey.block(head), int(head["generation"]), int(head["offset_bytes"]), 0, readable=None)

    def _way_back(self) -> Good | None:
        """What takes the place of super blocks whose roots cannot be read; None where no roots can be, or the kernel
        would refuse that one for its fields."""
        first = self.survey.mirror(0)
        good = None if first is None else choose_good(self.fs, self.index, first)
        return good if good is not None and good.readable is not False and not good.is_refused else None

    def _go_back(self, given_up: int) -> bool:
        """Plan it for every mirror if the user agreed; returns whether."""
        good = self._way_back()
        assert good is not None
        agreed = "roots-unreadable" in self.allow
        if agreed:
            self.fs.refuse_missing("going back")
        if good.generation < given_up:
            consent = Consent.LOSES
            sentence = (
                f"{self.path}: goes back from generation {given_up} to {good.generation}, the newest whose roots "
                f"can be read; what was committed after generation {good.generation} is lost"
            )
        else:  # mirror 0 may have been rolled back on purpose
            consent = Consent.GUESSES
            sentence = (
                f"{self.path}: takes generation {good.generation} of mirror {good.mirror} "
                f"for generation {given_up}, whose roots cannot be read"
            )
        where = self.fs.where(self.index)
        self.repair.add(
            RULES.action(
                "roots-unreadable",
                sentence,
                consent=consent,
                agreed=agreed,
                **where,
                generation=given_up,
                to_generation=good.generation,
            )
        )
        if agreed:
            for mirror in self.survey.mirrors:
                chosen = choose_good(self.fs, self.index, mirror)
                if chosen is not None and chosen.readable is not False and not chosen.is_refused:
                    self.placements[mirror.number] = _Placement(mirror, chosen, always=True)
        return agreed

    # -- the tree log

    def _drop_log(self, broken: list[_Broken]) -> None:
        """Ask about a log that cannot be read in what will be the kernel's choice of mirror 0."""
        first = self.survey.mirror(0)
        placed = self.placements.get(0)
        good = placed.good if placed is not None else self._sound_head(broken)
        if first is None or good is None:
            return
        fields = RootFields.of(good.block)
        reader = self.fs.reader
        if reader.roots_readable(fields).readable is False or reader.log_readable(fields).readable is not False:
            return
        agreed = "log-unreadable" in self.allow
        if agreed:
            self.fs.refuse_missing("dropping the tree log")
        sentence = (
            f"{self.path}: drops the tree log at {fields.log_root}; what was only synced with fsync "
            f"since the commit of generation {fields.generation} is lost"
        )
        where = self.fs.where(self.index, first)
        self.repair.add(
            RULES.action(
                "log-unreadable",
                sentence,
                consent=Consent.LOSES,
                agreed=agreed,
                **where,
                generation=fields.generation,
            )
        )
        if agreed:
            self.placements[0] = _Placement(first, good.without_log(), always=True)
