"""Volumes of which blocks of metadata or sectors of payloads cannot be read."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from tests.formats.inplace_compress.images import (
    check_device,
    everything,
    image_bytes,
    in_memory,
    mapper_of,
    new_volume,
    plan_for,
    target_of,
)
from tests.formats.media import DamagedDrive
from zoned_tools.device.base import Device
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.dump import dump, restore
from zoned_tools.formats.inplace_compress.inspect import inspect
from zoned_tools.formats.inplace_compress.mapper.open import InplaceMapper
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.stat import statistics

IMAGES = ("p1-lzo", "p2-842", "p3-lzo-64k", "p4-lzo-64k-then-4k", "p5-lzo-two-meta", "p6-wb-crash", "p9-lzo-ext4")
BLOCK = 4096


def lost_blocks(mapper: InplaceMapper) -> set[int]:
    """Logical blocks with a byte that the mapper says is lost."""
    losses = mapper.losses()
    rows = [*losses.metadata, *(losses.payload or ())]
    return {
        block
        for row in rows
        for block in range(row.offset_bytes // BLOCK, -(-(row.offset_bytes + row.length_bytes) // BLOCK))
    }


def readable(mapper: InplaceMapper) -> Iterator[tuple[int, bytes]]:
    """Every block that can be read; the others give EIO."""
    ranges = [(at, min(512, mapper.size_blocks - at)) for at in range(0, mapper.size_blocks, 512)]
    while ranges:
        block, count = ranges.pop()
        try:
            content = mapper.read(block, count)
        except DeviceError as error:
            if error.errno != errno.EIO:
                raise
            part = -(-count // 8)
            if count > 1:
                ranges += [(at, min(part, block + count - at)) for at in range(block, block + count, part)]
            continue
        yield from ((block + i, content[i * BLOCK : (i + 1) * BLOCK]) for i in range(count))


def hold(device: DamagedDrive, clean: bytes) -> set[int]:
    """What holds of any damaged volume; the logical blocks that are lost."""
    mapper = mapper_of(device)
    lost = lost_blocks(mapper)
    read = dict(readable(mapper))
    assert set(read) | lost == set(range(mapper.size_blocks))
    for block, content in read.items():
        assert content == clean[block * BLOCK : (block + 1) * BLOCK], block
    assert sum(run.blocks for run in mapper.lookup(0, mapper.size_blocks)) == mapper.size_blocks
    check_device(device, {"payloads": "no"})
    plan_for(check_device(device))
    inspect(target_of(device))
    statistics(target_of(device))
    dump(target_of(device))
    return lost


def codes(device: Device, *, deep: bool = False) -> set[str]:
    return {finding.code for finding in check_device(device, deep=deep).findings}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", IMAGES)
def test_any_block_of_metadata(name: str, known: bool, tmp_path: Path) -> None:
    """One block, and two: nothing else is lost than what depends on it, and nothing else is found."""
    whole = in_memory(tmp_path, image_bytes(name))
    clean, before = everything(whole), codes(whole)
    metadata = range(1 + open_volume(whole).meta_blocks)
    for count in (1, 2):
        for blocks in combinations(metadata, count):
            device = DamagedDrive(whole, [(b * BLOCK, (b + 1) * BLOCK) for b in blocks], known=known)
            hold(device, clean)
            assert codes(device) - {"metadata-lost"} <= before
            assert codes(device, deep=True) - {"metadata-lost"} <= codes(whole, deep=True)
            assert "metadata-lost" in codes(device)


def test_a_byte_makes_its_block_of_the_bitmap_unreadable(tmp_path: Path) -> None:
    whole = in_memory(tmp_path, image_bytes("p5-lzo-two-meta"))
    device = DamagedDrive(whole, [(3 * BLOCK - 1, 3 * BLOCK)])
    found = list(check_device(device).findings)
    assert [(f.code, f.where["what"], f.where["offset_bytes"], f.where["length_bytes"]) for f in found] == [
        ("metadata-lost", "bitmap", 2 * BLOCK, BLOCK)
    ]
    assert (found[0].where["block"], found[0].where["blocks"]) == (6553, 356)
    assert lost_blocks(mapper_of(device)) == set(range(6553, 6909))


def volume_across_a_border(folder: Path, first: int, *extents: bytes) -> tuple[Device, bytes]:
    """A volume with extents of a 64 KiB host that lie around the entries at the border of the bitmap's first block."""
    device = new_volume(folder, 28 << 20, Compressor.LZO)
    mapper = mapper_of(device, writable=True, window="32")
    for content in extents:
        mapper.write(first, content)
        first += len(content) // BLOCK
    mapper.close()
    return device, everything(device)


NOISE = random.Random(1).randbytes(16 * BLOCK)
TEXT = b"zone sector write pointer " * 4000


def test_an_extent_that_goes_on_in_the_lost_block_is_lost(tmp_path: Path) -> None:
    whole, clean = volume_across_a_border(tmp_path, 6550, TEXT[: 8 * BLOCK])
    assert hold(DamagedDrive(whole, [(2 * BLOCK, 3 * BLOCK)]), clean) >= set(range(6550, 6553))
    assert set(range(6553, 6558)) <= hold(DamagedDrive(whole, [(BLOCK, 2 * BLOCK)]), clean)


