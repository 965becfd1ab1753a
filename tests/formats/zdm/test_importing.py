"""Raw content goes straight into the zones of a ZDM: once written, in order, and found again after a power cut."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.crash_model import cut_drive
from tests.formats.zdm.images import BLOCK, FOLDER, check_counts, errors, reader, target, writer
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LogEntry, LoggedWrite, Overlay, Recorder
from zoned_tools.device.rawsource import RawSource
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.engine.import_raw import import_raw, plan_import, rehearse_import
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats.contract import Imported, ImportOptions
from zoned_tools.formats.zdm.importing import CHUNK_BLOCKS

MIB = 1 << 20
SPAN = 40 * MIB


def fresh(name: str = "fmt-16z") -> Device:
    return Overlay(zx1.open_vector(FOLDER, name))


def filled(drive: Device, raw: Path, options: ImportOptions | None = None, *, start: int = 524288) -> Imported:
    with RawSource(str(raw)) as source:
        on = target(drive, start)
        return import_raw(source, on, plan_import(source, on, options or ImportOptions()), verify=True, no_undo=True)


def rehearsed(drive: Device, raw: Path, options: ImportOptions | None = None) -> Imported:
    options = options or ImportOptions(rehearse=True)
    with RawSource(str(raw)) as source:
        return rehearse_import(source, plan_import(source, target(drive), options))


def make(path: Path, size: int, seed: int, share: float = 0.6) -> bytes:
    """A sparse file: runs of data, zeroes that are stored, holes."""
    chance, content = random.Random(seed), bytearray(size)
    with open(path, "wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            count = min(chance.choice((1, 3, 40, 256, 1500)) * BLOCK, size - at)
            kind = chance.random()
            if kind < share:
                content[at : at + count] = chance.randbytes(4096) * (count // BLOCK) + chance.randbytes(count % BLOCK)
            if kind < share + 0.15:
                os.pwrite(file.fileno(), content[at : at + count], at)
            at += count
    return bytes(content)


def content_of(drive: Device, size: int = SPAN, start: int = 524288) -> bytes:
    return reader(drive, start).read(0, size // BLOCK)


def recorded(drive: Device) -> tuple[Recorder, list[tuple[int, LogEntry]]]:
    log: list[tuple[int, LogEntry]] = []
    return Recorder(drive, log), log


@pytest.mark.parametrize(("name", "start"), [("fmt-16z", 524288), ("fmt-64z-1mib", 2048)])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_what_is_imported_is_read(name: str, start: int, share: float, tmp_path: Path) -> None:
    wanted = make(tmp_path / "raw", SPAN, 1, share)
    drive, log = recorded(fresh(name))
    done = filled(drive, tmp_path / "raw", start=start)
    assert content_of(drive, start=start) == wanted
    assert errors(drive, start) == []
    written = sum(len(entry.data) for _, entry in log if isinstance(entry, LoggedWrite))
    blocks = [any(wanted[at : at + BLOCK]) for at in range(0, len(wanted), BLOCK)]
    assert done.data_bytes == sum(blocks) * BLOCK
    assert done.written_bytes == written
    assert done.chunks == sum(any(blocks[at : at + CHUNK_BLOCKS]) for at in range(0, len(blocks), CHUNK_BLOCKS))
    mapped = sum(blocks for _, blocks, physical, _ in reader(drive, start).map.runs(0, SPAN // BLOCK) if physical >= 0)
    assert mapped == sum(blocks), "holes and zeroes take no place"
    assert not set(check_counts(drive, start, notes=False)) - {"gen.third_slot"}


def test_about_one_byte_is_written_for_a_byte(tmp_path: Path) -> None:
    make(tmp_path / "raw", 160 * MIB, 2, share=1)
    done = filled(fresh(), tmp_path / "raw")
    assert done.data_bytes == 160 * MIB
    assert done.written_bytes <= 1.02 * done.data_bytes
    assert sum(done.zones.values()) == 1


def test_a_rehearsal_counts_and_writes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "raw", SPAN, 3)
    drive, log = recorded(fresh())
    first = rehearsed(drive, tmp_path / "raw")
    assert not log
    done = filled(drive, tmp_path / "raw")
    assert (first.data_bytes, first.chunks, first.zones) == (done.data_bytes, done.chunks, done.zones)
    assert first.data_bytes <= first.written_bytes <= done.written_bytes


def test_a_rehearsal_tells_what_does_not_fit(tmp_path: Path) -> None:
    make(tmp_path / "raw", SPAN, 3, share=1)
    drive = fresh()
    table = drive.machine.table  # type: ignore[attr-defined]
    table["condition"][6:] = ZoneCondition.OFFLINE
    table["condition"][5] = ZoneCondition.READ_ONLY
    with pytest.raises(DeviceError, match="no zone has room left"):
        rehearsed(drive, tmp_path / "raw")


def test_a_drive_with_old_data_is_emptied_first(tmp_path: Path) -> None:
    """Zones of an earlier life are no fresh format's; they are saved for an undo."""
    wanted = make(tmp_path / "raw", 4 * MIB, 4)
    drive = fresh()
    for zone in range(8, 15):
        drive.write(zone << 28, b"old" * 8192 + bytes(8192))
    with RawSource(str(tmp_path / "raw")) as source:
        steps = plan_import(source, target(drive), ImportOptions()).plan.steps
    touched = {(step.offset_bytes, step.length_bytes) for step in steps}  # type: ignore[union-attr]
    assert {(zone << 28, 1 << 28) for zone in range(8, 15)} <= touched
    filled(drive, tmp_path / "raw")
    assert content_of(drive, 4 * MIB) == wanted
    assert errors(drive) == []


