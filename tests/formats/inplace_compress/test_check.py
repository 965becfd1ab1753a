"""Check of the images of the real driver and their damaged copies, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.inplace_compress.images import (
    CORRUPT,
    EXPECTED,
    check_device,
    corrupt_bytes,
    everything,
    extents_of,
    image_bytes,
    in_memory,
    line_of,
    mapper_of,
    new_volume,
    plan_for,
    sha256,
)
from zoned_tools.device.base import Device
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.errors import DeviceError
from zoned_tools.formats.inplace_compress.check import InplaceEvidence
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.entries import pack_entries
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.probe import probe
from zoned_tools.formats.inplace_compress.rules import RULES


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


@pytest.mark.parametrize("name", CORRUPT)
def test_damaged_image(name: str, tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes(name))
    report = deep(device)
    assert_as_published(report, CORRUPT[name]["check"])
    shallow = check_device(device)
    assert [f.code for f in shallow.findings] == [f.code for f in report.findings if "SHADOW" not in f.code]
    assert {f.code for f in report.findings} <= set(RULES)


def test_every_one_of_many_findings_is_listed(tmp_path: Path) -> None:
    """Findings of one rule are one group of columns, however many there are."""
    device = new_volume(tmp_path, 320 << 20, Compressor.LZO)
    number = 24_000
    raw = pack_entries(np.tile(np.array([1, 0, 16], np.uint8), number))
    device.write(4096, raw.ljust(-(-len(raw) // 512) * 512, b"\0"))
    findings = check_device(device).findings
    assert [(group.code, len(group)) for group in findings.groups] == [("MAP_ORPHAN", number), ("EXT_TAG", number)]
    rows = json.loads("[" + ",".join(findings.json_blocks()) + "]")
    assert len(rows) == 2 * number
    assert rows[number - 1]["where"] == {"block": 3 * number - 2, "blocks": 2}
    assert rows[number - 1]["message"].startswith(f"blocks {3 * number - 2} to {3 * number - 1}: Tails")
    assert rows[-1]["where"] == {"block": 3 * number - 3, "blocks": 1}


class Watched(Overlay):
    """Remembers where reads began."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_image(str(path)))
        self.offsets: list[int] = []

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.offsets.append(offset_bytes)
        return super().read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.offsets.append(offset_bytes)
        super().read_into(offset_bytes, buffer)


@pytest.mark.parametrize("name", ["p6-wb-crash.crash", "lzo-map-head-lost-2", "842-map-nibble", "lzo-tag-magic"])
def test_a_repair_reads_no_payload_that_the_check_has_seen(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(image_bytes(name) if name in EXPECTED else corrupt_bytes(name))
    device = Watched(path)
    consents = {"relink": "yes", "zero-unreadable": "yes"}
    evidence = check_device(device, consents)
    data = open_volume(device).data_offset_bytes
    assert max(device.offsets) >= data
    device.offsets.clear()
    assert plan_for(evidence, consents).plan.steps
    assert max(device.offsets) < data
