"""A zoned btrfs in a guest: made, mounted, committed to."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.devices import modprobe, run

_IOC_SYNC = 0x9408
"""BTRFS_IOC_SYNC: commit the running transaction."""

MOUNT_POINT = Path("/mnt/zoned-btrfs")


def make_file_system(device: str, *options: str) -> str:
    """Run mkfs.btrfs; returns the fsid."""
    modprobe("btrfs")
    made = run("mkfs.btrfs", "-f", "-O", "zoned", "-m", "single", "-d", "single", *options, device)
    found = re.search(r"UUID:\s+(\S+)", made.stdout)
    assert found is not None, made.stdout
    return found.group(1)


def try_mount(device: str, *options: str) -> str:
    """Mount it; returns why that failed, empty when it is mounted."""
    MOUNT_POINT.mkdir(parents=True, exist_ok=True)
    run("btrfs", "device", "scan", "--forget", check=False)
    words = ["-o", ",".join(options)] if options else []
    done = run("mount", "-t", "btrfs", *words, device, MOUNT_POINT, check=False)
    return (done.stderr.strip() or "no message") if done.returncode else ""


def unmount() -> None:
    run("umount", MOUNT_POINT)


@contextmanager
def mounted(device: str, *options: str) -> Iterator[Path]:
    """The mount point of a device."""
    failure = try_mount(device, *options)
    assert not failure, f"{failure}\n{kernel_log()}"
    try:
        yield MOUNT_POINT
    finally:
        unmount()


def mounted_generation(fsid: str) -> int:
    """Generation of a mounted file system, as the kernel knows it."""
    return int(Path(f"/sys/fs/btrfs/{fsid}/generation").read_text())


def commit(directory: Path, count: int = 1) -> None:
    """Change something and commit, ``count`` times."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        for _ in range(count):
            os.utime(directory / "f") if (directory / "f").exists() else (directory / "f").write_bytes(b"x")
            fcntl.ioctl(fd, _IOC_SYNC)
    finally:
        os.close(fd)


def fsync_file(path: Path, content: bytes) -> None:
    """Write a file durably without a commit: only the tree log has it."""
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def kernel_log(lines: int = 12) -> str:
    done = subprocess.run(["dmesg"], capture_output=True, text=True, check=False)
    return "\n".join(done.stdout.splitlines()[-lines:])
