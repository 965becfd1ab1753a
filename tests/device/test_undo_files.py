"""Undo files as files: which drive they fit, hostile and damaged ones, where they are kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import time
import tracemalloc
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.device.faults import Killed, Syscalls, nth
from zoned_tools.device import undo_files
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.device.undo import UndoFile, save_undo
from zoned_tools.device.undo_files import default_undo_path, list_undo_files
from zoned_tools.device.undo_format import PIECES, TOUCHED, WRITTEN, pays_to_compress
from zoned_tools.device.zones import Model, ZoneType, make_table
from zoned_tools.errors import DeviceError, MetadataError, RefusedError, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZONE = 64 << 10
ZONES = 8


def make(folder: Path, name: str = "disk.img", *, zones: int = ZONES, zone: int = ZONE, aware: bool = False) -> str:
    path = str(folder / name)
    model = Model.HOST_AWARE if aware else Model.HOST_MANAGED
    kind = ZoneType.SEQ_PREFERRED if aware else ZoneType.SEQ_REQUIRED
    table = make_table(zones * zone // 512, zone // 512, nr_conventional=3, sequential_type=kind)
    create_image(path, Geometry(model, zones * zone, zone, zones), table)
    with open_image(path, writable=True) as drive:
        drive.write(0, (bytes(range(256)) * 512)[: 3 * zone])
        drive.write(3 * zone, b"three" * 4096)
        drive.write(4 * zone, b"4" * zone)
    return path


def a_plan() -> Plan:
    plan = Plan("change everything")
    plan.write(0, 4096, b"n" * 8192)
    plan.manage(0, ZoneOperation.RESET, 4)
    plan.write(0, 4 * ZONE, b"new content of four" + bytes(4096 - 19))
    plan.manage(0, ZoneOperation.FINISH, 6)
    return plan


def state(path: str) -> tuple[bytes, list[list[int]]]:
    with open_image(path) as drive:
        zones = drive.zones()
        facts = [zones[name].tolist() for name in ("condition", "wp_sector", "non_seq", "reset")]
        return drive.read(0, drive.geometry.size_bytes), facts


def saved(path: str, undo: str, plan: Plan | None = None, **facts: str) -> None:
    with open_image(path, writable=True) as drive:
        plan = plan or a_plan()
        save_undo(undo, [drive], plan, **facts)
        apply_plan([drive], plan.steps)


def play(path: str, undo: str, *, force: bool = False, identity: str = "") -> None:
    with open_image(path, writable=True) as drive, UndoFile(undo) as file:
        views = file.views([drive])
        file.check(views, force=force, identity=identity)
        apply_plan(views, file.steps(views))


# -- which drive


def test_layout_identity(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    saved(path, undo, identity="dm-zoned 1111", identity_after="dm-zoned 2222")
    with pytest.raises(RefusedError, match="it holds zdm 3333"):
        play(path, undo, identity="zdm 3333")
    play(path, undo, identity="dm-zoned 2222")
    assert state(path) == before
    play(path, undo, identity="dm-zoned 1111")
    play(path, undo, identity="zdm 3333", force=True)
    assert state(path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zone": ZONE // 2, "zones": ZONES * 2}, "zone size"),
        ({"zones": ZONES + 1}, "size"),
        ({"zones": ZONES - 1}, "fewer zones"),
        ({"aware": True}, "model"),
    ],
)
def test_another_drive_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    saved(path, undo)
    other = make(tmp_path, "other.img", **change)
    before = state(other)
    with pytest.raises(RefusedError, match=f"^{other}: not the device .*{words}"):
        play(other, undo)
    assert state(other) == before


def test_paths_in_the_file_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    saved(path, undo)
    moved = str(tmp_path / "moved.img")
    os.rename(path, moved)
    os.rename(path + ".zones", moved + ".zones")
    (tmp_path / "disk.img").write_bytes(b"somebody else's file")
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching = True
    play(moved, undo)
    assert state(moved) == before
    assert {call.target for call in calls.log} == {"moved.img", "moved.img.zones"}
    assert (tmp_path / "disk.img").read_bytes() == b"somebody else's file"


@pytest.mark.parametrize("partition", [False, True])
def test_flags_of_host_aware_zones_come_back(*, partition: bool, tmp_path: Path) -> None:
    path, undo = make(tmp_path, aware=True), str(tmp_path / "plan.undo")
    with open_image(path, writable=True) as drive:
        drive.write(3 * ZONE, b"again" * 4096)  # out of order: non_seq
        drive.set_zone_flags(4, non_seq=False, reset=True)
    before = state(path)
    assert before[1][2:] == [[0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]]
    with open_image(path, writable=True) as drive:
        device = PartitionView(drive, ZONE) if partition else drive
        plan = Plan("both")
        first = 3 - partition
        plan.manage(0, ZoneOperation.RESET, first, 2)
        plan.write(0, first * ZONE, b"x" * 4096)
        save_undo(undo, [device], plan)
        apply_plan([device], plan.steps)
    assert state(path)[1][2:] == [[0] * 8] * 2
    play(path, undo)
    assert state(path) == before


# -- files of the first version


def first_version(path: str, undo: str) -> None:
    """As earlier releases wrote it."""
    with open_image(path, writable=True) as drive, zipfile.ZipFile(undo, "w", zipfile.ZIP_DEFLATED) as archive:
        header = {
            "schema": "zoned.undo/1",
            "title": "change everything",
            "identity": "",
            "devices": [{"path": path, "start_bytes": 0, "size_bytes": ZONES * ZONE, "model": "host-managed"}],
            "sequential_zones": [[0, 4], [0, 6]],
        }
        archive.writestr("header.json", json.dumps(header))
        rows = [(0, 4096, at, hashlib.sha256(b"n" * 4096).digest()) for at in (4096, 8192)]
        archive.writestr("written", np.array(rows, WRITTEN).tobytes())
        with open(path + ".zones", "rb") as table:
            archive.writestr("zones/0", table.read())
        archive.writestr("data/0/4096", drive.read(4096, 8192))
        archive.writestr(f"data/0/{4 * ZONE}", drive.read(4 * ZONE, ZONE))
        apply_plan([drive], a_plan().steps)


def test_files_of_the_first_version_are_played_back(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    first_version(path, undo)
    assert [(e.title, e.devices) for e in list_undo_files(str(tmp_path))] == [("change everything", (path,))]
    play(path, undo)
    assert state(path) == before


# -- hostile and damaged files

Members = dict[str, bytes]


def repacked(undo: str, members: Members, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(undo, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit(name: str, dtype: np.dtype[np.void], field: str, value: int, row: int = 0) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        table = np.frombuffer(members[name], dtype).copy()
        table[field][row] = value
        members[name] = table.tobytes()

    return change


def header(**changes: object) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["header.json"] = json.dumps({**json.loads(members["header.json"]), **changes}).encode()

    return change


def replace(name: str, data: bytes | None) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        if data is None:
            del members[name]
        else:
            members[name] = data

    return change


HOSTILE: dict[str, Callable[[Members], None]] = {
    "a device that is not there": edit("pieces", PIECES, "device", 7),
    "a device that is not there, zone": edit("touched", TOUCHED, "device", 7),
    "a device that is not there, block": edit("written", WRITTEN, "device", 1),
    "a zone that is not there": edit("touched", TOUCHED, "zone", 8, 1),
    "a zone far away": edit("touched", TOUCHED, "zone", 0xFFFFFFFF, 1),
    "a conventional zone": edit("touched", TOUCHED, "zone", 0),
    "a zone that was not saved": edit("touched", TOUCHED, "zone", 3),
    "beyond the end": edit("pieces", PIECES, "offset_bytes", ZONES * ZONE, 1),
    "far beyond the end": edit("pieces", PIECES, "offset_bytes", (1 << 64) - 4096, 1),
    "into another zone": edit("pieces", PIECES, "offset_bytes", 5 * ZONE, 1),
    "not at the start of the zone": edit("pieces", PIECES, "offset_bytes", 4 * ZONE + 4096, 1),
    "half a block": edit("pieces", PIECES, "offset_bytes", 4097),
    "too long": edit("pieces", PIECES, "length_bytes", 1 << 62),
    "nothing": edit("pieces", PIECES, "length_bytes", 0),
    "overlapping": edit("pieces", PIECES, "offset_bytes", 4 * ZONE),
    "another chunk": edit("pieces", PIECES, "chunk", 1, 1),
    "a chunk far away": edit("pieces", PIECES, "chunk", 0xFFFFFFFF),
    "another place in the chunk": edit("pieces", PIECES, "skip_bytes", 512, 1),
    "a block beyond the end": edit("written", WRITTEN, "offset_bytes", (1 << 64) - 1),
    "a long block": edit("written", WRITTEN, "length_bytes", 0xFFFFFFFF),
    "no pieces": replace("pieces", b""),
    "half a piece": replace("pieces", bytes(31)),
    "no content": replace("data/0", None),
    "short content": replace("data/0", b"short"),
    "more content": replace("data/1", b"more"),
    "another member": replace("other", b"member"),
    "no zone table": replace("zones/0", None),
    "a bad zone table": replace("zones/0", bytes(192 + 8 * 64)),
    "a zone table of nobody": replace("zones/9", bytes(192)),
    "no table of blocks": replace("written", None),
    "header: no devices": header(devices=[]),
    "header: two devices": header(devices=[{"path": "x", "start_bytes": 0, "size_bytes": 1, "model": "regular"}] * 2),
    "header: other types": header(devices=7),
    "header: a text": header(devices=[{"path": "x", "start_bytes": "0", "size_bytes": 1, "model": "regular"}]),
    "header: negative": header(devices=[{"path": "x", "start_bytes": -5, "size_bytes": 1, "model": "regular"}]),
    "header: huge": header(devices=[{"path": "x", "start_bytes": 1 << 80, "size_bytes": 1, "model": "regular"}]),
    "header: another schema": header(schema="zoned.undo/9"),
    "header: a list": replace("header.json", b"[1, 2]"),
    "header: nested": replace("header.json", b"[" * 100_000),
    "header: not text": replace("header.json", b"\xff\xfe\x00"),
}


@pytest.fixture
def good(tmp_path: Path) -> tuple[str, str, Members]:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    saved(path, undo)
    with zipfile.ZipFile(undo) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert list(members) == ["header.json", "written", "touched", "zones/0", "data/0", "pieces"]
    return path, undo, members


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_before_anything_is_written(
    what: str, *, force: bool, good: tuple[str, str, Members]
) -> None:
    path, undo, members = good
    HOSTILE[what](members)
    repacked(undo, members)
    before = state(path)
    with pytest.raises((MetadataError, RefusedError)):
        play(path, undo, force=force)
    assert state(path) == before


BOMBS: dict[str, Callable[[Members], None]] = {
    "header": replace("header.json", b"[" + b" " * (1 << 28) + b"]"),
    "lists": replace("header.json", b"[" + b"[]," * (60 << 20) + b"1]"),
    "blocks": replace("written", bytes(48 << 22)),
    "pieces": replace("pieces", bytes(32 << 23)),
    "zones": replace("touched", bytes(8 << 25)),
    "zone table": replace("zones/0", bytes(1 << 28)),
    "content": replace("data/0", bytes(1 << 28)),
    "another member": replace("more", bytes(1 << 28)),
}


@pytest.mark.parametrize("schema", ["zoned.undo/2", "zoned.undo/1"])
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_in_little_memory(what: str, schema: str, good: tuple[str, str, Members]) -> None:
    path, undo, members = good
    header(schema=schema)(members)
    BOMBS[what](members)
    repacked(undo, members, zipfile.ZIP_DEFLATED)
    members.clear()
    assert os.path.getsize(undo) < 4 << 20
    before = state(path)
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ZonedError):
        play(path, undo, force=True)
    assert time.process_time() - started < 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20
    assert state(path) == before
    assert list_undo_files(os.path.dirname(undo)) == [] or what not in ("header", "lists")


def test_a_first_version_of_many_blocks_is_bounded(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    first_version(path, undo)
    with zipfile.ZipFile(undo) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, size in (("written", 48 << 22), ("data/0/4096", 1 << 28), ("zones/0", 1 << 28)):
        repacked(undo, {**members, name: bytes(size)}, zipfile.ZIP_DEFLATED)
        before = state(path)
        tracemalloc.start()
        with pytest.raises(ZonedError):
            play(path, undo, force=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 << 20
        assert state(path) == before


def test_any_damage_is_an_error_of_the_project(good: tuple[str, str, Members]) -> None:
    """Bytes changed, cut off, doubled: nothing else is raised, and nothing is written unless all of it fits."""
    path, undo, _ = good
    with open(undo, "rb") as file:
        raw = file.read()
    before = state(path)
    rng = random.Random(7)
    outcomes = {"refused": 0, "played": 0}
    for _round in range(300):
        bad = bytearray(raw)
        match rng.randrange(4):
            case 0:
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            case 1:
                at = rng.randrange(len(bad))
                bad[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
            case 2:
                del bad[rng.randrange(len(bad)) :]
            case 3:  # the directory and the end of the archive
                bad[-1 - rng.randrange(400)] = rng.randrange(256)
        with open(undo, "wb") as file:
            file.write(bad)
        with open_image(path) as drive:
            try:
                with UndoFile(undo) as saved_file:
                    saved_file.check([drive])
                    for _step in saved_file.steps([drive]):
                        pass
                outcomes["played"] += 1
            except (MetadataError, RefusedError):
                outcomes["refused"] += 1
    assert state(path) == before
    assert outcomes["refused"] > 200


def test_the_message_of_a_damaged_file_names_it(good: tuple[str, str, Members]) -> None:
    path, undo, _ = good
    with open(undo, "r+b") as file:
        with zipfile.ZipFile(undo) as archive:
            file.seek(archive.getinfo("data/0").header_offset + 50)
        file.write(b"!")
    with pytest.raises(MetadataError, match="damaged undo file: data/0 fails its checksum") as caught:
        play(path, undo)
    assert caught.value.device == undo


# -- how they are written


@pytest.mark.parametrize(
    ("content", "pays"),
    [
        (os.urandom(1 << 20), False),
        (bytes(1 << 20), True),
        (b"some text, " * 90_000, True),
        (b"".join(os.urandom(2048) + bytes(2048) for _ in range(256)), True),
        (os.urandom(100), False),
    ],
    ids=["random", "zeroes", "text", "half", "little"],
)
def test_what_pays_to_compress(content: bytes, *, pays: bool) -> None:
    assert pays_to_compress(content) == pays


def test_random_content_is_stored_as_it_is(tmp_path: Path) -> None:
    path, undo = str(tmp_path / "plain.img"), str(tmp_path / "plan.undo")
    create_image(path, Geometry(Model.REGULAR, 64 << 20), no_zones())
    plan = Plan("two halves")
    plan.fill(0, 0, 16 << 20, 0xABCD)
    plan.fill(0, 32 << 20, 16 << 20, 0xABCD)
    with open_image(path, writable=True) as drive:
        drive.write(0, os.urandom(16 << 20))
        drive.write(32 << 20, b"pattern!" * (2 << 20))
        save_undo(undo, [drive], plan)
    with zipfile.ZipFile(undo) as archive:
        kinds = [info.compress_type for info in archive.infolist() if info.filename.startswith("data/")]
    assert kinds == [zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED] * 4


def test_an_undo_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    calls = Syscalls(monkeypatch, tmp_path)
    with open_image(path, writable=True) as drive:
        calls.watching = True
        save_undo(undo, [drive], a_plan())
    names = [call.name for call in calls.log if "img" not in call.target]
    assert names == ["open", "fchmod", "fsync", "link", "fsync", "unlink"]
    assert calls.log[-2].target == "." or calls.log[-3].target == "."
    assert os.stat(undo).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")], ids=["killed", "full"])
def test_an_undo_file_that_is_cut_short_is_none(
    number: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    with monkeypatch.context() as patched, open_image(path) as drive:
        calls = Syscalls(patched, tmp_path)
        calls.watching, calls.before = True, nth(number, error)
        with suppress(DeviceError, Killed):
            save_undo(undo, [drive], a_plan())
        calls.watching = False
    for entry in list_undo_files(str(tmp_path)):
        assert entry.path == undo
        with open_image(path) as drive, UndoFile(undo) as file:
            file.check([drive])
    if isinstance(error, OSError):
        assert [name for name in os.listdir(tmp_path) if name.endswith(".new")] == [] or number == 5  # no unlink


# -- where they are kept


def test_default_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "a disk\n.img")
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    with open_image(path) as drive:
        first = default_undo_path([drive, drive], "repair dm-zoned: metadata/é")
        assert first != default_undo_path([drive, drive], "repair dm-zoned: metadata/é")
        name = os.path.basename(first)
        assert name.startswith("a-disk-.img+1-2")
        assert name.endswith("Z-repair-dm-zoned-metadata.undo")
        assert os.stat(tmp_path / "undo").st_mode & 0o777 == 0o700
        monkeypatch.delenv("ZONED_UNDO_DIR")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert default_undo_path([drive], "x").startswith(str(tmp_path / "state" / "zoned_tools" / "undo") + "/")
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert str(tmp_path / "home" / ".local" / "state") in default_undo_path([drive], "x")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert str(undo_files.undo_directory()) == "/var/lib/zoned_tools/undo"


def test_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "undo"))
    assert list_undo_files() == []
    with open_image(path) as drive:
        undo = default_undo_path([drive], "change")
        save_undo(undo, [drive], a_plan(), "dm-zoned 1111")
    folder = tmp_path / "undo"
    (folder / "junk.undo").write_bytes(b"junk")
    (folder / "empty.undo").write_bytes(b"")
    (folder / "other.txt").write_bytes(b"")
    os.mkfifo(folder / "fifo.undo")
    (folder / "folder.undo").mkdir()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("other", b"x")
    (folder / "zip.undo").write_bytes(stream.getvalue())
    (entry,) = list_undo_files()
    assert (entry.path, entry.title, entry.devices) == (undo, "change everything", (path,))
    assert (entry.identity, entry.size_bytes) == ("dm-zoned 1111", os.path.getsize(undo))
    assert entry.created.startswith("2")
