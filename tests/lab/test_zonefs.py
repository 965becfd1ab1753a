"""zonefs beside the kernel's: what we make is mounted, what it writes is read, and the reverse."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.lab import devices
from tests.lab.devices import MIB, NullBlk, run
from tests.lab.programs import program
from zoned_tools.device.base import Device
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.opening import open_device
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.mapper.files import FileError
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree, open_tree

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)

BLOCK = 4096


@dataclass(frozen=True)
class Drive:
    path: str
    conventional: int = 0
    null_blk: NullBlk | None = None


@contextmanager
def _null_blk(**settings: int) -> Iterator[Drive]:
    with devices.null_blk(**settings) as disk:
        yield Drive(disk.path, settings.get("conventional", 0), disk)


@contextmanager
def _scsi() -> Iterator[Drive]:
    with devices.scsi_debug(zbc="managed", dev_size_mb=50, zone_size_mb=4, zone_nr_conv=3, sector_size=4096) as path:
        yield Drive(path, 3)


@contextmanager
def _zns() -> Iterator[Drive]:
    with devices.zns_namespace() as path:
        yield Drive(path)


MAKERS: dict[str, Callable[[], AbstractContextManager[Drive]]] = {
    "null_blk-sequential-runt": lambda: _null_blk(size_mib=42),
    "null_blk-conventional": lambda: _null_blk(size_mib=48, conventional=5, blocksize=512),
    "null_blk-small-capacity": lambda: _null_blk(
        size_mib=48, conventional=2, zone_capacity=3, zone_max_open=3, zone_max_active=5
    ),
    "scsi-managed-runt": _scsi,
    "nvme-zns": _zns,
}


@pytest.fixture(scope="module", params=MAKERS)
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    with ExitStack() as stack:
        yield stack.enter_context(MAKERS[request.param]())


@contextmanager
def mounted(path: str, directory: Path, options: str = "") -> Iterator[Path]:
    """The kernel's zonefs on a device."""
    devices.modprobe("zonefs")
    directory.mkdir(exist_ok=True)
    run("mount", "-t", "zonefs", *(["-o", options] if options else []), path, directory)
    try:
        yield directory
    finally:
        run("umount", directory)


@contextmanager
def offline(device: Device | str, *, writable: bool = False, **options: str) -> Iterator[ZonefsTree]:
    """Our tree on a device."""
    named = {key.replace("_", "-"): value for key, value in options.items()}
    with ExitStack() as stack:
        opened = stack.enter_context(open_device(device, writable=writable)) if isinstance(device, str) else device
        yield stack.enter_context(open_tree(Target("zonefs", (opened,)), writable=writable, options=named))


