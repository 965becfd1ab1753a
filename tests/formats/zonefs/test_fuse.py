"""The tree through FUSE: what standard tools see of it, and what they may do."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.formats.zonefs.images import MIB, make_image
from zoned_tools.device.opening import open_device
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.mapper.files import FileError
from zoned_tools.formats.zonefs.mapper.open import open_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.programs import Result

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None,
    reason="this machine has no FUSE",
)

VECTOR_TREES = ["p2-aggr-owner-label", "p3-noconv-runt", "p5-readonly-offline", "p7a-interleaved-aggr"]
START_SECONDS = 30


@contextmanager
def mounted(image: Path, directory: Path, *options: str) -> Iterator[Path]:
    """Mount an image with the command, in the foreground of a process of its own."""
    directory.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "zoned_tools", "zonefs", "mount", "--foreground", str(image), str(directory)]
    server = subprocess.Popen([*words, *(["-o", ",".join(options)] if options else [])])
    try:
        deadline = time.monotonic() + START_SECONDS
        while not os.path.ismount(directory):
            assert server.poll() is None, "the mount command ended"
            assert time.monotonic() < deadline, "the mount does not appear"
            time.sleep(0.02)
        yield directory
    finally:
        subprocess.run(["fusermount3", "-u", str(directory)], check=False)
        assert server.wait(START_SECONDS) == 0


def facts(status: os.stat_result) -> tuple[int, ...]:
    names = ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize")
    return tuple(getattr(status, name) for name in names)


@pytest.mark.parametrize("name", VECTOR_TREES)
def test_same_tree(name: str, vector_image: Callable[[str], Path], tmp_path: Path) -> None:
    """Every field of stat, every byte and statfs, as the offline tree has them."""
    image = vector_image(name)
    with mounted(image, tmp_path / "mnt", "ro") as root:
        with open_device(str(image)) as device:
            tree = open_tree(Target("zonefs", (device,)), writable=False)
            for entry in tree.walk():
                path = root / entry.path[1:]
                expected = (entry.ino, entry.mode, entry.nlink, entry.uid, entry.gid)
                assert facts(path.stat()) == (*expected, entry.size_bytes, entry.blocks, entry.block_bytes)
                if entry.is_directory:
                    assert sorted(os.listdir(path)) == sorted(tree.list_directory(entry.path))
                    continue
                try:
                    content = tree.read(entry.path, 0, 1 << 30)
                except FileError as error:
                    with pytest.raises(OSError, match=os.strerror(error.errno)):
                        path.read_bytes()
                else:
                    assert path.read_bytes() == content
            shown, figures = os.statvfs(root), tree.statfs()
        assert (shown.f_bsize, shown.f_blocks, shown.f_bfree) == (figures.bsize, figures.blocks, figures.bfree)
        assert (shown.f_files, shown.f_ffree, shown.f_namemax) == (figures.files, 0, 16)


def errno_of(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_operations(tmp_path: Path, program: Callable[..., Result]) -> None:
    """The table of file operations, with the tools and calls that users have."""
    image = make_image(tmp_path / "disk.img", size_bytes=32 * MIB, conventional=2, capacity_bytes=3 * MIB)
    assert program("mkzonefs", image).status == 0
    data = os.urandom(64 << 10)
    (tmp_path / "data").write_bytes(data)
    with mounted(image, tmp_path / "mnt") as root:
        seq, cnv = root / "seq", root / "cnv"

        def dd(path: Path, *words: str, source: str = "data") -> bool:
            command = ["dd", f"if={tmp_path / source}", f"of={path}", "bs=4096", "conv=notrunc", "status=none", *words]
            return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0

        assert dd(seq / "0", "oflag=direct")
        assert (seq / "0").read_bytes() == data
        assert not dd(seq / "0", "oflag=direct")  # not at the end
        assert dd(seq / "0", "oflag=direct,append")
        assert (seq / "0").read_bytes() == data * 2
        assert not dd(seq / "1")  # buffered
        assert (seq / "1").stat().st_size == 0
        assert dd(cnv / "0", "seek=3")
        assert (cnv / "0").read_bytes()[3 * 4096 : 3 * 4096 + len(data)] == data
        with open(cnv / "0", "r+b", buffering=0) as file:
            file.seek(4 * MIB - 2)
            assert file.write(b"abcd") == 2  # cut at the capacity
            file.seek(4 * MIB)
            assert errno_of(lambda: file.write(b"x")) == "EFBIG"
        assert (cnv / "0").read_bytes()[-2:] == b"ab"
        assert errno_of(lambda: os.truncate(seq / "0", 4096)) == "EPERM"
        assert errno_of(lambda: os.truncate(cnv / "0", 0)) == "EPERM"
        assert errno_of(lambda: os.close(os.open(cnv / "0", os.O_WRONLY | os.O_TRUNC))) == "EPERM"
        os.truncate(seq / "0", 3 * MIB)
        assert (seq / "0").stat().st_size == 3 * MIB
        assert (seq / "0").read_bytes() == (data * 2).ljust(3 * MIB, b"\0")
        os.truncate(seq / "0", 0)
        assert (seq / "0").read_bytes() == b""
        os.close(os.open(seq / "0", os.O_WRONLY | os.O_TRUNC))
        assert errno_of(lambda: os.unlink(seq / "0")) == "EPERM"
        assert errno_of((seq / "99").touch) == "ENOENT"
        assert errno_of((root / "dir").mkdir) == "ENOENT"
        assert errno_of(lambda: os.rename(seq / "0", seq / "99")) == "ENOENT"
        assert errno_of(lambda: os.link(seq / "0", seq / "99")) == "ENOENT"
        os.chmod(seq / "0", 0o604)
        os.utime(seq / "0", ns=(5, 7 * 10**9))
        assert stat.S_IMODE((seq / "0").stat().st_mode) == 0o604
        assert (seq / "0").stat().st_mtime == 7
        assert errno_of(lambda: os.chmod(seq, 0o755)) == "EPERM"
        direct = os.open(seq / "2", os.O_RDWR | os.O_DIRECT)
        try:
            buffer = mmap.mmap(-1, 3 * MIB + 8192)
            assert errno_of(lambda: os.pwritev(direct, [memoryview(buffer)[:512]], 0)) == "EINVAL"
            assert os.pwritev(direct, [memoryview(buffer)[: 3 * MIB - 4096]], 0) == 3 * MIB - 4096
            assert os.pwritev(direct, [memoryview(buffer)[:8192]], 3 * MIB - 4096) == 4096
            assert errno_of(lambda: os.pwritev(direct, [memoryview(buffer)[:4096]], 3 * MIB)) == "EFBIG"
            os.fsync(direct)
        finally:
            os.close(direct)
    rows = {e["path"]: e for e in program("zoned", "zonefs", "ls", "--json", image).json["entries"]}
    assert (rows["/seq/0"]["condition"], rows["/seq/0"]["mode"]) == ("empty", "640")
    assert (rows["/seq/2"]["condition"], rows["/seq/2"]["size_bytes"]) == ("full", 3 * MIB)


def test_explicit_open(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = make_image(tmp_path / "disk.img", size_bytes=32 * MIB, conventional=1, max_open=1, max_active=2)
    assert program("mkzonefs", image).status == 0
    with mounted(image, tmp_path / "mnt", "explicit-open", "errors=repair") as root:
        first = os.open(root / "seq/0", os.O_WRONLY | os.O_DIRECT)
        assert errno_of(lambda: os.open(root / "seq/1", os.O_WRONLY)) == "EBUSY"
        os.close(first)
        deadline = time.monotonic() + START_SECONDS
        while errno_of(lambda: os.close(os.open(root / "seq/1", os.O_WRONLY))):  # a release is asynchronous
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert errno_of(lambda: os.open(root / "seq/9", os.O_RDONLY)) == "ENOENT"


def test_background_and_exclusive(tmp_path: Path, program: Callable[..., Result]) -> None:
    """Without --foreground the command returns once the tree is there; the image stays locked."""
    image = make_image(tmp_path / "disk.img", size_bytes=32 * MIB)
    assert program("mkzonefs", image).status == 0
    root = tmp_path / "mnt"
    root.mkdir()
    words = [sys.executable, "-m", "zoned_tools", "zonefs", "mount", image.name, "mnt"]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=START_SECONDS)
    try:
        assert sorted(os.listdir(root)) == ["cnv", "seq"]
        assert program("mkzonefs", "-f", image).status == 1
        assert program("zoned", "zonefs", "truncate", image, "/seq/0", "max").status == 8
    finally:
        subprocess.run(["fusermount3", "-u", str(root)], check=True)


def test_large_drive(tmp_path: Path, program: Callable[..., Result]) -> None:
    image = make_image(
        tmp_path / "disk.img", size_bytes=55880 * 256 * MIB, zone_bytes=256 * MIB, conventional=524, block_bytes=4096
    )
    assert program("mkzonefs", "-o", "aggr_cnv", image).status == 0
    with mounted(image, tmp_path / "mnt") as root:
        listed = subprocess.run("ls seq | wc -l", shell=True, cwd=root, capture_output=True, text=True, check=True)
        assert listed.stdout.strip() == "55356"
        assert (root / "cnv/0").stat().st_size == 140391743488
        assert (root / "seq/55355").stat().st_ino == 55879
