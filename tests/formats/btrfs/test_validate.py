"""Rules over many chunks at once: the same verdicts as one chunk at a time."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.btrfs.images import MIB
from zoned_tools.formats.btrfs.chunks import Chunk, Stripe
from zoned_tools.formats.btrfs.layout import reserved_zones
from zoned_tools.formats.btrfs.validate import misplaced

ZONE = 4 * MIB
NR_ZONES = 20
SIZE = NR_ZONES * ZONE
ODD = st.sampled_from([0, 1, ZONE, SIZE - ZONE, SIZE, SIZE + 1, (1 << 63) - 1, (1 << 64) - ZONE, (1 << 64) - 1])
PLACES = st.one_of(st.integers(0, NR_ZONES).map(lambda zone: zone * ZONE), ODD)


def chunk_of(logical: int, length: int, stripes: list[tuple[int, int]]) -> Chunk:
    places = tuple(Stripe(devid, offset, uuid.UUID(int=devid)) for devid, offset in stripes)
    return Chunk(logical, length, 2, 65536, 2, 4096, 4096, 4096, 1, places)


def verdict(offset: int, length: int, zone_bytes: int) -> str | None:
    """The rules, told once more."""
    if length == 0 or offset + length > SIZE:
        return "chunk-outside"
    if not zone_bytes:
        return None
    if offset % zone_bytes or length % zone_bytes:
        return "chunk-unaligned"
    zones = range(offset // zone_bytes, (offset + length) // zone_bytes)
    return "chunk-in-reserved-zone" if reserved_zones(NR_ZONES, zone_bytes) & set(zones) else None


@given(
    rows=st.lists(st.tuples(PLACES, PLACES, st.integers(1, 2)), max_size=30),
    zone_bytes=st.sampled_from([0, ZONE]),
)
def test_columns_are_the_single_verdicts(rows: list[tuple[int, int, int]], zone_bytes: int) -> None:
    chunks = [chunk_of(at, length, [(devid, offset)]) for at, (offset, length, devid) in enumerate(rows)]
    found = misplaced(chunks, 1, SIZE, zone_bytes, NR_ZONES)
    wanted: dict[str, list[tuple[int, int, int]]] = {}
    for at, (offset, length, devid) in enumerate(rows):
        code = verdict(offset, length, zone_bytes) if devid == 1 else None
        if code is not None:
            wanted.setdefault(code, []).append((at, offset, length))
    assert {
        code: np.stack((columns.chunk, columns.offset_bytes, columns.length_bytes), axis=1).tolist()
        for code, columns in found.items()
    } == {code: [list(row) for row in wanted[code]] for code in wanted}


def test_both_stripes_of_a_chunk_on_one_device_count() -> None:
    dup = chunk_of(7, ZONE, [(1, 2 * ZONE), (1, SIZE), (2, SIZE)])
    found = misplaced([dup], 1, SIZE, ZONE, NR_ZONES)
    assert {code: columns.offset_bytes.tolist() for code, columns in found.items()} == {"chunk-outside": [SIZE]}