def read_file(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def kernel_tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All that stat, readdir and read show of a mounted volume."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.iterdir(), *root.glob("*/*")]:
        s = path.stat()
        content = sorted(os.listdir(path)) if path.is_dir() else read_file(path)
        name = f"/{path.relative_to(root)}".replace("/.", "/")
        numbers = (s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, s.st_blocks, s.st_blksize)
        found[name] = (*numbers, content)
    return found


def our_tree(tree: ZonefsTree) -> dict[str, tuple[object, ...]]:
    """The same of our own tree."""
    found: dict[str, tuple[object, ...]] = {}
    for e in tree.walk():
        content: object
        if e.is_directory:
            content = sorted(tree.list_directory(e.path))
        else:
            try:
                content = tree.read(e.path, 0, 1 << 30)
            except FileError as error:
                content = error.errno_name
        numbers = (e.ino, e.mode, e.nlink, e.uid, e.gid, e.size_bytes, e.blocks, e.block_bytes)
        found[e.path] = (*numbers, content)
    return found


def kernel_statfs(root: Path) -> tuple[int, ...]:
    s = os.statvfs(root)
    return (s.f_bsize, s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_namemax, s.f_fsid)


def our_statfs(tree: ZonefsTree) -> tuple[int, ...]:
    s = tree.statfs()
    return (s.bsize, s.blocks, s.bfree, s.bfree, s.files, 0, 16, s.fsid)


def kernel_attributes(path: str) -> dict[str, int]:
    directory = Path("/sys/fs/zonefs", Path(path).name)
    return {entry.name: int(entry.read_text()) for entry in directory.iterdir()}


def append(path: Path, data: bytes) -> None:
    """A direct write at the end, as zonefs wants it."""
    buffer = mmap.mmap(-1, len(data))
    buffer.write(data)
    file = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        assert os.pwritev(file, [buffer], path.stat().st_size) == len(data)
    finally:
        os.close(file)


def fill_by_kernel(root: Path) -> None:
    """Files of every kind: partly written, full, finished early, truncated, conventional."""
    choose = random.Random(11)
    append(root / "seq/0", choose.randbytes(12288))
    append(root / "seq/0", choose.randbytes(BLOCK))
    append(root / "seq/1", choose.randbytes(8192))
    os.truncate(root / "seq/1", (root / "seq/1").stat().st_blocks * 512)
    append(root / "seq/2", choose.randbytes(BLOCK))
    os.truncate(root / "seq/2", 0)
    append(root / "seq/3", choose.randbytes((root / "seq/3").stat().st_blocks * 512))
    if (root / "cnv").exists():
        with open(root / "cnv/0", "r+b") as file:
            file.seek(5000)
            file.write(b"conventional")


def fill_by_us(tree: ZonefsTree) -> None:
    choose = random.Random(12)
    tree.append("/seq/0", choose.randbytes(12288))
    tree.append("/seq/0", choose.randbytes(BLOCK))
    tree.append("/seq/1", choose.randbytes(8192))
    tree.truncate("/seq/1", tree.file("/seq/1").capacity_bytes)
    tree.append("/seq/2", choose.randbytes(BLOCK))
    tree.truncate("/seq/2", 0)
    tree.append("/seq/3", choose.randbytes(tree.file("/seq/3").capacity_bytes))
    if "cnv" in tree.groups:
        tree.write("/cnv/0", 5000, b"conventional", direct=False)


@pytest.mark.parametrize("features", ["", "aggr_cnv,uid=1000,gid=100,perm=604"])
def test_volumes_of_ours(drive: Drive, features: str, tmp_path: Path) -> None:
    """Made by us, mounted by the kernel; the same tree, before and after either side wrote."""
    program("mkzonefs", "-f", "-o", features, "-L", "lab", drive.path)
    program("zoned", "zonefs", "check", drive.path)
    with mounted(drive.path, tmp_path / "mnt") as root, offline(drive.path) as tree:
        assert kernel_tree(root) == our_tree(tree)
        assert kernel_statfs(root) == our_statfs(tree)
        assert ("/cnv" in kernel_tree(root)) == (drive.conventional > 1)
        fill_by_kernel(root)
        run("sync")
    with mounted(drive.path, tmp_path / "mnt") as root, offline(drive.path) as tree:
        seen = kernel_tree(root)
        assert seen == our_tree(tree)
        assert kernel_statfs(root) == our_statfs(tree)
        assert kernel_attributes(drive.path) == tree.attributes()
    with offline(drive.path) as tree:
        assert our_tree(tree) == seen
    program("mkzonefs", "-f", "-o", features, drive.path)
    with offline(drive.path, writable=True) as tree:
        fill_by_us(tree)
        written = our_tree(tree)
    with mounted(drive.path, tmp_path / "mnt") as root:
        seen = kernel_tree(root)
        if "cnv" in tree.groups:
            assert seen["/cnv/0"][-1][5000:5012] == b"conventional"  # type: ignore[index]  # bytes
    assert seen == written
    program("zoned", "zonefs", "check", drive.path)


def test_put_and_cat_commands(drive: Drive, tmp_path: Path) -> None:
    program("mkzonefs", "-f", drive.path)
    data = random.Random(5).randbytes(100_000)
    (tmp_path / "data").write_bytes(data)
    program("zoned", "zonefs", "put", "--pad", drive.path, "/seq/1", tmp_path / "data")
    with mounted(drive.path, tmp_path / "mnt") as root:
        unit = (root / "seq/1").stat().st_blksize
        assert (root / "seq/1").read_bytes() == data.ljust(-(-len(data) // unit) * unit, b"\0")
        refused = program("zoned", "zonefs", "put", "--pad", drive.path, "/seq/2", tmp_path / "data", status=8)
        assert "is mounted on" in refused.err
        refused = program("mkzonefs", "-f", drive.path, status=1)
        assert refused.err == f"{drive.path} is mounted\n"
    refused = program("mkzonefs", drive.path, status=1)
    assert refused.err.startswith(f"{drive.path} appears to contain an existing filesystem (zonefs)\n")


def test_repaired_super_block_mounts(drive: Drive, tmp_path: Path) -> None:
    program("mkzonefs", "-f", "-L", "keep", "-o", "perm=600", drive.path)
    with offline(drive.path, writable=True) as tree:
        tree.append("/seq/1", b"k" * BLOCK)
    with open_device(drive.path, writable=True) as device:
        raw = bytearray(device.read(0, BLOCK))
        raw[0x6C] = raw[0x60] = 1
        if not drive.conventional:
            from zoned_tools.device.base import ZoneOperation

            device.manage(ZoneOperation.RESET, 0)
        device.write(0, raw)
    assert run("mount", "-t", "zonefs", drive.path, tmp_path, check=False).returncode == 32
    program("zoned", "check", "--repair", drive.path, status=4)  # two bytes: what was there is a guess
    program("zoned", "check", "--repair", "--allow", "sb-crc", drive.path, status=1)
    with mounted(drive.path, tmp_path / "mnt") as root:
        assert (root / "seq/1").read_bytes() == b"k" * BLOCK
        assert (root / "seq/1").stat().st_mode == 0o100600


# -- the same operations on the kernel's files and on ours


def _outcome(call: Callable[[], int | None]) -> str | int | None:
    try:
        return call()
    except FileError as error:
        return error.errno_name
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _by_kernel(path: Path, offset: int, data: bytes, *, direct: bool, at_end: bool) -> int:
    flags = os.O_WRONLY | (os.O_DIRECT if direct else 0) | (os.O_APPEND if at_end else 0)
    file = os.open(path, flags)
    try:
        buffer = mmap.mmap(-1, max(len(data), 1))
        buffer.write(data)
        return os.pwritev(file, [memoryview(buffer)[: len(data)]], offset)
    finally:
        os.close(file)


def test_operations_agree(drive: Drive, tmp_path: Path) -> None:
    """Random operations: the same counts, errno and sizes; our side works on an emulated copy."""
    program("mkzonefs", "-f", drive.path)
    choose = random.Random(1729)
    path = str(tmp_path / "disk.img")
    with open_device(drive.path) as real:
        create_image(path, real.geometry, real.zones())
        raw = real.read(0, BLOCK)
    program("mkzonefs", "--uuid", "00000000-0000-4000-8000-000000000001", path)
    assert raw[:4] == b"SFOZ"
    counts = {True: 0, False: 0}
    with (
        mounted(drive.path, tmp_path / "mnt", "errors=repair") as root,
        open_image(path, writable=True) as image,
        offline(image, writable=True, errors="repair") as tree,
    ):
        files = [f"/seq/{n}" for n in range(3)] + (["/cnv/0"] if "cnv" in tree.groups else [])
        for step in range(250):
            name = choose.choice(files)
            entry = tree.stat(name)
            assert entry.capacity_bytes is not None
            capacity = entry.capacity_bytes
            if choose.random() < 0.2:
                size = choose.choice([0, 0, capacity, BLOCK, entry.size_bytes, capacity + BLOCK])
                what = f"step {step}: truncate {name} to {size}"
                theirs = _outcome(partial(os.truncate, root / name[1:], size))
                ours = _outcome(partial(tree.truncate, name, size))
            else:
                direct, at_end = choose.random() < 0.85, choose.random() < 0.1
                offset = choose.choice([*[entry.size_bytes] * 4, 0, 100, capacity - BLOCK, capacity])
                if choose.random() < 0.1:
                    offset = choose.randrange(capacity // BLOCK) * BLOCK
                length = choose.choice([BLOCK, 3 * BLOCK, 100, 512, MIB, capacity])
                data = choose.randbytes(16) * (length // 16 + 1)
                data = data[:length]
                what = f"step {step}: write {length} at {offset} of {name}, direct {direct}, append {at_end}"
                theirs = _outcome(partial(_by_kernel, root / name[1:], offset, data, direct=direct, at_end=at_end))
                ours = _outcome(partial(tree.write, name, offset, data, direct=direct, at_end=at_end))
            assert ours == theirs, what
            counts[isinstance(ours, str)] += 1
            for file in files:
                assert tree.stat(file).size_bytes == (root / file[1:]).stat().st_size, what
    assert min(counts.values()) > 20, counts


# -- limits and failing zones need null_blk


def test_explicit_open_agrees(tmp_path: Path) -> None:
    """States of zones and counters through opens, closes and truncates."""
    limits = {"conventional": 1, "zone_max_open": 2, "zone_max_active": 3}
    with devices.null_blk(size_mib=32, **limits) as disk:
        program("mkzonefs", disk.path)
        path = str(tmp_path / "disk.img")
        with open_device(disk.path) as real:
            create_image(path, real.geometry, real.zones())
        program("mkzonefs", path)
        with (
            mounted(disk.path, tmp_path / "mnt", "explicit-open") as root,
            open_image(path, writable=True) as image,
            offline(image, writable=True, explicit_open="1") as tree,
            open_device(disk.path) as real,
        ):

            def same() -> None:
                assert image.zones()["condition"].tolist() == real.zones()["condition"].tolist()
                assert kernel_attributes(disk.path) == tree.attributes()

            same()
            theirs = [os.open(root / f"seq/{n}", os.O_WRONLY | os.O_DIRECT) for n in range(2)]
            ours = [tree.open(f"/seq/{n}", writing=True) for n in range(2)]
            same()
            with pytest.raises(OSError, match="busy"):
                os.open(root / "seq/2", os.O_WRONLY)
            with pytest.raises(FileError) as refused:
                tree.open("/seq/2", writing=True)
            assert refused.value.errno == errno.EBUSY
            append(root / "seq/0", b"a" * BLOCK)
            tree.append("/seq/0", b"a" * BLOCK)
            same()
            os.close(theirs[1])
            tree.release(ours[1])
            same()
            os.truncate(root / "seq/0", 0)
            tree.truncate("/seq/0", 0)
            same()
            os.truncate(root / "seq/0", 4 * MIB)
            tree.truncate("/seq/0", 4 * MIB)
            same()
            os.close(theirs[0])
            tree.release(ours[0])
            same()


@pytest.mark.parametrize("policy", ["remount-ro", "zone-ro", "zone-offline", "repair"])
@pytest.mark.parametrize("condition", ["read_only", "offline"])
@pytest.mark.parametrize("asked", ["write", "read", "truncate"])
def test_error_policies_agree(policy: str, condition: str, asked: str, tmp_path: Path) -> None:
    """A zone fails while it is mounted; what the next requests return and leave."""
    with devices.null_blk(size_mib=24, conventional=1) as disk:
        program("mkzonefs", disk.path)
        path = str(tmp_path / "disk.img")
        with open_device(disk.path) as real:
            create_image(path, real.geometry, real.zones())
        program("mkzonefs", path)
        with (
            mounted(disk.path, tmp_path / "mnt", f"errors={policy}") as root,
            open_image(path, writable=True) as image,
            offline(image, writable=True, errors=policy) as tree,
        ):
            append(root / "seq/1", b"b" * (2 * BLOCK))
            tree.append("/seq/1", b"b" * (2 * BLOCK))
            disk.kill_zones(**{condition: [2]})
            image.machine.table["condition"][2] = ZoneCondition[condition.upper()]
            file = root / "seq/1"
            for _ in range(2):
                if asked == "truncate":
                    theirs = _outcome(lambda: os.truncate(file, 0))
                    ours = _outcome(lambda: tree.truncate("/seq/1", 0))
                elif asked == "write":
                    theirs = _outcome(lambda: _by_kernel(file, 2 * BLOCK, b"c" * BLOCK, direct=True, at_end=False))
                    ours = _outcome(lambda: tree.write("/seq/1", 2 * BLOCK, b"c" * BLOCK))
                else:
                    Path("/proc/sys/vm/drop_caches").write_text("3")
                    theirs = _outcome(lambda: len(_direct_read(file)))
                    ours = _outcome(lambda: len(tree.read("/seq/1", 0, 2 * BLOCK, direct=True)))
                assert ours == theirs
                status, entry = file.stat(), tree.stat("/seq/1")
                assert (entry.size_bytes, entry.mode) == (status.st_size, status.st_mode)
                assert tree.read_only == bool(os.statvfs(root).f_flag & os.ST_RDONLY)


def _direct_read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, 2 * BLOCK)
        return buffer[: os.preadv(file, [buffer], 0)]
    finally:
        os.close(file)


def test_dead_zones_at_mount(tmp_path: Path) -> None:
    with devices.null_blk(size_mib=48, conventional=4) as disk:
        program("mkzonefs", disk.path)
        with offline(disk.path, writable=True) as tree:
            for number in range(3):
                tree.append(f"/seq/{number}", b"d" * BLOCK)
        disk.kill_zones(read_only=[4], offline=[5])
        with mounted(disk.path, tmp_path / "mnt") as root, offline(disk.path) as tree:
            assert kernel_tree(root) == our_tree(tree)
            assert kernel_statfs(root) == our_statfs(tree)
            assert kernel_attributes(disk.path) == tree.attributes()
        program("mkzonefs", "-f", disk.path)
        with mounted(disk.path, tmp_path / "mnt") as root, offline(disk.path) as tree:
            assert kernel_tree(root) == our_tree(tree)
        report = program("zoned", "zonefs", "check", "--json", disk.path)
        found = json.loads(report.out)["devices"][0]["findings"]
        assert [f["where"]["files"] for f in found] == [["/seq/0"], ["/seq/1"]]


@devices.ON_OLD_KERNEL
def test_host_aware_on_an_old_kernel(tmp_path: Path) -> None:
    parameters = {"zbc": "aware", "dev_size_mb": 48, "zone_size_mb": 4, "zone_nr_conv": 3, "sector_size": 4096}
    with devices.scsi_debug(**parameters) as path:
        made = program("mkzonefs", "-o", "aggr_cnv", path)
        assert "  Host-aware device\n" in made.out
        with mounted(path, tmp_path / "mnt") as root, offline(path, old_root_size="1") as tree:
            assert kernel_tree(root) == our_tree(tree)
            assert kernel_statfs(root) == our_statfs(tree)


@contextmanager
def _reordered(disk: NullBlk, order: list[int], *, name: str = "lab-zonefs") -> Iterator[str]:
    """A device-mapper device with the zones of ``disk`` in another order."""
    devices.modprobe("dm-mod")
    size = disk.zone_sectors
    lines = [f"{at * size} {size} linear {disk.path} {zone * size}" for at, zone in enumerate(order)]
    run("dmsetup", "create", "--noudevsync", name, text="\n".join(lines) + "\n")
    try:
        run("dmsetup", "mknodes", name)
        yield os.path.realpath(f"/dev/mapper/{name}")
    finally:
        run("dmsetup", "remove", "--noudevsync", "--retry", name)


def test_conventional_zones_in_the_middle(tmp_path: Path) -> None:
    """Runs of conventional zones, on a mapped device, whose zones are reset one by one."""
    order = [0, 5, 1, 2, 6, 7, 3, 8, 4, 9]
    with devices.null_blk(size_mib=40, conventional=5) as disk, _reordered(disk, order) as path:
        for features in ("aggr_cnv", ""):
            program("mkzonefs", "-f", "-o", features, path)
            with mounted(path, tmp_path / "mnt") as root, offline(path) as tree:
                fill_by_kernel(root)
            with mounted(path, tmp_path / "mnt") as root, offline(path) as tree:
                seen = kernel_tree(root)
                assert seen == our_tree(tree)
                assert len(seen["/cnv"][-1]) == (3 if features else 4)  # type: ignore[arg-type]  # names
                assert kernel_statfs(root) == our_statfs(tree)
        assert program("mkzonefs", "-f", disk.path, status=1).err == f"{disk.path} is in use\n"
        before = run("blkzone", "report", path).stdout
        disk.kill_zones(read_only=[8])
        refused = program("mkzonefs", "-f", path, status=1)
        assert refused.err == f"{Path(path).name}: Reset zone 7 failed 5 (Input/output error)\n"
        after = run("blkzone", "report", path).stdout
        changed = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
        assert len(changed) == 1, "the other zones keep their data"
