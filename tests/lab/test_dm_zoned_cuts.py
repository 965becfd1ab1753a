"""The power fails below the kernel's own dm-zoned target, again and again: ``dmzadm --start`` brings it back."""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import Change, History, Seeds, content
from tests.lab import devices
from tests.lab.device_mapper import started
from tests.lab.devices import MIB, run
from tests.lab.programs import program
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.opening import open_device
from zoned_tools.device.zones import is_conventional, written_sectors
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

pytestmark = pytest.mark.lab(guest="target", **devices.MACHINE)

CUTS = 24
DRIVE = {"size_mib": 16, "zone_mib": 1, "conventional": 6}
SLOW = {"irqmode": 2, "completion_nsec": 2_000_000}
"""Each request takes two milliseconds, so that cuts meet commits in all their steps."""
COPY = "/dev/mapper/cut"
_BLKFLSBUF = 0x1261


@contextmanager
def frozen(name: str) -> Iterator[int]:
    """No request gets through a device-mapper device any more; yields the time from which on none did."""
    run("dmsetup", "suspend", "--noflush", "--nolockfs", name)
    try:
        yield time.monotonic_ns()
    finally:
        run("dmsetup", "resume", name)


def forget_pages(path: str) -> None:
    """What the page cache holds of a block device is read anew."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _BLKFLSBUF)
    finally:
        os.close(fd)


def copy_drive(source: str, target: str) -> None:
    """Content and write pointers, as they are now."""
    for path in (source, target):
        forget_pages(path)
    with open_device(source) as drive, open_device(target, writable=True) as copy:
        zones = drive.zones()
        copy.manage(ZoneOperation.RESET, DRIVE["conventional"], len(zones) - DRIVE["conventional"])
        lengths = np.where(is_conventional(zones), MIB, np.maximum(written_sectors(zones), 0) * 512)
        for number, length in enumerate(lengths.tolist()):
            if length:
                copy.write(number * MIB, drive.read(number * MIB, length))
        copy.flush()
    forget_pages(target)


class Writer(threading.Thread):
    """Writes, each time with a flush, while :attr:`go` is set; times are positions of the history."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.go = threading.Event()
        self.ends = False
        self._fd = os.open(path, os.O_RDWR | os.O_SYNC)
        size = os.lseek(self._fd, 0, os.SEEK_END) // LOGICAL_BLOCK_BYTES
        self.history = History(np.zeros(size, np.uint64))

    def run(self) -> None:
        choose, size = random.Random(6), len(self.history.initial)
        seed = 0
        while self.go.wait() and not self.ends:
            seed += 1
            block, count = choose.randrange(size - 8), choose.choice((1, 1, 2, 8))
            self.history.changes.append(Change(block, count, seed, time.monotonic_ns()))
            os.pwrite(self._fd, content(block, count, seed), block * LOGICAL_BLOCK_BYTES)
            self.history.flushes.append((time.monotonic_ns(), seed))
        os.close(self._fd)

    def stop(self) -> None:
        self.ends = True
        self.go.set()
        self.join()


def seeds_on(logical: str) -> Seeds:
    """Seed of every block of the logical device."""
    with open(logical, "rb", buffering=0) as disk:
        raw = bytearray()
        while piece := disk.read(MIB):
            raw += piece
    pairs = np.frombuffer(raw, "<u8").reshape(-1, LOGICAL_BLOCK_BYTES // 16, 2)
    seeds: Seeds = pairs[:, 0, 1].copy()
    assert (pairs[:, :, 1] == seeds[:, None]).all(), "a block is of several writes"
    return seeds


def start(drive: str) -> str:
    """``dmzadm --start``, with the repair that it asks for; what came of it."""
    done = program("dmzadm", "--start", drive, status=None)
    if done.status == 0:
        return "synchronized" if "metadata sets synchronized" in done.out else "started"
    assert done.status == 255, done.err
    assert "run dmzadm --repair" in done.err
    repaired = program("dmzadm", "--repair", drive, "--no-undo", status=None)
    if repaired.status:  # a log set of which a part was written: nothing but the kernel's habit speaks for set 0
        assert "it waits for --use-set N" in repaired.err, repaired.err
        program("dmzadm", "--repair", drive, "--no-undo", "--use-set=0", "--set=reclaim=move")
    program("dmzadm", "--start", drive)
    return "decided" if repaired.status else "repaired"


def test_the_kernels_target_comes_back_after_power_cuts() -> None:
    """Generations apart are brought together, what else a cut leaves is repaired, and nothing flushed is lost."""
    choose = random.Random(24)
    outcomes = {"started": 0, "synchronized": 0, "repaired": 0, "decided": 0}
    with devices.null_blk(**DRIVE, **SLOW) as disk, devices.null_blk(**DRIVE) as copy:
        program("dmzadm", "--format", disk.path, "--seq=2", "--label=cut")
        size = DRIVE["size_mib"] * MIB // 512
        run("dmsetup", "create", "powered", "--table", f"0 {size} linear {disk.path} 0")
        with started("/dev/mapper/powered") as logical:
            writer = Writer(logical)
            writer.start()
            try:
                for _ in range(CUTS):
                    writer.go.set()
                    time.sleep(choose.uniform(0.05, 0.25))
                    with frozen("powered") as cut:
                        writer.go.clear()
                        copy_drive(disk.path, copy.path)
                    outcomes[start(copy.path)] += 1
                    writer.history.verify(seeds_on(COPY), cut)
                    run("dmsetup", "remove", "--retry", "cut")
            finally:
                writer.stop()
        run("dmsetup", "remove", "--retry", "powered")
    assert outcomes["synchronized"], outcomes
