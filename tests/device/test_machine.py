"""The emulated drive against traces of real drives of each family."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest

from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.machine import DriveFamily
from zoned_tools.device.zones import Model, ZoneCondition, make_table, wp_is_valid
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

    from zoned_tools.device.emulated import EmulatedDrive

TRACES = {"nullblk": DriveFamily.NULL_BLK, "zns": DriveFamily.NVME, "scsi": DriveFamily.SCSI}


def drive_of(trace: dict[str, Any], path: Path) -> EmulatedDrive:
    facts, zones = trace["device"], trace["zones"]
    sequential = [z for z in zones if z["type"] != 1]
    table = make_table(
        facts["size"] // 512,
        facts["zs"],
        nr_conventional=len(zones) - len(sequential),
        capacity_sectors=min(z["cap"] for z in sequential) if sequential[0]["cap"] < facts["zs"] else None,
    )
    assert [(int(z["start_sector"]), int(z["capacity_sectors"]), int(z["type"])) for z in table] == [
        (z["start"], z["cap"], z["type"]) for z in zones
    ]
    geometry = Geometry(
        Model.HOST_MANAGED,
        facts["size"],
        facts["zs"] * 512,
        facts["nz"],
        facts["lbs"],
        facts["pbs"],
        max(facts["lbs"], facts["pbs"]),
        facts["mo"],
        facts["ma"],
        facts["vendor"],
    )
    create_image(str(path), geometry, table)
    return open_image(str(path), writable=True)


def states(drive: EmulatedDrive) -> list[list[int | None]]:
    zones = drive.zones()
    valid = wp_is_valid(zones)
    return [
        [int(z["condition"]), int(z["wp_sector"]) - int(z["start_sector"]) if ok else None]
        for z, ok in zip(zones, valid, strict=True)
    ]


def run(drive: EmulatedDrive, step: dict[str, Any], zone_sectors: int) -> str:
    try:
        match step["op"]:
            case "write":
                start = (step["zone"] * zone_sectors + step["off"]) * 512
                size = step.get("chunk", step["sectors"])
                for done in range(0, step["sectors"], size):
                    drive.write(start + done * 512, b"x" * (min(size, step["sectors"] - done) * 512))
            case "resetall":
                drive.manage(ZoneOperation.RESET, 0, len(drive.zones()))
            case operation:
                drive.manage(ZoneOperation(operation), step["zone"])
    except DeviceError as error:
        return errno.errorcode[error.errno]
    return "ok"


@pytest.mark.parametrize("name", TRACES)
def test_trace_of_a_real_drive(name: str, vectors: Path, tmp_path: Path) -> None:
    trace = json.loads((vectors / "zone-report" / f"trace-{name}.json").read_text())
    zone_sectors = trace["device"]["zs"]
    path = tmp_path / "disk.img"
    with drive_of(trace, path) as drive:
        assert drive.machine.family is TRACES[name]
        assert states(drive) == trace["initial"]
        expected = [list(s) for s in trace["initial"]]
        for number, step in enumerate(trace["trace"]):
            result = run(drive, step, zone_sectors)
            crosses = step["op"] == "write" and step["off"] + step["sectors"] > zone_sectors
            if "chunk" in step or crosses:
                assert (result == "ok") == (step["result"] == "ok"), (number, step)
            else:
                assert result == step["result"], (number, step)
            for zone, state in step["changed"].items():
                expected[int(zone)] = state
            assert states(drive) == expected, (number, step)
        assert states(drive) == trace["final"]
    with open_image(str(path)) as again:
        assert states(again) == trace["final"], "the sidecar keeps what the drive showed"


def test_a_zone_reads_zeroes_at_and_above_its_write_pointer(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    geometry = Geometry(Model.HOST_MANAGED, 4 << 20, 1 << 20, 4)
    create_image(str(path), geometry, make_table(8192, 2048, nr_conventional=1))
    with open_image(str(path), writable=True) as drive:
        drive.write(1 << 20, b"a" * 8192)
    with open(path, "r+b") as raw:  # garbage that a drive would never show
        raw.seek((1 << 20) + 8192)
        raw.write(b"garbage" * 100)
    with open_image(str(path), writable=True) as drive:
        assert drive.read((1 << 20) + 4096, 8192) == b"a" * 4096 + bytes(4096)
        drive.manage(ZoneOperation.FINISH, 1)
        assert drive.read((1 << 20) + 4096, 8192) == b"a" * 4096 + bytes(4096)
        assert drive.zones(1, 1)["condition"][0] == ZoneCondition.FULL
        drive.manage(ZoneOperation.RESET, 1)
        assert drive.read(1 << 20, 4096) == bytes(4096)
    assert path.stat().st_blocks == 0, "a reset zone takes no space"
