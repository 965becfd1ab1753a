"""Behaviour of the mapper: opening, requests, lookups, thresholds, the order of commits, memory."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import (
    KIB,
    TARGETS,
    content,
    dual,
    error_findings,
    formatted,
    seeds_of,
    single,
    triple,
)
from tests.formats.dm_zoned.images import BLOCK, drive, regular
from tests.formats.dm_zoned.mapper_support import ZONE, fill, opened, recorded, zones_named
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import (
    LoggedFlush,
    LoggedManage,
    LoggedWrite,
)
from zoned_tools.errors import DeviceError, GeometryError, MetadataError, RefusedError, UsageError
from zoned_tools.formats.contract import MapExtent, Reclaims
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.mapper.bitmaps import CLEAN_CACHE_BYTES, BitmapCache
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

# -- opening


def test_reading_never_writes() -> None:
    devices = single()
    mapper = opened(devices)
    mapper.write(3, content(3, 2, 1))
    mapper.close()
    recorders, log = recorded(devices)
    mapper = opened(recorders, writable=False)
    assert mapper.read(3, 2) == content(3, 2, 1)
    assert list(mapper.lookup(0, 5))[1].why == f"chunk 0, zone {min(zones_named(mapper))}, generation 2"
    for change in (lambda: mapper.write(0, bytes(BLOCK)), lambda: mapper.discard(0, 1), mapper.reclaim):
        with pytest.raises(DeviceError) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    mapper.flush()
    mapper.close()
    assert log == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rlow": "101"}, "0..100"),
        ({"rlow": "-1"}, "0..100"),
        ({"idle_rlow": "x"}, "idle_rlow=x"),
        ({"use_set": "2"}, "use-set=2 is not possible .use-set=0.1"),
        ({"use-set": "٣"}, "use-set"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(single(), **settings)


def test_a_drive_without_metadata() -> None:
    with pytest.raises(MetadataError, match="no usable dm-zoned metadata"):
        opened([drive(8, 4, 64 * KIB)], writable=False)
    with pytest.raises(GeometryError):
        opened([regular(1 << 20)], writable=False)


def test_members_out_of_order_are_refused() -> None:
    devices = triple()
    swapped = [devices[0], devices[2], devices[1]]
    for writable in (False, True):
        with pytest.raises(RefusedError):
            opened(swapped, writable=writable)


def superblocks(device: Device, mapper: DmZonedMapper) -> list[SuperBlock]:
    return [SuperBlock.parse(device.read(mapper._store.layout.set_block(n) * BLOCK, BLOCK)) for n in (0, 1)]


def rewrite_superblock(device: Device, mapper: DmZonedMapper, number: int, generation: int) -> None:
    offset = mapper._store.layout.set_block(number) * BLOCK
    old = SuperBlock.parse(device.read(offset, BLOCK))
    fields = {name: getattr(old, name) for name in old.__dataclass_fields__} | {"gen": generation}
    device.write(offset, SuperBlock(**fields).pack())


def test_an_older_set_is_brought_up_to_date_before_the_first_write() -> None:
    devices = single()
    mapper = opened(devices)
    mapper.write(0, content(0, 4, 1))
    mapper.close()
    layout = mapper._store.layout
    primary = bytearray(devices[0].read(BLOCK, (layout.nr_meta_blocks - 1) * BLOCK))
    devices[0].write(BLOCK, bytes(len(primary)))  # a primary set that missed everything
    rewrite_superblock(devices[0], mapper, 0, mapper.generation - 1)
    recorders, log = recorded(devices)
    mapper = opened(recorders)
    assert mapper.set_number == 1
    kinds = [type(entry).__name__ for _, entry in log]
    assert kinds[-2:] == ["LoggedWrite", "LoggedFlush"]
    assert kinds[-3] == "LoggedFlush"
    last = log[-2][1]
    assert isinstance(last, LoggedWrite)
    assert last.offset_bytes == 0  # the super block comes last
    assert devices[0].read(BLOCK, len(primary)) == primary
    assert len({s.gen for s in superblocks(devices[0], mapper)}) == 1
    assert mapper.read(0, 4) == content(0, 4, 1)
    before = len(log)
    mapper.close()
    opened(recorders)
    assert not [entry for _, entry in log[before:] if isinstance(entry, LoggedWrite)]


@pytest.mark.parametrize(("generations", "use_set"), [((5, 9), 0), ((9, 5), 1), ((0, 0), 1), ((0, 3), 0), ((3, 3), 1)])
def test_the_chosen_set_wins_whatever_the_generations(generations: tuple[int, int], use_set: int) -> None:
    devices = single()
    mapper = opened(devices)
    mapper.write(0, content(0, 4, 1))
    mapper.close()
    other = mapper._store.layout.set_block(1 - use_set) * BLOCK
    size = (mapper._store.layout.nr_meta_blocks - 1) * BLOCK
    empty = single()[0].read(other + BLOCK, size)
    devices[0].write(other + BLOCK, empty)
    for number in (0, 1):
        rewrite_superblock(devices[0], mapper, number, generations[number])
    mapper = opened(devices, use_set=str(use_set))
    assert mapper.read(0, 4) == content(0, 4, 1)
    found = superblocks(devices[0], mapper)
    assert found[0].gen == found[1].gen == mapper.generation >= max(1, *generations)
    mapper.close()
    assert error_findings(devices) == []
    assert opened(devices, writable=False).read(0, 4) == content(0, 4, 1)


def test_the_end_of_the_generation_counter_is_refused() -> None:
    devices = single()
    mapper = opened(devices, writable=False)
    for number in (0, 1):
        rewrite_superblock(devices[0], mapper, number, (1 << 64) - 1)
    with pytest.raises(RefusedError, match="generation"):
        opened(devices)


# -- requests


@pytest.mark.parametrize(("block", "count"), [(-1, 1), (0, 1 << 40), (208, 1), (207, 2), (0, -1)])
def test_requests_outside_the_logical_device(block: int, count: int) -> None:
    mapper = opened(single())
    assert mapper.size_blocks == 208
    requests: list[Callable[[int, int], object]] = [
        mapper.read,
        mapper.discard,
        lambda b, c: list(mapper.lookup(b, c)),
        lambda b, c: list(mapper.data_extents(b, c)),
    ]
    for request in requests:
        with pytest.raises(DeviceError) as caught:
            request(block, count)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(DeviceError):
        mapper.write(208, bytes(BLOCK))
    with pytest.raises(DeviceError, match="1 bytes are not whole blocks"):
        mapper.write(0, b"x")


def test_idle_time_is_used_for_reclaim_when_that_was_asked_for() -> None:
    assert not opened(single()).reclaims_when_idle
    assert opened(single(), idle_rlow="100").reclaims_when_idle
    assert isinstance(opened(single()), Reclaims)


def test_nothing_is_written_for_empty_requests() -> None:
    recorders, log = recorded(single())
    mapper = opened(recorders)
    mapper.write(5, b"")
    mapper.discard(5, 0)
    assert mapper.read(208, 0) == b""
    assert list(mapper.lookup(3, 0)) == []
    mapper.close()
    assert not [entry for _, entry in log if not isinstance(entry, LoggedFlush)]


def test_holes_in_a_row_are_one_extent() -> None:
    mapper = opened(single())
    mapper.write(5 * ZONE + 2, content(5 * ZONE + 2, 3, 1))
    extents = list(mapper.lookup(8, 208 - 8))
    assert [(e.logical_block, e.blocks, e.physical_block is None) for e in extents] == [
        (8, 5 * ZONE - 8, True),
        (5 * ZONE, 2, True),
        (5 * ZONE + 2, 3, False),
        (5 * ZONE + 5, ZONE - 5, True),
        (6 * ZONE, 208 - 6 * ZONE, True),
    ]
    assert extents[0].why == "chunks 0 to 4 are not mapped"
    assert extents[-1].why == "chunks 6 to 12 are not mapped"
    assert list(mapper.data_extents(0, 208)) == [(5 * ZONE + 2, 3)]


def test_a_buffered_block_is_found_in_its_buffer_zone() -> None:
    mapper = opened(single(), rlow="0")
    mapper.write(0, content(0, ZONE, 1))
    mapper.reclaim()
    mapper.write(3, content(3, 1, 2))
    found: list[MapExtent] = list(mapper.lookup(0, 5))
    assert [e.blocks for e in found] == [3, 1, 1]
    assert "(buffer zone" not in found[0].why
    assert "(buffer zone" in found[1].why
    assert mapper.read(2, 3) == content(2, 1, 1) + content(3, 1, 2) + content(4, 1, 1)
    mapper.discard(3, 1)
    assert mapper.read(3, 1) == bytes(BLOCK)
    assert len(zones_named(mapper)) == 1  # the empty buffer zone is gone


def test_writes_at_the_write_pointer_need_no_buffer_zone() -> None:
    mapper = opened(single())
    mapper.write(0, content(0, 4, 1))
    mapper.reclaim()
    (zone,) = zones_named(mapper)
    for block in range(4, ZONE):
        mapper.write(block, content(block, 1, 2))
    assert zones_named(mapper) == {zone}
    assert mapper.read(0, ZONE) == content(0, 4, 1) + content(4, ZONE - 4, 2)


@pytest.mark.parametrize("name", TARGETS)
def test_every_block_can_be_written_again_and_again(name: str) -> None:
    devices = TARGETS[name]()
    mapper = opened(devices, rlow="0")
    for seed, step in ((1, 7), (2, 16), (3, 5)):
        fill(mapper, seed, step)
        assert (seeds_of(mapper) == seed).all()
    order = np.random.default_rng(1).permutation(mapper.size_blocks)
    for block in order.tolist():
        mapper.write(block, content(block, 1, 4))
    assert (seeds_of(mapper) == 4).all()
    mapper.discard(0, mapper.size_blocks)
    mapper.close()
    assert error_findings(devices) == []
    assert not seeds_of(opened(devices, writable=False)).any()


@pytest.mark.parametrize(("rlow", "idle"), [("0", "100"), ("30", "50"), ("60", "0"), ("100", "100")])
def test_reclaim_thresholds(rlow: str, idle: str) -> None:
    devices = formatted([drive(40, 14, 64 * KIB)], reserved=3)
    mapper = opened(devices, rlow=rlow, idle_rlow=idle)
    total = mapper.free_zones()["buffers"]
    lowest = total
    for chunk in range(12):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 2, 1))
        lowest = min(lowest, mapper.free_zones()["buffers"])
    expected = {"0": (0, 1), "30": (0.2, 0.5), "60": (0.5, 0.8), "100": (1 - 1 / total, 1)}[rlow]
    assert expected[0] * total <= lowest <= max(expected[1] * total, 1)
    mapper.reclaim()
    free = mapper.free_zones()["buffers"]
    assert free * 100 // total > int(idle) or free == total
    assert (seeds_of(mapper).reshape(-1, ZONE)[:12, :2] == 1).all()


# -- order on the device


def test_order_of_a_commit() -> None:
    recorders, log = recorded(dual())
    mapper = opened(recorders)
    mapper.write(0, content(0, 3, 1))
    mapper.reclaim()
    mapper.write(3, content(3, 1, 2))  # to the zoned member
    generation = mapper.generation
    log.clear()
    mapper.flush()
    layout = mapper._store.layout
    starts = [layout.set_block(number) * BLOCK for number in (0, 1)]
    story: list[str] = []
    for number, entry in log:
        if isinstance(entry, LoggedFlush):
            story.append(f"flush {number}")
        elif isinstance(entry, LoggedWrite) and entry.offset_bytes in starts:
            gen = SuperBlock.parse(entry.data).gen - generation
            story.append(f"super block {starts.index(entry.offset_bytes)} {gen:+}")
        elif isinstance(entry, LoggedWrite):
            story.append(f"blocks of set {int(entry.offset_bytes >= starts[1])}")
    assert story == [
        "super block 1 -1",
        "flush 0",
        "blocks of set 1",
        "flush 0",
        "flush 1",
        "super block 1 +1",
        "flush 0",
        "blocks of set 0",
        "flush 0",
        "super block 0 +1",
        "flush 0",
    ]
    assert mapper.generation == generation + 1
    log.clear()
    mapper.flush()
    assert [type(entry) for _, entry in log] == [LoggedFlush, LoggedFlush]
    assert mapper.generation == generation + 1


def test_zones_are_reset_after_the_commit_that_frees_them() -> None:
    recorders, log = recorded(single())
    mapper = opened(recorders, rlow="0")
    mapper.write(0, content(0, ZONE, 1))
    mapper.reclaim()
    mapper.write(0, content(0, 1, 2))  # below the write pointer: reclaim has to empty the zone
    log.clear()
    mapper.reclaim()
    kinds = [type(entry) for _, entry in log]
    reset = kinds.index(LoggedManage)
    copied = max(i for i, (_, e) in enumerate(log[:reset]) if isinstance(e, LoggedWrite))
    second = mapper._store.layout.set_block(0) * BLOCK
    last = log[copied][1]
    assert isinstance(last, LoggedWrite)
    assert last.offset_bytes == second  # the super block of the current set ends the commit
    assert LoggedFlush in kinds[copied:reset]


# -- memory


def test_clean_bitmaps_are_forgotten() -> None:
    size = 8192
    cache = BitmapCache(lambda first, count: bytes(size * count), size, size * 8, 57344)
    for zone in range(0, 57344, 3):
        cache[zone].test(0)
        assert cache.held_bytes <= CLEAN_CACHE_BYTES
    changed = cache[5]
    changed.assign(1, 2, valid=True)
    cache.keep(5, changed)
    for zone in range(6, 57344, 9):
        cache[zone].test(0)
    assert cache[5] is changed
    cache.all_written()
    for zone in range(6, 57344, 9):
        cache[zone].test(0)
    assert cache[5] is not changed
    assert cache.held_bytes <= CLEAN_CACHE_BYTES


def test_many_changes_are_committed_along_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoned_tools.formats.dm_zoned.mapper.write.MAX_CHANGED_BLOCKS", 2)
    mapper = opened(single())
    generation = mapper.generation
    for chunk in range(4):
        mapper.write(chunk * ZONE, content(chunk * ZONE, 1, 1))
    assert mapper.generation > generation