def test_nothing_is_written_outside_of_the_plan(tmp_path: Path) -> None:
    make(tmp_path / "raw", SPAN, 5)
    drive, log = recorded(fresh())
    with RawSource(str(tmp_path / "raw")) as source:
        planned = plan_import(source, target(drive), ImportOptions())
        import_raw(source, target(drive), planned, no_undo=True)
    allowed = [(s.offset_bytes, s.offset_bytes + s.length_bytes) for s in planned.plan.steps]  # type: ignore[union-attr]
    for _, entry in log:
        if isinstance(entry, LoggedWrite):
            end = entry.offset_bytes + len(entry.data)
            assert any(low <= entry.offset_bytes and end <= high for low, high in allowed), entry.offset_bytes


# -- refusals


def refused(drive: Device, raw: Path, match: str, options: ImportOptions | None = None) -> None:
    views, log = recorded(Overlay(drive))
    with pytest.raises((RefusedError, DeviceError), match=match):
        filled(views, raw, options)
    assert not log


def test_a_target_with_data_is_refused_unless_it_is_agreed(tmp_path: Path) -> None:
    drive = fresh()
    first = random.Random(1).randbytes(16 * BLOCK)
    (tmp_path / "first").write_bytes(first)
    filled(drive, tmp_path / "first")
    (tmp_path / "other").write_bytes(bytes(64 * BLOCK) + first)
    refused(drive, tmp_path / "other", "it holds data: 16 blocks are mapped")
    refused(drive, tmp_path / "first", "holds data at byte 0", ImportOptions(force=True))
    filled(drive, tmp_path / "other", ImportOptions(force=True))
    assert content_of(drive, 80 * BLOCK) == first + bytes(48 * BLOCK) + first


def test_content_that_is_too_long(tmp_path: Path) -> None:
    drive = fresh()
    with open(tmp_path / "raw", "wb") as file:
        file.truncate(reader(drive).size_blocks * BLOCK + 1)
    refused(drive, tmp_path / "raw", "has .* bytes, the target")


def test_damage_is_refused(tmp_path: Path) -> None:
    drive = fresh()
    drive.write((1 << 28) + 65536 * BLOCK, bytes(BLOCK))  # a page of the forward table
    (tmp_path / "raw").write_bytes(b"x")
    refused(drive, tmp_path / "raw", "zdm.")


# -- power cuts


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_import_that_was_cut_off_goes_on(share: float, tmp_path: Path) -> None:
    """What is there is a part of the content; the same import with --resume does the rest."""
    base = fresh()
    size = 24 * MIB
    wanted = make(tmp_path / "raw", size, 6, share=0.8)
    drive, log = recorded(Overlay(base))
    filled(drive, tmp_path / "raw", ImportOptions(commit_every=2))
    chance = random.Random(f"cut {share}")
    keep: Callable[[int], bool] = lambda index: chance.random() < share  # noqa: E731
    amounts = set()
    for point in sorted(chance.sample(range(len(log) + 1), 12)):
        cut = cut_drive(base, log, point, keep)
        assert errors(cut) == [], point
        found = content_of(cut, size)
        there = [at for at in range(0, size, BLOCK) if any(found[at : at + BLOCK])]
        assert all(found[at : at + BLOCK] == wanted[at : at + BLOCK] for at in there), point
        amounts.add(len(there))
        filled(cut, tmp_path / "raw", ImportOptions(resume=True))
        assert content_of(cut, size) == wanted, point
        assert errors(cut) == [], point
    assert len(amounts) > 2


def test_going_on_with_other_content_is_refused(tmp_path: Path) -> None:
    drive = fresh()
    first = random.Random(2).randbytes(20 * BLOCK)
    (tmp_path / "raw").write_bytes(first)
    filled(drive, tmp_path / "raw")
    changes: list[Callable[[bytearray], None]] = [
        lambda raw: raw.__setitem__(slice(5, 6), b"x" if raw[5] != 120 else b"y"),
        lambda raw: raw.__setitem__(slice(3 * BLOCK, 4 * BLOCK), bytes(BLOCK)),
    ]
    for change in changes:
        other = bytearray(first)
        change(other)
        (tmp_path / "raw").write_bytes(other)
        refused(drive, tmp_path / "raw", "hold something else", ImportOptions(resume=True))
    with open(tmp_path / "raw", "wb") as file:  # a hole where there are data
        file.truncate(40 * BLOCK)
        os.pwrite(file.fileno(), b"x", 30 * BLOCK)
    refused(drive, tmp_path / "raw", "hold something else", ImportOptions(resume=True))
    (tmp_path / "raw").write_bytes(first)
    filled(drive, tmp_path / "raw", ImportOptions(resume=True))


def test_a_used_zdm_that_was_emptied(tmp_path: Path) -> None:
    drive = Overlay(zx1.open_vector(FOLDER, "pop-clean"))
    mapper = writer(drive)
    mapper.discard(0, mapper.size_blocks)
    mapper.close()
    wanted = make(tmp_path / "raw", SPAN, 8)
    filled(drive, tmp_path / "raw")
    assert content_of(drive) == wanted
    assert errors(drive) == []
