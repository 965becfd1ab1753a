"""Which of two sets of one generation counts, block by block."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import logical
from tests.formats.dm_zoned.images import BLOCK, Images, check_target, corrupted, logical_sha256
from tests.formats.dm_zoned.repair_support import (
    clean_sha256,
    cuts,
    errors_of,
    plan_of,
    repair,
    sentences,
    tables,
    variant_of,
    waiting,
)
from zoned_tools.formats.contract import Consent, Target
from zoned_tools.formats.dm_zoned.choice import SetChoice, choose
from zoned_tools.formats.dm_zoned.layout import MetadataLayout
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper

BASES = ("hm64x1", "hm300x1", "dual", "hm6x256", "ha32x4")
DECIDED = ("random", "ones")
KINDS = (*DECIDED, "zeroes", "bit", "shifted")


def layout_of(target: Target) -> MetadataLayout:
    layout = check_target(target).state.layout
    assert layout is not None
    return layout


def damage(target: Target, number: int, relative: int, kind: str, seed: int = 0) -> None:
    """Damage one block of a set, counted from its super block."""
    choose = random.Random(f"{kind} {relative} {seed}")
    place = (layout_of(target).set_block(number) + relative) * BLOCK
    old = target.device.read(place, BLOCK)
    flipped = bytearray(old)
    flipped[choose.randrange(64)] ^= 1 << choose.randrange(8)
    content = {
        "random": choose.randbytes(BLOCK),
        "ones": b"\xff" * BLOCK,
        "zeroes": bytes(BLOCK),
        "bit": bytes(flipped),
        "shifted": old[8:] + bytes(8),
    }[kind]
    target.device.write(place, content)


def read_sha256(target: Target, **given: str) -> str:
    """Content as a mapper shows it."""
    mapper = open_mapper(target, writable=False, settings=logical(**given))
    return hashlib.sha256(mapper.read(0, mapper.size_blocks)).hexdigest()


def mapped_zone(target: Target) -> int:
    """A zone with valid blocks, and with a bitmap that is not all ones."""
    survey = check_target(target).chosen
    weight = survey.bits.weight
    return int(np.flatnonzero((weight > 0) & (weight < survey.layout.zone_blocks) & survey.map.owners.named)[0])


def bitmap(target: Target, zone: int) -> int:
    """Place of a zone's bitmap in a set."""
    layout = layout_of(target)
    return layout.bitmap_block(0, zone) - layout.set_block(0)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", DECIDED)
def test_a_damaged_block_in_each_set_costs_nothing(images: Images, base: str, kind: str) -> None:
    """Source: 8.1, R1: the map of set 0 and a bitmap of set 1."""
    target, sound = images.target(base), images.target(base)
    damage(target, 1, bitmap(target, mapped_zone(sound)), kind)
    damage(target, 0, 1, kind)
    assert read_sha256(target) == clean_sha256(base)
    if kind == "random":  # all chunks unmapped is what the kernel would believe, and is reported
        assert errors_of(target) == ["sets-content-differ"]
    plan = repair(target)
    assert "sets-content-differ" not in waiting(plan)
    assert tables(target) == tables(sound)
    assert errors_of(target) == []


@pytest.mark.parametrize("base", ["hm64x1", "dual"])
@pytest.mark.parametrize("both", [False, True])
def test_no_damage_is_decided_wrongly(images: Images, base: str, *, both: bool) -> None:
    """Source: 8.1: random bytes, ones, zeroes, shifted blocks, single bits; in one set or in both."""
    choose, decided = random.Random(base), 0
    for seed in range(40):
        target = images.target(base)
        layout = layout_of(target)
        places = choose.sample(range(1, layout.nr_meta_blocks), 2)
        damage(target, seed % 2, places[0], choose.choice(KINDS), seed)
        if both:
            damage(target, 1 - seed % 2, places[1], choose.choice(KINDS), seed)
        plan = repair(target)
        if waiting(plan):
            assert waiting(plan) == {"sets-content-differ": Consent.GUESSES}
            assert check_target(target).ties is not None
            continue
        decided += 1
        assert logical_sha256(target) == clean_sha256(base), (places, seed)
        assert errors_of(target) == []
    assert decided > 20


def test_a_map_block_and_its_bitmap_go_together(images: Images) -> None:
    """A commit that only one set has is one group: its entry is not taken without its bits."""
    target = corrupted(images, "hm64x1", variant_of("log-uncommitted"))
    evidence = check_target(target)
    assert evidence.ties is not None
    assert evidence.ties.number == 1
    chunks, zones, count = evidence.ties.first[0]
    assert len(chunks) == len(zones) == 1
    assert count > 0
    assert not plan_of(target).plan


