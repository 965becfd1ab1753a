"""Damaged and malicious metadata: one error or a report, soon, and never something else."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, START, check_counts, facts, planned, target
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import MetadataError, ZonedError
from zoned_tools.formats.contract import CheckOptions, Settings, Severity
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.check import check
from zoned_tools.formats.zdm.inspect import inspect
from zoned_tools.formats.zdm.keys import key_checksum, super_checksum
from zoned_tools.formats.zdm.mapper.open import open_mapper
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.rules import RULES
from zoned_tools.formats.zdm.superblock import SuperBlock

BASE = START * 512


def use_everything(drive: zx1.VectorDrive) -> None:
    """Probe, inspect, check, repair and check again; nothing but ZonedError may come out."""
    probe(drive, BASE)
    try:
        inspect(target(drive))
        mapper = open_mapper(target(drive), writable=False, settings=Settings())
        mapper.read(0, 64)
        list(mapper.lookup(0, min(mapper.size_blocks, 200000)))
    except ZonedError:
        pass
    asking = frozenset(code for code, rule in RULES.items() if rule.can_wait)
    for allow in (frozenset[str](), asking):
        try:
            repair = planned(drive, allow=allow)
        except ZonedError:
            return
        assert not (allow and repair.waiting)
        if not repair.plan:
            continue
        apply_plan([drive], repair.plan.steps)
        left = {f.code for f in check(target(drive), CheckOptions()).findings if f.severity is not Severity.INFO}
        assert repair.waiting or left <= {"zone.cond"}


def sealed(raw: bytes) -> bytes:
    """A key block with its checksums made right."""
    block = bytearray(raw)
    csum = layout.SUPER_OFFSET + layout.SUPER_BYTES - 4
    block[csum : csum + 4] = struct.pack("<I", super_checksum(bytes(block)))
    block[layout.KEY_CRC_OFFSET : layout.KEY_CRC_OFFSET + 4] = struct.pack("<I", key_checksum(bytes(block)))
    return bytes(block)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_to_fixed_metadata(seed: int) -> None:
    """Bytes of identity, areas, write pointers, journal and tables, some dozens at a time."""
    choose = random.Random(seed)
    drive = zx1.open_vector(FOLDER, choose.choice(["pop-journal", "pop-clean", "cut-direct", "stale-trim"]))
    regions = [(0, 8), (1, 10), (512, 10), (1024, 10), (1536, 2), (1676, 40), (65536, 40), (131072, 90), (196608, 2)]
    for _ in range(choose.randrange(1, 40)):
        start, length = choose.choice(regions)
        at = BASE + (start + choose.randrange(length)) * BLOCK + choose.randrange(BLOCK)
        drive.store.pwrite(at, choose.randbytes(choose.choice([1, 4, 8])))
    use_everything(drive)


FIELDS = {
    "nr_zones": (32, 8),
    "zdstart": (52, 4),
    "version": (56, 4),
    "flags": (64, 4),
    "gc_resv": (1096, 4),
    "n_crcs": (1104, 2),
    "discards": (2164, 2),
    "maps": (2166, 2),
    "unused": (2168, 2),
    "wbjrnl": (2170, 2),
    "wb_blocks": (4064, 4),
    "wb_next": (4068, 4),
    "wb_crc32": (4072, 4),
    "generation": (4080, 8),
}


@pytest.mark.parametrize("value", [0, 1, 0xFFFF, (1 << 64) - 1])
@pytest.mark.parametrize("field", FIELDS)
def test_key_fields_with_right_checksums(field: str, value: int) -> None:
    drive = zx1.open_vector(FOLDER, "pop-clean")
    key_block = facts("pop-clean")["key_block"]
    offset, size = FIELDS[field]
    raw = bytearray(drive.read(BASE + key_block * BLOCK, BLOCK))
    raw[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    drive.store.pwrite(BASE + key_block * BLOCK, sealed(bytes(raw)))
    use_everything(drive)


@settings(max_examples=25)
@given(st.data())
def test_identity_fields_with_right_checksum(data: st.DataObject) -> None:
    drive = zx1.open_vector(FOLDER, data.draw(st.sampled_from(["pop-small", "fmt-16z"])))
    identity = SuperBlock.parse(drive.read(BASE, BLOCK))
    numbers = st.sampled_from([0, 1, 4, 5, 6, 1 << 20, 524288, 7864320, (1 << 32) - 1, (1 << 64) - 1])
    fields = ["sect_start", "sect_size", "zdm_blocks", "data_start", "zone_size"]
    change: dict[str, Any] = {data.draw(st.sampled_from(fields)): data.draw(numbers)}
    drive.store.pwrite(BASE, replace(identity, **change).pack())
    use_everything(drive)


def test_tables_of_nonsense() -> None:
    drive = zx1.open_vector(FOLDER, "pop-clean")
    noise = np.random.default_rng(1)
    for start in (65536, 131072):
        for page in range(start, start + 640, 37):
            drive.store.pwrite(BASE + page * BLOCK, noise.integers(0, 1 << 20, 1024, np.uint32).tobytes())
    use_everything(drive)


def test_huge_cache_extents_of_the_last_dialect_are_refused() -> None:
    drive = zx1.open_vector(FOLDER, "old-r127")
    key_block = facts("old-r127")["key_block"]
    page = bytearray(drive.read(BASE + 512 * BLOCK, BLOCK))
    page[16 + 8 : 16 + 16] = struct.pack("<Q", (0x7FFFF << 45) | 262144)
    for entry in range(2, 75):
        page[16 * entry + 8 : 16 * entry + 16] = page[24:32]
    drive.store.pwrite(BASE + 512 * BLOCK, bytes(page))
    from zoned_tools.formats.zdm.checksums import crc16

    raw = bytearray(drive.read(BASE + key_block * BLOCK, BLOCK))
    raw[1106:1108] = struct.pack("<H", crc16(page))
    drive.store.pwrite(BASE + key_block * BLOCK, sealed(bytes(raw)))
    with pytest.raises(MetadataError, match="claims"):
        check(target(drive), CheckOptions())


def test_oldest_dialect_is_named_and_not_read() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    block = bytearray(BLOCK)
    block[4046:4054] = struct.pack("<Q", layout.SUPER_MAGIC)
    drive.store.pwrite(BASE + 4 * BLOCK, bytes(block))
    with pytest.raises(MetadataError, match="r90-r97"):
        check(target(drive), CheckOptions())


def test_a_hole_in_a_table_is_damage() -> None:
    drive = zx1.open_vector(FOLDER, "pop-small")
    drive.store.pwrite(BASE + (65536 + 300) * BLOCK, bytes(BLOCK))
    found = check_counts(drive, notes=False)
    assert found["lut.crc.fwd"] == 1
    assert found["fwd.range"] == 1024
    apply_plan([drive], planned(drive).plan.steps)
    assert check_counts(drive, notes=False) == {}


@pytest.mark.parametrize("blocks", [1, 100, 1689, 70000])
def test_devices_too_small(blocks: int) -> None:
    from zoned_tools.device.base import Geometry
    from zoned_tools.device.emulated import EmulatedDrive, no_zones
    from zoned_tools.device.zones import Model

    store = zx1.ExtentStore(zx1.Extents(b"ZX1 %d 0\n" % (blocks * BLOCK)))
    store.pwrite(0, zx1.open_vector(FOLDER, "pop-small").read(BASE, BLOCK))
    drive = EmulatedDrive("small", Geometry(Model.REGULAR, blocks * BLOCK), no_zones(), store, writable=True)
    with pytest.raises(ZonedError):
        check(target(drive, 0), CheckOptions())
    with pytest.raises(ZonedError):
        open_mapper(target(drive, 0), writable=True, settings=Settings())
