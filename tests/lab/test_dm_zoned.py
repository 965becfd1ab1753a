"""dm-zoned against the kernel's target: what we format it starts, what it writes we read, what we write it reads."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab import devices
from tests.lab.device_mapper import (
    assert_clean,
    assert_same_content,
    check,
    digests,
    dump,
    fio,
    make_tree,
    mounted,
    reclaim,
    restore_dump,
    started,
)
from tests.lab.devices import MIB, run
from tests.lab.programs import program
from zoned_tools.device.opening import open_devices
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, Journey, Mapper, Target
from zoned_tools.formats.dm_zoned import LAYOUT
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper

pytestmark = pytest.mark.lab(guest="target", **devices.MACHINE)

SMALL = {"size_mib": 128, "zone_mib": 1, "conventional": 24}
"""A drive with many zones and few bytes, for proofs that compare all content."""
ZONE_BLOCKS = MIB // LOGICAL_BLOCK_BYTES


@contextmanager
def _reference_drive() -> Iterator[str]:
    with devices.null_blk(size_mib=1024, zone_mib=4, conventional=32) as disk:
        yield disk.path


@contextmanager
def _small_drive() -> Iterator[str]:
    with devices.null_blk(**SMALL) as disk:
        yield disk.path


def _scsi_drive(model: str) -> AbstractContextManager[str]:
    return devices.scsi_debug(zbc=model, dev_size_mb=512, zone_size_mb=4, zone_nr_conv=16, sector_size=4096)


DRIVES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "null_blk": _reference_drive,
    "scsi-managed": lambda: _scsi_drive("managed"),
    "scsi-aware": lambda: _scsi_drive("aware"),
}


@pytest.fixture
def small_drive() -> Iterator[str]:
    with _small_drive() as path:
        yield path


@pytest.fixture(params=["single", "multi"])
def members(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Devices of a target: one zoned drive, or a regular one (with a runt) and two zoned ones."""
    with ExitStack() as stack:
        if request.param == "single":
            yield (stack.enter_context(_small_drive()),)
            return
        regular = stack.enter_context(devices.regular_disk(size_mib=18))
        first = stack.enter_context(devices.null_blk(size_mib=48, zone_mib=1))
        second = stack.enter_context(devices.null_blk(size_mib=32, zone_mib=1, conventional=2))
        yield (regular.path, first.path, second.path)


def live_with_ext4(drive: str, directory: Path) -> None:
    """Start a fresh target, make ext4 and use it, stop; start again and find everything there."""
    facts = assert_clean(drive)
    assert facts["mapped_chunks"] == 0
    with started(drive) as logical:
        run("mkfs.ext4", "-q", "-F", "-L", "labfs", logical)
        with mounted(logical, directory) as root:
            tree = make_tree(root, seed=1)
        with mounted(logical, directory) as root:
            assert digests(root) == tree
            tree = make_tree(root / "more", seed=2)
        run("e2fsck", "-f", "-n", logical)
    facts = assert_clean(drive)
    assert facts["mapped_chunks"] > 0
    with started(drive) as logical, mounted(logical, directory) as root:
        assert digests(root / "more") == tree
    assert_clean(drive)


@pytest.mark.parametrize(
    "kind",
    # Kernels from 6.8 on show host-aware drives as regular ones.
    [
        "null_blk",
        "scsi-managed",
        pytest.param("scsi-aware", marks=devices.ON_OLD_KERNEL),
    ],
)
def test_formatted_drive_starts(kind: str, tmp_path: Path) -> None:
    with DRIVES[kind]() as drive:
        program("dmzadm", "--format", drive, "--label=lab-label")
        size = int(program("zoned", "table", drive).out.split()[1])
        assert program("zoned", "table", drive).out == f"0 {size} zoned {drive}\n"
        live_with_ext4(drive, tmp_path / "mnt")
        pair = dump(drive, tmp_path / "copy")
        assert_clean(pair)
        with started(drive) as logical:
            assert int(run("blockdev", "--getsz", logical).stdout) == size
            assert_same_content(logical, pair)


