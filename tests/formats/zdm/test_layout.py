"""Checksums, geometry and identity against the values of the description."""

from __future__ import annotations

import random
import uuid
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, facts
from zoned_tools.codec.crc import crc32c_raw
from zoned_tools.errors import GeometryError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import crc16, crc16_pages, crc64_we
from zoned_tools.formats.zdm.layout import CreateLayout, Geometry
from zoned_tools.formats.zdm.superblock import SuperBlock, as_json


def slow_crc16(data: bytes) -> int:
    state = 0xFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ 0xA001 if state & 1 else state >> 1
    return state


def test_check_values() -> None:
    assert slow_crc16(b"123456789") == 0x4B37
    assert crc32c_raw(b"123456789") == 0x1CF96D7C
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert crc64_we(b"123456789") == 0x62EC59E3F1A4F00A
    assert crc16(layout.EMPTY_PAGE) == layout.EMPTY_PAGE_CRC == 0xBFFE
    assert crc16(layout.EMPTY_CRC_PAGE) == layout.EMPTY_CRC_PAGE_CRC == 0x5249


@pytest.mark.parametrize("length", [64, 4096, 8192])
def test_crc16_of_many_pages_is_that_of_each(length: int) -> None:
    generator = random.Random(length)
    pages = [generator.randbytes(length) for _ in range(5)]
    rows = np.frombuffer(b"".join(pages), np.uint8).reshape(5, length)
    assert crc16_pages(rows).tolist() == [slow_crc16(page) for page in pages]


GEOMETRIES = [
    # start, zones, -R, data start, logical sectors, md_start, r_base, c_base, md_end, data zones, gz, CRC pages, wb
    (524288, 16, 8, 5, 1572864, 65536, 131072, 196608, 262144, 10, 1, 1, 4),
    (2048, 64, 20, 4, 20971520, 65280, 130816, 196352, 261888, 59, 1, 2, 4),
    (6144, 33, 9, 4, 10485760, 64768, 130304, 195840, 261376, 28, 1, 1, 4),
    (478008, 20, 8, 4, 4194304, 5785, 71321, 136857, 202393, 15, 1, 1, 1),
    (524288, 1101, 12, 7, 560988160, 65536, 196608, 327680, 393216, 1093, 2, 35, 4),
    (1048576, 2100, 100, 10, 937951232, 65536, 262144, 458752, 524288, 2088, 3, 66, 4),
    (524288, 29810, 8, 63, 15470166016, 65536, 2031616, 3997696, 4063232, 29746, 30, 930, 4),
]


@pytest.mark.parametrize("row", GEOMETRIES)
def test_geometry(row: tuple[int, ...]) -> None:
    start, zones, reserved = row[:3]
    size = zones * layout.ZONE_SECTORS - start
    created = CreateLayout.compute(start, size, reserved)
    g = Geometry.compute(start, size // 8, created.data_start_zone)
    assert (created.data_start_zone, created.logical_sectors) == row[3:5]
    assert (g.md_start, g.reverse_start, g.crc_start, g.data_start) == row[5:9]
    assert (g.data_zones, g.table_zones, g.crc_count, g.journal_map_blocks) == row[9:]
    assert layout.refusal(g, created) == ""
    assert g.first_device_zone == g.zdstart


@pytest.mark.parametrize(
    ("start", "zones", "data_start", "logical", "reason"),
    [
        (0, 16, 5, 2097152, "whole drive"),
        (478016, 20, 5, 3670016, "data would begin"),
        (524288, 1027, 7, 526385152, "data would begin"),
    ],
)
def test_geometries_that_corrupt_are_refused(
    start: int, zones: int, data_start: int, logical: int, reason: str
) -> None:
    size = zones * layout.ZONE_SECTORS - start
    created = CreateLayout.compute(start, size, 8)
    assert (created.data_start_zone, created.logical_sectors) == (data_start, logical)
    assert reason in layout.refusal(Geometry.compute(start, size // 8, data_start), created)


def test_every_partition_size_around_a_thousand_zones_is_judged_by_the_rule() -> None:
    refused = []
    for zones in range(1018, 1040):
        size = zones * layout.ZONE_SECTORS
        created = CreateLayout.compute(524288, size, 8)
        if layout.refusal(Geometry.compute(524288, size // 8, created.data_start_zone), created):
            refused.append(zones)
    assert refused[0] == 1025
    assert refused == list(range(1025, refused[-1] + 1))
    assert 1029 <= refused[-1] <= 1031


@pytest.mark.parametrize(("start", "blocks", "zdstart"), [(4, 1 << 24, 5), (524288, 65536 * 3, 5), (8, 1 << 50, 4)])
def test_impossible_geometry_is_one_error(start: int, blocks: int, zdstart: int) -> None:
    with pytest.raises(GeometryError):
        Geometry.compute(start, blocks, zdstart)


@pytest.mark.parametrize("release", ["r108", "r114", "r119", "r127"])
def test_identity_of_four_releases(release: str) -> None:
    expected = facts("ident")[release]
    block = (FOLDER / f"ident-{release}.bin").read_bytes()
    found = SuperBlock.parse(block)
    assert found.usable
    assert str(found.form).split()[0] == expected["checksum"].split()[0]
    assert str(found.form).endswith(expected["checksum"].split("over ")[1])
    assert found.uuid == uuid.UUID(expected["uuid"])
    for name in ("label", "sect_start", "sect_size", "zdm_blocks", "data_start", "zone_size"):
        assert getattr(found, name) == expected[name], name
    if release == "r127":
        assert found.pack() == block


@pytest.mark.parametrize("name", ["fmt-16z", "fmt-64z-1mib", "fmt-1101z", "fmt-whole"])
def test_identity_of_a_format(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    block = drive.read(expected["start_sector"] * 512, 4096)
    found = SuperBlock.parse(block)
    wanted = expected["identity"]
    assert found.pack() == block
    assert block[:256].hex() == expected["block0_hex"]
    assert f"{found.crc32:08x}" == wanted["crc"]
    assert [*found.gc_prio, *found.gc_wm, found.gc_status] == wanted["gc"]
    cache = [found.cache_size, found.cache_reada, found.cache_ageout_ms, found.cache_to_pagecache, found.journal_age]
    assert cache == wanted["cache"]
    for name in ("sect_start", "sect_size", "mz_over_provision", "zdm_blocks", "discard", "data_start", "label"):
        assert getattr(found, name) == wanted[name], name


@given(st.binary(min_size=512, max_size=512))
def test_any_bytes_decode_to_something(raw: bytes) -> None:
    found = SuperBlock.parse(raw)
    assert isinstance(as_json(found), dict)
    assert found.usable == (found.magic_ok and found.form is not None)
