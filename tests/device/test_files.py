"""What is opened and replaced is what the user named, and nothing else."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.device.faults import Syscalls
from zoned_tools.device import sysfs
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image, write_sidecar
from zoned_tools.device.importing import copy_drive
from zoned_tools.device.opening import open_device
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.zloop import write_zloop
from zoned_tools.device.zones import Model, make_table
from zoned_tools.errors import BusyError, DeviceError, SidecarError

ZONE = 64 << 10


def make(path: Path, nr_conventional: int = 3) -> str:
    geometry = Geometry(Model.HOST_MANAGED, 8 * ZONE, ZONE, 8)
    table = make_table(8 * ZONE // 512, ZONE // 512, nr_conventional=nr_conventional)
    create_image(str(path), geometry, table)
    return str(path)


# -- links


@pytest.mark.parametrize("far", [False, True])
def test_a_link_to_an_image_is_that_image(tmp_path: Path, *, far: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    image = make(tmp_path / "elsewhere" / "disk.img")
    link = tmp_path / "link.img"
    link.symlink_to(image)
    if far:
        (tmp_path / "second.img").symlink_to(link)
        link = tmp_path / "second.img"
    with open_device(str(link), writable=True) as drive:
        assert drive.geometry.nr_zones == 8, "the zone rules are the image's"
        assert drive.path == str(link)
        drive.write(4 * ZONE, b"four" * 1024)
        with pytest.raises(DeviceError, match=f"^{link}: zone 5"):
            drive.write(5 * ZONE + 4096, b"five" * 1024)
        with pytest.raises(BusyError):
            open_device(image)
    with open_device(image, writable=True) as drive:
        assert drive.read(4 * ZONE, 4096) == b"four" * 1024
        with pytest.raises(BusyError, match=f"^{link}: "):
            open_device(str(link))
    Path(image + ".zones").write_bytes(b"damaged")
    with pytest.raises(SidecarError, match=r"elsewhere/disk\.img\.zones: "):
        open_device(str(link))
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["disk.img", "disk.img.zones"]


def test_creating_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "disk.img", tmp_path / "link.img"
    link.symlink_to(target)
    make(link)
    assert link.is_symlink()
    assert target.stat().st_size == 8 * ZONE
    assert (tmp_path / "elsewhere" / "disk.img.zones").exists()
    with pytest.raises(DeviceError, match=f"^{link}: already exists"):
        make(link)


# -- files that are replaced


def test_a_sidecar_is_replaced_under_a_name_that_nobody_can_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, precious = tmp_path / "disk.img.zones", tmp_path / "precious"
    precious.write_bytes(b"precious")
    for name in ("disk.img.zones.new", ".disk.img.zones.new", "disk.img.zones.tmp"):
        (tmp_path / name).symlink_to(precious)
    before = set(os.listdir(tmp_path))
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching = True
    names = set()
    for content in (b"first", b"second"):
        write_sidecar(str(path), content)
        names |= {call.target for call in calls.log if call.name == "open"}
        assert path.read_bytes() == content
    assert len(names) == 2, "a new name each time"
    assert precious.read_bytes() == b"precious"
    assert set(os.listdir(tmp_path)) == before | {"disk.img.zones"}


def test_replacing_keeps_the_mode_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, precious = tmp_path / "disk.img.zones", tmp_path / "precious"
    path.write_bytes(b"old")
    path.chmod(0o640)
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching = True
    write_sidecar(str(path), b"new")
    steps = [call.name for call in calls.log if call.name != "fchown"]
    assert steps == ["open", "fchmod", "pwrite", "fsync", "replace", "fsync"]
    assert calls.log[-1].target == "."
    assert path.stat().st_mode & 0o777 == 0o640
    precious.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(precious)
    write_sidecar(str(path), b"new")
    assert precious.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_a_new_image_takes_over_mode_and_nothing_else(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img")
    os.chmod(image, 0o604)
    copy = tmp_path / "copy.img"
    with open_image(image) as drive:
        copy_drive(drive, str(copy))
    create_image(image, Geometry(Model.REGULAR, ZONE), make_table(0, 1), overwrite=True)
    assert os.stat(image).st_mode & 0o777 == 0o604
    with open_image(image) as drive:
        assert not drive.geometry.is_zoned
    assert sorted(os.listdir(tmp_path)) == ["copy.img", "copy.img.zones", "disk.img"]


# -- zone files of another's directory


@pytest.fixture
def zloop(tmp_path: Path) -> Path:
    folder = tmp_path / "zloop"
    with open_image(make(tmp_path / "disk.img")) as drive:
        write_zloop(drive, str(folder))
    return folder


@pytest.mark.parametrize("name", ["cnv-000000", "seq-000005"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "dangling"])
def test_a_zone_file_that_is_none(zloop: Path, name: str, kind: str) -> None:
    precious = zloop.parent / "precious"
    precious.write_bytes(b"p" * ZONE)
    (zloop / name).unlink()
    match kind:
        case "link":
            (zloop / name).symlink_to(precious)
        case "dangling":
            (zloop / name).symlink_to(zloop.parent / "nothing")
        case "fifo":
            os.mkfifo(zloop / name)
        case "directory":
            (zloop / name).mkdir()
    for writable in (False, True):
        with pytest.raises(DeviceError, match=name):
            open_device(str(zloop), writable=writable)
    assert precious.read_bytes() == b"p" * ZONE
    assert not (zloop.parent / "nothing").exists()


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_zone_file_that_becomes_a_link_while_the_drive_is_open(zloop: Path, kind: str) -> None:
    precious = zloop.parent / "precious"
    precious.write_bytes(b"p" * ZONE)
    drive = open_device(str(zloop), writable=True)
    (zloop / "seq-000005").unlink()
    if kind == "link":
        (zloop / "seq-000005").symlink_to(precious)
    else:
        os.mkfifo(zloop / "seq-000005")
    with pytest.raises(DeviceError, match="seq-000005"):
        drive.write(5 * ZONE, b"x" * 4096)
    with pytest.raises(DeviceError, match="seq-000005"):
        drive.manage(ZoneOperation.FINISH, 5)
    assert precious.read_bytes() == b"p" * ZONE
    drive.close()


def test_a_directory_named_through_a_link(zloop: Path) -> None:
    link = zloop.parent / "link"
    link.symlink_to(zloop)
    with open_device(str(link), writable=True) as drive:
        drive.write(5 * ZONE, b"five" * 1024)
        with pytest.raises(BusyError, match=f"^{zloop}: "):
            open_device(str(zloop))
    assert (zloop / "seq-000005").stat().st_size == 4096


# -- loop devices


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose /dev/loop3 shows ``disk.img``, under another name of it."""
    make(tmp_path / "disk.img")
    other = tmp_path / "other name.img"
    os.link(tmp_path / "disk.img", other)
    for name, backing in (("loop1", "/gone (deleted)"), ("loop3", str(other)), ("loop4", "")):
        folder = tmp_path / "sys" / "block" / name / "loop"
        folder.mkdir(parents=True)
        (folder / "backing_file").write_text(backing + "\n")
        (folder.parent / "dev").write_text(f"7:{name[-1]}\n")
    monkeypatch.setattr(sysfs, "SYSFS", tmp_path / "sys")
    return tmp_path / "disk.img"


