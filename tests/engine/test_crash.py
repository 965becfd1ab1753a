"""Power cuts explored over a recorded log."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.volumes import BLOCK
from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.overlay import LogEntry, LoggedFlush, LoggedManage, LoggedWrite, Overlay, Recorder, replay_cut
from zoned_tools.device.zones import ZONE_DTYPE, Model
from zoned_tools.engine.crash import Cut, Loss, cut_positions, cuts_at, explore, split_writes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Device]:
    path = str(tmp_path / "disk.img")
    create_image(path, Geometry(Model.REGULAR, 16 * BLOCK), no_zones())
    with open_image(path) as device:
        yield device


def written(number: int, block: int, fill: bytes = b"x") -> tuple[int, LogEntry]:
    return number, LoggedWrite(block * BLOCK, fill * BLOCK)


def _keeps(loss: Loss, _: int) -> bool:
    return loss is Loss.NONE


def _note(found: list[str], devices: list[Device], _: Cut) -> None:
    found.append(content(devices[0]))


def content(device: Device) -> str:
    """One character a block: its first byte, a dot for zero."""
    blocks = (device.read(n * BLOCK, 1) for n in range(device.geometry.size_bytes // BLOCK))
    return "".join("." if b == b"\0" else b.decode() for b in blocks)


def states(base: list[Device], log: list[tuple[int, LogEntry]], cuts: list[Cut]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    count = explore(base, log, cuts, lambda devices, cut: found.append(tuple(content(d)[:4] for d in devices)))
    assert count == len(cuts) == len(found)
    return found


def test_unflushed_changes_may_be_lost_flushed_ones_not(disk: Device) -> None:
    log = [written(0, 0, b"a"), (0, LoggedFlush()), written(0, 1, b"b"), written(0, 0, b"c")]
    cuts = list(cuts_at(cut_positions(log), random_losses=8))
    assert len(cuts) == 5 * 10
    found = dict.fromkeys(zip((c.position for c in cuts), (s[0] for s in states([disk], log, cuts)), strict=True))
    by_position = {p: {s for q, s in found if q == p} for p in range(5)}
    assert by_position[0] == {"...."}
    assert by_position[1] == {"....", "a..."}
    assert by_position[2] == {"a..."}
    assert by_position[3] == {"a...", "ab.."}
    assert by_position[4] == {"a...", "ab..", "c...", "cb.."}
    assert content(disk)[:4] == "....", "the base was written to"


def test_a_flush_holds_for_its_own_device(tmp_path: Path, disk: Device) -> None:
    path = str(tmp_path / "other.img")
    create_image(path, Geometry(Model.REGULAR, 16 * BLOCK), no_zones())
    with open_image(path) as other:
        log = [written(0, 0, b"a"), written(1, 0, b"b"), (0, LoggedFlush()), written(0, 1, b"c"), (1, LoggedFlush())]
        assert states([disk, other], log, [Cut(4, Loss.ALL)]) == [("a...", "....")]
        assert states([disk, other], log, [Cut(5, Loss.ALL)]) == [("a...", "b...")]
        assert states([disk, other], log, [Cut(n, Loss.NONE) for n in (3, 5)]) == [("a...", "b..."), ("ac..", "b...")]


def test_writes_can_tear(disk: Device) -> None:
    log: list[tuple[int, LogEntry]] = [(0, LoggedWrite(BLOCK // 2, b"a" * 2 * BLOCK)), (0, LoggedFlush())]
    pieces = split_writes(log)
    assert [(e.offset_bytes, len(e.data)) for _, e in pieces if isinstance(e, LoggedWrite)] == [
        (BLOCK // 2, BLOCK // 2),
        (BLOCK, BLOCK),
        (2 * BLOCK, BLOCK // 2),
    ]
    found = set(states([disk], pieces, list(cuts_at([3], random_losses=40))))
    assert {s[0] for s in found} == {"....", ".a..", "..a.", ".aa."}  # the first half block begins with a zero


def test_positions() -> None:
    log = [written(0, 0), (0, LoggedFlush()), written(0, 1), written(0, 2), (0, LoggedFlush()), written(0, 3)]
    assert cut_positions(log) == list(range(7))
    assert cut_positions(log, flushes_only=True) == [1, 2, 4, 5, 6]
    sample = cut_positions(log, sample=3, seed=1)
    assert len(sample) == 3
    assert sample == sorted(sample) == cut_positions(log, sample=3, seed=1)
    assert {tuple(cut_positions(log, sample=3, seed=s)) for s in range(30)} != {tuple(sample)}


def test_cuts_must_ascend_and_the_check_may_write(disk: Device) -> None:
    log = [written(0, 0, b"a"), (0, LoggedFlush()), written(0, 1, b"b"), (0, LoggedFlush())]

    def scribble(devices: list[Device], cut: Cut) -> None:
        assert "z" not in content(devices[0])
        devices[0].write(0, b"z" * 16 * BLOCK)

    explore([disk], log, [Cut(4), Cut(4)], scribble)
    with pytest.raises(ValueError, match="ascending"):
        explore([disk], log, [Cut(4), Cut(2)], scribble)


def zoned_table() -> np.ndarray:
    """Two conventional and two sequential zones of 8 blocks."""
    table = np.zeros(4, ZONE_DTYPE)
    table["start_sector"] = np.arange(4) * 64
    table["length_sectors"] = table["capacity_sectors"] = 64
    table["wp_sector"] = table["start_sector"]
    table["type"] = [1, 1, 2, 2]
    table["condition"] = [0, 0, 1, 1]
    return table


@given(
    st.lists(st.sampled_from(["random", "append2", "append3", "reset2", "flush"]), max_size=14),
    st.integers(0, 14),
    st.integers(0, 1000),
)
def test_going_on_from_a_settled_state_equals_starting_over(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], position: int, seed: int
) -> None:
    path = str(tmp_path_factory.mktemp("crash") / "disk.img")
    create_image(path, Geometry(Model.HOST_MANAGED, 32 * BLOCK, 8 * BLOCK, 4), zoned_table())
    with open_image(path) as base:
        recorder = Recorder(Overlay(base))
        fills = itertools.cycle("abcdefghijklmnopqrstuvwxyz")
        offsets = {2: 0, 3: 0}
        for step in steps:
            if step == "flush":
                recorder.flush()
            elif step == "reset2":
                recorder.manage(ZoneOperation.RESET, 2)
                offsets[2] = 0
            elif step == "random":
                recorder.write(3 * BLOCK, next(fills).encode() * BLOCK)
            elif offsets[zone := int(step[-1])] < 8:
                recorder.write((zone * 8 + offsets[zone]) * BLOCK, next(fills).encode() * BLOCK)
                offsets[zone] += 1
        cut = min(position, len(recorder.log))
        for loss in (Loss.NONE, Loss.ALL):
            fresh = Overlay(base)
            replay_cut([fresh], recorder.log, cut, partial(_keeps, loss))
            found: list[str] = []
            cuts = [Cut(n, loss, seed) for n in range(cut + 1)]
            explore([base], recorder.log, cuts, partial(_note, found))
            assert found[-1] == content(fresh)
    assert not any(isinstance(e, LoggedManage) and e.count != 1 for _, e in recorder.log)
