"""The recorded writes of the real driver, replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.inplace_compress.images import (
    EXPECTED,
    check_device,
    content,
    everything,
    extents_of,
    mapper_of,
    new_volume,
    sha256,
)
from zoned_tools.device.base import Device
from zoned_tools.formats.inplace_compress.compressors import Compressor

REPLAYABLE = [name for name, e in EXPECTED.items() if "ops" in e and not e["prefill"] and name != "p6-wb-crash.crash"]


def replay(device: Device, wanted: dict[str, Any], *, close: bool = True, **options: str) -> str:
    """Replay the recorded writes; returns the driver's counters of the last stage."""
    status = ""
    for stage in wanted["ops"]:
        choices = {"encoder": "kernel", "window": str(stage["window_blocks"]), **options}
        mapper = mapper_of(device, writable=True, **choices)
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
    defect = name == "p8-gapbug"
    status = replay(device, wanted, emulate="misplaced-data") if defect else replay(device, wanted)
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
    codes = [[f.code, f.where["block"]] for f in check_device(device, deep=True).findings]
    published = wanted["check"]["problems"] + wanted["check"]["deep_problems"]
    assert sorted(codes) == sorted([row[:2] for row in published])
