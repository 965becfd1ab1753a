"""Consent: what asks waits, what is agreed to is done, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.formats.dm_zoned.images import (
    BLOCK,
    MIB,
    Images,
    check_target,
    corrupted,
    patch,
)
from tests.formats.dm_zoned.repair_support import (
    CONSENT,
    NR_CHUNKS,
    ZONE_BLOCKS,
    ZONES,
    damaged_target,
    done,
    errors_of,
    overlay_with,
    plan_of,
    repair,
    sentences,
    superblocks,
    variant_of,
    waiting,
)
from tests.formats.dm_zoned.unreadable import damaged
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.errors import RefusedError
from zoned_tools.formats.contract import Consent, Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.rules import RULES


def chunk_target(entry: tuple[int, int], valid: int) -> Target:
    """A small target with one mapped chunk, three valid blocks in zone ``valid``, and written sequential zones."""
    table = [(0xFFFFFFFF, 0xFFFFFFFF)] * NR_CHUNKS
    table[3] = entry
    bits: list[set[int]] = [set() for _ in range(ZONES)]
    bits[valid] = {0, 1, 5}
    return damaged_target(table, bits, [10 if zone in entry else 0 for zone in range(ZONES)])


def orphans_target(entry: tuple[int, int]) -> Target:
    """A damaged entry, and two zones without a chunk that could be what it named."""
    table = [(0xFFFFFFFF, 0xFFFFFFFF)] * NR_CHUNKS
    table[3] = entry
    bits: list[set[int]] = [set() for _ in range(ZONES)]
    bits[2], bits[4] = {0, 1, 5}, {0, 2}
    target = damaged_target(table, bits, [10 if zone in entry else 0 for zone in range(ZONES)])
    for zone in (2, 4):
        target.device.write(zone * ZONE_BLOCKS * BLOCK, b"data" * 1024)
    return target


def used_first_zone(images: Images, block: bytes) -> Target:
    target = images.target("dual")
    target.devices[1].manage(ZoneOperation.RESET, 0)
    target.devices[1].write(0, block + b"payload!" * 4096)
    return target


def more_chunks(count: int) -> Target:
    """Super blocks with more chunks than fit, although no zone has died."""
    target = chunk_target((10, 0xFFFFFFFF), 10)
    for number in (0, 1):
        offset = number * ZONE_BLOCKS * BLOCK
        sb = SuperBlock.parse(target.device.read(offset, BLOCK))
        target.device.write(offset, replace(sb, nr_chunks=NR_CHUNKS + count).pack())
    return target


def emptied_drive() -> Target:
    """Three chunks whose zones are all empty."""
    table = [(0xFFFFFFFF, 0xFFFFFFFF)] * NR_CHUNKS
    bits: list[set[int]] = [set() for _ in range(ZONES)]
    for chunk in range(3):
        table[chunk] = (10 + chunk, 0xFFFFFFFF)
        bits[10 + chunk] = {0, 1}
    return damaged_target(table, bits, [0] * ZONES)


def damaged_crc(images: Images) -> bytes:
    block = bytearray(images.target("dual").devices[1].read(0, BLOCK))
    block[44] ^= 1
    return bytes(block)


def newer_set_with_an_error(images: Images) -> Target:
    """The newer of two sets names a data zone that does not exist, the older one does not."""
    target = corrupted(images, "hm64x1", variant_of("pri-old-gen"))
    patch(target.device, MIB + BLOCK, (1000).to_bytes(4, "little"))
    return target


def without_superblocks(target: Target, *offsets: int) -> Target:
    for offset in offsets:
        target.device.write(offset, bytes(BLOCK))
    return target


DECIDED_BY = {
    "sets-gen-differ": ("--use-set N", {"use_set": "0"}),
    "sets-content-differ": ("--use-set N", {"use_set": "0"}),
    "bits-after-wp": ("--set reclaim=move or --set reclaim=clear", {"reclaim": "move"}),
}
"""What another option agrees to than --allow."""

SCENARIOS: dict[str, Callable[[Images], Target]] = {
    "sb-bad-magic": lambda images: used_first_zone(images, b""),
    "sb-bad-crc": lambda images: used_first_zone(images, damaged_crc(images)),
    "sb-uuid-mismatch": lambda images: corrupted(images, "dual", variant_of("t-uuid-mismatch", "dual")),
    "sb-bad-chunks": lambda _: more_chunks(1),
    "sets-gen-differ": newer_set_with_an_error,
    "sets-content-differ": lambda images: corrupted(images, "hm64x1", variant_of("log-uncommitted")),
    "bits-after-wp": lambda images: corrupted(images, "hm64x1", variant_of("zone-buffered-reset")),
    "map-dzone-range": lambda images: orphans_target((ZONES, 0xFFFFFFFF)),
    "map-bzone-range": lambda images: orphans_target((10, ZONES)),
    "map-meta-zone": lambda images: orphans_target((1, 0xFFFFFFFF)),
    "map-zone-shared": lambda images: corrupted(images, "hm64x1", variant_of("map-dup-dzone")),
    "map-bzone-without-dzone": lambda images: chunk_target((0xFFFFFFFF, 4), 4),
    "map-bzone-not-random": lambda images: chunk_target((10, 11), 11),
    "map-bzone-on-random": lambda images: chunk_target((3, 4), 4),
    "map-tail": lambda images: corrupted(images, "hm64x1", variant_of("chunks-minus-1")),
    "bits-unmapped": lambda images: corrupted(images, "hm64x1", variant_of("bits-unmapped-conv")),
    "zones-foreign": lambda _: emptied_drive(),
    "zone-unmapped-not-empty": lambda images: corrupted(images, "hm64x1", variant_of("zone-unmapped-written")),
    "sb-lost": lambda images: without_superblocks(images.target("hm64x1"), 0, MIB),
    "block-unreadable": lambda images: damaged(corrupted(images, "hm64x1", variant_of("sec-gen-1")), [10]),
    "metadata-lost": lambda images: damaged(images.target("hm64x1"), [17, MIB // BLOCK + 17]),
}


def test_every_code_that_asks_has_a_scenario() -> None:
    """But for the one that the engine asks about, of every layout: ``engine/test_raw_copies.py``."""
    assert set(SCENARIOS) == {code for code, rule in RULES.items() if rule.can_wait} - {"zones-derived"}


@pytest.mark.parametrize("code", SCENARIOS)
def test_an_action_that_asks_waits_without_its_own_consent(images: Images, code: str) -> None:
    target = SCENARIOS[code](images)
    others = frozenset(RULES) - {code}
    plan = repair(target, others)
    assert waiting(plan).get(code) is RULES[code].asks
    assert code in check_target(target).findings.codes
    option = DECIDED_BY[code][0] if code in DECIDED_BY else f"--allow dm-zoned.{code}"
    assert all(
        sentence.endswith(f"it waits for {option}") for action in plan.waiting for sentence in action.sentences()
    )
    assert not plan_of(target, others).plan


@pytest.mark.parametrize("code", SCENARIOS)
def test_consent_covers_its_code_alone_and_is_enough(images: Images, code: str) -> None:
    target = SCENARIOS[code](images)
    plan = repair(target, frozenset({code}), **(DECIDED_BY[code][1] if code in DECIDED_BY else {}))
    acting = {action.id: action.consent for action in plan.actions if not action.waits and action.consent != "certain"}
    assert acting == {f"dm-zoned.{code}": RULES[code].asks}
    assert code not in check_target(target).findings.codes
    assert code not in waiting(plan)


def test_a_tie_is_not_decided_by_allow(images: Images) -> None:
    target = SCENARIOS["sets-content-differ"](images)
    evidence = check_target(target)
    assert evidence.surveys
    assert evidence.source is None
    assert "set 0 is the better one" not in next(iter(evidence.findings)).message
    before = [target.device.read(0, 2 * MIB)]
    plan = repair(target, frozenset(RULES))
    assert "--use-set N decides" in sentences(plan)[-1]
    assert [target.device.read(0, 2 * MIB)] == before


def test_a_buffer_zone_can_be_dropped_instead(images: Images) -> None:
    del images
    for code, entry in (
        ("map-bzone-without-dzone", (0xFFFFFFFF, 4)),
        ("map-dzone-range", (ZONES, 4)),
        ("map-meta-zone", (1, 4)),
    ):
        target = chunk_target(entry, 4)
        plan = repair(target, bzone="drop")
        assert any("3 valid blocks in buffer zone 4 are lost" in sentence for sentence in done(plan))
        assert check_target(target).chosen.map.nr_buffered == check_target(target).chosen.map.nr_mapped == 0
        promoted = chunk_target(entry, 4)
        assert not plan_of(promoted, bzone="promote").plan  # a choice is not a consent
        repair(promoted, frozenset({code}))
        assert check_target(promoted).chosen.map.data[3] == 4


def test_an_empty_buffer_zone_needs_no_consent() -> None:
    for entry in ((0xFFFFFFFF, 4), (ZONES, 4), (1, 4), (10, 11), (3, 4)):
        target = chunk_target(entry, 20)
        assert waiting(plan_of(target)).keys() <= {"zone-unmapped-not-empty"}
        repair(target)
        assert errors_of(target) == []


def test_a_shared_zone_waits_with_everything_that_depends_on_it() -> None:
    """Bits after the write pointer of a zone that two chunks claim stay until somebody decides who gets it."""
    table = [(0xFFFFFFFF, 0xFFFFFFFF)] * NR_CHUNKS
    table[0], table[1], table[2] = (10, 0xFFFFFFFF), (10, 4), (11, 0xFFFFFFFF)
    bits: list[set[int]] = [set() for _ in range(ZONES)]
    bits[10], bits[4], bits[11] = {0, 20}, {0, 30}, {0, 20}
    target = damaged_target(table, bits, [10 if zone in (10, 11) else 0 for zone in range(ZONES)])
    plan = repair(target)
    assert waiting(plan) == {"map-zone-shared": Consent.GUESSES}
    assert [f.where for f in check_target(target).findings if f.code == "bits-after-wp"] == [{"zone": 10, "count": 1}]
    assert sentences(plan)[-1].startswith(
        "chunk 1: zone 10 and its 2 valid blocks are kept for chunk 0; buffer zone 4 with 2 valid blocks becomes its "
        "data zone, the rest of logical blocks 64 to 127 reads as zeroes"
    )


@pytest.mark.parametrize(
    ("base", "identifier"), [("hm64x1", "pri-magic"), ("hm64x1", "both-bad"), ("dual", "both-bad")]
)
@pytest.mark.parametrize("use_set", ["0", "1"])
def test_a_set_that_is_vouched_for_gets_a_right_super_block(
    images: Images, base: str, identifier: str, use_set: str
) -> None:
    target = corrupted(images, base, variant_of(identifier, base))
    try:
        repair(target, CONSENT, use_set=use_set)
    except NoValidSuperBlockError as error:
        assert f"set {use_set} cannot be used: " in error.hint  # noqa: PT017 - depends on the variant
        assert f"; set {1 - int(use_set)}: " in error.hint  # noqa: PT017
        return
    assert [sb.magic for sb in superblocks(target)] == [0x445A4244] * len(superblocks(target))
    assert check_target(target).findings.codes == frozenset()


def test_dead_first_zone_of_a_member_is_refused_before_anything_is_written(images: Images) -> None:
    target = corrupted(images, "dual", variant_of("t-crc", "dual"))
    table = target.devices[1].zones()
    table["condition"][0] = ZoneCondition.READ_ONLY
    damaged = Target("dm-zoned", (target.devices[0], overlay_with(target.devices[1], table)))
    with pytest.raises(RefusedError, match="first zone 9 cannot be written any more, it is read-only"):
        plan_of(damaged, CONSENT)


def test_a_dead_metadata_zone_matters_only_when_it_has_to_be_written() -> None:
    target = chunk_target((10, 0xFFFFFFFF), 10)
    for number in (0, 1):
        offset = number * ZONE_BLOCKS * BLOCK
        sb = SuperBlock.parse(target.device.read(offset, BLOCK))
        target.device.write(offset, replace(sb, nr_chunks=NR_CHUNKS - 1).pack())
    table = target.device.zones()
    table["condition"][1] = ZoneCondition.READ_ONLY
    damaged = Target("dm-zoned", (overlay_with(target.device, table),))
    assert not plan_of(damaged).plan
    patch(target.device, 3 * BLOCK, b"\xff")  # bits of a zone that no chunk names: the other set is right, and stays
    assert plan_of(Target("dm-zoned", (overlay_with(target.device, table),))).plan
    patch(target.device, (ZONE_BLOCKS + 3) * BLOCK, b"\xff")
    with pytest.raises(
        RefusedError, match="zone 1 holds metadata set 1 and is read-only: the target cannot be written"
    ):
        plan_of(Target("dm-zoned", (overlay_with(target.device, table),)))