def test_certain_repairs_go_on_beside_a_tie(images: Images) -> None:
    """Random bytes in a bitmap are repaired, and so is a bad buffer entry; the tie stays in both sets as it is."""
    target = corrupted(images, "hm64x1", variant_of("log-uncommitted"))
    for change in variant_of("bits-after-wp")["patches"]:
        content = bytearray(target.device.read(change[0] // BLOCK * BLOCK, BLOCK))
        data = bytes.fromhex(change[1])
        content[change[0] % BLOCK : change[0] % BLOCK + len(data)] = data
        target.device.write(change[0] // BLOCK * BLOCK, bytes(content))
    damage(target, 1, bitmap(target, 20), "random")
    assert errors_of(target) == ["sets-content-differ", "bits-after-wp", "bits-after-wp"]
    tied = corrupted(images, "hm64x1", variant_of("log-uncommitted"))
    plan = repair(target)
    assert waiting(plan) == {"sets-content-differ": Consent.GUESSES}
    assert tables(target) == tables(tied)
    assert not plan_of(target).plan
    repair(target, use_set="1")
    assert errors_of(target) == []
    assert tables(target) == [tables(tied)[1]] * 2


def test_the_bits_of_both_sets_can_count(images: Images) -> None:
    """Source: 8.1, bits=union: never less than either set."""
    target = images.target("hm64x1")
    zone = mapped_zone(target)
    place = bitmap(target, zone)
    layout = layout_of(target)
    words = [bytearray(target.device.read((layout.set_block(n) + place) * BLOCK, BLOCK)) for n in (0, 1)]
    whole = int(check_target(target).chosen.bits.weight[zone])
    for number, raw in enumerate(words):
        byte = next(i for i, value in enumerate(raw) if value) if number == 0 else 0
        byte = next(i for i in range(31, -1, -1) if raw[i]) if number else byte
        raw[byte] &= raw[byte] - 1  # another block in each set
        target.device.write((layout.set_block(number) + place) * BLOCK, bytes(raw))
    assert waiting(plan_of(target)) == {"sets-content-differ": Consent.GUESSES}
    assert read_sha256(target, bits="union") == clean_sha256("hm64x1")
    repair(target, bits="union")
    assert check_target(target).findings.codes == frozenset()
    assert int(check_target(target).chosen.bits.weight[zone]) == whole
    assert logical_sha256(target) == clean_sha256("hm64x1")


def test_the_set_of_the_user_decides_a_tie(images: Images) -> None:
    for number in (0, 1):
        target = corrupted(images, "hm64x1", variant_of("log-uncommitted"))
        expected = tables(target)[number]
        plan = repair(target, use_set=str(number))
        assert tables(target) == [expected, expected]
        assert any(action.needs == "--use-set N" and not action.waits for action in plan.actions)


def test_a_block_that_cannot_be_read_is_taken_from_the_other_set(images: Images) -> None:
    """R0, at the function: unreadable in set 0, and another one in set 1."""
    target = images.target("hm64x1")
    state, layout = check_target(target).state, layout_of(target)
    unreadable = tuple(np.zeros(layout.nr_meta_blocks - 1, np.bool_) for _ in range(2))
    unreadable[0][0] = unreadable[1][20] = True
    damage(target, 0, 1, "shifted")
    damage(target, 1, 21, "zeroes")
    chosen: SetChoice = choose(
        state.blocks, layout, np.array([0, 20]), shown=0, unreadable=(unreadable[0], unreadable[1])
    )
    assert chosen.unreadable == (1, 1)
    assert chosen.ties is None
    sound = check_target(images.target("hm64x1")).chosen
    assert np.array_equal(chosen.kept.map.table, sound.map.table)
    assert np.array_equal(chosen.kept.bits.weight, sound.bits.weight)


def test_a_newer_set_with_new_errors_is_not_copied(images: Images) -> None:
    """Source: 8.1: nothing is written without --use-set; with it the set that was named counts, whole."""
    target = corrupted(images, "hm64x1", variant_of("pri-old-gen"))
    sound = tables(target)
    damage(target, 1, 1, "random")
    plan = repair(target)
    assert waiting(plan) == {"sets-gen-differ": Consent.GUESSES}
    assert not plan.plan
    repair(target, use_set="0")
    assert tables(target) == [sound[0], sound[0]]


@pytest.mark.parametrize("kinds", [("random", "ones"), ("ones", "random")])
def test_power_cut_while_both_sets_are_mended(images: Images, kinds: tuple[str, str]) -> None:
    target = images.target("hm64x1")
    damage(target, 1, bitmap(target, mapped_zone(target)), kinds[1])
    damage(target, 0, 1, kinds[0])
    expected: Any = tables(images.target("hm64x1"))
    plan = plan_of(target).plan
    for cut, interrupted in cuts(target, plan, random.Random(str(kinds))):
        repair(interrupted)
        assert errors_of(interrupted) == [], cut
        assert tables(interrupted) == expected, cut


def test_the_finding_says_what_decided(images: Images) -> None:
    target = images.target("hm64x1")
    damage(target, 0, 1, "random")
    message = next(iter(check_target(target).findings)).message
    assert "1 blocks of set 0 break the rules, set 1 is the better one (the kernel would use set 0)" in message
    assert any("the secondary metadata set is copied to the primary one" in text for text in sentences(plan_of(target)))


@pytest.mark.parametrize("number", [0, 1])
def test_bits_that_only_a_set_with_a_damaged_map_has_are_asked_about(images: Images, number: int) -> None:
    """Mapping table gone in one set, a bitmap zeroed in the other: the entries are certain, the bits are a tie."""
    target = images.target("hm64x1")
    layout = layout_of(target)
    survey = check_target(target).chosen
    alone = (survey.map.data < layout.nr_zones) & (survey.map.buffer >= layout.nr_zones)
    zone = next(int(z) for z in survey.map.data[alone] if survey.bits.weight[z] > 0)
    bits = 1 + layout.nr_map_blocks + zone
    damage(target, number, bits, "zeroes")
    damage(target, 1 - number, 1, "ones")
    choice = check_target(target).choice
    assert choice is not None
    assert choice.ties is not None
    assert choice.ties.zones.nonzero()[0].tolist() == [zone]
    assert not choice.ties.chunks.any()
    plan = repair(target)
    assert waiting(plan)
    place = (layout.set_block(1 - number) + bits) * BLOCK
    assert any(target.device.read(place, BLOCK)), "the only trace of the blocks stays"
    assert read_sha256(target, use_set=str(1 - number)) == clean_sha256("hm64x1")
    repair(target, use_set=str(1 - number))
    assert errors_of(target) == []
    assert read_sha256(target) == clean_sha256("hm64x1")
