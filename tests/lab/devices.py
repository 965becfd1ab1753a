"""Zoned block devices of a lab kernel: made by its drivers, removed at the end. For use inside a guest."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
_NULLB = Path("/sys/kernel/config/nullb")

ZNS_ZONE_BYTES = 4 * MIB
ZNS_CAPACITY_BYTES = 3584 * 1024
ZNS_MAX_OPEN, ZNS_MAX_ACTIVE = 4, 6
ZNS_SIZE_BYTES = 64 * MIB
_ZNS_PROPERTIES = (
    f"zoned.zone_size={ZNS_ZONE_BYTES},zoned.zone_capacity={ZNS_CAPACITY_BYTES},"
    f"zoned.max_open={ZNS_MAX_OPEN},zoned.max_active={ZNS_MAX_ACTIVE},"
    "logical_block_size=4096,physical_block_size=4096"
)
MACHINE: dict[str, Any] = {
    "memory": "3G",
    "timeout": 1800,
    "files": {"zns.img": ZNS_SIZE_BYTES},
    "qemu_args": [
        *("-drive", "if=none,id=zns,file={out}/zns.img,format=raw,cache=unsafe"),
        *("-device", "nvme,serial=zns0,id=nvme"),
        *("-device", f"nvme-ns,drive=zns,bus=nvme,zoned=true,{_ZNS_PROPERTIES}"),
    ],
}
"""The guest of most lab tests, which has a ZNS namespace: arguments of ``@pytest.mark.lab``."""
ON_OLD_KERNEL = pytest.mark.lab(kernel="6.1", guest="old-kernel")
"""For tests of what later kernels no longer have, host-aware drives above all; all of them share a guest."""


def run(*words: object, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; with ``check`` a failure shows what it printed."""
    command = [str(word) for word in words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def modprobe(*words: object) -> None:
    run("modprobe", *words)


def wait_for(path: Path | str, seconds: float = 20) -> str:
    """Wait until the kernel has made a device node with a size."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        size = Path("/sys/block", Path(path).name, "size")
        if Path(path).exists() and size.exists() and int(size.read_text()):
            return str(path)
        time.sleep(0.05)
    raise TimeoutError(f"{path} did not appear")


@dataclass(frozen=True)
class NullBlk:
    """A zoned drive in the guest's memory."""

    path: str
    directory: Path
    zone_sectors: int

    def kill_zones(self, *, read_only: Sequence[int] = (), offline: Sequence[int] = ()) -> None:
        """Put zones into conditions that only a failing drive knows (not in Linux 6.1)."""
        for attribute, zones in (("zone_readonly", read_only), ("zone_offline", offline)):
            for zone in zones:
                (self.directory / attribute).write_text(str(zone * self.zone_sectors))


@contextmanager
def null_blk(*, size_mib: int, zone_mib: int = 4, conventional: int = 0, **attributes: int) -> Iterator[NullBlk]:
    """A host-managed null_blk drive; ``attributes`` are the driver's own (``blocksize``, ``zone_capacity``, ...)."""
    if not _NULLB.is_dir():
        modprobe("null_blk", "nr_devices=0")
    number = next(n for n in range(16) if not (_NULLB / f"nullb{n}").exists())
    directory = _NULLB / f"nullb{number}"
    directory.mkdir()
    settings = {
        "blocksize": 4096,
        "memory_backed": 1,
        "zoned": 1,
        "size": size_mib,
        "zone_size": zone_mib,
        "zone_nr_conv": conventional,
        **attributes,
    }
    try:
        for name, value in settings.items():
            (directory / name).write_text(str(value))
        (directory / "power").write_text("1")
        yield NullBlk(wait_for(f"/dev/nullb{number}"), directory, zone_mib * MIB // 512)
    finally:
        if (directory / "power").read_text().strip() == "1":
            (directory / "power").write_text("0")
        directory.rmdir()


@contextmanager
def regular_disk(*, size_mib: int, **attributes: int) -> Iterator[NullBlk]:
    """A regular disk in the guest's memory."""
    with null_blk(size_mib=size_mib, zoned=0, **attributes) as disk:
        yield disk


@contextmanager
def scsi_debug(**parameters: object) -> Iterator[str]:
    """A drive of the SCSI test driver; yields its path. One at a time."""
    modprobe("sd_mod")
    modprobe("scsi_debug", "delay=0", *(f"{name}={value}" for name, value in parameters.items()))
    try:
        yield wait_for(_scsi_disk())
    finally:
        _remove_module("scsi_debug")


def _scsi_disk(seconds: float = 20) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = list(Path("/sys/bus/pseudo/drivers/scsi_debug").glob("adapter0/host*/target*/*:*/block/*"))
        if found:
            return f"/dev/{found[0].name}"
        time.sleep(0.05)
    raise TimeoutError("scsi_debug shows no disk")


def _remove_module(name: str, seconds: float = 20) -> None:
    """Unload a module; the kernel lets its devices go a moment after their last user."""
    end = time.monotonic() + seconds
    while run("modprobe", "-r", name, check=time.monotonic() > end).returncode:
        time.sleep(0.1)


@contextmanager
def zns_namespace() -> Iterator[str]:
    """The namespace of :data:`MACHINE`, all zones empty."""
    modprobe("nvme")
    path = wait_for("/dev/nvme0n1")
    run("blkzone", "reset", path)
    yield path
