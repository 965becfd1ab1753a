"""Plans with undo files: whatever a plan did, playing back restores it, also after a cut."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.undo_support import play
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import Plan, Produce, apply_plan, verify_plan
from zoned_tools.device.undo import UndoFile, save_undo
from zoned_tools.device.zones import Model, make_table, written_sectors
from zoned_tools.errors import DeviceError, MetadataError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

ZONE = 64 << 10
ZONES = 8


def make(folder: Path) -> str:
    path = str(folder / "disk.img")
    geometry = Geometry(Model.HOST_MANAGED, ZONES * ZONE, ZONE, ZONES)
    create_image(path, geometry, make_table(ZONES * ZONE // 512, ZONE // 512, nr_conventional=3))
    with open_image(path, writable=True) as drive:
        drive.write(0, bytes(range(256)) * 512)
        drive.write(2 * ZONE, b"second zone " * 4096)
        drive.write(3 * ZONE, b"three" * 4096 + bytes(-len(b"three" * 4096) % 512))
        drive.write(4 * ZONE, b"4" * ZONE)
        drive.write(5 * ZONE, b"5" * 4096)
        drive.manage(ZoneOperation.CLOSE, 5)
    return path


def state(path: str) -> tuple[bytes, list[int], list[int]]:
    with open_image(path) as drive:
        zones = drive.zones()
        return drive.read(0, ZONES * ZONE), zones["condition"].tolist(), written_sectors(zones).tolist()


def a_plan() -> Plan:
    plan = Plan("change everything")
    plan.write(0, 4096, b"n" * 8192)
    plan.write(0, 8192, b"m" * 4096)
    plan.fill(0, ZONE, 16384, 0xABCD)
    plan.copy(0, 2 * ZONE + 512, 4096, 8192, "over both writes")
    plan.manage(0, ZoneOperation.RESET, 4)
    plan.write(0, 4 * ZONE, b"new content of four" + bytes(4096 - 19))
    plan.write(0, 5 * ZONE + 4096, b"5" * 4096)
    plan.manage(0, ZoneOperation.FINISH, 6)
    plan.flush(0)
    return plan


@given(cut=st.integers(0, 9))
def test_undo_restores_after_any_cut(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("undo")
    path, undo = make(folder), str(folder / "plan.undo")
    before = state(path)
    with open_image(path, writable=True) as drive:
        plan = a_plan()
        save_undo(undo, [drive], plan, "nothing")
        apply_plan([drive], plan.steps[:cut])
    with open_image(path, writable=True) as drive, UndoFile(undo) as saved:
        saved.check([drive])
        apply_plan([drive], saved.steps([drive]))
        assert (saved.title, saved.paths) == ("change everything", [path])
    assert state(path) == before


def test_an_undo_file_refuses_what_changed_since(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    with open_image(path, writable=True) as drive:
        plan = Plan("one block")
        plan.write(0, 4096, b"n" * 4096)
        save_undo(undo, [drive], plan)
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        drive.write(4096, b"somebody else" + bytes(4096 - 13))
        with UndoFile(undo) as saved:
            with pytest.raises(RefusedError, match="changed after"):
                saved.check([drive])
            saved.check([drive], force=True)
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    with open_image(str(other)) as device, UndoFile(undo) as saved, pytest.raises(RefusedError, match="not the device"):
        saved.check([device])


def test_damaged_undo_files(tmp_path: Path) -> None:
    path, undo = make(tmp_path), tmp_path / "plan.undo"
    with open_image(path, writable=True) as drive:
        plan = a_plan()
        save_undo(str(undo), [drive], plan)
        with pytest.raises(DeviceError, match="exists"):
            save_undo(str(undo), [drive], plan)
    good = undo.read_bytes()
    undo.write_bytes(good[: len(good) // 2])
    with pytest.raises(MetadataError):
        UndoFile(str(undo))
    undo.write_bytes(os.urandom(5000))
    with pytest.raises(MetadataError):
        UndoFile(str(undo))
    with pytest.raises(DeviceError):
        UndoFile(str(tmp_path / "nothing"))


def test_verify_notices_a_device_that_forgets(tmp_path: Path) -> None:
    path = make(tmp_path)
    with open_image(path, writable=True) as drive:
        plan = Plan("one block")
        plan.write(0, 4096, b"n" * 4096)
        with pytest.raises(DeviceError, match="does not read back"):
            verify_plan([drive], plan)


def forgetful_plan(kind: str) -> Plan:
    plan = Plan("one step, and others after it")
    match kind:
        case "write":
            plan.write(0, 4096, b"n" * 8192)
        case "produce":
            plan.steps.append(Produce(0, 4096, 8192, lambda: b"p" * 8192))
        case "fill":
            plan.fill(0, 4096, 8192, 0xABCD)
        case "zeroes":
            plan.fill(0, 4096, 8192, 0)
        case "copy":
            plan.copy(0, 2 * ZONE, 4096, 8192)
    plan.write(0, 6 * 4096, b"m" * 4096)
    plan.fill(0, ZONE, 16384, 0xABCD)
    plan.manage(0, ZoneOperation.RESET, 4)
    plan.manage(0, ZoneOperation.FINISH, 6)
    plan.flush(0)
    return plan


@pytest.mark.parametrize("kind", ["write", "produce", "fill", "zeroes", "copy"])
def test_verify_looks_at_every_step(kind: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with open_image(path, writable=True) as drive:
        plan = forgetful_plan(kind)
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        drive.write(4096 + 512, b"lost" * 128)
        with pytest.raises(DeviceError, match="does not read back"):
            verify_plan([drive], plan)
        plan.write(0, 4096, drive.read(4096, 1024))
        verify_plan([drive], plan)


def test_verify_knows_what_a_later_step_changed(tmp_path: Path) -> None:
    path = make(tmp_path)
    with open_image(path, writable=True) as drive:
        plan = a_plan()
        plan.copy(0, ZONE, 0, 8192)
        plan.write(0, ZONE + 4096, b"source of the copy" * 512)
        plan.write(0, 7 * ZONE, b"7" * 4096)
        plan.manage(0, ZoneOperation.RESET, 7)
        plan.fill(0, 3584, 1024, 0x1234)
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)


def test_verify_is_fast_with_many_steps(tmp_path: Path) -> None:
    path = make(tmp_path)
    with open_image(path, writable=True) as drive:
        plan = Plan("bytes")
        for number in range(20_000):
            plan.write(0, number * 7919 % (3 * ZONE // 512) * 512, bytes([number % 251]) * 512)
        apply_plan([drive], plan.steps)
        before = time.process_time()
        verify_plan([drive], plan)
        assert time.process_time() - before < 5


def test_checking_an_undo_file_of_many_blocks_is_fast(tmp_path: Path) -> None:
    path, undo = str(tmp_path / "plain.img"), str(tmp_path / "plan.undo")
    with open(path, "wb") as file:
        file.write(os.urandom(16 << 20))
    with open_image(path, writable=True) as drive:
        plan = Plan("the first half to the second")
        plan.copy(0, 0, 8 << 20, 8 << 20)
        before = drive.read(0, 16 << 20)
        save_undo(undo, [drive], plan)
        apply_plan([drive], plan.steps)
        verify_plan([drive], plan)
        started = time.process_time()
        with UndoFile(undo) as saved:
            saved.check([drive])
            assert time.process_time() - started < 2
            drive.write((8 << 20) + 5 * 4096, b"somebody else" + bytes(512 - 13))
            with pytest.raises(RefusedError, match="changed after"):
                saved.check([drive])
            apply_plan([drive], saved.steps([drive]))
        assert drive.read(0, 16 << 20) == before


def test_a_change_to_a_partition_is_undone_there(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    with open_image(path, writable=True) as drive:
        part = PartitionView(drive, 2 * ZONE, 7 * ZONE)
        plan = Plan("two zones of the partition")
        plan.write(0, 4096, b"n" * 4096)
        plan.manage(0, ZoneOperation.RESET, 1)
        save_undo(undo, [part], plan)
        apply_plan([part], plan.steps)
    assert state(path) != before
    with open_image(path, writable=True) as drive, UndoFile(undo) as saved:
        views = saved.views([drive])
        saved.check(views)
        apply_plan(views, saved.steps(views))
    assert state(path) == before
    other = tmp_path / "other.img"
    other.write_bytes(bytes(ZONE))
    with open_image(str(other)) as device, UndoFile(undo) as saved, pytest.raises(RefusedError, match="not the device"):
        saved.views([device])


def overlapping_plan() -> Plan:
    """Fills, writes and a copy over each other, which begin and end inside of blocks."""
    plan = Plan("a new super block over a cleared one")
    plan.fill(0, 0, 16384, 0, "clear")
    plan.flush(0)
    plan.write(0, 0, b"s" * 512, "super block")
    plan.write(0, 1024, b"t" * 6144)
    plan.fill(0, 1536, 4096, 0x4321)
    plan.copy(0, ZONE, 4096, 1024)
    plan.write(0, 4096, b"u" * 4096)
    return plan


@pytest.mark.parametrize("done", range(len(overlapping_plan().steps) + 1))
def test_a_plan_that_was_cut_short_is_undone_as_it_is(done: int, tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    with open_image(path, writable=True) as drive:
        plan = overlapping_plan()
        save_undo(undo, [drive], plan)
        apply_plan([drive], plan.steps[:done])
    play(path, undo)
    assert state(path) == before


def test_what_somebody_else_wrote_there_is_seen(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    for place in (0, 1024, 1536, 4096, 5120, 6656):
        with open_image(path, writable=True) as drive:
            plan = overlapping_plan()
            save_undo(undo, [drive], plan)
            apply_plan([drive], plan.steps)
            drive.write(place, b"x" * 512)
        with pytest.raises(RefusedError, match="changed after"):
            play(path, undo)
        play(path, undo, force=True)
        os.unlink(undo)
