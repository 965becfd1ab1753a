"""Undo files as files: which drive they fit, hostile and damaged ones, where they are kept."""

from __future__ import annotations

import io
import os
import zipfile
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from tests.device.faults import Killed, Syscalls, nth
from tests.device.undo_support import ZONE, ZONES, a_plan, first_version, make, play, saved, state
from zoned_tools.device import undo_files
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.emulated import no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.plan import Plan, apply_plan
from zoned_tools.device.undo import UndoFile, save_undo
from zoned_tools.device.undo_files import default_undo_path, list_undo_files
from zoned_tools.device.undo_format import pays_to_compress
from zoned_tools.device.zones import Model
from zoned_tools.errors import DeviceError, MetadataError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

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


def test_files_of_the_first_version_are_played_back(tmp_path: Path) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    before = state(path)
    first_version(path, undo)
    assert [(e.title, e.devices) for e in list_undo_files(str(tmp_path))] == [("change everything", (path,))]
    play(path, undo)
    assert state(path) == before


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
    names = [name for name, _ in groupby(call.name for call in calls.log if "img" not in call.target)]
    assert names == ["open", "fchmod", "write", "fsync", "link", "fsync", "unlink"]
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


def test_a_read_of_an_undo_file_that_fails_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, undo = make(tmp_path), str(tmp_path / "plan.undo")
    with open_image(path, writable=True) as drive:
        drive.write(0, os.urandom(3 * ZONE))
    plan = Plan("more than a buffer holds")
    plan.write(0, 0, bytes(3 * ZONE))
    saved(path, undo, plan)
    calls = Syscalls(monkeypatch, tmp_path, reads=True)
    failed: list[str | None] = []
    for number in range(100):
        calls.watching, calls.before = True, nth(number, OSError(5, "gone"), "read", target="plan.undo")
        try:
            play(path, undo)
            break
        except (DeviceError, MetadataError) as error:
            failed.append(error.device)
        finally:
            calls.watching = False
    assert failed == [undo] * len(failed)
    assert 4 < len(failed) < 100


def test_the_directory_of_undo_files_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    monkeypatch.setenv("ZONED_UNDO_DIR", str(tmp_path / "state" / "undo"))
    calls = Syscalls(monkeypatch, tmp_path)
    with open_image(path) as drive:
        calls.watching = True
        undo_files.default_undo_path([drive], "first")
        made = [("mkdir", "state/undo"), ("mkdir", "state"), ("mkdir", "state/undo")]
        assert calls.names() == [*made, ("fsync", "state"), ("fsync", ".")]
        calls.log.clear()
        undo_files.default_undo_path([drive], "second")
        assert [name for name in calls.names() if name[0] != "mkdir"] == []
