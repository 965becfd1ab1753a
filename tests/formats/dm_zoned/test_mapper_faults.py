"""The mapper on drives that fail: dead zones, full drives, limits, writes and commits that go wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.formats.dm_zoned.crash_model import KIB, content, error_findings, formatted, seeds_of, single
from tests.formats.dm_zoned.images import BLOCK, MemoryStore, drive
from tests.formats.dm_zoned.mapper_support import ZONE, fill, opened, recorded, zones_named
from zoned_tools.device.base import Device, Geometry
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.overlay import LogEntry, LoggedManage, LoggedWrite, Overlay, Recorder
from zoned_tools.device.zones import Model, ZoneCondition, make_table
from zoned_tools.errors import DeviceError


def kill(device: Device, zone: int, condition: ZoneCondition) -> None:
    assert isinstance(device, EmulatedDrive)
    device.machine.table["condition"][zone] = condition


# -- zones that are not what they should be


def test_an_offline_zone_takes_only_its_own_chunk_along() -> None:
    devices = single()
    mapper = opened(devices)
    for chunk in (0, 1, 2):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 3, 1))
    mapper.reclaim()
    mapper.close()
    zone = mapper._store.zones_of(1)[0]
    kill(devices[0], zone, ZoneCondition.OFFLINE)
    for writable in (False, True):
        mapper = opened(devices, writable=writable)
        assert mapper.read(0, 3) == content(0, 3, 1)
        assert mapper.read(2 * ZONE, 3) == content(2 * ZONE, 3, 1)
        assert mapper.read(ZONE + 3, 2) == bytes(2 * BLOCK)  # not valid, so nothing has to be read
        with pytest.raises(DeviceError, match=f"logical blocks 16 to 20 .chunk 1. cannot be read: zone {zone} is offl"):
            mapper.read(ZONE, 5)
    with pytest.raises(DeviceError, match=f"zone {zone} is offline"):
        mapper.write(ZONE, bytes(BLOCK))
    mapper.write(0, content(0, 1, 9))
    assert mapper.read(0, 1) == content(0, 1, 9)


def test_a_read_only_zone_can_be_read() -> None:
    devices = single()
    mapper = opened(devices)
    mapper.write(0, content(0, 3, 1))
    mapper.write(ZONE, content(ZONE, 3, 1))
    mapper.reclaim()
    mapper.close()
    kill(devices[0], mapper._store.zones_of(0)[0], ZoneCondition.READ_ONLY)
    mapper = opened(devices)
    assert mapper.read(0, 3) == content(0, 3, 1)
    requests: list[Callable[[], None]] = [lambda: mapper.write(3, bytes(BLOCK)), lambda: mapper.discard(0, 1)]
    for request in requests:
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EROFS
    mapper.write(ZONE, content(ZONE, 1, 2))
    mapper.reclaim()
    assert mapper.read(0, 3) == content(0, 3, 1)


def test_dead_and_runt_zones_are_never_allocated() -> None:
    devices: list[Device] = formatted([drive(24, 8, 64 * KIB, runt_bytes=32 * KIB)], reserved=3, version=1)
    dead = {6: ZoneCondition.READ_ONLY, 9: ZoneCondition.OFFLINE, 11: ZoneCondition.READ_ONLY}
    for zone, condition in dead.items():
        kill(devices[0], zone, condition)
    mapper = opened(devices)
    seen: set[int] = set()
    for block in range(0, mapper.size_blocks - 4 * ZONE, ZONE):
        mapper.write(block, content(block, 5, 1))
        mapper.reclaim()
        seen |= zones_named(mapper)
    assert not seen & {*dead, 24}


def test_no_zone_left_is_an_error_and_loses_nothing() -> None:
    devices = single()
    for zone in range(8, 20):
        kill(devices[0], zone, ZoneCondition.READ_ONLY)
    mapper = opened(devices)
    for chunk in range(4):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 2, 1))
    with pytest.raises(DeviceError, match="no free zone") as caught:
        mapper.write(4 * ZONE, content(4 * ZONE, 2, 1))
    assert caught.value.errno == errno.ENOSPC
    mapper.write(ZONE, content(ZONE, 2, 3))
    assert mapper.read(ZONE, 2) == content(ZONE, 2, 3)
    mapper.discard(0, 2)
    mapper.write(4 * ZONE, content(4 * ZONE, 1, 4))  # reclaim drops the empty chunk
    mapper.close()
    found = seeds_of(opened(devices, writable=False))
    assert found[0] == 0
    assert found[ZONE] == 3
    assert found[4 * ZONE] == 4


@pytest.mark.parametrize("vendor", ["Unknown", "NVMe", "ATA drive"])
def test_a_limit_of_active_zones_is_kept(vendor: str) -> None:
    table = make_table(20 * 128, 128, nr_conventional=8)
    geometry = Geometry(
        Model.HOST_MANAGED, 20 * 64 * KIB, 64 * KIB, 20, max_open_zones=1, max_active_zones=2, vendor=vendor
    )
    devices = formatted([EmulatedDrive("drive", geometry, table, MemoryStore(), writable=True)], reserved=3)
    mapper = opened(devices, rlow="30")
    for chunk in range(13):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 3, 1))  # leaves every zone half full
    mapper.reclaim()
    assert (seeds_of(mapper).reshape(-1, ZONE)[:, :3] == 1).all()
    for seed, step in ((2, 5), (3, 9)):
        fill(mapper, seed, step)
    assert (seeds_of(mapper) == 3).all()
    mapper.close()
    assert error_findings(devices) == []


def test_a_zone_that_cannot_be_reset_is_used_no_more() -> None:
    faults = Faults()
    recorders, _log = recorded(single(), faults)
    mapper = opened(recorders, rlow="0")
    mapper.write(0, content(0, ZONE, 1))
    mapper.reclaim()
    (zone,) = zones_named(mapper)
    mapper.write(0, content(0, 1, 2))
    faults.matches = lambda entry: isinstance(entry, LoggedManage)
    mapper.reclaim()
    assert mapper.warnings == [f"zone {zone} is used no more: injected"]
    for chunk in range(12):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 3, 3))
        mapper.reclaim()
        assert zone not in zones_named(mapper)
    assert (seeds_of(mapper).reshape(-1, ZONE)[:12, :3] == 3).all()


def test_left_over_zones_are_reset_only_when_they_are_needed() -> None:
    devices = single()
    for zone in range(8, 20):
        devices[0].write(zone * 64 * KIB, bytes(4 * BLOCK))
    mapper = opened(devices)
    assert (devices[0].zones(8, 12)["condition"] == ZoneCondition.IMPLICIT_OPEN).all()
    mapper.write(0, content(0, 3, 1))
    mapper.reclaim()
    mapper.close()
    untouched = devices[0].zones(8, 12)["wp_sector"] - devices[0].zones(8, 12)["start_sector"] == 32
    assert int(untouched.sum()) == 11
    assert error_findings(devices) == []
    assert opened(devices, writable=False).read(0, 4) == content(0, 3, 1) + bytes(BLOCK)


# -- failing devices


class Faults:
    """Lets the Nth write that matches fail."""

    def __init__(self) -> None:
        self.matches: Callable[[LogEntry], bool] = lambda entry: False

    def __call__(self, entry: LogEntry) -> None:
        if self.matches(entry):
            raise DeviceError("injected", errno=errno.EIO)


def nth_entry(nth: int) -> Callable[[LogEntry], bool]:
    """True for one of the entries that it is asked about."""
    countdown = iter(range(nth, -1, -1))
    return lambda entry: next(countdown, -1) == 0


def test_a_failed_commit_stops_the_mapper_and_keeps_the_last_one() -> None:
    devices = single()
    for nth in range(12):
        faults = Faults()
        recorders, _log = recorded([Overlay(device) for device in devices], faults)
        mapper = opened(recorders)
        mapper.write(0, content(0, 3, 1))
        mapper.flush()
        mapper.write(ZONE, content(ZONE, 3, 2))
        faults.matches = nth_entry(nth)
        try:
            mapper.flush()
        except DeviceError:
            with pytest.raises(DeviceError, match="earlier commit"):
                mapper.write(0, content(0, 1, 5))
            with pytest.raises(DeviceError, match="earlier commit"):
                mapper.close()
        faults.matches = lambda entry: False
        mapper = opened(recorders)
        assert mapper.read(0, 3) == content(0, 3, 1)
        assert mapper.read(ZONE, 3) in (content(ZONE, 3, 2), bytes(3 * BLOCK))
        mapper.close()
        assert error_findings(recorders) == []


def test_a_failed_write_leaves_the_old_content() -> None:
    faults = Faults()
    recorders, _log = recorded(single(), faults)
    mapper = opened(recorders, rlow="0")
    mapper.write(0, content(0, 4, 1))
    mapper.reclaim()
    faults.matches = lambda entry: isinstance(entry, LoggedWrite)
    for block in (0, 4, ZONE):  # in a buffer zone, at the write pointer, in a new chunk
        with pytest.raises(DeviceError, match="injected"):
            mapper.write(block, content(block, 2, 2))
    faults.matches = lambda entry: False
    assert mapper.read(0, 6) == content(0, 4, 1) + bytes(2 * BLOCK)
    free = mapper.free_zones()["buffers"]
    mapper.write(4, content(4, 2, 3))
    mapper.write(ZONE, content(ZONE, 2, 3))
    assert mapper.free_zones()["buffers"] == free - 1
    mapper.close()
    assert error_findings(recorders) == []


def test_work_goes_on_from_a_write_pointer_that_moved() -> None:
    devices = single()
    mapper = opened(devices, rlow="0")
    mapper.write(0, content(0, 4, 1))
    mapper.reclaim()
    (zone,) = zones_named(mapper)
    devices[0].write(zone * 64 * KIB + 4 * BLOCK, bytes(2 * BLOCK))  # behind the mapper's back
    with pytest.raises(DeviceError):
        mapper.write(4, content(4, 1, 2))
    mapper.write(6, content(6, 2, 2))
    mapper.write(4, content(4, 1, 3))
    assert mapper.read(0, 8) == content(0, 4, 1) + content(4, 1, 3) + bytes(BLOCK) + content(6, 2, 2)
    assert zones_named(mapper) > {zone}
    mapper.close()
    assert error_findings(devices) == []


def test_one_unreadable_zone_does_not_stop_reclaim() -> None:
    class Unreadable(Recorder):
        bad: range = range(0)

        def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
            if offset_bytes in self.bad:
                raise DeviceError("medium error", errno=errno.EIO)
            super().read_into(offset_bytes, buffer)

    device = Unreadable(single()[0])
    mapper = opened([device])
    for chunk in range(2):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 2, 1))
    first = mapper._store.zones_of(0)[0]
    device.bad = range(first * 64 * KIB, (first + 1) * 64 * KIB)
    for chunk in range(2, 8):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 2, 1))
    device.bad = range(0)
    assert (seeds_of(mapper).reshape(-1, ZONE)[:8, :2] == 1).all()
