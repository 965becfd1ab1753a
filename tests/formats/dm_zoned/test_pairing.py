"""Zones without a chunk and damaged entries: pairs that are certain, and what is asked."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.formats.dm_zoned.images import BLOCK, Images, check_target, corrupted, logical_sha256, patch
from tests.formats.dm_zoned.repair_support import (
    CORRUPTIONS,
    NAMES_OF_CORRUPTIONS,
    UNUSABLE,
    clean_sha256,
    damaged_target,
    done,
    errors_of,
    plan_of,
    repair,
    sentences,
    tables,
    variant_of,
    waiting,
)
from tests.formats.dm_zoned.test_choice import read_sha256
from zoned_tools.cli.settings import parse_settings
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Journey, Target
from zoned_tools.formats.dm_zoned import LAYOUT

NONE = 0xFFFFFFFF


def options(words: list[str]) -> tuple[frozenset[str], dict[str, str]]:
    """``(codes, settings)`` of a variant's consent, as on a command line."""
    pairs = list(zip(words[::2], words[1::2], strict=True))
    chosen = dict(value.split("=", 1) for option, value in pairs if option == "--set")
    chosen.update(("use-set", value) for option, value in pairs if option == "--use-set")
    return frozenset(value for option, value in pairs if option == "--allow"), chosen


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=NAMES_OF_CORRUPTIONS)
def test_what_asks_and_what_is_certain(images: Images, base: str, variant: dict[str, Any]) -> None:
    """Each published corruption: with the options that it names nothing is left, without them something waits."""
    if variant["id"] in UNUSABLE or variant["id"] == "t-uuid-mismatch":
        return
    allow, chosen = options(variant.get("consent", []))
    target = corrupted(images, base, variant)
    plan = repair(target)
    assert bool(waiting(plan).keys() - {"zone-unmapped-not-empty"}) == ("consent" in variant)
    if "consent" not in variant:
        assert errors_of(target) == []
        return
    target = corrupted(images, base, variant)
    repair(target, allow, **chosen)
    assert errors_of(target) == []


def set_entry(target: Target, chunk: int, entry: tuple[int, int]) -> None:
    """Change an entry in both sets."""
    layout = check_target(target).state.layout
    assert layout is not None
    for number in (0, 1):
        patch(target.device, layout.map_block(number) * BLOCK + chunk * 8, np.array(entry, "<u4").tobytes())


def test_a_lost_buffer_zone_is_found(images: Images) -> None:
    variant = variant_of("map-bzone-range")
    target = corrupted(images, "hm64x1", variant)
    assert read_sha256(target) == variant["repaired_sha256"]
    assert done(plan_of(target)) == [
        "chunk 11: zone 71 does not exist; zone 5 (5 valid blocks) is the only one without a chunk that fits: paired"
    ]
    repair(target)
    assert logical_sha256(target) == variant["repaired_sha256"]
    assert tables(target) == tables(images.target("hm64x1"))


@pytest.mark.parametrize("base", ["hm64x1", "hm300x1", "dual", "triple"])
def test_one_damaged_entry_is_always_paired(images: Images, base: str) -> None:
    sound = tables(images.target(base))
    survey = check_target(images.target(base)).chosen
    weight = survey.bits.weight
    choose = random.Random(base)
    places = [(c, 0) for c in np.flatnonzero(survey.map.data != NONE).tolist() if weight[survey.map.data[c]]]
    places += [(c, 1) for c in np.flatnonzero(survey.map.buffer != NONE).tolist()]
    for chunk, role in choose.sample(places, min(6, len(places))):
        target = images.target(base)
        entry = [int(survey.map.data[chunk]), int(survey.map.buffer[chunk])]
        entry[role] = choose.choice([0, 1000, 1 << 30, entry[role] ^ 1 << choose.randrange(9, 32)])
        set_entry(target, chunk, (entry[0], entry[1]))
        assert read_sha256(target) == clean_sha256(base), (chunk, role, entry)
        assert waiting(repair(target)).keys() <= {"zone-unmapped-not-empty"}
        assert tables(target) == sound