def test_formatted_image_starts(tmp_path: Path) -> None:
    """An image that we make and format becomes a real drive through ``zbd restore``."""
    pair = tmp_path / "copy_zone_data.dump"
    program("zoned", "image", "create", pair, "--size=1G", "--zone-size=4M", "--conventional=32")
    program("dmzadm", "--format", pair)
    assert_clean(str(pair))
    with _reference_drive() as drive:
        restore_dump(tmp_path / "copy", drive)
        live_with_ext4(drive, tmp_path / "mnt")


def test_start_and_stop(small_drive: str) -> None:
    program("dmzadm", "--format", small_drive, "--label=named")
    devices.modprobe("dm-zoned")
    program("dmzadm", "--start", small_drive)
    try:
        assert run("dmsetup", "table", "named").stdout.split()[2] == "zoned"
        for operation in ("--format", "--repair"):
            refused = program("dmzadm", operation, small_drive, status=None)
            assert refused.status == 1
            assert "in use" in refused.err
            assert len(refused.err.splitlines()) == 1
        refused = program("dmzadm", "--check", small_drive, status=None)
        assert (refused.status, "(named)" in refused.err) == (1, True)
        assert "already started as named" in program("dmzadm", "--start", small_drive, status=None).err
        live = program("zoned", "check", "--json", small_drive)
        assert "what is read is live" in live.err
        assert "(named)" in json.loads(live.out)["devices"][0]["facts"]["live"][small_drive]
        random_zones = run("dmsetup", "status", "named").stdout.split(" random")[0].split()[-1]
        figures = program("zoned", "metrics", small_drive).out
        for name, value in zip(("free_zones", "zones"), random_zones.split("/"), strict=True):
            assert f'zoned_dm_zoned_{name}{{device="{small_drive}",label="named",kind="random"}} {value}\n' in figures
        assert json.loads(program("zoned", "inspect", "--json", small_drive).out)["running"]["name"] == "named"
        fio("/dev/mapper/named", seed=3, amount="1m")
    finally:
        program("dmzadm", "--stop", small_drive)
    assert not Path("/dev/mapper/named").exists()
    assert_clean(small_drive)
    assert program("dmzadm", "--stop", small_drive, status=None).status == 1


def test_unusable_drives_are_refused() -> None:
    def refused(drive: str) -> str:
        result = program("dmzadm", "--format", drive, status=None)
        assert result.status
        assert len(result.err.splitlines()) == 1
        return result.err

    with devices.zns_namespace() as drive:
        assert "capacity" in refused(drive)
    with devices.null_blk(size_mib=64, zone_capacity=3, conventional=8) as disk:
        assert "capacity" in refused(disk.path)
    with devices.null_blk(size_mib=64, conventional=2) as disk:
        assert "random zones" in refused(disk.path)
    with devices.regular_disk(size_mib=16) as disk:
        assert "zoned" in refused(disk.path)


