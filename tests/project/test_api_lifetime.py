"""What the API does with drives and files that are closed, shared, copied, or asked for nonsense."""

from __future__ import annotations

import copy
import io
import os
import pickle
import shutil
from typing import TYPE_CHECKING

import pytest

import zoned_tools
from zoned_tools.errors import BusyError, DeviceError, RefusedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Program

BLOCK = 4096


@pytest.fixture
def drive(tmp_path: Path, zoned: Program) -> Path:
    image = tmp_path / "drive.img"
    made = zoned("image", "create", image, "--zones", 64, "--zone-size", "1MiB", "--conventional", 8)
    assert made.status == 0
    zoned_tools.format(image, layout="dm-zoned", label="shelf", no_undo=True)
    return image


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"v" * BLOCK)
    return path


def test_a_closed_drive_never_touches_the_file_that_has_its_number_now(drive: Path, victim: Path) -> None:
    device = zoned_tools.open_drive(drive, writable=True)
    device.close()
    with victim.open("r+b"):
        for call in (lambda: device.read(0, 8), lambda: device.write(0, bytes(BLOCK)), device.flush):
            with pytest.raises(DeviceError, match="closed"):
                call()
        with pytest.raises(DeviceError, match="closed"):
            device.discard(0, BLOCK)
    assert victim.read_bytes() == b"v" * BLOCK


def test_a_target_closes_its_logical_devices_before_its_drives(drive: Path, victim: Path) -> None:
    target = zoned_tools.open_target(drive, writable=True)
    file = target.open(writable=True)
    file.write(b"A" * BLOCK)
    target.close()
    with victim.open("r+b"), pytest.raises(ValueError, match="closed file"):
        file.write(b"B" * BLOCK)
    assert victim.read_bytes() == b"v" * BLOCK
    with zoned_tools.open_target(drive) as again:
        assert again.check().verdict == "clean"
        assert again.open().read(BLOCK) == b"A" * BLOCK


def test_a_closed_target_answers_nothing(drive: Path) -> None:
    target = zoned_tools.open_target(drive)
    target.close()
    target.close()
    for call in (target.check, target.inspect, target.open, lambda: list(target.map())):
        with pytest.raises(DeviceError, match="closed"):
            call()


def test_one_writer_at_a_time(drive: Path) -> None:
    with zoned_tools.open_target(drive, writable=True) as target:
        plan = target.plan_repair(target.check())
        with target.open(writable=True):
            with pytest.raises(BusyError, match="open for writing"):
                target.open(writable=True)
            with pytest.raises(BusyError, match="open for writing"):
                target.apply(plan)
        target.open(writable=True).close()
        target.apply(target.plan_repair(target.check()))


def test_a_plan_is_of_one_target_as_it_is(drive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    for end in ("", ".zones"):
        shutil.copyfile(f"{drive}{end}", f"{other}{end}")
    with (
        zoned_tools.open_target(drive, writable=True) as target,
        zoned_tools.open_target(other, writable=True) as second,
    ):
        evidence = target.check()
        plan = target.plan_repair(evidence)
        with pytest.raises(RefusedError, match="not a plan of this target"):
            second.apply(plan)
        assert second.plan_repair(evidence) is not plan
        with pytest.raises(RefusedError, match="not a plan of this target"):
            second.apply(second.plan_repair(evidence))
        rehearsal = target.rehearse(evidence, plan)
        target.apply(rehearsal.plan)
        with pytest.raises(RefusedError, match="not a plan of this target"):
            target.apply(plan)


def test_a_read_only_target_has_no_writable_device(drive: Path) -> None:
    with zoned_tools.open_target(drive) as target, pytest.raises(UsageError, match="writable=True"):
        target.open(writable=True)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_that_holds_drives_is_copied(drive: Path, duplicate: object) -> None:
    assert callable(duplicate)
    with zoned_tools.open_target(drive) as target, target.open() as file:
        for thing in (target, file):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                duplicate(thing)
        assert file.read(1) == b"\0"


def test_a_closed_file_is_closed(drive: Path) -> None:
    with zoned_tools.open_target(drive) as target:
        file = target.open()
        file.close()
        for call in (lambda: file.read(1), lambda: file.seek(0), file.tell, file.flush, file.readable, file.seekable):
            with pytest.raises(ValueError, match="closed file"):
                call()


def test_positions_are_whole_numbers(drive: Path) -> None:
    with zoned_tools.open_target(drive) as target, target.open() as file:
        with pytest.raises(TypeError):
            file.seek(1.5)  # type: ignore[arg-type]  # what is tested
        assert file.tell() == 0


def test_buffered_writers_take_it(drive: Path) -> None:
    with zoned_tools.open_target(drive, writable=True) as target:
        with io.BufferedWriter(target.open(writable=True)) as writer:
            writer.write(b"x" * 10)
        assert target.open().read(10) == b"x" * 10


def test_arguments_that_cannot_be_meant(drive: Path) -> None:
    with pytest.raises(UsageError, match="no device is named"):
        zoned_tools.open_target()
    with zoned_tools.open_drive(drive) as device, pytest.raises(DeviceError, match="not on the device"):
        device.read(0, -1)
    with zoned_tools.open_target(drive) as target:
        assert list(target.map(0, 0)) == []
        with pytest.raises(UsageError, match=r"block \d+ is not on the logical device"):
            list(target.map(10**9))
        with pytest.raises(UsageError, match="no finding 'nosuch'"):
            target.plan_repair(target.check(), allow="nosuch")
    assert os.path.exists(drive)


def test_evidence_from_before_a_change_makes_no_plan_that_is_carried_out(drive: Path) -> None:
    with zoned_tools.open_target(drive, writable=True) as target:
        before = target.check()
        with target.open(writable=True) as file:
            during = target.check()
            file.write(b"A" * BLOCK)
        for evidence in (before, during):
            plan = target.plan_repair(evidence)
            with pytest.raises(RefusedError, match="check it again"):
                target.apply(plan)
