"""The device layer and ``zoned report`` on real kernel devices, beside blkzone and zbd."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.lab import devices
from tests.lab.devices import MIB, run
from tests.lab.programs import program
from zoned_tools.device.base import Device, Geometry, ZoneOperation
from zoned_tools.device.block import BlockDevice
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.machine import DriveFamily
from zoned_tools.device.opening import open_device
from zoned_tools.device.zones import Model, ZoneCondition, ZoneTable, ZoneType, wp_is_valid
from zoned_tools.errors import BusyError, DeviceError

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)

ZONE_BYTES = 4 * MIB
ZONE_SECTORS = ZONE_BYTES // 512
REFUSED_BY_DRIVE = (errno.EIO, errno.EREMOTEIO)
"""A SCSI drive's refusal is EREMOTEIO; since zone write plugging (Linux 6.10) the block layer refuses most of it."""


@dataclass(frozen=True)
class Drive:
    """A device of the lab kernel and what is known about it from its making."""

    path: str
    geometry: Geometry
    family: DriveFamily
    conventional: int = 2
    read_only: tuple[int, ...] = ()
    offline: tuple[int, ...] = ()

    @property
    def sequential(self) -> list[int]:
        """Full-size sequential zones that are neither read-only nor offline."""
        whole = self.geometry.size_bytes // ZONE_BYTES
        return [z for z in range(self.conventional, whole) if z not in self.read_only + self.offline]


