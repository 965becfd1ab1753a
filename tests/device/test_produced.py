"""Steps whose data are made when they run: like writes everywhere; and views that make them when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import drive, regular
from zoned_tools.device.overlay import Overlay, apply_to_overlays
from zoned_tools.device.plan import Fill, Plan, Produce, Step, Write, apply_plan, verify_plan
from zoned_tools.device.undo import UndoFile, save_undo
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
PAGES = 24


def content(seed: int, pages: int) -> bytes:
    return bytes([seed, seed ^ 0x5A]) * (pages * PAGE // 2)


def produced(page: int, pages: int, seed: int) -> Produce:
    return Produce(0, page * PAGE, pages * PAGE, lambda: content(seed, pages), "note")


def test_description_is_that_of_a_write() -> None:
    step = produced(3, 2, 1)
    assert step.describe() == Write(0, 3 * PAGE, content(1, 2), "note").describe()


def test_applied_and_verified_like_a_write() -> None:
    device = regular(PAGES * PAGE)
    plan = Plan("test", [produced(3, 2, 1), Write(0, 4 * PAGE, content(2, 1))])
    apply_plan((device,), plan.steps)
    verify_plan((device,), plan)
    assert device.read(3 * PAGE, 2 * PAGE) == content(1, 1) + content(2, 1)
    device.write(3 * PAGE, bytes(PAGE))
    with pytest.raises(DeviceError, match="does not read back"):
        verify_plan((device,), plan)


def test_undone_like_a_write(tmp_path: Path) -> None:
    device = regular(PAGES * PAGE)
    device.write(0, content(9, PAGES))
    plan = Plan("test", [produced(3, 2, 1)])
    path = str(tmp_path / "undo")
    save_undo(path, (device,), plan)
    apply_plan((device,), plan.steps)
    with UndoFile(path) as undo:
        undo.check((device,))
        apply_plan((device,), undo.steps((device,)))
    assert device.read(0, PAGES * PAGE) == content(9, PAGES)


places = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 8), st.integers(1, 255))
steps = st.lists(st.tuples(st.sampled_from(["write", "produce", "zero", "part"]), places), max_size=12)


@given(steps, st.integers(0, PAGES * PAGE - 1), st.integers(1, 3 * PAGE))
def test_a_view_that_makes_data_late_reads_like_the_device(
    kinds: list[tuple[str, tuple[int, int, int]]], start: int, length: int
) -> None:
    devices = [regular(PAGES * PAGE), regular(PAGES * PAGE)]
    for device in devices:
        device.write(0, content(7, PAGES))
    view = Overlay(devices[1])
    plan: list[Step] = []
    for kind, (page, pages, seed) in kinds:
        count = min(pages, PAGES - page)
        match kind:
            case "write":
                plan.append(Write(0, page * PAGE, content(seed, count)))
            case "produce":
                plan.append(produced(page, count, seed))
            case "zero":
                plan.append(Fill(0, page * PAGE, count * PAGE, 0))
            case _:
                plan.append(Write(0, page * PAGE + 512, content(seed, count)[1024:]))
    apply_plan((devices[0],), plan)
    apply_to_overlays((view,), plan)
    length = min(length, PAGES * PAGE - start)
    assert view.read(start, length) == devices[0].read(start, length)
    assert view.read(0, PAGES * PAGE) == devices[0].read(0, PAGES * PAGE)
    assert devices[1].read(0, PAGES * PAGE) == content(7, PAGES)


def test_sequential_zones_are_written_at_once() -> None:
    view = Overlay(drive(4, 1, 16 * PAGE))
    view.write_later(produced(16, 2, 1))
    assert view.zones(1, 1)["wp_sector"][0] == (16 + 2) * PAGE // 512
    with pytest.raises(DeviceError):
        view.write_later(produced(32 + 3, 1, 1))