def test_existing_content_is_not_overwritten(small_drive: str, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", "-F", "-b", "4096", small_drive, "4096")  # inside the conventional zones
    refused = program("dmzadm", "--format", small_drive, status=None)
    assert refused.status == 1
    assert "ext4" in refused.err
    with mounted(small_drive, tmp_path / "mnt"):
        refused = program("dmzadm", "--format", "--force", small_drive, status=None)
        assert refused.status == 1
        assert f"mounted on {tmp_path / 'mnt'}" in refused.err
    program("dmzadm", "--format", small_drive, "--force")
    assert_clean(small_drive)


def work_by_kernel(logical: str, size_blocks: int) -> None:
    """Fill cache and random zones, have them reclaimed, overwrite what is in sequential zones, discard."""
    fio(logical, seed=1, amount="10m")
    reclaim()
    fio(logical, seed=2, block="4k", amount="2m")
    choose = random.Random(5)
    for _ in range(12):
        block, count = choose.randrange(size_blocks - 600), choose.randrange(1, 600)
        run("blkdiscard", "-o", block * LOGICAL_BLOCK_BYTES, "-l", count * LOGICAL_BLOCK_BYTES, logical)
    reclaim()
    # Every chunk is in a sequential zone now: a few overwrites, too few for reclaim to begin before an idle target
    # does after ten seconds, leave buffer zones for who stops it at once.
    with open(logical, "r+b", buffering=0) as disk:
        for block in range(1, 5 * ZONE_BLOCKS, ZONE_BLOCKS):
            os.pwrite(disk.fileno(), block.to_bytes(8, "little") * 512, block * LOGICAL_BLOCK_BYTES)
        os.fsync(disk.fileno())


def test_export_is_what_the_kernel_wrote(members: tuple[str, ...], tmp_path: Path) -> None:
    program("dmzadm", "--format", *members)
    for _ in range(4):  # where the machine is slow, idle reclaim may be done with all buffers before the target stops
        with started(*members) as logical:
            size_blocks = int(run("blockdev", "--getsize64", logical).stdout) // LOGICAL_BLOCK_BYTES
            work_by_kernel(logical, size_blocks)
        facts = assert_clean(*members)
        if facts["buffered_chunks"]:
            break
    assert facts["mapped_chunks"] > 30
    assert facts["buffered_chunks"] > 0
    with open_devices(members[-1:]) as (drive,):
        zones = drive.zones()
        assert (zones["condition"] > ZoneCondition.EMPTY).sum() > 5, "reclaim has filled sequential zones"
    exported = tmp_path / "exported"
    program("zoned", "export", *members, "-o", exported)
    with started(*members) as logical:
        run("cmp", exported, logical)
        reclaim()
        run("cmp", exported, logical)
    assert_clean(*members)


def test_export_of_a_crash_copy_is_what_the_kernel_makes_of_it(small_drive: str, tmp_path: Path) -> None:
    """A raw copy of a drive in use, as after a power cut: we read what the kernel's target reads."""
    program("dmzadm", "--format", small_drive)
    with started(small_drive) as logical:
        size_blocks = int(run("blockdev", "--getsize64", logical).stdout) // LOGICAL_BLOCK_BYTES
        work_by_kernel(logical, size_blocks)
        fio(logical, seed=9, block="4k", amount="256k", end_fsync=0, fsync=0)
        Path("/proc/sys/vm/drop_caches").write_text("3")
        pair = dump(small_drive, tmp_path / "crash")
    assert check(pair)["verdict"] == "clean", "a power cut leaves no error"
    exported = tmp_path / "exported"
    program("zoned", "export", pair, "-o", exported)
    with _small_drive() as copy:
        restore_dump(tmp_path / "crash", copy)
        with started(copy) as logical:
            run("cmp", exported, logical)


@pytest.mark.parametrize(("block", "code"), [(0, "sb-bad-magic"), (1, "sets-content-differ"), (256, "sb-bad-magic")])
def test_kernel_starts_what_repair_mended(small_drive: str, tmp_path: Path, block: int, code: str) -> None:
    """A super block or a mapping table overwritten on a drive that the kernel has used: repair loses nothing."""
    program("dmzadm", "--format", small_drive)
    with started(small_drive) as logical:
        fio(logical, seed=6, amount="4m")
        run("sync")
    exported = tmp_path / "exported"
    program("zoned", "export", small_drive, "-o", exported)
    run("dd", "if=/dev/zero", f"of={small_drive}", "bs=4096", "count=1", f"seek={block}", "oflag=direct")
    damaged = check(small_drive)
    assert damaged["verdict"] == "errors"
    assert f"dm-zoned.{code}" in {finding["id"] for finding in damaged["findings"]}
    program("dmzadm", "--repair", small_drive)
    assert_clean(small_drive)
    with started(small_drive) as logical:
        run("cmp", exported, logical)


class MapperModel:
    """Writes and discards through our mapper, and what the logical device must contain then."""

    def __init__(self, mapper: Mapper, expected: Path, seed: int) -> None:
        self._mapper = mapper
        self._choose = random.Random(seed)
        self._fd = os.open(expected, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._fd, mapper.size_blocks * LOGICAL_BLOCK_BYTES)

    def work(self, steps: int) -> None:
        size = self._mapper.size_blocks
        at = 0
        for step in range(steps):
            count = self._choose.choice([1, 1, 3, 16, 64])
            at = at + count if self._choose.random() < 0.3 and at + 128 < size else self._choose.randrange(size - 64)
            offset, length = at * LOGICAL_BLOCK_BYTES, count * LOGICAL_BLOCK_BYTES
            if self._choose.random() < 0.1:
                self._mapper.discard(at, count)
                os.pwrite(self._fd, bytes(length), offset)
            else:
                data = self._choose.randbytes(512) * (length // 512)
                self._mapper.write(at, data)
                os.pwrite(self._fd, data, offset)
            if step % 100 == 99:
                self._mapper.flush()

    def close(self) -> None:
        self._mapper.close()
        os.close(self._fd)


def write_with_mapper(members: tuple[str, ...], expected: Path, seed: int, steps: int = 600) -> None:
    with open_devices(members, writable=True) as opened:
        settings = LAYOUT.parse_settings({}, Journey.LOGICAL)
        model = MapperModel(open_mapper(Target("dm-zoned", opened), writable=True, settings=settings), expected, seed)
        model.work(steps)
        model.close()


def test_kernel_reads_what_the_mapper_wrote(members: tuple[str, ...], tmp_path: Path) -> None:
    """Our mapper, the kernel and our mapper again take turns on a real drive."""
    expected = tmp_path / "expected"
    program("dmzadm", "--format", *members)
    write_with_mapper(members, expected, seed=1)
    assert assert_clean(*members)["buffered_chunks"] > 0
    with started(*members) as logical:
        run("cmp", expected, logical)
        reclaim()
        run("cmp", expected, logical)
        fio(logical, seed=4, block="4k", amount="2m")
        run("cp", "--sparse=always", logical, expected)
    assert_clean(*members)
    write_with_mapper(members, expected, seed=2, steps=300)
    assert_clean(*members)
    with started(*members) as logical:
        run("cmp", expected, logical)


def test_kernel_reads_what_the_mapper_wrote_to_an_image(small_drive: str, tmp_path: Path) -> None:
    pair, expected = tmp_path / "copy_zone_data.dump", tmp_path / "expected"
    program(
        "zoned", "image", "create", pair, f"--size={SMALL['size_mib'] * MIB}", "--zone-size=1M", "--conventional=24"
    )
    program("dmzadm", "--format", pair)
    write_with_mapper((str(pair),), expected, seed=3)
    assert_clean(str(pair))
    restore_dump(tmp_path / "copy", small_drive)
    assert_clean(small_drive)
    with started(small_drive) as logical:
        run("cmp", expected, logical)
        reclaim()
        run("cmp", expected, logical)
    assert_clean(small_drive)


# -- offline work on targets


def used_by_kernel(drive: str) -> None:
    """A target with chunks of all kinds: buffered, in random zones, emptied."""
    program("dmzadm", "--format", drive, "--label=offline")
    with started(drive) as logical:
        size_blocks = int(run("blockdev", "--getsize64", logical).stdout) // LOGICAL_BLOCK_BYTES
        work_by_kernel(logical, size_blocks)
        run("blkdiscard", "-o", 20 * MIB, "-l", 8 * MIB, logical)


def exported(path: Path, *members: str) -> Path:
    program("zoned", "export", *members, "--force", "-o", path)
    return path


@pytest.mark.parametrize("cache_mib", [26, 37])
def test_attached_and_detached(small_drive: str, cache_mib: int, tmp_path: Path) -> None:
    """The kernel starts what was attached, reads every block right, writes to it; so it does after detaching."""
    used_by_kernel(small_drive)
    before = exported(tmp_path / "before", small_drive)
    with devices.regular_disk(size_mib=cache_mib) as disk:
        cache = disk.path
        program("zoned", "dm-zoned", "attach", cache, small_drive, "--no-undo")
        assert check(cache, small_drive)["verdict"] == "clean"
        assert program("zoned", "check", small_drive, status=None).status == 8
        with started(cache, small_drive) as logical:
            run("cmp", before, logical)
            assert " cache " in run("dmsetup", "status", "lab").stdout
            refused = program("zoned", "dm-zoned", "detach", cache, small_drive, status=None)
            assert refused.status == 8
            size_blocks = int(run("blockdev", "--getsize64", logical).stdout) // LOGICAL_BLOCK_BYTES
            work_by_kernel(logical, size_blocks)
        now = exported(tmp_path / "now", cache, small_drive)
        with started(cache, small_drive) as logical:
            run("cmp", now, logical)
        program("zoned", "dm-zoned", "detach", cache, small_drive, "--no-undo")
        assert check(small_drive)["verdict"] == "clean"
        with started(small_drive) as logical:
            run("cmp", now, logical)
            fio(logical, seed=7, amount="1m")
        assert check(small_drive)["verdict"] == "clean"


def test_freed_and_compacted(small_drive: str, tmp_path: Path) -> None:
    used_by_kernel(small_drive)
    before = exported(tmp_path / "before", small_drive)
    assert "unmapped" in program("zoned", "dm-zoned", "free", small_drive).out
    with started(small_drive) as logical:
        run("cmp", before, logical)
    program("zoned", "dm-zoned", "free", "--compact", small_drive, "--no-undo")
    assert_clean(small_drive)
    figures = program("zoned", "metrics", small_drive).out.splitlines()
    ours = [line for line in figures if line.startswith("zoned_dm_zoned_free_zones{") and 'kind="random"' in line]
    with started(small_drive) as logical:
        run("cmp", before, logical)
        random_zones = run("dmsetup", "status", "lab").stdout.split(" random")[0].split()[-1]
        free, total = map(int, random_zones.split("/"))
        # An idle target goes on with the reclaim by itself.
        assert float(ours[0].split()[-1]) <= free <= total
        fio(logical, seed=8, amount="2m")
    assert check(small_drive)["verdict"] == "clean"


def test_imported(members: tuple[str, ...], tmp_path: Path) -> None:
    program("dmzadm", "--format", *members)
    raw = tmp_path / "raw"
    choose = random.Random(11)
    with open(raw, "wb") as file:
        file.truncate(60 * MIB)
        for _ in range(60):
            os.pwrite(file.fileno(), choose.randbytes(choose.choice((700, 5000, 900000))), choose.randrange(58 * MIB))
    program("zoned", "import", "--verify", raw, *members)
    assert_clean(*members)
    with started(*members) as logical:
        run("cmp", "-n", 60 * MIB, raw, logical)
        fio(logical, seed=9, amount="2m")
        reclaim()
    assert check(*members)["verdict"] == "clean"


def test_started_after_a_cut_between_the_super_blocks(small_drive: str, tmp_path: Path) -> None:
    """The primary set is one commit behind: it gets that commit before the kernel writes into it."""
    program("dmzadm", "--format", small_drive, "--label=cut")
    with started(small_drive) as logical:
        fio(logical, seed=1, amount="2m")
    older = primary_set(small_drive)
    with started(small_drive) as logical:
        fio(logical, seed=2, amount="2m")
    before = exported(tmp_path / "before", small_drive)
    with open(small_drive, "r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), older, 0)
        os.fsync(disk.fileno())
    run("blockdev", "--flushbufs", small_drive)
    assert check(small_drive)["facts"]["needs_sync"] is True
    assert program("dmzadm", "--start", "--no-sync", small_drive, status=None).status == 255
    said = program("dmzadm", "--start", small_drive).out
    try:
        assert "cut: metadata sets synchronized (generation " in said
        run("cmp", before, "/dev/mapper/cut")
    finally:
        program("dmzadm", "--stop", small_drive)
    assert check(small_drive)["facts"]["needs_sync"] is False
    for _ in range(2):
        with started(small_drive) as logical:
            run("cmp", before, logical)


def primary_set(drive: str) -> bytes:
    """The whole primary set, as it is now."""
    with open(drive, "rb", buffering=0) as disk:
        return os.pread(disk.fileno(), 130 * LOGICAL_BLOCK_BYTES, 0)
