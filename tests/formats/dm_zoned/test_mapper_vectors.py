"""The mapper against what the real kernel target showed: contents, crash copies, damaged images, replayed requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import logical
from tests.formats.dm_zoned.images import BLOCK, NAMES, Images, corrupted, corruptions, facts, patch
from zoned_tools.errors import DeviceError, MetadataError, RefusedError
from zoned_tools.formats.contract import CheckOptions, Severity, Target
from zoned_tools.formats.dm_zoned.check import check
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.mapper.write import DmZonedMapper

STEP = 2048

CRASHED = [name for name in NAMES if "crash" in facts(name)["images"]]
REPLAYED = [name for name in NAMES if facts(name).get("ops_after")]
DAMAGED = corruptions()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    opened = Images(tmp_path_factory.mktemp("images"))
    yield opened
    opened.close()


def opened(target: Target, *, writable: bool = False, **options: str) -> DmZonedMapper:
    return open_mapper(target, writable=writable, settings=logical(**options))


def content_sha256(mapper: DmZonedMapper) -> str:
    """Of the whole logical device, read in large pieces."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(STEP * BLOCK))
    for block in range(0, mapper.size_blocks, STEP):
        part = buffer[: min(STEP, mapper.size_blocks - block) * BLOCK]
        mapper.read_into(block, part)
        digest.update(part)
    return digest.hexdigest()


def content_sha256_of_extents(mapper: DmZonedMapper) -> str:
    """The same, from the drives, by following what lookup says."""
    digest = hashlib.sha256()
    devices = mapper_devices(mapper)
    position = 0
    for extent in mapper.lookup(0, mapper.size_blocks):
        assert extent.logical_block == position
        position += extent.blocks
        for done in range(0, extent.blocks, STEP):
            count = min(STEP, extent.blocks - done)
            if extent.physical_block is None:
                digest.update(bytes(count * BLOCK))
            else:
                start = (extent.physical_block + done) * BLOCK
                digest.update(devices[extent.device_index].read(start, count * BLOCK))
    assert position == mapper.size_blocks
    return digest.hexdigest()


def mapper_devices(mapper: DmZonedMapper) -> Any:
    return mapper._disk.devices


def patterns(first: int, count: int, seed: int) -> bytes:
    """Content of the vectors' writes: logical block number and seed, over and over."""
    pairs = np.empty((count, 256, 2), "<u8")
    pairs[:, :, 0] = np.arange(first, first + count)[:, None]
    pairs[:, :, 1] = seed
    return pairs.tobytes()


def replay(mapper: DmZonedMapper, operations: list[list[Any]]) -> None:
    for operation in operations:
        match operation:
            case ["w", first, count, seed]:
                mapper.write(first, patterns(first, count, seed))
            case ["d", first, count]:
                mapper.discard(first, count)
            case ["f"]:
                mapper.flush()
            case _:
                raise AssertionError(operation)


