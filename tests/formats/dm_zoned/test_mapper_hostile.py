"""Metadata that make no sense: one clear error or some content, never a crash, and no writes to damaged targets."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.crash_model import TARGETS, aged
from tests.formats.dm_zoned.images import BLOCK
from tests.formats.dm_zoned.mapper_support import opened, recorded
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LoggedManage, LoggedWrite, Overlay
from zoned_tools.errors import ZonedError
from zoned_tools.formats.dm_zoned.layout import SuperBlock

BASES = {name: aged(make(), random.Random(name), 25) for name, make in TARGETS.items()}
LAYOUTS = {name: opened(devices, writable=False)._store.layout for name, devices in BASES.items()}

WORDS = st.one_of(
    st.integers(0, 30), st.sampled_from((0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF)
)
ENTRIES = st.lists(st.tuples(st.integers(0, 511), WORDS, WORDS), max_size=6)
COUNTS = ("nr_meta_blocks", "nr_reserved_seq", "nr_chunks", "nr_map_blocks", "nr_bitmap_blocks")
FIELDS = st.dictionaries(st.sampled_from(("version", "gen", "sb_block", *COUNTS)), WORDS, max_size=3)


def damaged(
    name: str,
    sets: tuple[bool, bool],
    entries: list[tuple[int, int, int]],
    bits: list[tuple[int, bytes]],
    fields: dict[str, int],
) -> list[Device]:
    """A used target with map entries, bitmap bytes and super block fields replaced in some sets; CRCs are right."""
    devices: list[Device] = [Overlay(device) for device in BASES[name]]
    layout, device = LAYOUTS[name], devices[0]
    for number in (0, 1):
        if not sets[number]:
            continue
        start = layout.map_block(number) * BLOCK
        table = bytearray(device.read(start, BLOCK))
        for index, data_zone, buffer_zone in entries:
            table[index * 8 : index * 8 + 8] = np.array([data_zone, buffer_zone], "<u4").tobytes()
        device.write(start, bytes(table))
        for zone, raw in bits:
            start = layout.bitmap_block(number, zone % layout.nr_zones) * BLOCK
            device.write(start, raw.ljust(BLOCK, b"\0"))
        start = layout.set_block(number) * BLOCK
        device.write(start, replace(SuperBlock.parse(device.read(start, BLOCK)), **fields).pack())  # type: ignore[arg-type]
    return devices


@settings(max_examples=100)
@given(
    name=st.sampled_from(sorted(TARGETS)),
    sets=st.sampled_from(((True, True), (True, False), (False, True))),
    entries=ENTRIES,
    bits=st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=12)), max_size=4),
    fields=FIELDS,
    use_set=st.sampled_from(({}, {"use_set": "0"}, {"use_set": "1"})),
)
def test_nonsense_metadata(
    name: str,
    sets: tuple[bool, bool],
    entries: list[tuple[int, int, int]],
    bits: list[tuple[int, bytes]],
    fields: dict[str, int],
    use_set: dict[str, Any],
) -> None:
    devices = damaged(name, sets, entries, bits, fields)
    try:
        mapper = opened(devices, writable=False, **use_set)
    except ZonedError:
        mapper = None
    content: dict[int, bytes] = {}
    if mapper is not None:
        covered = sum(extent.blocks for extent in mapper.lookup(0, mapper.size_blocks))
        assert covered == mapper.size_blocks
        for block in range(0, mapper.size_blocks, 16):
            message = "logical blocks"
            try:
                content[block] = mapper.read(block, 16)
            except ZonedError as error:
                message = str(error)
            assert "logical blocks" in message
    recorders, log = recorded(devices)
    try:
        writer = opened(recorders, **use_set)
    except ZonedError:
        assert not [entry for _, entry in log if isinstance(entry, LoggedWrite | LoggedManage)]
        return
    # What may be written to is whole: it reads the same, and can be filled.
    assert {block: writer.read(block, 16) for block in range(0, writer.size_blocks, 16)} == content
    writer.write(0, bytes(writer.size_blocks * BLOCK))
    writer.close()


@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes_over_the_super_blocks(name: str) -> None:
    chance = random.Random(name)
    for _ in range(20):
        devices: list[Device] = [Overlay(device) for device in BASES[name]]
        for number in (0, 1):
            start = LAYOUTS[name].set_block(number) * BLOCK
            raw = bytearray(devices[0].read(start, BLOCK))
            for _ in range(chance.randrange(3)):
                raw[chance.randrange(112)] = chance.randrange(256)
            devices[0].write(start, bytes(raw))
        for writable in (False, True):
            try:
                mapper = opened(devices, writable=writable)
            except ZonedError:
                continue
            assert len(mapper.read(0, 8)) == 8 * BLOCK
