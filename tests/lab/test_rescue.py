"""A dying drive: bad sectors of a real block device, copied with GNU ddrescue as zoned-rescue(7) says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.lab import devices
from tests.lab.device_mapper import started
from tests.lab.devices import MIB, run
from tests.lab.programs import program

pytestmark = pytest.mark.lab(guest="target", **devices.MACHINE)

DRIVE = {"zbc": "managed", "dev_size_mb": 96, "zone_size_mb": 4, "zone_nr_conv": 8, "sector_size": 4096}
BLOCK = 4096
DATA_BYTES = 6 * MIB


def _break(first_block: int, count: int) -> None:
    """From now on reads of some blocks end with a medium error (``opts`` bit 2 of scsi_debug)."""
    parameters = Path("/sys/module/scsi_debug/parameters")
    (parameters / "medium_error_start").write_text(str(first_block))
    (parameters / "medium_error_count").write_text(str(count))
    Path("/sys/bus/pseudo/drivers/scsi_debug/opts").write_text("2")


def _rescue(drive: str, folder: Path) -> str:
    """The two steps: metadata, then what they say matters."""
    image, metadata, data = folder / "disk.img", folder / "meta.domain", folder / "data.domain"
    program("zoned", "map", drive, "--domain-out", metadata, "--metadata-only")
    copy = ["ddrescue", "-q", "-d", f"-b{BLOCK}", "-r1"]
    run(*copy, "-m", metadata, drive, image, f"{image}.map")
    program("zoned", "map", image, "--domain-out", data)
    run(*copy, "-m", data, drive, image, f"{image}.map")
    return str(image)


@pytest.mark.parametrize("what", ["payload", "metadata"])
def test_two_steps_bring_everything_that_can_be_read(what: str, tmp_path: Path) -> None:
    with devices.scsi_debug(**DRIVE) as drive:
        program("dmzadm", "--format", drive, "--seq=3")
        content = os.urandom(DATA_BYTES)
        (tmp_path / "content").write_bytes(content)
        with started(drive) as logical:
            run("dd", f"if={tmp_path / 'content'}", f"of={logical}", "bs=1M", "oflag=direct", "seek=2", "conv=notrunc")
            run("sync")
        lost = 2 * MIB + 100 * BLOCK
        where = json.loads(program("zoned", "map", "--json", drive, "--at", f"{lost // BLOCK}").out)["extents"][0]
        _break(where["physical_block"] if what == "payload" else 1, 2)
        assert program("zoned", "check", drive, status=None).status == (0 if what == "payload" else 4)
        image = _rescue(drive, tmp_path)
        exported = tmp_path / "exported"
        status = 4 if what == "payload" else 0
        done = program("zoned", "export", image, "-q", "--json", "--skip-errors", "-o", exported, status=status)
        rows = [(row["offset_bytes"], row["length_bytes"]) for row in json.loads(done.out)["lost"]]
        assert rows == ([(lost, 2 * BLOCK)] if what == "payload" else [])
        found = exported.read_bytes()[2 * MIB : 2 * MIB + DATA_BYTES]
        expected = bytearray(content)
        for offset, length in rows:
            expected[offset - 2 * MIB : offset - 2 * MIB + length] = bytes(length)
        assert found == expected
        # The drive itself, without a copy: what gives errors is found by reading.
        direct = tmp_path / "direct"
        again = program("zoned", "export", drive, "-q", "--json", "--skip-errors", "-o", direct, status=status)
        assert [(r["offset_bytes"], r["length_bytes"]) for r in json.loads(again.out)["lost"]] == rows
        assert direct.read_bytes() == exported.read_bytes()