def error_codes(target: Target) -> list[str]:
    return [f.code for f in check(target, CheckOptions()).findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize("name", NAMES)
def test_content_of_a_cleanly_stopped_target(images: Images, name: str) -> None:
    mapper = opened(images.target(name))
    assert mapper.size_blocks * BLOCK == facts(name).get("logical_size", mapper.size_blocks * BLOCK)
    assert content_sha256(mapper) == facts(name)["images"]["clean"]["logical_sha256"]
    assert mapper.warnings == []


@pytest.mark.parametrize("name", NAMES)
def test_lookup_leads_to_the_content(images: Images, name: str) -> None:
    mapper = opened(images.target(name))
    assert content_sha256_of_extents(mapper) == facts(name)["images"]["clean"]["logical_sha256"]


@pytest.mark.parametrize("name", CRASHED)
def test_content_of_a_crash_copy_is_what_the_kernel_shows(images: Images, name: str) -> None:
    assert content_sha256(opened(images.target(name, "crash"))) == facts(name)["images"]["crash"]["logical_sha256"]


@pytest.mark.parametrize("name", CRASHED)
def test_opening_a_crash_copy_for_writing_keeps_its_content(images: Images, name: str) -> None:
    target = images.target(name, "crash")
    expected = facts(name)["images"]["crash"]["logical_sha256"]
    mapper = opened(target, writable=True)
    assert content_sha256(mapper) == expected
    mapper.close()
    assert content_sha256(opened(target)) == expected
    assert error_codes(target) == []


@pytest.mark.parametrize("name", REPLAYED)
def test_replaying_the_requests_gives_the_same_content(images: Images, name: str) -> None:
    target = images.target(name, "fresh")
    expected = facts(name)["images"]["clean"]["logical_sha256"]
    mapper = opened(target, writable=True)
    replay(mapper, facts(name).get("ops_before_crash_point") or [])
    mapper.flush()
    replay(mapper, facts(name)["ops_after"])
    assert content_sha256(mapper) == expected
    mapper.close()
    assert content_sha256(opened(target)) == expected
    assert error_codes(target) == []


@pytest.mark.parametrize("name", REPLAYED)
def test_reclaim_of_everything_moves_no_content(images: Images, name: str) -> None:
    target = images.target(name)
    expected = facts(name)["images"]["clean"]["logical_sha256"]
    mapper = opened(target, writable=True)
    mapper.reclaim()
    buffers = [e for e in mapper.lookup(0, mapper.size_blocks) if "buffer zone" in e.why]
    assert buffers == []
    assert mapper.reclaim() == 0
    assert content_sha256(mapper) == expected
    mapper.close()
    assert content_sha256(opened(target)) == expected
    assert error_codes(target) == []


@pytest.mark.parametrize(("base", "variant"), DAMAGED, ids=[f"{base}-{v['id']}" for base, v in DAMAGED])
def test_content_of_a_damaged_target(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    unusable = [f[0] for f in variant["findings"]]
    wanted = variant.get("recoverable_sha256") or variant.get("content_sha256")
    if wanted:
        assert content_sha256(opened(target)) == wanted
    elif variant["id"] in ("both-bad", "version-3") or unusable.count("sb-bad-magic") == 2:
        with pytest.raises(MetadataError):
            opened(target)
    elif "map-dzone-range" in unusable:
        mapper = opened(target)
        with pytest.raises(DeviceError, match="logical blocks"):
            content_sha256(mapper)
        lost = [e for e in mapper.lookup(0, mapper.size_blocks) if "not on the device" in e.why]
        assert lost
        for extent in lost:
            assert extent.physical_block is not None, "a lost block is no hole"
            with pytest.raises(DeviceError, match="not on the device"):
                mapper.read(extent.logical_block, extent.blocks)
    elif set(unusable) & {"sb-uuid-mismatch", "sb-bad-location"} and base == "dual":
        with pytest.raises(RefusedError, match="does not belong here"):
            opened(target)
        assert content_sha256(opened(target, accept_members="1")) == facts(base)["images"]["clean"]["logical_sha256"]
    else:
        assert content_sha256(opened(target)) == facts(base)["images"]["clean"]["logical_sha256"]


@pytest.mark.parametrize(("base", "variant"), DAMAGED, ids=[f"{base}-{v['id']}" for base, v in DAMAGED])
def test_writing_to_a_damaged_target_is_refused_or_heals(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    before = [zoned_state(device) for device in target.devices]
    try:
        mapper = opened(target, writable=True)
    except (RefusedError, MetadataError):
        assert [zoned_state(device) for device in target.devices] == before
        return
    mapper.write(0, patterns(0, 3, 77))
    mapper.close()
    assert error_codes(target) == []
    reread = opened(target)
    assert reread.read(0, 3) == patterns(0, 3, 77)
    assert reread.warnings == []
    if variant.get("content_sha256"):
        mapper = opened(target, writable=True)
        mapper.write(0, patterns(0, 3, 1))  # what the clean image has there
        assert content_sha256(mapper) == variant["content_sha256"]


def zoned_state(device: Any) -> tuple[bytes, list[Any]]:
    length = min(device.geometry.size_bytes, 8 << 20)
    return device.read(0, length), device.zones().tolist()


def test_the_better_set_is_read_and_has_to_be_agreed_to_for_writing(images: Images) -> None:
    base, variant = next((b, v) for b, v in DAMAGED if v["id"] == "stale-primary")
    target = corrupted(images, base, variant)
    choices: list[dict[str, Any]] = [{}, {"use_set": "0"}, {"use_set": "1"}]
    for use_set in choices:
        mapper = opened(target, **use_set)
        assert content_sha256(mapper) == variant["recoverable_sha256"]
        assert len(mapper.warnings) == 1
        used = (
            "the better blocks of each are used" if use_set.get("use_set") == "0" else "set 1 is used, it is the better"
        )
        assert f"2 blocks differ; {used}" in mapper.warnings[0]
    with pytest.raises(RefusedError, match="use_set"):
        opened(target, writable=True)
    mapper = opened(target, writable=True, use_set="1")
    assert content_sha256(mapper) == variant["recoverable_sha256"]
    mapper.close()
    assert content_sha256(opened(target)) == variant["recoverable_sha256"]
    assert error_codes(target) == []


def test_a_tie_is_read_from_set_0_unless_the_user_says_otherwise(images: Images) -> None:
    base, variant = next((b, v) for b, v in DAMAGED if v["id"] == "log-uncommitted")
    target = corrupted(images, base, variant)
    contents = {}
    choices: list[dict[str, Any]] = [{}, {"use_set": "0"}, {"use_set": "1"}]
    for use_set in choices:
        mapper = opened(target, **use_set)
        contents[use_set.get("use_set", "")] = content_sha256(mapper)
        assert len(mapper.warnings) == 1
    assert contents[""] == contents["0"] == variant["content_sha256"]
    assert contents["1"] != contents["0"]
    assert "both are equally good about chunk " in opened(target).warnings[0]


@pytest.mark.parametrize("field", ["nr_chunks", "nr_reserved_seq"])
def test_a_super_block_of_other_sizes_stops_writing(images: Images, field: str) -> None:
    """Also a tertiary one, and also when zones that died would make the sizes plausible."""
    target = images.target("dual")
    member = target.devices[1]
    superblock = SuperBlock.parse(member.read(0, 4096))
    patch(member, 0, replace(superblock, **{field: getattr(superblock, field) + 1}).pack())
    with pytest.raises(RefusedError, match="repair"):
        opened(target, writable=True)
    patch(member, 0, replace(superblock, **{field: getattr(superblock, field) - 1}).pack())
    with pytest.raises(RefusedError, match="repair"):
        opened(target, writable=True)


def test_a_resynchronised_set_is_told(images: Images) -> None:
    base, variant = next((b, v) for b, v in DAMAGED if v["id"] == "log-committed")
    target = corrupted(images, base, variant)
    mapper = opened(target, writable=True)
    assert [w for w in mapper.warnings if "set 1 was copied to set 0" in w]
    mapper.close()
    assert opened(target, writable=True).warnings == []
