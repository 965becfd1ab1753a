"""What a repair asks: each code that can ask waits in some state and acts there when it is agreed to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.formats.btrfs.images import SUPER_BYTES, head_of, make_super, torn
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import RefusedError
from zoned_tools.formats.btrfs.check import BtrfsEvidence, check
from zoned_tools.formats.btrfs.repair_plan import plan_repair
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.survey import DeviceSurvey, survey_device
from zoned_tools.formats.contract import CheckOptions, Consent, Consents, RepairPlan, Target

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

Image = Callable[[str], Path]

NO_CHUNK = 1 << 50
"""Address that no chunk holds."""


def evidence_of(device: Device) -> BtrfsEvidence:
    return check(Target("btrfs", (device,)), CheckOptions())


def repair_of(evidence: BtrfsEvidence, *allow: str) -> RepairPlan:
    return plan_repair(evidence, Consents(frozenset(allow)))


def waiting(repair: RepairPlan) -> list[str]:
    return [action.id.removeprefix("btrfs.") for action in repair.waiting]


def sentences(repair: RepairPlan) -> str:
    return "\n".join(sentence for action in repair.actions for sentence in action.sentences())


def commit(device: Device, *, generations: int = 0, log_root: int | None = None, root: int | None = None) -> None:
    """Append the head of every mirror once more, with other fields."""
    for mirror in survey_device(device).mirrors:
        at = mirror.next_write_bytes
        if at is None:
            at = mirror.mirror.place_bytes
        head = head_of(mirror)
        raw = device.read(int(head["offset_bytes"]), SUPER_BYTES)
        changes = {"root": root} if root is not None else {}
        kept_log = int(head["log_root"]) if log_root is None else log_root
        generation = int(head["generation"]) + generations
        device.write(at, make_super(generation, mirror=mirror.number, log_root=kept_log, base=raw, **changes))


def spoil(device: Overlay, offset: int, data: bytes) -> None:
    """Change bytes behind the zone rules' back."""
    device._store.pwrite(offset, data)


def tear_head(device: Overlay, number: int = 0) -> None:
    mirror = survey_device(device).mirror(number)
    assert mirror is not None
    at = int(head_of(mirror)["offset_bytes"])
    spoil(device, at, torn(device.read(at, SUPER_BYTES)))


def lost_roots(device: Overlay) -> None:
    commit(device, generations=1, root=NO_CHUNK)


def lost_log(device: Overlay) -> None:
    commit(device, log_root=NO_CHUNK)


def torn_over_lost_roots(device: Overlay) -> None:
    lost_roots(device)
    commit(device, generations=1)
    tear_head(device)


def torn_over_lost_log(device: Overlay) -> None:
    lost_log(device)
    commit(device)
    tear_head(device)


@dataclass(frozen=True)
class State:
    """A damage, what of its repair is certain, what waits, and the generation after everything was agreed to.

    Attributes:
        steps: steps that are certain.
        says: what the sentences that wait must hold.
    """

    damage: Callable[[Overlay], None]
    asks: list[str]
    generation: int
    says: list[str] = field(default_factory=list)
    steps: int = 0
    image: str = "p02-inuse0"


