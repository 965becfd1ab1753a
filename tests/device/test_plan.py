"""Plans mean the same shown, run and verified."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import Fill, Plan, apply_plan, verify_plan
from zoned_tools.device.zones import Model, ZoneCondition, make_table
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

    from zoned_tools.device.emulated import EmulatedDrive

ZONE = 64 << 10


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "disk.img")
    table = make_table(8 * ZONE // 512, ZONE // 512, nr_conventional=2)
    table["condition"][7] = ZoneCondition.OFFLINE
    create_image(path, Geometry(Model.HOST_MANAGED, 8 * ZONE, ZONE, 8), table)
    with open_image(path, writable=True) as drive:
        drive.write(0, b"conv" * 1024)
        drive.write(3 * ZONE, b"3" * 4096)
        drive.write(4 * ZONE, b"4" * ZONE)
    return path


CONDITIONS = {  # of zones 2 to 7, after the operation on all zones
    ZoneOperation.RESET: [1, 1, 1, 1, 1, 15],
    ZoneOperation.OPEN: [3, 3, 14, 3, 3, 15],
    ZoneOperation.CLOSE: [1, 4, 14, 1, 1, 15],
    ZoneOperation.FINISH: [14, 14, 14, 14, 14, 15],
}


@pytest.mark.parametrize("operation", list(ZoneOperation))
def test_every_zone_means_the_same_in_the_plan_and_in_the_run(operation: ZoneOperation, path: str) -> None:
    with open_image(path, writable=True) as drive:
        plan = Plan("all zones")
        plan.manage_all(0, operation, drive.zones())
        shown = list(plan.describe([path]))
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        assert drive.zones()["condition"].tolist()[2:] == CONDITIONS[operation]
        assert drive.read(0, 4096) == b"conv" * 1024
        again = Plan("again")
        again.manage_all(0, operation, drive.zones())
        assert bool(again) == (operation is ZoneOperation.OPEN), "open zones can be opened"
    wanted = {
        ZoneOperation.RESET: ["reset every zone that is not conventional, empty, read-only or offline"],
        ZoneOperation.OPEN: ["open zones 2 to 3", "open zones 5 to 6"],
        ZoneOperation.CLOSE: ["close zone 3"],
        ZoneOperation.FINISH: ["finish zones 2 to 3", "finish zones 5 to 6"],
    }
    assert shown == [f"{path}: {line}" for line in wanted[operation]]


def test_every_zone_of_a_partition(path: str) -> None:
    with open_image(path, writable=True) as drive:
        part = PartitionView(drive, ZONE, 5 * ZONE)
        plan = Plan("all zones")
        plan.manage_all(0, ZoneOperation.RESET, part.zones())
        apply_plan([part], plan.steps)
        assert drive.zones()["condition"].tolist() == [0, 0, 1, 1, 1, 1, 1, 15]


def test_a_reset_of_everything_does_not_excuse_conventional_zones(path: str) -> None:
    """Reading back goes on in what the reset leaves alone."""
    with open_image(path, writable=True) as drive:
        plan = Plan("write, then reset everything")
        plan.write(0, 0, b"new!" * 1024)
        plan.manage_all(0, ZoneOperation.RESET, drive.zones())
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        drive.write(0, b"lost" * 1024)
        with pytest.raises(DeviceError, match="does not read back"):
            verify_plan([drive], plan)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    path = str(tmp_path / "plain.img")
    create_image(path, Geometry(Model.REGULAR, 40 << 20), no_zones())
    return path


@pytest.mark.parametrize("pattern", [0, 0xFFFF, 0xABCD])
@pytest.mark.parametrize("at", [0, 4096, (4 << 20) - 512, (4 << 20) + 512, (17 << 20) + 1024])
def test_one_wrong_byte_of_a_fill_is_seen(pattern: int, at: int, plain: str) -> None:
    with open_image(plain, writable=True) as drive:
        plan = Plan("fill")
        plan.fill(0, 512, (18 << 20) - 1024, pattern)
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        inside = max(at, 512)
        good = bytearray(drive.read(inside, 512))
        good[511] ^= 1
        drive.write(inside, bytes(good))
        with pytest.raises(DeviceError, match="does not read back"):
            verify_plan([drive], plan)


def test_reading_back_a_fill_uses_its_buffers_again(plain: str) -> None:
    with open_image(plain, writable=True) as drive:
        plan = Plan("fill")
        for number, pattern in enumerate((0, 0xFFFF, 0xABCD)):
            plan.steps.append(Fill(0, number * (12 << 20), 12 << 20, pattern))
        apply_plan([drive], plan.steps)
        tracemalloc.start()
        verify_plan([drive], plan)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 13 << 20, "three buffers of a chunk"


def test_a_copy_is_compared(plain: str) -> None:
    def content(drive: EmulatedDrive) -> Plan:
        drive.write(0, bytes(range(256)) * (5 << 12))
        plan = Plan("copy")
        plan.copy(0, 0, 20 << 20, 5 << 20)
        apply_plan([drive], plan.steps)
        return plan

    with open_image(plain, writable=True) as drive:
        plan = content(drive)
        verify_plan([drive], plan)
        drive.write((25 << 20) - 512, b"x" * 512)
        with pytest.raises(DeviceError, match="does not read back"):
            verify_plan([drive], plan)
