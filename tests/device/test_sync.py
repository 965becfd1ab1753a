"""A sync that fails: nothing is forgotten, nothing more is accepted; and the order of what is synced."""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from tests.device.faults import Call, Syscalls, nth
from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.block import BlockDevice
from zoned_tools.device.emulated import EmulatedDrive, no_zones
from zoned_tools.device.failstop import SyncError
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.opening import open_device
from zoned_tools.device.overlay import Overlay, Recorder
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.zloop import write_zloop
from zoned_tools.device.zones import Model, ZoneCondition, make_table
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZONE = 64 << 10
ZONES = 8


def make(folder: Path, kind: str) -> str:
    path = str(folder / "disk.img")
    if kind == "regular":
        create_image(path, Geometry(Model.REGULAR, ZONES * ZONE), no_zones())
        return path
    create_image(
        path,
        Geometry(Model.HOST_MANAGED, ZONES * ZONE, ZONE, ZONES),
        make_table(ZONES * ZONE // 512, ZONE // 512, nr_conventional=3),
    )
    if kind == "zloop":
        with open_device(path) as drive:
            write_zloop(drive, str(folder / "zloop"))
        return str(folder / "zloop")
    return path


def refuses_everything(device: Device, number: int) -> None:
    """Whatever changes anything is refused with the errno of the failed sync."""
    changes = [
        lambda: device.write(4096, b"y" * 4096),
        lambda: device.discard(0, 4096),
        device.flush,
    ]
    if device.geometry.is_zoned:
        changes += [
            lambda: device.write(5 * ZONE, b"y" * 4096),
            lambda: device.manage(ZoneOperation.RESET, 4),
            lambda: device.manage(ZoneOperation.RESET, 0, ZONES),
            lambda: device.manage(ZoneOperation.FINISH, 6),
        ]
    for change in changes:
        with pytest.raises(DeviceError, match=r"an earlier sync failed \(.*\) .*opened again") as caught:
            change()
        assert caught.value.errno == number


def no_holes(error: OSError) -> Callable[[Call], None]:
    """Neither can holes be punched nor zeroes written in their place."""

    def before(call: Call) -> None:
        if call.name == "fallocate" or (call.name, call.target) == ("pwrite", "disk.img"):
            raise error

    return before


FAULTS = [
    ("regular", "fdatasync", "disk.img", 0),
    ("zoned", "fdatasync", "disk.img", 0),
    ("zoned", "fdatasync", "disk.img.zones", 0),
    ("zoned", "pwrite", "disk.img.zones", 0),
    ("zoned", "fallocate", "", 0),
    ("zloop", "fdatasync", "zloop", 0),
    ("zloop", "fdatasync", "zloop", 1),
    ("zloop", "ftruncate", "zloop", 0),
]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(("kind", "call", "target", "which"), FAULTS)
def test_a_failed_flush_is_the_end(
    kind: str, call: str, target: str, which: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, kind)
    with open_device(path, writable=True) as drive:
        drive.write(4096, b"old" * 1024 + b"!" * 1024)
        if kind != "regular":
            drive.write(4 * ZONE, b"four" * 1024)
    calls = Syscalls(monkeypatch, tmp_path)
    drive = open_device(path, writable=True)
    assert isinstance(drive, EmulatedDrive)
    drive.write(4096, b"new!" * 1024)
    if kind != "regular":
        drive.manage(ZoneOperation.RESET, 4)
        drive.write(6 * ZONE, b"six!" * 1024)
    waiting = drive.machine.changed
    error = OSError(number, os.strerror(number))
    calls.watching, calls.before = True, nth(which, error, call, target=target)
    if call == "fallocate":  # then zeroes are written
        calls.before = no_holes(error)
    with pytest.raises(SyncError) as caught:
        drive.flush()
    assert caught.value.errno == number
    if call != "fallocate":
        assert drive.machine.changed == waiting, "what waited for the sync still waits"
    refuses_everything(drive, number)
    assert drive.read(4096, 4096) == b"new!" * 1024, "reading goes on"
    with pytest.raises(DeviceError, match="earlier sync failed"):
        drive.close()
    drive.close()
    calls.before = lambda _call: None
    with open_device(path, writable=True) as again:
        assert again.read(4096, 4096) in (b"new!" * 1024, b"old" * 1024 + b"!" * 1024)
        again.write(4096, b"then" * 1024)
    with open_device(path) as again:
        assert again.read(4096, 4096) == b"then" * 1024


def test_a_block_device_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device"
    path.write_bytes(bytes(ZONES * ZONE))
    device = object.__new__(BlockDevice)
    device.path, device.writable = str(path), True
    device.geometry = Geometry(Model.REGULAR, ZONES * ZONE)
    device._fd = os.open(path, os.O_RDWR)
    device._aligned = mmap.mmap(-1, 1 << 20)
    device._bounce = memoryview(device._aligned)
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching, calls.before = True, nth(0, OSError(errno.EIO, "gone"), "fsync")
    device.write(4096, b"a" * 4096)
    with pytest.raises(SyncError, match="cannot flush"):
        device.flush()
    refuses_everything(device, errno.EIO)
    assert device.read(4096, 4096) == b"a" * 4096
    with pytest.raises(DeviceError, match="earlier sync failed"):
        device.close()


def test_the_sync_before_a_write_to_a_reset_zone_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "zoned")
    drive = open_image(path, writable=True)
    drive.write(4 * ZONE, b"four" * 1024)
    drive.manage(ZoneOperation.RESET, 4)
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching, calls.before = True, nth(0, OSError(errno.EIO, "gone"), "fdatasync")
    with pytest.raises(SyncError):
        drive.write(4 * ZONE, b"more" * 1024)
    refuses_everything(drive, errno.EIO)
    with pytest.raises(SyncError):
        drive.close()