def test_an_image_on_a_loop_device_is_not_written(loop: Path) -> None:
    image = str(loop)
    for change in (
        lambda: open_device(image, writable=True),
        lambda: create_image(image, Geometry(Model.REGULAR, ZONE), make_table(0, 1), overwrite=True),
    ):
        with pytest.raises(BusyError, match="is attached to /dev/loop3"):
            change()
    with open_device(image) as drive:
        assert drive.geometry.nr_zones == 8, "reading is harmless"


def test_a_held_image_on_a_loop_device_names_the_device(loop: Path) -> None:
    with open(loop, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for writable in (False, True):
            with pytest.raises(BusyError, match="is attached to /dev/loop3"):
                open_device(str(loop), writable=writable)


def test_a_real_loop_device(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img")
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    name = done.stdout.strip()
    if done.returncode or not name:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    try:
        with pytest.raises(BusyError, match=f"is attached to {name}"):
            open_device(image, writable=True)
    finally:
        subprocess.run(["losetup", "--detach", name], check=True)
    open_device(image, writable=True).close()


# -- zones that are not there


@pytest.mark.parametrize(("first", "count"), [(0, 9), (7, 2), (8, 1), (-1, 2), (3, 0), (3, -1), (1 << 70, 1)])
@pytest.mark.parametrize("operation", list(ZoneOperation))
def test_zones_beyond_the_end_are_refused_before_anything_is_done(
    operation: ZoneOperation, first: int, count: int, tmp_path: Path
) -> None:
    with open_image(make(tmp_path / "disk.img", 0), writable=True) as drive:
        drive.write(7 * ZONE, b"seven..." * 512)
        before = drive.zones()
        for device in (drive, PartitionView(drive, 0)):
            with pytest.raises(DeviceError, match="not on the drive, it has 8") as caught:
                device.manage(operation, first, count)
            assert caught.value.errno_name == "EINVAL"
        assert (drive.zones() == before).all()