def _geometry(model: Model, size_bytes: int, block_bytes: int, limits: tuple[int, int], vendor: str) -> Geometry:
    return Geometry(
        model,
        size_bytes,
        ZONE_BYTES,
        -(-size_bytes // ZONE_BYTES),
        block_bytes,
        block_bytes,
        block_bytes,
        *limits,
        vendor,
    )


@contextmanager
def _small_capacity() -> Iterator[Drive]:
    settings = {"blocksize": 512, "zone_capacity": 3, "zone_max_open": 4, "zone_max_active": 6}
    with devices.null_blk(size_mib=64, conventional=2, **settings) as disk:
        yield Drive(disk.path, _geometry(Model.HOST_MANAGED, 64 * MIB, 512, (4, 6), "Unknown"), DriveFamily.NULL_BLK)


@contextmanager
def _dead_zones() -> Iterator[Drive]:
    with devices.null_blk(size_mib=64, conventional=2) as disk:
        run("dd", "if=/dev/urandom", f"of={disk.path}", "bs=4096", "count=3", f"seek={9 * 1024}", "oflag=direct")
        disk.kill_zones(read_only=[9], offline=[10])
        geometry = _geometry(Model.HOST_MANAGED, 64 * MIB, 4096, (0, 0), "Unknown")
        yield Drive(disk.path, geometry, DriveFamily.NULL_BLK, read_only=(9,), offline=(10,))


@contextmanager
def _scsi(model: str) -> Iterator[Drive]:
    parameters = {"zbc": model, "dev_size_mb": 62, "zone_size_mb": 4, "zone_nr_conv": 2, "sector_size": 4096}
    with devices.scsi_debug(**parameters, zone_max_open=4) as path:
        kind = Model.HOST_MANAGED if model == "managed" else Model.HOST_AWARE
        revision = Path("/sys/block", Path(path).name, "device/rev").read_text().strip()
        geometry = _geometry(kind, 62 * MIB, 4096, (4 if model == "managed" else 0, 0), f"Linux scsi_debug {revision}")
        yield Drive(path, geometry, DriveFamily.SCSI)


@contextmanager
def _zns() -> Iterator[Drive]:
    limits = (devices.ZNS_MAX_OPEN, devices.ZNS_MAX_ACTIVE)
    with devices.zns_namespace() as path:
        geometry = _geometry(Model.HOST_MANAGED, devices.ZNS_SIZE_BYTES, 4096, limits, "QEMU NVMe Ctrl ")
        yield Drive(path, geometry, DriveFamily.NVME, conventional=0)


MAKERS: dict[str, Callable[[], AbstractContextManager[Drive]]] = {
    "null_blk-small-capacity": _small_capacity,
    "null_blk-dead-zones": _dead_zones,
    "scsi-managed-runt": lambda: _scsi("managed"),
    "nvme-zns": _zns,
    "scsi-aware-runt": lambda: _scsi("aware"),
}


@pytest.fixture(
    scope="module",
    # Kernels from 6.8 on show host-aware drives as regular ones.
    params=[pytest.param(n, marks=devices.ON_OLD_KERNEL) if "aware" in n else n for n in MAKERS],
)
def device(request: pytest.FixtureRequest) -> Iterator[Drive]:
    with ExitStack() as stack:
        yield stack.enter_context(MAKERS[request.param]())


@pytest.fixture
def drive(device: Drive) -> Drive:
    """The device with every zone that can be reset empty."""
    run("blkzone", "reset", device.path)
    return device


@pytest.fixture
def used_drive(drive: Drive) -> Drive:
    """Zones in every condition, brought about by other tools than ours."""
    implicit, explicit, closed, finished, filled = drive.sequential[:5]
    with BlockDevice(drive.path) as opened:
        capacity = opened.zones(filled, 1)["capacity_sectors"][0] * 512

    def write(zone: int, length_bytes: int) -> None:
        blocks = ["bs=4096", f"count={length_bytes // 4096}", f"seek={zone * ZONE_BYTES // 4096}"]
        run("dd", "if=/dev/urandom", f"of={drive.path}", *blocks, "oflag=direct", "conv=notrunc")

    def manage(operation: str, zone: int) -> None:
        run("blkzone", operation, "-o", zone * ZONE_SECTORS, "-l", ZONE_SECTORS, drive.path)

    write(filled, int(capacity))
    write(closed, 20480)
    manage("close", closed)
    write(finished, 4096)
    manage("finish", finished)
    manage("open", explicit)
    write(implicit, 8192)
    if drive.conventional:
        write(1, 4096)
    return drive


def states(table: ZoneTable) -> list[tuple[int, int, int | None]]:
    """What of a table is defined: condition, non-sequential flag, write pointer."""
    valid = wp_is_valid(table)
    return [
        (int(row["condition"]), int(row["non_seq"]), int(row["wp_sector"]) if ok else None)
        for row, ok in zip(table, valid, strict=True)
    ]


def test_geometry(device: Drive) -> None:
    with BlockDevice(device.path) as opened:
        assert opened.geometry == device.geometry
        table = opened.zones()
    assert (table["type"] == ZoneType.CONVENTIONAL).sum() == device.conventional
    assert int(table["start_sector"][-1] + table["length_sectors"][-1]) * 512 == device.geometry.size_bytes


REPORTS: dict[str, tuple[list[str], list[str]]] = {
    "blkzone": (["--format", "blkzone"], ["blkzone", "report"]),
    "blkzone range": (
        ["--format", "blkzone", "-o", "30000", "-c", "5"],
        ["blkzone", "report", "-o", "30000", "-c", "5"],
    ),
    "zbd": (["--format", "zbd"], ["zbd", "report"]),
    "zbd with information": (["--format", "zbd", "-i"], ["zbd", "report", "-i"]),
    "csv": (["--format", "csv"], ["zbd", "report", "-csv"]),
}
"""Options of ``zoned report``, and the command that prints the same."""


def test_reports_are_the_reference_reports(used_drive: Drive) -> None:
    expected = {name: run(*theirs, used_drive.path).stdout for name, (_, theirs) in REPORTS.items()}
    assert all(expected.values())
    for name, (options, _) in REPORTS.items():
        assert program("zoned", "report", used_drive.path, *options).out == expected[name], name
    installed = Path(sys.executable).with_name("zoned")
    assert run(installed, "report", "--format", "blkzone", used_drive.path).stdout == expected["blkzone"]


def test_drive_is_listed_and_managed(drive: Drive) -> None:
    (listed,) = [d for d in json.loads(program("zoned", "list", "--json").out)["devices"] if d["device"] == drive.path]
    assert listed["model"] == drive.geometry.model
    (probed,) = json.loads(program("zoned", "probe", "--json", drive.path, status=None).out)["devices"]
    assert (probed["model"], probed["emulated"], probed["layout"]) == (drive.geometry.model, False, None)
    zone = drive.sequential[1]
    for operation, condition in (
        ("open", ZoneCondition.EXPLICIT_OPEN),
        ("finish", ZoneCondition.FULL),
        ("reset", ZoneCondition.EMPTY),
    ):
        program("zoned", "zone", operation, "--zone", zone, drive.path)
        with BlockDevice(drive.path) as opened:
            assert opened.zones(zone, 1)["condition"][0] == condition


def test_image_of_a_dump_is_the_drive(used_drive: Drive, tmp_path: Path) -> None:
    """What zbd dumps opens as the same drive: the same zones, the same bytes, the same report."""
    if used_drive.read_only:  # zbd cannot dump such a drive, it has no write pointer to stop at
        assert run("zbd", "dump", "-d", tmp_path, "-f", "drive", used_drive.path, check=False).returncode
        return
    run("zbd", "dump", "-d", tmp_path, "-f", "drive", used_drive.path)
    pair = str(tmp_path / "drive_zone_data.dump")
    with BlockDevice(used_drive.path) as real, open_image(pair) as image:
        assert image.geometry == real.geometry
        assert (image.zones() == real.zones()).all()
        table = real.zones()
        ends = np.where(wp_is_valid(table), table["wp_sector"], table["start_sector"] + table["capacity_sectors"])
        for start, end in zip(table["start_sector"].tolist(), ends.tolist(), strict=True):
            length = (end - start) * 512
            assert image.read(start * 512, length) == real.read(start * 512, length), f"zone at sector {start}"
    expected = run("blkzone", "report", used_drive.path).stdout
    assert program("zoned", "report", pair, "--format", "blkzone").out == expected


def test_write_pointer_writes(drive: Drive) -> None:
    zone = drive.sequential[3]
    start = zone * ZONE_BYTES
    data = random.Random(zone).randbytes(2 * MIB + 12288)
    with open_device(drive.path, writable=True) as opened:
        assert not opened.emulated
        opened.write(start, data)
        opened.write(start + len(data), data[:4096])
        opened.flush()
        row = opened.zones(zone, 1)[0]
        assert row["condition"] == ZoneCondition.IMPLICIT_OPEN
        assert (int(row["wp_sector"]) - zone * ZONE_SECTORS) * 512 == len(data) + 4096
        assert opened.read(start, len(data)) == data
        assert opened.read(start + 1234567, 89) == data[1234567 : 1234567 + 89], "unaligned"
        with pytest.raises(DeviceError) as unaligned:
            opened.write(start + len(data) + 4096, b"x" * 100)
        assert unaligned.value.errno == errno.EINVAL
        capacity = int(row["capacity_sectors"]) * 512
        opened.write(start + len(data) + 4096, bytes(capacity - len(data) - 4096))
        assert opened.zones(zone, 1)["condition"][0] == ZoneCondition.FULL
        with pytest.raises(DeviceError):
            opened.write(drive.geometry.size_bytes, bytes(4096))


def test_write_off_the_write_pointer(drive: Drive) -> None:
    zone = drive.sequential[2]
    with open_device(drive.path, writable=True) as opened:
        before = opened.zones()
        if drive.geometry.model is Model.HOST_AWARE:
            opened.write(zone * ZONE_BYTES + 8192, b"a" * 4096)
            row = opened.zones(zone, 1)[0]
            assert row["non_seq"] == 1
            assert int(row["wp_sector"]) == zone * ZONE_SECTORS + 24
            return
        with pytest.raises(DeviceError) as refused:
            opened.write(zone * ZONE_BYTES + 8192, b"a" * 4096)
        assert refused.value.errno in REFUSED_BY_DRIVE
        assert drive.path in str(refused.value)
        assert states(opened.zones()) == states(before)


def test_conventional_zones(drive: Drive) -> None:
    if not drive.conventional:
        with open_device(drive.path) as opened:
            assert (opened.zones()["type"] == ZoneType.SEQ_REQUIRED).all()
        return
    with open_device(drive.path, writable=True) as opened:
        for offset in (ZONE_BYTES + 65536, 4096, ZONE_BYTES + 65536):
            opened.write(offset, offset.to_bytes(8, "little") * 1024)
            assert opened.read(offset, 8192) == offset.to_bytes(8, "little") * 1024
        opened.discard(ZONE_BYTES + 65536, 4096)
        assert opened.read(ZONE_BYTES + 65536, 8192) == bytes(4096) + (ZONE_BYTES + 65536).to_bytes(8, "little") * 512
        with pytest.raises(DeviceError) as refused:
            opened.manage(ZoneOperation.RESET, 0)
        assert refused.value.errno in REFUSED_BY_DRIVE


def test_dead_zones(drive: Drive) -> None:
    with open_device(drive.path, writable=True) as opened:
        for zone in drive.read_only:
            assert opened.zones(zone, 1)["condition"][0] == ZoneCondition.READ_ONLY
            assert opened.read(zone * ZONE_BYTES, 12288) != bytes(12288)
        for zone in drive.offline:
            assert opened.zones(zone, 1)["condition"][0] == ZoneCondition.OFFLINE
            with pytest.raises(DeviceError):
                opened.read(zone * ZONE_BYTES, 4096)
        for zone in drive.read_only + drive.offline:
            for operation in ZoneOperation:
                with pytest.raises(DeviceError):
                    opened.manage(operation, zone)
            with pytest.raises(DeviceError):
                opened.write(zone * ZONE_BYTES, bytes(4096))
        opened.manage(ZoneOperation.RESET, 0, drive.geometry.nr_zones)  # skips them


def test_read_only_opening(drive: Drive) -> None:
    with open_device(drive.path) as opened:
        assert not opened.writable
        changes: list[Callable[[], object]] = [
            lambda: opened.write(0, bytes(4096)),
            lambda: opened.manage(ZoneOperation.RESET, drive.sequential[0]),
            lambda: opened.discard(0, 4096),
        ]
        for refused in changes:
            with pytest.raises(DeviceError) as error:
                refused()
            assert error.value.errno == errno.EBADF


def test_opening_for_write_is_exclusive(drive: Drive) -> None:
    held = os.open(drive.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(BusyError, match="in use"):
            open_device(drive.path, writable=True)
        open_device(drive.path).close()
    finally:
        os.close(held)
    first = open_device(drive.path, writable=True)
    with first, pytest.raises(BusyError):
        open_device(drive.path, writable=True)


def test_holders_are_named(drive: Drive) -> None:
    devices.modprobe("dm-mod")
    name = "lab-holder"
    run("dmsetup", "create", "--noudevsync", name, text=f"0 {2 * ZONE_SECTORS} linear {drive.path} 0\n")
    try:
        with pytest.raises(BusyError, match=r"held by dm-\d+"):
            open_device(drive.path, writable=True)
    finally:
        run("dmsetup", "remove", "--noudevsync", name)


def _attempt(device: Device, operation: ZoneOperation | None, zone: int, at: int, data: bytes) -> str:
    """Manage a zone, or write without an operation; the errno's name, or ok."""
    try:
        if operation is None:
            device.write(at, data)
        else:
            device.manage(operation, zone)
    except DeviceError as error:
        return "EIO" if error.errno in REFUSED_BY_DRIVE else error.errno_name
    return "ok"


def test_emulated_drive_behaves_as_the_real_one(drive: Drive, tmp_path: Path) -> None:
    """The same random operations on the drive and on an emulated copy: the same errors, the same zones."""
    choose = random.Random(1729)
    path = str(tmp_path / "disk.img")
    unit = max(drive.geometry.logical_block_bytes, 4096)
    counts = {"ok": 0, "refused": 0}
    with open_device(drive.path, writable=True) as real:
        create_image(path, real.geometry, real.zones())
        with open_image(path, writable=True, family=drive.family) as image:
            for step in range(300):
                zone = choose.randrange(min(drive.geometry.nr_zones, 13))
                row = image.zones(zone, 1)[0]
                end = int(row["start_sector"] + row["capacity_sectors"]) * 512
                at = int(row["wp_sector"]) * 512 if wp_is_valid(image.zones(zone, 1))[0] else end - unit
                if choose.random() < 0.15:
                    at = int(row["start_sector"]) * 512 + choose.randrange(8) * unit
                # Writes stay inside their zone: the kernel splits others, and parts of them may succeed.
                length = max(min(choose.choice([1, 3, 16]) * unit, end - at), unit)
                data = choose.randbytes(16) * (length // 16)
                operation = choose.choice([*ZoneOperation, None, None, None])
                results = [_attempt(device, operation, zone, at, data) for device in (real, image)]
                what = f"step {step}: {operation or 'write'} zone {zone}"
                assert results[1] == results[0], what
                assert states(image.zones()) == states(real.zones()), what
                counts["ok" if results[0] == "ok" else "refused"] += 1
    assert min(counts.values()) > 20, counts
