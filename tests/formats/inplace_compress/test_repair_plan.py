"""Repairs of the damaged images: what needs no consent, and what each consent does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.inplace_compress.images import (
    CORRUPT,
    EXPECTED,
    check_device,
    content,
    corrupt_bytes,
    everything,
    image_bytes,
    in_memory,
    mapper_of,
    plan_for,
    sha256,
)
from zoned_tools.device.base import Device
from zoned_tools.device.plan import apply_plan, verify_plan
from zoned_tools.formats.inplace_compress.check import InplaceEvidence


def repair(device: Device, settings: dict[str, str]) -> InplaceEvidence:
    before = check_device(device, settings, deep="relink" in settings)
    plan = plan_for(before, settings).plan
    apply_plan([device], plan.steps)
    verify_plan([device], plan)
    return check_device(device, deep="relink" in settings)


SAFE = {
    "sb-magic", "sb-zeroed", "sb-meta-blocks", "sb-alg-unknown", "sb-alg-flipped", "map-tail0", "map-orphan",
    "map-tail-after-data", "map-noncanonical", "map-slack",
}  # fmt: skip


RELINKED = {
    "map-nibble", "map-head-lost", "map-head-lost-2", "map-tail-lost", "map-stale-small", "map-stale-big",
    "map-stale-raw", "map-lost",
}  # fmt: skip


def kind(name: str) -> str:
    return name.split("-", 1)[1]


def test_relinking_after_a_crash_brings_the_newest_content_back(tmp_path: Path) -> None:
    wanted = EXPECTED["p6-wb-crash.crash"]
    device = in_memory(tmp_path, image_bytes("p6-wb-crash.crash"))
    repaired = repair(device, {"relink": "yes"})
    final = everything(in_memory(tmp_path, image_bytes("p6-wb-crash")))
    mapper = mapper_of(device, unreadable="zeroes")
    for block, blocks, _, _ in wanted["check"]["verifying_payloads"]:
        assert mapper.read(block, blocks) == final[4096 * block : 4096 * (block + blocks)]
    assert [[f.code, f.where["block"]] for f in repaired.findings] == [["EXT_TAG", 0]]


@pytest.mark.parametrize("name", [n for n in CORRUPT if kind(n) in SAFE])
def test_safe_repairs_need_no_consent_and_change_no_content(name: str, tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes(name))
    assert repair(device, {}).findings.groups == []
    assert sha256(everything(device)) == EXPECTED[CORRUPT[name]["base"]]["logical_sha256"]


@pytest.mark.parametrize("name", [n for n in CORRUPT if kind(n) in RELINKED])
def test_relinking_restores_the_content(name: str, tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes(name))
    assert repair(device, {"relink": "yes"}).findings.groups == []
    assert sha256(everything(device)) == EXPECTED[CORRUPT[name]["base"]]["logical_sha256"]


@pytest.mark.parametrize("name", [n for n in CORRUPT if kind(n) not in SAFE | {"map-head-lost", "sb-data-blocks"}])
def test_without_consent_nothing_readable_changes(name: str, tmp_path: Path) -> None:
    raw = corrupt_bytes(name)
    device = in_memory(tmp_path, raw)
    repair(device, {})
    assert device.read(0, len(raw)) == raw


@pytest.mark.parametrize("compressor", ["lzo", "842"])
def test_bitmap_of_a_big_endian_host(compressor: str, tmp_path: Path) -> None:
    name = f"{compressor}-map-big-endian"
    device = in_memory(tmp_path, corrupt_bytes(name))
    digest = EXPECTED[CORRUPT[name]["base"]]["logical_sha256"]
    assert sha256(everything(device, bitmap="big")) == digest
    writer = mapper_of(device, writable=True, bitmap="big")
    writer.write(0, content("text:99", 4096))
    writer.write(0, mapper_of(in_memory(tmp_path, image_bytes(CORRUPT[name]["base"]))).read(0, 1))
    writer.close()
    assert [f.code for f in repair(device, {}).findings] == ["MAP_ENDIAN"]
    assert repair(device, {"swap-words": "yes"}).findings.groups == []
    assert sha256(everything(device)) == digest


def test_unreadable_extents_are_zeroed_or_salvaged_only_when_told(tmp_path: Path) -> None:
    raw = corrupt_bytes("lzo-tag-magic")
    zeroed = in_memory(tmp_path, raw)
    assert repair(zeroed, {"zero-unreadable": "1"}).findings.groups == []
    assert mapper_of(zeroed).read(1, 1) == bytes(4096)
    (tmp_path / "other").mkdir()
    salvaged = in_memory(tmp_path / "other", raw)
    assert repair(salvaged, {"salvage-raw": "yes"}).findings.groups == []
    assert mapper_of(salvaged).read(1, 1) == raw[3 * 4096 : 4 * 4096]


@pytest.mark.parametrize("given", [{"data-blocks": "1022"}, {"table": "0 8176 inplacecompress device=x,writethrough"}])
def test_super_block_from_the_users_knowledge(given: dict[str, str], tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes("842-sb-data-blocks-big"))
    report = check_device(device, given | {"force": "yes"})
    assert [f.code for f in report.findings] == ["SB_DEVICE"]
    assert repair(device, given).findings.groups == []
    assert sha256(everything(device)) == EXPECTED["p2-842"]["logical_sha256"]
