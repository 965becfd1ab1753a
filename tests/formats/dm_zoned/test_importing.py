"""Raw content goes straight into sequential zones: once written, in order, and found again after a power cut."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import TARGETS, error_findings
from tests.formats.dm_zoned.images import BLOCK, check_target, logical_content
from tests.formats.dm_zoned.mapper_support import opened, recorded
from tests.formats.dm_zoned.reshape_support import cuts, random_single
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LoggedManage, LoggedWrite, Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.rawsource import RawSource
from zoned_tools.engine.import_raw import import_raw, plan_import, rehearse_import
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats.contract import Consents, Imported, ImportOptions, Target
from zoned_tools.formats.dm_zoned.free import plan_free
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.repair_plan import plan_repair


def target_of(devices: Sequence[Device]) -> Target:
    return Target("dm-zoned", tuple(devices))


def filled(devices: Sequence[Device], raw: Path, options: ImportOptions | None = None) -> Imported:
    with RawSource(str(raw)) as source:
        target = target_of(devices)
        return import_raw(
            source, target, plan_import(source, target, options or ImportOptions()), verify=True, no_undo=True
        )


def size_of(devices: Sequence[Device]) -> int:
    return opened(list(devices), writable=False).size_blocks * BLOCK


def make(path: Path, size: int, chance: random.Random, share: float = 0.6) -> bytes:
    """A sparse file: runs of data, zeroes that are stored, holes."""
    content = bytearray(size)
    with open(path, "wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            count = min(chance.choice((1, 1, 3, 7, 16, 40)) * BLOCK, size - at)
            kind = chance.random()
            if kind < share:
                content[at : at + count] = chance.randbytes(count)
            if kind < share + 0.15:
                os.pwrite(file.fileno(), content[at : at + count], at)
            at += count
    return bytes(content)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.95])
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_imported_is_read(name: str, share: float, tmp_path: Path) -> None:
    devices = TARGETS[name]()
    # Chunks of several devices are more than their zones: the reserve absorbs them, which an import leaves alone.
    full = size_of(devices) if len(devices) == 1 else size_of(devices) - 3 * devices[1].geometry.zone_bytes
    wanted = make(tmp_path / "raw", full, random.Random(f"{name} {share}"), share).ljust(size_of(devices), b"\0")
    views, log = recorded([Overlay(device) for device in devices])
    done = filled(views, tmp_path / "raw")
    assert logical_content(target_of(views)) == wanted
    assert error_findings(views) == []
    written = sum(len(entry.data) for _, entry in log if isinstance(entry, LoggedWrite))
    assert done.written_bytes == written
    blocks = np.frombuffer(wanted, np.uint8).reshape(-1, BLOCK).any(axis=1)
    assert done.data_bytes == int(blocks.sum()) * BLOCK
    zone_blocks = devices[-1].geometry.zone_bytes // BLOCK
    ends = [int(np.flatnonzero(c)[-1]) + 1 for c in blocks.reshape(-1, zone_blocks) if c.any()]
    assert done.chunks == len(ends) == sum(done.zones.values())
    evidence = check_target(target_of(views))
    assert written <= (sum(ends) + 2 * evidence.chosen.layout.nr_meta_blocks + 3) * BLOCK


def test_zones_are_filled_in_order_and_the_reserve_is_left(tmp_path: Path) -> None:
    """Sequential zones ascending, of which the first three are the reserve; then random ones."""
    devices = TARGETS["single"]()
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(size_of(devices)))
    done = filled(devices, tmp_path / "raw")
    survey = check_target(target_of(devices)).chosen
    assert survey.map.data.tolist() == [*range(11, 20), *range(4, 8)]
    assert done.zones == {"cache": 0, "random": 4, "sequential": 9}
    assert (survey.map.buffer == UNMAPPED).all()


@pytest.mark.parametrize("seed", range(6))
def test_used_targets_and_shorter_content(seed: int, tmp_path: Path) -> None:
    """Chunks that were discarded give their zones back first; the content ends anywhere."""
    chance = random.Random(f"import {seed}")
    devices = random_single(chance)
    mapper = opened(devices)
    mapper.discard(0, mapper.size_blocks)
    mapper.close()
    apply_plan(devices, plan_free(target_of(devices)).plan.steps)
    size = size_of(devices)
    wanted = make(tmp_path / "raw", chance.randrange(1, size), chance)
    filled(devices, tmp_path / "raw")
    assert logical_content(target_of(devices)) == wanted.ljust(size, b"\0")
    assert error_findings(devices) == []


def mapped(devices: Sequence[Device]) -> list[int]:
    data = check_target(target_of(devices)).chosen.map.data
    return np.flatnonzero(data != UNMAPPED).tolist()


def test_content_that_ends_inside_a_block(tmp_path: Path) -> None:
    devices = TARGETS["dual"]()
    (tmp_path / "raw").write_bytes(b"x" * 5000)
    filled(devices, tmp_path / "raw")
    assert logical_content(target_of(devices)).rstrip(b"\0") == b"x" * 5000


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = TARGETS["single-large-zones"]()
    wanted = make(tmp_path / "raw", size_of(devices), random.Random(4))
    with open(tmp_path / "raw", "rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        with RawSource("-") as source:
            assert source.size_bytes is None
            target = target_of(devices)
            import_raw(source, target, plan_import(source, target, ImportOptions()), verify=True, no_undo=True)
            assert source.size_bytes == len(wanted)
    assert logical_content(target_of(devices)) == wanted


def rehearsed(devices: Sequence[Device], raw: Path) -> Imported:
    with RawSource(str(raw)) as source:
        return rehearse_import(source, plan_import(source, target_of(devices), ImportOptions(rehearse=True)))


@pytest.mark.parametrize("name", TARGETS)
def test_a_rehearsal_counts_and_writes_nothing(name: str, tmp_path: Path) -> None:
    base = TARGETS[name]()
    make(tmp_path / "raw", size_of(base) * 2 // 3 // BLOCK * BLOCK, random.Random(f"rehearse {name}"))
    views, log = recorded(base)
    first = rehearsed(views, tmp_path / "raw")
    assert not log
    assert first == filled(views, tmp_path / "raw")


def test_a_rehearsal_tells_what_does_not_fit(tmp_path: Path) -> None:
    devices = TARGETS["dual"]()
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(size_of(devices)))
    with pytest.raises(DeviceError, match="no zone is free any more"):
        rehearsed(devices, tmp_path / "raw")


# -- refusals


def refused(devices: Sequence[Device], raw: Path, match: str, options: ImportOptions | None = None) -> None:
    views, log = recorded([Overlay(device) for device in devices])
    with pytest.raises((RefusedError, DeviceError), match=match):
        filled(views, raw, options)
    assert not log


def test_a_target_with_data_is_refused_unless_it_is_agreed(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    size = size_of(devices)
    first = random.Random(1).randbytes(16 * BLOCK)
    (tmp_path / "first").write_bytes(first)
    filled(devices, tmp_path / "first")
    (tmp_path / "other").write_bytes(bytes(64 * BLOCK) + first)
    refused(devices, tmp_path / "other", "it holds data: 1 chunks are mapped")
    (tmp_path / "over").write_bytes(first)
    refused(devices, tmp_path / "over", "holds data at byte 0", ImportOptions(force=True))
    filled(devices, tmp_path / "other", ImportOptions(force=True))
    assert logical_content(target_of(devices)) == (first + bytes(48 * BLOCK) + first).ljust(size, b"\0")


def test_content_that_is_too_long(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    size = size_of(devices)
    with open(tmp_path / "raw", "wb") as file:
        file.truncate(size + 1)
    refused(devices, tmp_path / "raw", "has .* bytes, the target")


def test_the_reserve_is_left_alone(tmp_path: Path) -> None:
    devices = TARGETS["dual"]()
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(size_of(devices)))
    with pytest.raises(DeviceError, match="no zone is free any more") as caught:
        filled(devices, tmp_path / "raw")
    assert "3 are reserved for reclaim" in str(caught.value)
    assert error_findings(devices) == []
    assert mapped(devices) == []


def test_damage_is_refused(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    devices[0].write(BLOCK, bytes(BLOCK))
    (tmp_path / "raw").write_bytes(b"x")
    refused(devices, tmp_path / "raw", "dm-zoned")


# -- power cuts


@pytest.mark.parametrize("name", TARGETS)
def test_an_import_that_was_cut_off_goes_on(name: str, tmp_path: Path) -> None:
    chance = random.Random(f"cut {name}")
    base = TARGETS[name]()
    wanted = make(tmp_path / "raw", size_of(base) * 3 // 4 // BLOCK * BLOCK, chance).ljust(size_of(base), b"\0")
    views, log = recorded([Overlay(device) for device in base])
    filled(views, tmp_path / "raw", ImportOptions(commit_every=3))
    zone_bytes = base[-1].geometry.zone_bytes
    prefixes = set()
    for point, devices in cuts(base, log, chance, most=80):
        assert error_findings(devices) == [], point
        there = mapped(devices)
        content = logical_content(target_of(devices))
        end = (there[-1] + 1) * zone_bytes if there else 0
        assert content[:end] == wanted[:end], point
        assert not any(content[end:]), point
        prefixes.add(len(there))
        apply_plan(devices, plan_repair(check_target(target_of(devices)), Consents()).plan.steps)
        filled(devices, tmp_path / "raw", ImportOptions(resume=True))
        assert logical_content(target_of(devices)) == wanted, point
        assert error_findings(devices) == [], point
    assert len(prefixes) > 2


def test_going_on_with_other_content_is_refused(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    chance = random.Random(2)
    first = chance.randbytes(20 * BLOCK)
    (tmp_path / "raw").write_bytes(first)
    filled(devices, tmp_path / "raw")
    changes: list[Callable[[bytearray], None]] = [
        lambda raw: raw.__setitem__(slice(5, 6), b"x" if raw[5] != 120 else b"y"),
        lambda raw: raw.__setitem__(slice(3 * BLOCK, 4 * BLOCK), bytes(BLOCK)),
        lambda raw: raw.__setitem__(slice(17 * BLOCK, 20 * BLOCK), bytes(3 * BLOCK)),
    ]
    for change in changes:
        other = bytearray(first)
        change(other)
        (tmp_path / "raw").write_bytes(other)
        views = [Overlay(device) for device in devices]
        with pytest.raises(RefusedError, match="holds something else"):
            filled(views, tmp_path / "raw", ImportOptions(resume=True))
    (tmp_path / "raw").write_bytes(first)
    filled(devices, tmp_path / "raw", ImportOptions(resume=True))


def test_what_a_cut_left_in_a_zone_is_reset(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    devices[0].write(11 * devices[0].geometry.zone_bytes, b"x" * BLOCK)
    (tmp_path / "raw").write_bytes(b"y" * BLOCK)
    views, log = recorded(devices)
    filled(views, tmp_path / "raw")
    assert any(isinstance(entry, LoggedManage) for _, entry in log)
    assert mapped(devices) == [0]


def test_verify_sees_what_does_not_read_back(tmp_path: Path) -> None:
    devices = TARGETS["single"]()
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(40 * BLOCK))

    class Lying(Overlay):
        def write(self, offset_bytes: int, data: object) -> None:
            lost = offset_bytes == 12 * devices[0].geometry.zone_bytes
            super().write(offset_bytes, bytes(len(memoryview(data))) if lost else data)  # type: ignore[arg-type]

    with pytest.raises(DeviceError, match="does not read back"):
        filled([Lying(devices[0])], tmp_path / "raw")
