"""The images of the real driver and their damaged copies, by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.formats.inplace_compress.images import (
    CORRUPT,
    EXPECTED,
    check_device,
    content,
    corrupt_bytes,
    everything,
    extents_of,
    image_bytes,
    in_memory,
    line_of,
    mapper_of,
    new_volume,
    plan_for,
)
from zoned_tools.device.base import Device
from zoned_tools.device.plan import apply_plan, verify_plan
from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress.check import InplaceEvidence
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.probe import probe
from zoned_tools.formats.inplace_compress.rules import RULES

REPLAYABLE = [name for name, e in EXPECTED.items() if "ops" in e and not e["prefill"] and name != "p6-wb-crash.crash"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def deep(device: Device) -> InplaceEvidence:
    return check_device(device, deep=True)


def assert_as_published(report: InplaceEvidence, wanted: dict[str, Any]) -> None:
    """The published problems, those of one rule ascending; the rules follow each other in their order."""
    placed = [f for f in report.findings if "block" in f.where]
    rows: list[list[Any]] = [[f.code, f.where["block"], f.where["blocks"]] for f in placed]
    verifying = [
        [
            f.where["block"],
            f.where["verifying_blocks"],
            f.where["verifying_payload_sectors"],
            f.where["verifying_crc32"],
        ]
        for f in placed
        if "verifying_blocks" in f.where
    ]
    assert [f.code for f in report.findings if "block" not in f.where] == wanted["superblock"]
    order = list(RULES)
    assert rows == sorted(rows, key=lambda row: (order.index(row[0]), row[1]))
    assert sorted(row for row in rows if "SHADOW" not in row[0]) == sorted(wanted["problems"])
    assert sorted(row for row in rows if "SHADOW" in row[0]) == sorted(wanted["deep_problems"])
    assert sorted(verifying) == sorted(wanted.get("verifying_payloads", []))


@pytest.mark.parametrize("name", EXPECTED)
def test_image(name: str, tmp_path: Path) -> None:
    wanted = EXPECTED[name]
    device = in_memory(tmp_path, image_bytes(name))
    volume = open_volume(device)
    assert (volume.meta_blocks, volume.data_blocks, volume.comp_alg) == (
        wanted["meta_blocks"],
        wanted["data_blocks"],
        wanted["comp_alg"],
    )
    assert volume.data_offset_bytes == 512 * wanted["data_start_sector"]
    assert extents_of(device) == [row[:5] for row in wanted["extents"]]
    assert sha256(everything(device, unreadable="zeroes")) == wanted["logical_sha256"]
    assert_as_published(deep(device), wanted["check"])
    identity = probe(device, 0)
    assert identity is not None
    assert identity.layout == "inplace-compress"
    mode = "writeback=3600" if "writeback" in wanted["table"] else "writethrough"
    assert line_of(device, {"device": "DEV", "mode": mode}) == wanted["table"]


@pytest.mark.parametrize("name", EXPECTED)
def test_unreadable_blocks(name: str, tmp_path: Path) -> None:
    mapper = mapper_of(in_memory(tmp_path, image_bytes(name)))
    bad = set(EXPECTED[name]["unreadable_blocks"])
    for block in sorted(bad | set(range(0, mapper.size_blocks, 97))):
        if block in bad:
            with pytest.raises(DeviceError) as caught:
                mapper.read(block, 1)
            assert caught.value.errno_name == "EIO"
        else:
            mapper.read(block, 1)


def replay(device: Device, wanted: dict[str, Any], *, close: bool = True, **options: str) -> str:
    """Replay the recorded writes; returns the driver's counters of the last stage."""
    status = ""
    for stage in wanted["ops"]:
        mapper = mapper_of(device, writable=True, window=str(stage["window_blocks"]), **options)
        for write in stage["writes"]:
            if write[0] == "flush":
                mapper.flush()
            else:
                mapper.write(write[0], content(write[2], 4096 * write[1]))
        if close:
            mapper.close()
        status = mapper.status()
    return status


@pytest.mark.parametrize("name", REPLAYABLE)
def test_replaying_the_recorded_writes_gives_the_recorded_extents(name: str, tmp_path: Path) -> None:
    wanted = EXPECTED[name]
    device = new_volume(tmp_path, wanted["device_bytes"], Compressor(wanted["comp_alg"]))
    emulate = {"emulate": "misplaced-data"} if name == "p8-gapbug" else {}
    status = replay(device, wanted, **emulate)
    assert extents_of(device) == [row[:5] for row in wanted["extents"]]
    assert sha256(everything(device)) == wanted["logical_sha256"]
    if "dmsetup_status" in wanted:
        assert status == wanted["dmsetup_status"]


def test_prefilled_device(tmp_path: Path) -> None:
    """Block 0 and data keep old content; only the driver leaves the rest of the bitmap's block as it was."""
    wanted = EXPECTED["p7-prefilled"]
    device = new_volume(tmp_path, wanted["device_bytes"], Compressor.LZO, data_blocks=wanted["data_blocks"])
    assert replay(device, wanted) == wanted["dmsetup_status"]
    assert extents_of(device) == [row[:5] for row in wanted["extents"]]
    assert sha256(everything(device)) == wanted["logical_sha256"]


def test_content_without_the_drivers_defect(tmp_path: Path) -> None:
    wanted = EXPECTED["p8-gapbug"]
    device = new_volume(tmp_path, wanted["device_bytes"], Compressor.LZO)
    replay(device, wanted)
    assert sha256(everything(device)) == wanted["intended_logical_sha256"]


def test_losing_the_bitmap_of_a_writeback_mapper_gives_the_recorded_crash(tmp_path: Path) -> None:
    wanted = EXPECTED["p6-wb-crash.crash"]
    device = new_volume(tmp_path, wanted["device_bytes"], Compressor.LZO)
    replay(device, wanted, close=False, mode="writeback=3600")
    assert [row[:3] for row in extents_of(device)] == [row[:3] for row in wanted["extents"]]
    assert sha256(everything(device, unreadable="zeroes")) == wanted["logical_sha256"]
    codes = [[f.code, f.where["block"]] for f in deep(device).findings]
    published = wanted["check"]["problems"] + wanted["check"]["deep_problems"]
    assert sorted(codes) == sorted([row[:2] for row in published])


def test_relinking_after_a_crash_brings_the_newest_content_back(tmp_path: Path) -> None:
    wanted = EXPECTED["p6-wb-crash.crash"]
    device = in_memory(tmp_path, image_bytes("p6-wb-crash.crash"))
    repaired = repair(device, {"relink": "yes"})
    final = everything(in_memory(tmp_path, image_bytes("p6-wb-crash")))
    mapper = mapper_of(device, unreadable="zeroes")
    for block, blocks, _, _ in wanted["check"]["verifying_payloads"]:
        assert mapper.read(block, blocks) == final[4096 * block : 4096 * (block + blocks)]
    assert [[f.code, f.where["block"]] for f in repaired.findings] == [["EXT_TAG", 0]]


@pytest.mark.parametrize("name", CORRUPT)
def test_damaged_image(name: str, tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes(name))
    report = deep(device)
    assert_as_published(report, CORRUPT[name]["check"])
    shallow = check_device(device)
    assert [f.code for f in shallow.findings] == [f.code for f in report.findings if "SHADOW" not in f.code]
    assert {f.code for f in report.findings} <= set(RULES)


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
