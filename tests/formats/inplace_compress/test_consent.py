"""Every code that asks for consent: what waits without it, what it covers, and that nothing else acts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats.inplace_compress.images import (
    check_device,
    content,
    corrupt_bytes,
    image_bytes,
    in_memory,
    mapper_of,
    new_volume,
    patch,
    plan_for,
)
from tests.formats.media import DamagedDrive
from zoned_tools.device.base import Device
from zoned_tools.device.plan import Write, apply_plan
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Consent
from zoned_tools.formats.inplace_compress import lzo1x
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.entries import pack_entries
from zoned_tools.formats.inplace_compress.layout import TAG_MAGIC
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.rules import RULES, UNREADABLE_CODES

Scenario = Callable[[Path], Device]


def vector(name: str) -> Scenario:
    return lambda folder: in_memory(folder, corrupt_bytes(name))


def tagged(stream: bytes, sectors: int) -> bytes:
    return stream.ljust(512 * sectors - 8, b"\0") + TAG_MAGIC.to_bytes(4, "little") + len(stream).to_bytes(4, "little")


def without_payload(folder: Path) -> Device:
    """Block 102 has an invalid entry, and nothing that verifies lies there."""
    device = in_memory(folder, corrupt_bytes("lzo-map-nibble"))
    device.write(open_volume(device).block_offset_bytes(102), bytes(4096))
    return device


def short(folder: Path) -> Device:
    """The payload of block 0 decodes to less than a block."""
    device = new_volume(folder, 4 << 20, Compressor.LZO)
    mapper_of(device, writable=True).write(0, content("text:1", 4096))
    sectors = device.read(4096, 1)[0] & 0xF
    device.write(open_volume(device).block_offset_bytes(0), tagged(lzo1x.encode(content("rand:1", 300)), sectors))
    return device


def mistagged(folder: Path) -> Device:
    """Block 0 is raw and holds a tagged stream of just its size, as the series before v5 left it."""
    device = new_volume(folder, 4 << 20, Compressor.LZO)
    mapper_of(device, writable=True).write(0, content("rand:1", 4096))
    stream = lzo1x.encode(content("head:1:3600", 4096))
    device.write(open_volume(device).block_offset_bytes(0), tagged(stream, 8))
    return device


def doubtful_slack(folder: Path) -> Device:
    """The super block leaves out the last block, which holds raw data."""
    device = new_volume(folder, 4 << 20, Compressor.LZO, data_blocks=502)
    mapper = mapper_of(device, writable=True)
    mapper.write(0, content("rand:1", 502 * 4096))
    mapper.close()
    patch(device, 16, (501).to_bytes(2, "little"))
    return device


def unreadable_super_block(folder: Path) -> Device:
    return DamagedDrive(in_memory(folder, image_bytes("p1-lzo")), [(0, 4096)])


GUESSES: dict[str, Scenario] = {
    "MAP_ENDIAN": vector("lzo-map-big-endian"),
    "MAP_NIBBLE": vector("lzo-map-nibble"),
    "EXT_TAG": vector("lzo-map-stale-small"),
    "EXT_DECOMP": vector("842-map-tail-lost"),
    "EXT_MISTAG": mistagged,
    "RAW_SHADOW": vector("lzo-map-stale-raw"),
    "HOLE_SHADOW": vector("lzo-map-lost"),
    "metadata-lost": unreadable_super_block,
}
"""What waits because it guesses."""

LOSES: dict[str, Scenario] = {
    "MAP_NIBBLE": without_payload,
    "EXT_TAG": vector("lzo-tag-magic"),
    "EXT_LEN": vector("lzo-tag-len-huge"),
    "EXT_DECOMP": vector("842-payload-flip"),
    "EXT_SHORT": short,
}
"""What waits because content is given up."""


def test_every_declared_consent_has_its_scenario() -> None:
    asking = {code: rule.asks for code, rule in RULES.items() if rule.can_wait}
    assert {code for code, asks in asking.items() if asks is Consent.LOSES} == {*LOSES, "MAP_SLACK"}
    assert {code for code, asks in asking.items() if asks is Consent.GUESSES} == set(GUESSES) - set(UNREADABLE_CODES)


@pytest.mark.parametrize("code", GUESSES)
def test_a_guess_waits_for_its_code_alone(code: str, tmp_path: Path) -> None:
    device = GUESSES[code](tmp_path)
    evidence = check_device(device, deep=True)
    waiting = plan_for(evidence)
    (group,) = waiting.waiting
    assert (group.id, group.consent, waiting.plan.steps) == (f"inplace-compress.{code}", Consent.GUESSES, [])
    assert next(group.sentences()).endswith(f"; it waits for --allow inplace-compress.{code}")
    others = plan_for(evidence, {}, *(set(RULES) - {code}))
    assert (others.plan.steps, [g.id for g in others.waiting]) == ([], [group.id])
    agreed = plan_for(evidence, {}, code)
    assert (agreed.waiting, [(g.id, g.consent) for g in agreed.actions]) == ([], [(group.id, Consent.GUESSES)])
    apply_plan([device], agreed.plan.steps)
    assert check_device(device, deep=True).findings.groups == []


@pytest.mark.parametrize("code", LOSES)
def test_content_is_given_up_for_its_code_alone(code: str, tmp_path: Path) -> None:
    """``--allow`` makes zeroes of it, and a setting chooses otherwise."""
    device = LOSES[code](tmp_path)
    evidence = check_device(device, deep=True)
    for allow in ((), set(RULES) - {code}):
        plan = plan_for(evidence, {}, *allow)
        (group,) = plan.waiting
        assert (group.id, group.consent, plan.plan.steps) == (f"inplace-compress.{code}", Consent.LOSES, [])
        (sentence,) = group.sentences()
        assert sentence.startswith("block ")
        assert "the content of 1 block would be lost" in sentence
        assert sentence.endswith(f"; it waits for --allow inplace-compress.{code}")
    zeroed = plan_for(evidence, {}, code)
    assert zeroed.plan.steps == plan_for(evidence, {"zero-unreadable": "yes"}).plan.steps
    salvaged = plan_for(evidence, {"salvage-raw": "yes"})
    assert salvaged.plan.steps == plan_for(evidence, {"salvage-raw": "yes"}, code).plan.steps != zeroed.plan.steps
    for agreed in (zeroed, salvaged):
        assert agreed.waiting == []
        assert [(g.id, g.consent) for g in agreed.actions] == [(group.id, Consent.LOSES)]
    apply_plan([device], salvaged.plan.steps)
    assert not check_device(device).has_errors
    with pytest.raises(UsageError):
        plan_for(evidence, {"zero-unreadable": "yes", "salvage-raw": "yes"})


def test_bits_that_may_be_entries_of_raw_data(tmp_path: Path) -> None:
    device = doubtful_slack(tmp_path)
    evidence = check_device(device)
    for waiting in (plan_for(evidence), plan_for(evidence, {}, *(set(RULES) - {"MAP_SLACK"}))):
        (group,) = waiting.waiting
        assert (group.id, group.consent, waiting.plan.steps) == ("inplace-compress.MAP_SLACK", Consent.LOSES, [])
        assert "block 501 may hold raw data" in next(group.sentences())
    for agreed in (plan_for(evidence, {}, "MAP_SLACK"), plan_for(evidence, {"clear-slack": "yes"})):
        assert (agreed.waiting, len(agreed.plan.steps)) == ([], 2)
    kept = plan_for(evidence, {"data-blocks": "502"})
    assert [(g.id, g.consent) for g in kept.actions] == [("inplace-compress.MAP_SLACK", Consent.CERTAIN)]


def test_relink_as_a_setting_covers_every_payload_that_verifies(tmp_path: Path) -> None:
    device = in_memory(tmp_path, image_bytes("p6-wb-crash.crash"))
    plan = plan_for(check_device(device, {"relink": "yes"}), {"relink": "yes"})
    assert {g.id.split(".")[1] for g in plan.actions if not g.waits} == {
        "EXT_DECOMP", "EXT_TAG", "RAW_SHADOW", "HOLE_SHADOW",
    }  # fmt: skip
    (group,) = plan.waiting
    assert [sentence.split(":")[0] for sentence in group.sentences()] == ["blocks 0 to 1"]


def test_orphans_become_holes_without_consent_and_their_payload_asks_in_the_same_plan(tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes("lzo-map-head-lost"))
    evidence = check_device(device, deep=True)
    plan = plan_for(evidence, {}, "MAP_ORPHAN")
    assert [(g.id, g.waits) for g in plan.actions] == [
        ("inplace-compress.MAP_ORPHAN", False),
        ("inplace-compress.HOLE_SHADOW", True),
    ]
    agreed = plan_for(evidence, {}, "HOLE_SHADOW")
    assert [g.id for g in agreed.actions] == [g.id for g in plan.actions]
    apply_plan([device], agreed.plan.steps)
    assert device.read(0, 4 << 20) == image_bytes("p1-lzo")


@pytest.mark.parametrize(("name", "code"), [("lzo-map-stale-raw", "RAW_SHADOW"), ("lzo-map-lost", "HOLE_SHADOW")])
def test_what_only_a_deep_check_finds_is_not_done_without_one(name: str, code: str, tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes(name))
    plan = plan_for(check_device(device), {}, code)
    assert (plan.plan.steps, plan.actions) == ([], [])
    (message,) = plan.plan.messages
    assert message.startswith(f"--allow {code} agrees to nothing here: only a deep check")


def test_every_payload_in_a_raw_extent_waits(tmp_path: Path) -> None:
    """Two payloads behind each other, taken for one raw extent of four blocks."""
    device = new_volume(tmp_path, 4 << 20, Compressor.LZO)
    mapper = mapper_of(device, writable=True)
    for block in (0, 2):
        mapper.write(block, content(f"head:{block}:3000", 8192))
    mapper.close()
    wanted = device.read(0, 4 << 20)
    patch(device, 4096, pack_entries(np.array([8, 24, 24, 24, 0, 0, 0, 0], np.uint8)))
    evidence = check_device(device, deep=True)
    (waiting,) = plan_for(evidence).waiting
    assert [sentence.split(":")[0] for sentence in waiting.sentences()] == ["blocks 0 to 3", "blocks 2 to 3"]
    plan = plan_for(evidence, {}, "RAW_SHADOW")
    assert [len(action) for action in plan.actions] == [2]
    apply_plan([device], plan.plan.steps)
    assert device.read(0, 4 << 20) == wanted


def test_bits_that_wait_survive_other_repairs_of_their_sector(tmp_path: Path) -> None:
    device = doubtful_slack(tmp_path)
    stored = device.read(4096, 512)
    patch(device, 4096, bytes([stored[0] | 0x10]))  # the first block is marked as a tail
    plan = plan_for(check_device(device))
    assert [(g.id, g.waits) for g in plan.actions] == [
        ("inplace-compress.MAP_TAIL0", False),
        ("inplace-compress.MAP_SLACK", True),
    ]
    apply_plan([device], plan.plan.steps)
    assert device.read(4096, 512) == stored


def test_the_super_block_comes_last(tmp_path: Path) -> None:
    """Data, flush, bitmap, flush, super block, flush."""
    device = mistagged(tmp_path)
    patch(device, 4096, bytes([0x18]))  # block 0: marked as a tail
    patch(device, 0, bytes(8))
    consents = {"data-blocks": "1022", "decode-mistagged": "yes"}
    plan = plan_for(check_device(device, consents), consents).plan
    notes = [step.note if isinstance(step, Write) else type(step).__name__ for step in plan.steps]
    assert notes == ["decoded content of block 0", "Flush", "bitmap", "Flush", "super block", "Flush"]
    apply_plan([device], plan.steps)
    assert check_device(device).findings.groups == []
    assert mapper_of(device).read(0, 1) == content("head:1:3600", 4096)
