"""Block groups that do not fit their zones: the kernel refuses, repair mends, it mounts, writes and scrubs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import devices
from tests.lab.btrfs_content import content_of, fill
from tests.lab.btrfs_mounts import MOUNT_POINT, commit, mounted, try_mount, unmount
from tests.lab.devices import modprobe, null_blk, run
from tests.lab.programs import program
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.opening import open_device

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)


@pytest.fixture(autouse=True)
def nothing_stays_mounted() -> Iterator[None]:
    yield
    run("umount", MOUNT_POINT, check=False)


def zones_of(device: str, kind: str, stripe: int) -> list[dict[str, Any]]:
    """The zones of one stripe of block groups, those that hold something."""
    document = json.loads(program("zoned", "btrfs", "zones", "--json", device).out)
    rows = document["devices"][0]["zones"]
    return [r for r in rows if r.get("kind") == kind and r["stripe"] == stripe and r["written_bytes"]]


def append_junk(device: str, zone: int) -> None:
    with open_device(device, writable=True) as drive:
        drive.write(int(drive.zones(zone, 1)["wp_sector"][0]) * 512, b"junk" * 8192)


def manage(device: str, operation: ZoneOperation, zone: int) -> None:
    with open_device(device, writable=True) as drive:
        drive.manage(operation, zone)


def _ahead(device: str) -> None:
    append_junk(device, zones_of(device, "metadata", 1)[-1]["zone"])


def _reset(device: str) -> None:
    manage(device, ZoneOperation.RESET, zones_of(device, "metadata", 1)[-1]["zone"])


def _finished(device: str) -> None:
    manage(device, ZoneOperation.FINISH, zones_of(device, "metadata", 0)[-1]["zone"])


def _system_reset(device: str) -> None:
    manage(device, ZoneOperation.RESET, zones_of(device, "system", 1)[-1]["zone"])


@pytest.mark.parametrize("damage", [_ahead, _reset, _finished, _system_reset], ids=lambda f: f.__name__.strip("_"))
def test_copies_that_differ(damage: Callable[[str], None]) -> None:
    modprobe("btrfs")
    with null_blk(size_mib=256) as disk:
        run("mkfs.btrfs", "-f", "-O", "zoned", "-m", "dup", "-d", "single", disk.path)
        with mounted(disk.path) as directory:
            fill(directory)
            commit(directory, 3)
            wanted = content_of(directory)
        damage(disk.path)
        assert try_mount(disk.path, "ro"), "the damage does not harm"
        program("zoned", "check", disk.path, status=4)
        program("zoned", "check", "--repair", disk.path, status=1)
        program("zoned", "check", "--deep", disk.path)
        with mounted(disk.path, "ro") as directory:
            assert content_of(directory) == wanted
        with mounted(disk.path) as directory:
            (directory / "new").write_bytes(b"new" * 100000)
            commit(directory, 2)
            assert "no errors found" in run("btrfs", "scrub", "start", "-B", directory).stdout
        program("zoned", "check", disk.path)


def test_data_that_were_reset() -> None:
    """The next write would go to the addresses of lost extents, and its commit fail; a finished zone prevents that."""
    modprobe("btrfs")
    with null_blk(size_mib=256) as disk:
        run("mkfs.btrfs", "-f", "-O", "zoned", "-m", "dup", "-d", "single", disk.path)
        with mounted(disk.path) as directory:
            (directory / "lost").write_bytes(b"lost" * 50000)
            commit(directory)
        manage(disk.path, ZoneOperation.RESET, zones_of(disk.path, "data", 0)[-1]["zone"])
        done = program("zoned", "check", "--repair", disk.path, status=1)
        assert "/lost" in done.out + done.err
        assert not try_mount(disk.path)
        try:
            with pytest.raises(OSError, match=r"Errno 5"):
                Path(MOUNT_POINT, "lost").read_bytes()
            Path(MOUNT_POINT, "new").write_bytes(b"new" * 100000)
            commit(MOUNT_POINT, 2)
            assert Path(MOUNT_POINT, "new").read_bytes() == b"new" * 100000
            Path(MOUNT_POINT, "lost").unlink()
            commit(MOUNT_POINT, 1)
        finally:
            unmount()
        program("zoned", "check", disk.path)


def test_orphans_are_reset() -> None:
    modprobe("btrfs")
    with null_blk(size_mib=256) as disk:
        run("mkfs.btrfs", "-f", "-O", "zoned", "-m", "dup", "-d", "single", disk.path)
        append_junk(disk.path, 40)
        program("zoned", "check", "--repair", "--allow", "zone-orphan", disk.path, status=1)
        assert "zone-orphan" not in program("zoned", "check", "--json", disk.path).out
        with mounted(disk.path) as directory:
            commit(directory, 3)
        program("zoned", "check", disk.path)
