"""Killed or without power at every changing call: the old drive is there, or the new one."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.device.faults import Call, Killed, Syscalls, nth, power_cut
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.importing import copy_drive
from zoned_tools.device.opening import open_device
from zoned_tools.device.zloop import write_zloop
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZONE = 64 << 10
State = tuple[int, list[int], list[int], bytes]


def zoned(path: str, zones: int, *, overwrite: bool = False, nr_conventional: int = 2) -> None:
    geometry = Geometry(Model.HOST_MANAGED, zones * ZONE, ZONE, zones)
    table = make_table(zones * ZONE // 512, ZONE // 512, nr_conventional=nr_conventional)
    create_image(path, geometry, table, overwrite=overwrite)


def state(path: str) -> State:
    with open_device(path) as drive:
        zones = drive.zones()
        content = drive.read(0, drive.geometry.size_bytes)
        return drive.geometry.size_bytes, zones["condition"].tolist(), zones["wp_sector"].tolist(), content


def old_drive(folder: Path) -> str:
    path = str(folder / "disk.img")
    zoned(path, 8)
    with open_image(path, writable=True) as drive:
        drive.write(4096, b"conv" * 1024)
        drive.write(4 * ZONE, b"four" * 1024)
        drive.write(5 * ZONE, b"5555" * (ZONE // 4))
    return path


def regular(path: str) -> None:
    create_image(path, Geometry(Model.REGULAR, 3 * ZONE), no_zones(), overwrite=True)


def copied(path: str) -> None:
    source = os.path.join(os.path.dirname(path), "source.img")
    with open_image(source) as drive:
        copy_drive(drive, path, overwrite=True)


MAKERS: dict[str, Callable[[str], None]] = {
    "smaller": lambda path: zoned(path, 4, overwrite=True),
    "larger": lambda path: zoned(path, 16, overwrite=True),
    "same size": lambda path: zoned(path, 8, overwrite=True, nr_conventional=4),
    "regular": regular,
    "copy": copied,
}


def cut_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[[], None], start: Path | None = None
) -> Iterator[int]:
    """Run ``run`` in a copy of ``start``, killed ahead of its n-th changing call, for every n; the last is complete."""
    for number in range(1000):
        if start is not None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(start, folder)
        with monkeypatch.context() as patched:
            calls = Syscalls(patched, folder)
            calls.watching, calls.before = True, nth(number, Killed())
            try:
                run()
            except Killed:
                pass
            else:
                assert number > 4, "too few calls were seen"
                return
        yield number


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("old", ["zoned", "regular"])
def test_a_forced_creation_leaves_the_old_drive_or_the_new_one(
    maker: str, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    shutil.copy(old_drive(start), start / "source.img")
    shutil.copy(start / "disk.img.zones", start / "source.img.zones")
    if old == "regular":
        (start / "disk.img.zones").unlink()
    before = state(str(start / "disk.img"))
    (tmp_path / "done").mkdir()
    shutil.copytree(start, tmp_path / "done", dirs_exist_ok=True)
    MAKERS[maker](str(tmp_path / "done" / "disk.img"))
    after = state(str(tmp_path / "done" / "disk.img"))
    assert before != after or (maker, old) == ("copy", "zoned")
    folder = tmp_path / "run"
    path = str(folder / "disk.img")

    seen = []
    for _ in cut_everywhere(folder, monkeypatch, lambda: MAKERS[maker](path), start):
        found = state(path)
        assert found in (before, after)
        seen.append(found == after)
        with open_image(path, writable=True) as drive:  # a writer finishes what was begun
            assert drive.geometry.size_bytes == found[0]
        assert state(path) == found
        pending = [name for name in os.listdir(folder) if name.startswith("disk.img.zones.for-")]
        assert not pending or found == before
    if before != after:
        assert seen == sorted(seen), "once it is the new one it stays"
        assert True in seen


def test_a_creation_beside_an_orphan_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is gone but its table is not: it must not become the table of the new image's zeroes."""
    start, folder = tmp_path / "start", tmp_path / "run"
    start.mkdir()
    folder.mkdir()
    old_drive(start)
    (start / "disk.img").unlink()
    path = folder / "disk.img"
    outcomes = set()
    for _ in cut_everywhere(folder, monkeypatch, lambda: zoned(str(path), 8), start):
        outcomes.add(path.exists())
        if path.exists():
            assert state(str(path))[1] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert outcomes == {True, False}


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_drive(tmp_path)
    before, names = state(path), sorted(os.listdir(tmp_path))
    for number in range(30):
        with monkeypatch.context() as patched:
            calls = Syscalls(patched, tmp_path)
            calls.watching, calls.before = True, nth(number, OSError(28, os.strerror(28)))
            try:
                zoned(path, 4, overwrite=True)
            except DeviceError:
                pass
            else:
                break
        if state(path) == before:
            assert sorted(os.listdir(tmp_path)) == names
        else:
            assert state(path)[0] == 4 * ZONE
            os.truncate(path, 0)
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            old_drive(tmp_path)
    else:
        pytest.fail("it never came to an end")


def test_a_table_that_came_later_counts(tmp_path: Path) -> None:
    """An inode number is used again: a table made since then is the image's."""
    path = old_drive(tmp_path)
    before = state(path)
    stale = Path(f"{path}.zones.for-{os.stat(path).st_ino}")
    stale.write_bytes(b"")
    os.utime(stale, ns=(0, 0))
    assert state(path) == before
    with open_image(path, writable=True):
        pass
    assert state(path) == before


