"""Every image that the reference's code made resolves to what was written, whatever releases wrote it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import (
    FOLDER,
    IMAGES,
    POPULATED,
    START,
    cases,
    check_counts,
    digests,
    facts,
    reader,
    target,
)
from zoned_tools.formats.zdm import inspect as inspect_room
from zoned_tools.formats.zdm.checksums import crc16
from zoned_tools.formats.zdm.keys import key_checksum
from zoned_tools.formats.zdm.open import load

DIALECTS = {"r108": "r101-r108", "r110": "r110", "r114": "r112-r114", "r127": "r127"}


def test_all_vectors_are_there() -> None:
    assert len(IMAGES) == 19
    assert len(cases()) == 43


@pytest.mark.parametrize("name", POPULATED)
def test_image_resolves_to_what_was_written(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    start = expected["start_sector"]
    assert digests(drive, start) == (expected["mapped_blocks"], expected["content_sha256"], expected["map_sha256"])
    mapper = reader(drive, start)
    for logical, physical, _ in expected["samples"]:
        (extent,) = mapper.lookup(logical, 1)
        assert extent.physical_block == physical + start // 8
    for logical in expected["unmapped_samples"]:
        assert mapper.read(logical, 1) == bytes(4096)


@pytest.mark.parametrize("name", POPULATED)
def test_generation_and_its_facts(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    state = load(target(drive, expected["start_sector"]))
    current, geometry = state.current, state.geometry
    assert current is not None
    assert str(state.dialect) == DIALECTS[expected["dialect"]]
    assert (current.generation, current.window, current.block) == (
        expected["generation"],
        expected["area"],
        expected["key_block"],
    )
    assert current.dirty == expected["dirty"]
    assert current.key.super.uuid.hex == expected["sb_uuid"]
    assert geometry.data_zones == expected["data_zones"]
    assert (geometry.md_start, geometry.crc_start, geometry.data_start) == (
        expected["md_start"],
        expected["c_base"],
        expected["md_end"],
    )
    assert (current.key.maps, current.key.discards) == (expected["map_pages"], expected["discard_pages"])
    assert len(current.journal) == expected["journal_entries"]
    assert len(current.cache) == expected["map_entries"]
    assert len(current.discards) == expected["discard_entries"]
    streams = current.streams
    assert {str(i): int(streams[i]) for i in np.flatnonzero(streams >= 0)} == expected["streams"]
    rows = [
        [zone, int(state.wp[zone]) & 0xFFFFFF, int(state.wp[zone]) >> 24, int(state.zf[zone]) & 0xFFFFFF]
        for zone in inspect_room.used_zones(state)
    ]
    assert rows == [row[:4] for row in expected["zones_used"]]


def test_extents_of_releases_119_and_120_are_read() -> None:
    """No image of these is public: the cache page of pop-small in their words of 45 bits address, 19 bits length."""
    expected = facts("pop-small")
    drive = zx1.open_vector(FOLDER, "pop-small")
    key_block = expected["key_block"]
    base = START * 512
    words = np.frombuffer(drive.read(base + (key_block - 1) * 4096, 4096), "<u8").reshape(256, 2).copy()
    count = int(words[0, 1] >> np.uint64(48))
    words[0] = 0, count << 45
    words[1 : count + 1, 1] |= np.uint64(1 << 45)
    raw = bytearray(drive.read(base + key_block * 4096, 4096))
    raw[1106:1108] = crc16(words.tobytes()).to_bytes(2, "little")
    raw[2168:2170] = b"\x01\x00"
    raw[4076:4080] = key_checksum(bytes(raw)).to_bytes(4, "little")
    drive.store.pwrite(base + (key_block - 1) * 4096, words.tobytes())
    drive.store.pwrite(base + key_block * 4096, raw)
    assert str(load(target(drive)).dialect) == "r119-r120"
    assert digests(drive)[:2] == (expected["mapped_blocks"], expected["content_sha256"])
    assert check_counts(drive, notes=False) == {"key.dirty": 1}