STATES = {
    "roots": State(lost_roots, ["roots-unreadable"], 9, ["from generation 10 to 9", "after generation 9 is lost"]),
    "torn over roots": State(
        torn_over_lost_roots, ["roots-unreadable"], 9, ["from generation 10 to 9", "after generation 9 is lost"]
    ),
    "log": State(lost_log, ["log-unreadable"], 9, ["since the commit of generation 9 is lost"]),
    "torn over log": State(
        torn_over_lost_log, ["log-unreadable"], 9, ["since the commit of generation 9 is lost"], steps=2
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_it_waits_and_acts_when_agreed(name: str, vector_image: Image) -> None:
    state = STATES[name]
    with open_image(str(vector_image(state.image))) as image:
        device = Overlay(image)
        state.damage(device)
        evidence = evidence_of(device)
        assert evidence.findings.codes >= set(state.asks), "what is asked was found"

        others = frozenset(RULES).difference(state.asks)
        for unasked in (repair_of(evidence), repair_of(evidence, *others)):
            assert waiting(unasked) == state.asks
            assert len(unasked.plan.steps) == state.steps
            for words in (*state.says, f"it waits for --allow btrfs.{state.asks[0]}"):
                assert words in sentences(unasked)

        agreed = repair_of(evidence, *state.asks)
        assert not agreed.waiting
        assert [action.consent for action in agreed.actions if action.consent is not Consent.CERTAIN] == [Consent.LOSES]
        apply_plan([device], agreed.plan.steps)
        after = evidence_of(device)
        assert not after.has_errors
        assert int(head_of(after.survey.surveys[0].mirrors[0])["generation"]) == state.generation
        assert not repair_of(after, *RULES).plan, "a second repair has nothing to do"


def test_every_code_that_can_ask_is_asked_in_some_state() -> None:
    """But for those of block groups (``test_repair_block_groups.py``), and the one that the engine asks about, of every
    layout: ``engine/test_raw_copies.py``."""
    elsewhere = {"zones-derived", "bg-wp-differs", "zone-orphan"}
    asking = {code for code, rule in RULES.items() if rule.can_wait} - elsewhere
    assert asking == {code for state in STATES.values() for code in state.asks}


def test_both_at_once(vector_image: Image) -> None:
    """The older generation names a log that is lost as well: one plan asks for both, neither covers the other."""
    with open_image(str(vector_image("p02-inuse0"))) as image:
        device = Overlay(image)
        lost_log(device)
        lost_roots(device)
        evidence = evidence_of(device)
        assert waiting(repair_of(evidence)) == ["roots-unreadable"]
        assert waiting(repair_of(evidence, "log-unreadable")) == ["roots-unreadable"]
        back = repair_of(evidence, "roots-unreadable")
        assert waiting(back) == ["log-unreadable"]
        assert len(back.plan.steps) == 2
        both = repair_of(evidence, "roots-unreadable", "log-unreadable")
        assert not both.waiting
        apply_plan([device], both.plan.steps)
        assert not evidence_of(device).has_errors
        head = head_of(survey_device(device).mirrors[0])
        assert (int(head["generation"]), int(head["log_root"])) == (9, 0)


def test_all_mirrors_go_back_together(vector_image: Image) -> None:
    """A torn mirror is not mended with an older generation while mirror 0 keeps one without roots."""
    with open_image(str(vector_image("p13-mirrors-8GiB-zones"))) as image:
        device = Overlay(image)
        lost_roots(device)
        tear_head(device, 1)
        evidence = evidence_of(device)
        assert evidence.findings.codes >= {"roots-unreadable", "head-torn"}
        unasked = repair_of(evidence)
        assert (waiting(unasked), unasked.plan.steps) == (["roots-unreadable"], [])
        apply_plan([device], repair_of(evidence, "roots-unreadable").plan.steps)
        assert generations(survey_device(device)) == [16, 16, 16]
        assert not evidence_of(device).has_errors


def generations(survey: DeviceSurvey) -> list[int]:
    return [int(head_of(mirror)["generation"]) for mirror in survey.mirrors]


def test_an_older_block_in_another_mirror_loses_nothing_while_mirror_0_leads(vector_image: Image) -> None:
    """Mirror 0 was rolled back; the newer block of mirror 1 has no roots any more and nobody needs it."""
    with open_image(str(vector_image("p13-mirrors-8GiB-zones"))) as image:
        device = Overlay(image)
        mirror = survey_device(device).mirrors[1]
        raw = device.read(int(head_of(mirror)["offset_bytes"]), SUPER_BYTES)
        at = mirror.next_write_bytes
        assert at is not None
        device.write(at, make_super(17, mirror=1, base=raw, root=NO_CHUNK))
        device.write(at + SUPER_BYTES, torn(make_super(18, mirror=1, base=raw)))
        repair = repair_of(evidence_of(device))
        assert not repair.waiting
        apply_plan([device], repair.plan.steps)
        assert generations(survey_device(device)) == [16, 16, 16]


def test_a_newer_generation_of_another_mirror_is_a_guess(vector_image: Image) -> None:
    """Mirror 0 may have been rolled back on purpose, to roots that are lost by now."""
    with open_image(str(vector_image("p13-mirrors-8GiB-zones"))) as image:
        device = Overlay(image)
        mirror = survey_device(device).mirrors[0]
        raw = device.read(int(head_of(mirror)["offset_bytes"]), SUPER_BYTES)
        assert mirror.next_write_bytes is not None
        device.write(mirror.next_write_bytes, make_super(13, base=raw, root=NO_CHUNK))
        evidence = evidence_of(device)
        assert [action.consent for action in repair_of(evidence).waiting] == [Consent.GUESSES]
        agreed = repair_of(evidence, "roots-unreadable")
        assert "takes generation 16 of mirror 1 for generation 13" in sentences(agreed)
        apply_plan([device], agreed.plan.steps)
        assert generations(survey_device(device)) == [16, 16, 16]


def test_nothing_left_to_go_back_to_is_not_asked(vector_image: Image) -> None:
    """No roots can be read at all: the newest valid super block is written again, and nothing is given up."""
    with open_image(str(vector_image("p21-emulated-regular"))) as image:
        device = Overlay(image)
        commit(device, root=NO_CHUNK)
        spoil(device, 65536 + 300, b"damage")
        repair = repair_of(evidence_of(device))
        assert not repair.waiting
        assert "none is left whose roots can be read" in sentences(repair)
        apply_plan([device], repair.plan.steps)
        assert evidence_of(device).findings.codes >= {"roots-unreadable"}


def test_a_dead_zone_of_another_mirror_refuses_to_go_back(vector_image: Image) -> None:
    with open_image(str(vector_image("p13-mirrors-8GiB-zones"))) as image:
        device = Overlay(image)
        lost_roots(device)

        class Dying:
            """The same drive, with a dead zone in the ring of mirror 2."""

            def __getattr__(self, name: str) -> object:
                return getattr(device, name)

            def zones(self, first: int = 0, count: int | None = None) -> object:
                table = device.zones(first, count).copy()
                if first <= 513 < first + len(table):
                    table["condition"][513 - first] = 0xD
                return table

        evidence = evidence_of(Dying())  # type: ignore[arg-type] # a drive in all but name
        assert waiting(repair_of(evidence)) == ["roots-unreadable"]
        with pytest.raises(RefusedError, match="read-only or offline"):
            repair_of(evidence, "roots-unreadable")


@pytest.mark.parametrize("name", STATES)
def test_a_power_cut_can_be_finished_with_the_same_consent(name: str, vector_image: Image) -> None:
    state = STATES[name]
    with open_image(str(vector_image(state.image))) as image:
        damaged = Overlay(image)
        state.damage(damaged)
        recorder = Recorder(Overlay(damaged))
        apply_plan([recorder], repair_of(evidence_of(recorder), *state.asks).plan.steps)
        for cut in range(len(recorder.log) + 1):
            device = Overlay(damaged)
            replay_cut([device], recorder.log, cut, lambda index: False)
            apply_plan([device], repair_of(evidence_of(device), *state.asks).plan.steps)
            after = evidence_of(device)
            assert not after.has_errors
            assert int(head_of(after.survey.surveys[0].mirrors[0])["generation"]) == state.generation


class ReadCounter:
    """Passes everything on and counts the reads."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.reads += 1
        return self._device.read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.reads += 1
        self._device.read_into(offset_bytes, buffer)


@pytest.mark.parametrize("name", STATES)
def test_what_the_check_read_is_not_read_again(name: str, vector_image: Image) -> None:
    """A plan reads the candidates that the check had no reason to look at, once; the next plan reads nothing."""
    state = STATES[name]
    with open_image(str(vector_image(state.image))) as image:
        device = Overlay(image)
        state.damage(device)
        counter = ReadCounter(device)
        evidence = evidence_of(counter)  # type: ignore[arg-type] # a drive in all but name
        checked = counter.reads
        repair_of(evidence, *state.asks)
        assert counter.reads - checked <= 4
        planned = counter.reads
        repair_of(evidence)
        repair_of(evidence, *state.asks)
        assert counter.reads == planned