def test_views_pass_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)
    drive = open_image(path, writable=True)
    views: list[Device] = [PartitionView(drive, ZONE), Recorder(drive)]
    drive.write(4 * ZONE, b"four" * 1024)
    calls.watching, calls.before = True, nth(0, OSError(errno.ENOSPC, "full"), "fdatasync")
    with pytest.raises(SyncError):
        views[0].flush()
    for view in views:
        for change in (view.flush, lambda view=view: view.write(0, b"z" * 4096)):
            with pytest.raises(SyncError, match="earlier sync failed"):
                change()
        assert view.read(0, 4096) == bytes(4096)
    with Overlay(drive) as overlay:
        overlay.write(4096, b"kept in memory!!" * 256)
        assert overlay.read(4 * ZONE, 4096) == b"four" * 1024
    with pytest.raises(SyncError):
        views[1].close()


def test_leaving_a_with_block_never_hides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching, calls.before = True, nth(0, OSError(errno.ENOSPC, "full"), "fdatasync")

    def swallow(*, again: bool) -> None:
        with open_image(path, writable=True) as drive:
            drive.write(4 * ZONE, b"four" * 1024)
            try:
                drive.flush()
            except DeviceError:
                if again:
                    raise

    with pytest.raises(SyncError, match=r"^.*: cannot sync: "):
        swallow(again=True)
    calls.before = nth(0, OSError(errno.ENOSPC, "full"), "fdatasync")
    with pytest.raises(SyncError, match="an earlier sync failed"):
        swallow(again=False)


def test_more_zone_files_than_can_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, folder = str(tmp_path / "disk.img"), str(tmp_path / "zloop")
    geometry = Geometry(Model.HOST_MANAGED, 300 * 4096, 4096, 300)
    create_image(image, geometry, make_table(2400, 8, nr_conventional=300))
    with open_image(image) as source:
        write_zloop(source, folder)
    with open_device(folder, writable=True) as drive:
        for zone in range(300):
            drive.write(zone * 4096, bytes([zone % 251 + 1]) * 4096)
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching, calls.before = True, nth(0, OSError(errno.EIO, "gone"), "fdatasync")
    drive = open_device(folder, writable=True)

    def write_everywhere() -> None:
        for zone in range(300):
            drive.write(zone * 4096, b"!" * 4096)

    with pytest.raises(SyncError, match="cannot sync"):
        write_everywhere()
    assert [drive.read(zone * 4096, 1)[0] for zone in range(100, 300)] == [z % 251 + 1 for z in range(100, 300)]
    for change in (drive.flush, lambda: drive.write(0, bytes(4096)), drive.close):
        with pytest.raises(SyncError, match="earlier sync failed"):
            change()


# -- order


