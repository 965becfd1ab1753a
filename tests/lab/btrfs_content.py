"""What files of a zoned btrfs hold, written in a guest and compared with copies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab.btrfs_mounts import kernel_log
from tests.lab.devices import modprobe, run

_IOC_SYNC = 0x9408


def fill(directory: Path, *, seed: int = 1, subvolumes: bool = True) -> None:
    """Files of every kind: inline, large, with holes, linked, compressed in three ways, in subvolumes; two commits."""
    choose = random.Random(seed)
    (directory / "empty").touch()
    (directory / "inline").write_bytes(b"inline\n" * 9)
    (directory / "large").write_bytes(choose.randbytes(3 << 20))
    with (directory / "holes").open("wb") as file:
        for at in (0, 70000, 1 << 20):
            file.seek(at)
            file.write(choose.randbytes(5000))
        file.truncate(3 << 20)
    os.link(directory / "large", directory / "second name")
    os.symlink("large", directory / "link")
    os.symlink("x" * 1000, directory / "long link")
    below = directory / "d" / ("n" * 255)
    below.mkdir(parents=True)
    for number in range(200):
        (below / f"{number}-\u00e4\u00f6").write_bytes(choose.randbytes(number * 37))
    for method in ("zlib", "lzo", "zstd"):
        packed = directory / method
        packed.mkdir()
        run("btrfs", "property", "set", packed, "compression", method)
        (packed / "text").write_bytes(b"".join(b"%d %s\n" % (n, method.encode()) for n in range(60000)))
        (packed / "inline").write_bytes(b"a" * 1500)
        (packed / "mixed").write_bytes(bytes(200000) + choose.randbytes(150000) + b"z" * 50000)
    if subvolumes:
        run("btrfs", "subvolume", "create", directory / "sub")
        (directory / "sub" / "file").write_bytes(choose.randbytes(100000))
        commit_now(directory)
        run("btrfs", "subvolume", "snapshot", "-r", directory / "sub", directory / "d" / "snapshot")
        (directory / "sub" / "file").write_bytes(choose.randbytes(90000))
        run("btrfs", "subvolume", "create", directory / "sub" / "inner")
        (directory / "sub" / "inner" / "deep").write_bytes(b"deep" * 999)
    with (directory / "large").open("r+b") as file:  # a part of an extent is referenced from now on
        file.seek(1 << 20)
        file.write(choose.randbytes(100000))
    for method in ("zlib", "lzo", "zstd"):  # and so are the ends of compressed ones
        with (directory / method / "text").open("r+b") as file:
            file.seek(70000)
            file.write(choose.randbytes(9000))
        os.truncate(directory / method / "mixed", 390001)
    commit_now(directory)


def commit_now(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _IOC_SYNC)
    finally:
        os.close(fd)


def content_of(directory: Path) -> dict[str, str]:
    """Path -> digest of each file, ``-> target`` of each symbolic link."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@contextmanager
def loop_devices(*files: Path) -> Iterator[list[str]]:
    """Each file as a loop device; btrfs knows all of them."""
    modprobe("loop")
    with ExitStack() as stack:
        found = []
        for file in files:
            path = run("losetup", "--find", "--show", file).stdout.strip()
            stack.callback(run, "losetup", "-d", path)
            found.append(path)
        stack.callback(run, "btrfs", "device", "scan", "--forget", check=False)
        run("btrfs", "device", "scan", *found)
        yield found


@contextmanager
def loop_mounted(where: Path, files: list[Path], *options: str) -> Iterator[Path]:
    """Copies, mounted from loop devices."""
    where.mkdir(exist_ok=True)
    run("btrfs", "device", "scan", "--forget", check=False)
    with loop_devices(*files) as devices:
        words = ["-o", ",".join(options)] if options else []
        done = run("mount", "-t", "btrfs", *words, devices[0], where, check=False)
        assert not done.returncode, f"{done.stderr}\n{kernel_log()}"
        try:
            yield where
        finally:
            run("umount", where)
