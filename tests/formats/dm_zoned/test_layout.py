"""Super blocks, geometry and the sizing arithmetic."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import MIB, NAMES, Images, drive, facts, regular
from zoned_tools.device.base import Device
from zoned_tools.errors import GeometryError
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, ZoneKind, build_geometry
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, MetadataLayout, SuperBlock, encode_label, superblock_crc
from zoned_tools.formats.dm_zoned.open import open_blocks
from zoned_tools.formats.dm_zoned.sizing import size_metadata


def geometry_of(*devices: Device) -> TargetGeometry:
    return build_geometry([(d.path, d.geometry, d.zones()) for d in devices])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["fresh", "clean", "crash"])
def test_superblocks_of_vectors_decode_and_encode(images: Images, name: str, state: str) -> None:
    expected = facts(name)["images"].get(state)
    if expected is None:
        assert state == "crash"
        return
    blocks = open_blocks(images.target(name, state))
    for fields in (*expected["superblocks"], *expected.get("tertiary", [])):
        raw = blocks.read(fields["sb_block"], 1)
        sb = SuperBlock.parse(raw)
        for field, value in fields.items():
            got = getattr(sb, field)
            match field:
                case "crc":
                    assert got == int(value, 16) == superblock_crc(raw, sb.gen)
                case "dmz_uuid" | "dev_uuid":
                    assert got == uuid.UUID(value)
                case _:
                    assert got == value, field
        assert sb.pack() == raw


@given(
    st.integers(0, 2**64 - 1),
    st.text(max_size=7),
    st.binary(min_size=3984, max_size=3984),
    st.uuids(),
    st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5),
)
def test_superblock_round_trip(gen: int, label: str, reserved: bytes, name: uuid.UUID, numbers: list[int]) -> None:
    raw_label = label.encode("utf-8", "surrogatepass").ljust(32, b"\0")
    blocks, reserve, chunks, map_blocks, bitmap_blocks = numbers
    sb = SuperBlock(
        2,
        gen,
        gen ^ 5,
        blocks,
        reserve,
        chunks,
        map_blocks,
        bitmap_blocks,
        label_raw=raw_label,
        dmz_uuid=name,
        dev_uuid=name,
        reserved=reserved,
    )
    block = sb.pack()
    parsed = SuperBlock.parse(block)
    assert len(block) == BLOCK_BYTES
    assert parsed.pack() == block
    assert parsed.crc == superblock_crc(block, gen)
    # the generation seeds the checksum: it cannot be changed alone
    other = block[:8] + (gen ^ 1).to_bytes(8, "little") + block[16:]
    assert superblock_crc(other, gen ^ 1) != parsed.crc


def test_label_limit() -> None:
    assert encode_label("x" * 31) == b"x" * 31 + b"\0"
    with pytest.raises(ValueError, match="max 31"):
        encode_label("é" * 16)


def test_members_get_consecutive_zone_ids_and_virtual_blocks() -> None:
    geometry = geometry_of(regular(34 * MIB), drive(24, 0, 4 * MIB), drive(8, 2, 4 * MIB, runt_bytes=MIB))
    assert [(m.first_zone, m.nr_zones, m.block_offset) for m in geometry.members] == [
        (0, 9, 0),
        (9, 24, 9 * 1024),
        (33, 9, 33 * 1024),
    ]
    assert geometry.kinds[[0, 8, 9, 33, 34, 35]].tolist() == [
        ZoneKind.CACHE,
        ZoneKind.CACHE,
        ZoneKind.SEQUENTIAL,
        ZoneKind.RANDOM,
        ZoneKind.RANDOM,
        ZoneKind.SEQUENTIAL,
    ]
    assert np.flatnonzero(geometry.runt).tolist() == [8, 41]
    assert [geometry.zone_length_blocks(z) for z in (7, 8, 9, 41)] == [1024, 512, 1024, 256]
    assert geometry.locate(9 * 1024 + 5) == (1, 5 * 4096)
    assert geometry.locate(34 * 1024) == (2, 4 * MIB)
    assert geometry.tertiary_zones == (9, 33)
    # the emulated runt counts, the drive's does not
    assert geometry.nr_usable == 41
    assert geometry.nr_cache == 9


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (lambda: [regular(MIB)], "Not a zoned block device"),
        (lambda: [drive(8, 4), drive(8, 4)], "Not a regular block device"),
        (lambda: [regular(MIB), regular(MIB)], "Not a zoned block device"),
        (lambda: [regular(MIB), drive(8, 4), drive(8, 4, 2 * MIB)], r"zone_nr_sectors mismatch \(4096/2048\)"),
    ],
)
def test_devices_that_form_no_target(devices: Callable[[], list[Device]], message: str) -> None:
    with pytest.raises(GeometryError, match=message) as caught:
        geometry_of(*devices())
    assert caught.value.clone_status == 1


def test_capacity_below_size_is_refused() -> None:
    table = drive(8, 4).zones()
    table["capacity_sectors"][5:] = 1024
    with pytest.raises(GeometryError, match="capacity smaller than zone size"):
        geometry_of(drive(8, 4, table=table))


def test_layout_of_two_zone_sets() -> None:
    layout = size_metadata(geometry_of(drive(300, 10))).layout
    assert (layout.set_zones, layout.set_block(1), layout.map_block(0), layout.bitmap_block(1, 3)) == (2, 512, 1, 517)
    assert layout.metadata_zones == range(4)


@given(st.integers(3, 3000), st.integers(3, 400), st.integers(1, 300), st.sampled_from([1, 4, 256]))
def test_sizing_is_sound_wherever_it_succeeds(zones: int, conventional: int, reserve: int, zone_mib: int) -> None:
    """The kernel's activation tests hold for every layout that is not refused."""
    geometry = geometry_of(drive(max(zones, conventional), conventional, zone_mib * MIB))
    try:
        layout: MetadataLayout = size_metadata(geometry, reserve).layout
    except GeometryError:
        return
    assert layout.nr_chunks >= 1
    assert layout.nr_chunks + 2 * layout.set_zones + layout.nr_reserved_seq <= geometry.nr_usable
    assert layout.metadata_zones.stop <= conventional
    assert 0 < layout.nr_reserved_seq < geometry.nr_usable - layout.set_zones
    assert layout.nr_map_blocks * 512 >= layout.nr_chunks
    assert layout.set_zones * layout.zone_blocks >= layout.nr_meta_blocks