def test_data_are_synced_before_the_descriptors_that_show_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)
    with open_image(path, writable=True) as drive:
        calls.watching = True
        drive.write(4 * ZONE, b"four" * 1024)
        drive.write(6 * ZONE, b"six!" * 1024)
        drive.flush()
        image, zones = "disk.img", "disk.img.zones"
        wanted = [("pwrite", image)] * 2 + [("fdatasync", image)] + [("pwrite", zones)] * 2 + [("fdatasync", zones)]
        assert calls.names() == wanted
        calls.log.clear()
        drive.manage(ZoneOperation.RESET, 4)
        drive.flush()
        drive.manage(ZoneOperation.RESET, 6)
        drive.write(6 * ZONE, b"new!" * 1024)
        reset = [("fdatasync", image), ("pwrite", zones), ("fdatasync", zones), ("fallocate", image)]
        assert calls.names() == [*reset, *reset, ("pwrite", image)], "content goes after the state that hides it"
        calls.log.clear()
    assert calls.names() == [("fdatasync", image), ("pwrite", zones), ("fdatasync", zones)], "closing flushes"


def test_a_regular_image_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "regular")
    calls = Syscalls(monkeypatch, tmp_path)
    with open_image(path, writable=True) as drive:
        calls.watching = True
        drive.write(0, b"four" * 1024)
        drive.flush()
        assert calls.names() == [("pwrite", "disk.img"), ("fdatasync", "disk.img")]


def test_every_zone_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "zloop")
    with open_device(path, writable=True) as drive:
        drive.write(4 * ZONE, b"four" * 1024)
    calls = Syscalls(monkeypatch, tmp_path)
    four, five, six = (f"zloop/seq-{n:06d}" for n in (4, 5, 6))
    with open_device(path, writable=True) as drive:
        calls.watching = True
        drive.write(5 * ZONE, b"five" * 1024)
        drive.flush()
        assert calls.names() == [("pwrite", five), ("fdatasync", five)]
        calls.log.clear()
        drive.manage(ZoneOperation.RESET, 4)
        drive.manage(ZoneOperation.FINISH, 6)
        drive.flush()
        wanted = [("ftruncate", four), ("ftruncate", six), ("fdatasync", four), ("fdatasync", six)]
        assert calls.names() == wanted, "a reset zone is empty on disk when the flush is done"
        assert drive.zones(6, 1)["condition"][0] == ZoneCondition.FULL


def test_a_new_zone_directory_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)
    with open_image(image) as drive:
        calls.watching = True
        write_zloop(drive, str(tmp_path / "zloop"))
    names = [call.name for call in calls.log]
    rename = names.index("rename")
    assert names[rename - 1] == "fsync", "the directory's names before the directory's own"
    assert names[:rename].count("fdatasync") == ZONES
    assert calls.names()[rename + 1] == ("fsync", ".")
    assert not any(call.target.startswith("zloop") for call in calls.log[:rename])


def test_a_descriptor_that_was_cut_short_is_completed_or_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)

    def few_bytes(call: Call) -> int:
        return 30 if call.target.endswith(".zones") else len(call.data)

    calls.watching, calls.shorten = True, few_bytes
    with open_image(path, writable=True) as drive:
        drive.write(4 * ZONE, b"four" * 1024)
    with open_image(path) as drive:
        assert drive.read(4 * ZONE, 4096) == b"four" * 1024
    drive = open_image(path, writable=True)
    drive.write(5 * ZONE, b"five" * 1024)
    calls.before = nth(1, OSError(errno.ENOSPC, "full"), "pwrite", target=".zones")
    with pytest.raises(SyncError):
        drive.flush()
    with pytest.raises(SyncError):
        drive.close()
    with open_image(path) as again:
        assert again.read(4 * ZONE, 4096) == b"four" * 1024
        assert again.read(5 * ZONE, 4096) in (b"five" * 1024, bytes(4096))
    assert sorted(os.listdir(tmp_path)) == ["disk.img", "disk.img.zones"]


def test_a_new_image_is_durable_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "zoned")
    calls = Syscalls(monkeypatch, tmp_path)
    calls.watching = True
    geometry = Geometry(Model.HOST_MANAGED, 2 * ZONE, ZONE, 2)
    create_image(str(tmp_path / "disk.img"), geometry, make_table(2 * ZONE // 512, ZONE // 512), overwrite=True)
    steps = [call for call in calls.log if call.name not in ("fchown", "fchmod")]
    image, table, inode = steps[0].target, steps[3].target, os.stat(tmp_path / "disk.img").st_ino
    assert [(call.name, call.target) for call in steps] == [
        ("open", image),
        ("ftruncate", image),
        ("fsync", image),
        ("open", table),
        ("pwrite", table),
        ("fsync", table),
        ("replace", table),
        ("fsync", "."),
        ("replace", image),
        ("fsync", "."),
        ("replace", f"disk.img.zones.for-{inode}"),
        ("fsync", "."),
        ("unlink", image),
    ]