def test_a_zone_directory_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = old_drive(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()

    def run() -> None:
        with open_image(image) as drive:
            write_zloop(drive, str(folder / "zloop"))

    for _ in cut_everywhere(folder, monkeypatch, run):
        if (folder / "zloop").exists():
            assert state(str(folder / "zloop"))[3] == state(image)[3]
            os.rename(folder / "zloop", tmp_path / f"dropped-{os.urandom(8).hex()}")


# -- a drive in use


def workload(path: str, rng: random.Random, on_flush: Callable[..., None], note: Callable[[], None]) -> None:
    """Writes, resets, finishes and flushes; ``note`` after each change, ``on_flush`` around each flush."""
    with open_image(path, writable=True) as drive:
        for step in range(24):
            zone = rng.randrange(2, 8)
            wp = int(drive.zones(zone, 1)["wp_sector"][0]) * 512
            match rng.choice(["write", "write", "write", "conv", "reset", "finish", "flush"]):
                case "write" if drive.zones(zone, 1)["condition"][0] != 14 and wp + 8192 <= (zone + 1) * ZONE:
                    drive.write(wp, bytes([step + 1]) * 8192)
                case "conv":
                    drive.write(rng.randrange(4) * 4096, bytes([step + 1]) * 4096)
                case "reset":
                    drive.manage(ZoneOperation.RESET, zone)
                case "finish":
                    drive.manage(ZoneOperation.FINISH, zone)
                case "flush":
                    on_flush(done=False)
                    drive.flush()
                    on_flush(done=True)
            note()
        on_flush(done=False)
    on_flush(done=True)


def sequential(path: str) -> list[bytes]:
    """What each sequential zone shows below its write pointer."""
    with open_image(path) as drive:
        zones = drive.zones()
        full = zones["condition"] == 14
        ends = np.where(full, zones["capacity_sectors"], zones["wp_sector"] - zones["start_sector"])
        return [drive.read(zone * ZONE, int(ends[zone]) * 512) for zone in range(2, 8)]


@pytest.mark.parametrize("seed", range(20))
def test_power_cuts_of_image_and_sidecar(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Each zone shows a state from the last flush on, whatever was in flight is done, torn or lost."""
    start, run, cut_at = tmp_path / "start", tmp_path / "run", tmp_path / "cut"
    start.mkdir()
    old_drive(start)
    shutil.copytree(start, run)
    path = str(run / "disk.img")
    shown: list[list[bytes]] = [sequential(path)]
    counts, durable, began = [0], [(0, 0)], 0
    with monkeypatch.context() as patched:
        calls = Syscalls(patched, run)
        calls.watching = True

        def note() -> None:
            shown.append(visible())
            counts.append(len(calls.log))

        def on_flush(*, done: bool) -> None:
            nonlocal began
            if done:
                durable.append((len(calls.log), began))
            began = len(shown) - 1

        drives: list[EmulatedDrive] = []
        opened = open_image

        def visible() -> list[bytes]:
            drive = drives[-1]
            zones = drive.zones()
            full = zones["condition"] == 14
            ends = np.where(full, zones["capacity_sectors"], zones["wp_sector"] - zones["start_sector"])
            return [drive.read(zone * ZONE, int(ends[zone]) * 512) for zone in range(2, 8)]

        patched.setitem(
            globals(),
            "open_image",
            lambda *a, **k: drives.append(opened(*a, **k)) or drives[-1],  # type: ignore[func-returns-value]
        )
        workload(path, random.Random(seed), on_flush, note)
    made = 0
    for position in range(len(calls.log) + 1):
        for loss in range(6):
            shutil.rmtree(cut_at, ignore_errors=True)
            shutil.copytree(start, cut_at)
            power_cut(cut_at, calls.log[:position], random.Random(seed * 1000 + position * 7 + loss))
            first = max(since for at, since in durable if at <= position)
            last = next((n for n, at in enumerate(counts) if at > position), len(shown) - 1)
            found = sequential(str(cut_at / "disk.img"))
            for zone in range(6):
                assert found[zone] in [states[zone] for states in shown[first : last + 1]], (position, zone + 2)
            made += 1
    record_property("power cuts of image and sidecar", made)


def test_every_kill_of_a_drive_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, folder = tmp_path / "start", tmp_path / "run"
    start.mkdir()
    folder.mkdir()
    old_drive(start)
    path = str(folder / "disk.img")
    for seed in range(3):

        def change(seed: int = seed) -> None:
            workload(path, random.Random(seed), lambda **_: None, lambda: None)

        for _ in cut_everywhere(folder, monkeypatch, change, start):
            for zone, content in enumerate(sequential(path)):
                assert not content.startswith(b"\0") or not content.strip(b"\0"), zone


def test_the_power_cut_model_loses_what_was_not_synced(tmp_path: Path) -> None:
    """The tests above could not fail if it did not."""
    (tmp_path / "file").write_bytes(bytes(4096))
    log = [Call("pwrite", "file", 0, b"a" * 1024), Call("fdatasync", "file"), Call("pwrite", "file", 2048, b"b" * 1024)]
    seen = set()
    for seed in range(20):
        (tmp_path / "file").write_bytes(bytes(4096))
        power_cut(tmp_path, log, random.Random(seed))
        content = (tmp_path / "file").read_bytes()
        assert content.startswith(b"a" * 1024)
        seen.add(content.count(b"b"))
    assert seen == {0, 512, 1024}
