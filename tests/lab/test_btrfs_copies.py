"""Exported copies of a zoned btrfs: a kernel mounts them from loop devices, with every file's content equal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.formats.btrfs.trees import our_content
from tests.lab import devices
from tests.lab.btrfs_content import content_of, fill, loop_mounted
from tests.lab.btrfs_mounts import MOUNT_POINT, commit, fsync_file, mounted
from tests.lab.devices import modprobe, null_blk, run
from tests.lab.programs import program
from tests.lab.test_btrfs import latest, snapshot

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)

COPY = Path("/mnt/btrfs-copy")


@pytest.fixture(autouse=True)
def nothing_stays_mounted() -> Iterator[None]:
    yield
    for place in (MOUNT_POINT, COPY):
        run("umount", place, check=False)


@dataclass(frozen=True)
class Made:
    """How a file system is made."""

    options: tuple[str, ...] = ("-m", "single", "-d", "single")
    drives: int = 1
    size_mib: int = 256
    conventional: int = 0
    capacity_mib: int = 4
    quota: bool = False


STATES = {
    "dup": Made(("-m", "dup", "-d", "single")),
    "two devices": Made(drives=2),
    "4 KiB nodes": Made(("-m", "single", "-d", "single", "-n", "4096")),
    "64 KiB nodes, xxhash": Made(("-m", "dup", "-d", "single", "-n", "65536", "--csum", "xxhash"), size_mib=512),
    "sha256": Made(("-m", "single", "-d", "single", "--csum", "sha256")),
    "quota, blake2": Made(("-m", "dup", "-d", "single", "--csum", "blake2"), quota=True),
    "conventional zones, small capacity": Made(size_mib=512, conventional=3, capacity_mib=3),
}


@contextmanager
def made(how: Made) -> Iterator[list[str]]:
    """Drives with a file system."""
    modprobe("btrfs")
    with ExitStack() as stack:
        drives = [
            stack.enter_context(
                null_blk(
                    size_mib=how.size_mib,
                    conventional=how.conventional,
                    **({"zone_capacity": how.capacity_mib} if how.capacity_mib != 4 else {}),
                )
            ).path
            for _ in range(how.drives)
        ]
        run("mkfs.btrfs", "-f", "-O", "zoned", *how.options, *drives)
        yield drives


def export(drives: list[str], out: Path, *words: str) -> list[Path]:
    program("zoned", "export", *drives, "-o", out, *words)
    return [out] if len(drives) == 1 else sorted(out.iterdir())


@pytest.mark.parametrize("state", STATES)
def test_a_copy_mounts_with_every_file_equal(state: str, tmp_path: Path) -> None:
    how = STATES[state]
    with made(how) as drives:
        with mounted(drives[0], *(f"device={drive}" for drive in drives[1:])) as directory:
            if how.quota:
                run("btrfs", "quota", "enable", directory)
            fill(directory)
            for _ in range(30):  # the ring goes beyond byte 65536
                commit(directory)
            wanted = content_of(directory)
        assert len(wanted) >= 220
        program("zoned", "check", "--deep", *drives)
        assert our_content(drives) == wanted
        copies = export(drives, tmp_path / "copy")
        for drive, copy in zip(drives, copies, strict=True):
            assert copy.stat().st_blocks * 512 < how.size_mib << 19, "it is not sparse"
            assert copy.stat().st_size == int(Path("/sys/block", Path(drive).name, "size").read_text()) * 512
    with loop_mounted(COPY, copies, "ro") as directory:
        assert content_of(directory) == wanted
    with loop_mounted(COPY, copies) as directory:
        assert content_of(directory) == wanted
        (directory / "new").write_bytes(os.urandom(500000))
        run("sync")
        wanted = content_of(directory)
        scrubbed = run("btrfs", "scrub", "start", "-B", directory)
        assert "no errors found" in scrubbed.stdout
    with loop_mounted(COPY, copies, "ro") as directory:
        assert content_of(directory) == wanted


def test_btrfs_restore_reads_a_copy(tmp_path: Path) -> None:
    with made(STATES["dup"]) as drives:
        with mounted(drives[0]) as directory:
            fill(directory, subvolumes=False)
            wanted = content_of(directory)
        [copy] = export(drives, tmp_path / "copy")
    restored = tmp_path / "restored"
    restored.mkdir()
    run("btrfs", "restore", "-S", copy, restored)
    assert content_of(restored) == wanted


def test_an_older_generation_mounts(tmp_path: Path) -> None:
    """The state before the last commit; a plain raw copy would mount whatever lies at byte 65536."""
    with made(STATES["dup"]) as drives:
        with mounted(drives[0]) as directory:
            (directory / "first").write_bytes(b"1" * 5000)
            commit(directory, 30)
            generation = latest(drives[0])["generation"]
            (directory / "second").write_bytes(b"2" * 5000)
            commit(directory)
        [copy] = export(drives, tmp_path / "copy", "--set", f"generation={generation}")
    with loop_mounted(COPY, [copy], "ro") as directory:
        assert sorted(path.name for path in directory.iterdir()) == ["f", "first"]


def test_the_tree_log_goes_along(tmp_path: Path) -> None:
    image = str(tmp_path / "disk.img")
    with made(STATES["dup"]) as drives, mounted(drives[0]) as directory:
        commit(directory, 4)
        for number in range(9):
            fsync_file(directory / "logged", b"%d\n" % number)
        snapshot(drives[0], image)
    for setting, there in (("log=keep", True), ("log=drop", False)):
        copies = export([image], tmp_path / setting, "--set", setting)
        with loop_mounted(COPY, copies, "ro") as directory:
            assert (directory / "logged").exists() == there


def test_a_drive_that_no_kernel_mounts(tmp_path: Path) -> None:
    """The zone of the second copy of the metadata goes read-only; the copy of the drive mounts."""
    modprobe("btrfs")
    with null_blk(size_mib=256) as disk:
        run("mkfs.btrfs", "-f", "-O", "zoned", "-m", "dup", "-d", "single", disk.path)
        with mounted(disk.path) as directory:
            fill(directory)
            wanted = content_of(directory)
        rows = [zone for zone in zone_rows(disk.path) if zone.get("kind") == "metadata" and zone["stripe"] == 1]
        disk.kill_zones(read_only=[row["zone"] for row in rows])
        program("zoned", "check", disk.path, status=4)
        assert our_content([disk.path]) == wanted
        [copy] = export([disk.path], tmp_path / "copy")
    shutil.copy(copy, tmp_path / "second")
    for options in (("ro",), ()):
        with loop_mounted(COPY, [copy], *options) as directory:
            assert content_of(directory) == wanted


def zone_rows(device: str) -> list[dict[str, Any]]:
    import json

    document = json.loads(program("zoned", "btrfs", "zones", "--json", device).out)
    rows: list[dict[str, Any]] = document["devices"][0]["zones"]
    return rows