def test_an_extent_whose_stream_ends_in_front_of_the_lost_block_is_not(tmp_path: Path) -> None:
    whole, clean = volume_across_a_border(tmp_path, 6544, TEXT[: 9 * BLOCK])
    device = DamagedDrive(whole, [(2 * BLOCK, 3 * BLOCK)])
    assert min(hold(device, clean)) == 6553
    assert mapper_of(device).read(6544, 9) == TEXT[: 9 * BLOCK]


def test_a_raw_extent_in_front_of_the_lost_block_may_go_on(tmp_path: Path) -> None:
    whole, clean = volume_across_a_border(tmp_path, 6551, NOISE[: 2 * BLOCK])
    assert min(hold(DamagedDrive(whole, [(2 * BLOCK, 3 * BLOCK)]), clean)) == 6551


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", IMAGES)
def test_sectors_of_payload(name: str, known: bool, tmp_path: Path) -> None:
    """A compressed extent is lost as a whole, a raw one by sectors, and a hole not at all."""
    whole = in_memory(tmp_path, image_bytes(name))
    volume, clean = open_volume(whole), everything(whole)
    runs = [run for run in mapper_of(whole).lookup(0, volume.data_blocks) if run.physical_block is not None]
    base, chance = volume.data_offset_bytes, random.Random(name)
    for run in chance.sample(runs, min(len(runs), 5)):
        assert run.physical_block is not None
        sector = run.physical_block * BLOCK + 512 * chance.randrange(8)
        device = DamagedDrive(whole, [(sector, sector + 1)], known=known)
        mapper = mapper_of(device)
        read = dict(readable(mapper))
        failed = set(range(volume.data_blocks)) - set(read)
        for block, content in read.items():
            assert content == clean[block * BLOCK : (block + 1) * BLOCK], block
        assert failed == set() or run.logical_block in failed
        assert (codes(device) == codes(whole)) == (known or not failed)
        if "raw" in run.why:
            logical = sector - base
            salvaged = mapper.salvage_block(logical // BLOCK)
            assert salvaged is not None
            assert list(salvaged[1]) == [(logical % BLOCK, logical % BLOCK + 512, "-")]
            expected = bytearray(clean[logical // BLOCK * BLOCK :][:BLOCK])
            expected[logical % BLOCK : logical % BLOCK + 512] = bytes(512)
            assert bytes(salvaged[0]) == expected
            if known:
                assert [row[:3] for row in mapper.losses().payload or ()] == [(logical, 512, "-")]
        elif known:
            assert lost_blocks(mapper) == failed
    assert codes(device, deep=True) - {"data-unreadable"} <= codes(whole, deep=True)


@pytest.mark.parametrize("name", IMAGES)
def test_the_super_block_is_assumed_and_written_with_consent(name: str, tmp_path: Path) -> None:
    whole = in_memory(tmp_path, image_bytes(name))
    clean, volume = everything(whole), open_volume(whole)
    device = DamagedDrive(whole, [(0, BLOCK)])
    mapper = mapper_of(device)
    assert mapper.warnings
    assert [row[:2] for row in mapper.losses().guessed] == [(0, len(clean))]
    assert everything(device) == clean
    with pytest.raises(MetadataError, match="cannot be read"):
        mapper_of(device, writable=True)
    evidence = check_device(device)
    assert not plan_for(evidence).plan
    assert [action.id for action in plan_for(evidence).waiting] == ["inplace-compress.metadata-lost"]
    apply_plan([device], plan_for(evidence, {}, "metadata-lost").plan.steps)
    assert device.bad == []
    assert open_volume(device).super_block == volume.super_block
    assert codes(device) == codes(whole)


def test_a_super_block_without_anything_behind_it_that_fits(tmp_path: Path) -> None:
    whole = in_memory(tmp_path, NOISE * 16)
    device = DamagedDrive(whole, [(0, 1)])
    assert codes(device) == {"metadata-lost"}
    assert not plan_for(check_device(device), {}, "metadata-lost").plan
    assert "assumed" not in inspect(target_of(device))
    with pytest.raises(MetadataError):
        mapper_of(device)


def test_a_dump_that_is_not_whole_is_not_written_back(tmp_path: Path) -> None:
    whole = in_memory(tmp_path, image_bytes("p1-lzo"))
    document = dump(target_of(DamagedDrive(whole, [(BLOCK, 2 * BLOCK)])))
    with pytest.raises(MetadataError, match="not whole"):
        restore(target_of(whole), document)


def test_a_volume_with_an_unreadable_bitmap_is_not_written(tmp_path: Path) -> None:
    whole = in_memory(tmp_path, image_bytes("p1-lzo"))
    with pytest.raises(MetadataError, match="only reading"):
        mapper_of(DamagedDrive(whole, [(BLOCK, 2 * BLOCK)]), writable=True)


def test_a_bitmap_that_fails_later_is_never_written_back(tmp_path: Path) -> None:
    """Of a drive whose blocks fail while it is used."""
    device = DamagedDrive(in_memory(tmp_path, image_bytes("p5-lzo-two-meta")), [])
    mapper = mapper_of(device, writable=True)
    device.bad.append((2 * BLOCK, 3 * BLOCK))
    with pytest.raises(DeviceError) as failed:
        mapper.write(6600, bytes(BLOCK))
    assert failed.value.errno == errno.EIO
    with pytest.raises(DeviceError):
        mapper.discard(6600, 1)
    assert device.bad