def test_flipped_bits_tell_damaged_entries_apart(images: Images) -> None:
    """Three entries with one flipped bit each: rule (b)."""
    target = images.target("hm64x1")
    survey = check_target(target).chosen
    for chunk, bit in ((0, 20), (1, 9), (12, 31)):
        set_entry(target, chunk, (int(survey.map.data[chunk]) ^ 1 << bit, int(survey.map.buffer[chunk])))
    assert read_sha256(target) == clean_sha256("hm64x1")
    assert not waiting(repair(target))
    assert tables(target) == tables(images.target("hm64x1"))


def test_random_ids_are_not_paired_by_chance(images: Images) -> None:
    target = images.target("hm64x1")
    for chunk, zone in ((0, 0x12345), (1, 0x54321)):
        set_entry(target, chunk, (zone, NONE))
    before = tables(target)
    plan = repair(target)
    assert waiting(plan).keys() == {"map-dzone-range", "bits-unmapped", "zone-unmapped-not-empty"}
    assert tables(target) == before
    assert any(
        "2 zones without a chunk could be its zone (zone 15 with 256 valid blocks, 16" in s for s in sentences(plan)
    )
    repair(target, pair="0:15,1:16")
    assert tables(target) == tables(images.target("hm64x1"))


def test_a_user_names_pairs_for_reading_and_repair(images: Images) -> None:
    target = corrupted(images, "hm64x1", variant_of("map-dup-dzone"))
    assert read_sha256(target, pair="1:16") == clean_sha256("hm64x1")
    repair(target, pair="1:16")
    assert tables(target) == tables(images.target("hm64x1"))
    assert check_target(target).findings.codes == frozenset()


@pytest.mark.parametrize("text", ["1", "1:2:3", "1:16,1:17", "x:1", "1:2+", "-1:3"])
def test_pairs_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="pair="):
        LAYOUT.parse_settings({"pair": text}, Journey.REPAIR)


@pytest.mark.parametrize("text", ["1:0", "1:64", "99:16", "2:27"])
def test_pairs_that_are_not_there(images: Images, text: str) -> None:
    target = corrupted(images, "hm64x1", variant_of("map-dup-dzone"))
    with pytest.raises(UsageError, match=r"no such|another chunk"):
        plan_of(target, pair=text)


def test_pairs_may_be_given_one_by_one() -> None:
    assert parse_settings(["pair=1:16", "overlap=data", "pair=2:17+4"]) == {"overlap": "data", "pair": "1:16,2:17+4"}
    assert parse_settings(["pair=1:16,2:17"]) == {"pair": "1:16,2:17"}
    assert parse_settings(["bits=union", "bits=sets"]) == {"bits": "sets"}


def test_a_shared_zone_stays_with_the_chunk_that_it_fits() -> None:
    """Zone 10 overlaps the buffer of chunk 1, so it is chunk 0's; and the only zone without a chunk is chunk 1's."""
    table = [(NONE, NONE)] * 20
    table[0], table[1] = (10, NONE), (10, 4)
    bits: list[set[int]] = [set() for _ in range(24)]
    bits[10], bits[4], bits[11] = {0, 3}, {3, 30}, {0, 2}
    target = damaged_target(table, bits, [10 if zone in (10, 11) else 0 for zone in range(24)])
    fits = "zone 11 (2 valid blocks) is the only one without a chunk that fits: paired"
    assert done(plan_of(target)) == [f"chunk 1: zone 10 is another chunk's, too; {fits}"]
    repair(target)
    assert check_target(target).findings.codes == frozenset()
    assert check_target(target).chosen.map.data[:2].tolist() == [10, 11]


def test_bits_are_cleared_unasked_only_where_nothing_can_be_read() -> None:
    table = [(NONE, NONE)] * 20
    bits: list[set[int]] = [set() for _ in range(24)]
    bits[0], bits[3], bits[4], bits[10] = {0}, {1}, {2}, {1, 20}
    target = damaged_target(table, bits, [10 if zone == 10 else 0 for zone in range(24)])
    target.device.write((4 * 64 + 2) * BLOCK, b"data" * 1024)
    repair(target)
    weight = check_target(target).chosen.bits.weight
    assert {zone: int(weight[zone]) for zone in np.flatnonzero(weight)} == {4: 1, 10: 1}
    assert waiting(plan_of(target)).keys() == {"bits-unmapped", "zone-unmapped-not-empty"}
    repair(target, frozenset({"bits-unmapped"}))
    assert errors_of(target) == []
