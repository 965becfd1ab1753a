"""The tree of any zone table against the rules written down zone by zone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoned_tools.device.base import Geometry
from zoned_tools.device.emulated import EmulatedDrive
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.zones import ZONE_DTYPE, Model, ZoneTable
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.constants import Feature
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.mapper.mount_options import TreeOptions
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree
from zoned_tools.formats.zonefs.open import Volume

ZONE_SECTORS = 128
CONV, SEQ, PREF = 1, 2, 3
EMPTY, IMP, EXP, CLOSED, RO, FULL, OFFLINE = 1, 2, 3, 4, 13, 14, 15


@dataclass(frozen=True)
class Zone:
    kind: int
    condition: int
    capacity: int
    written: int


@st.composite
def zones(draw: st.DrawFn) -> Zone:
    kind = draw(st.sampled_from((CONV, CONV, SEQ, SEQ, PREF)))
    if kind == CONV:
        return Zone(kind, draw(st.sampled_from((0, 0, 0, RO, OFFLINE))), ZONE_SECTORS, 0)
    capacity = 8 * draw(st.integers(1, ZONE_SECTORS // 8))
    condition = draw(st.sampled_from((EMPTY, IMP, EXP, CLOSED, RO, FULL, OFFLINE)))
    written = 0 if condition == EMPTY else 8 * draw(st.integers(0, capacity // 8))
    return Zone(kind, condition, capacity, written)


def table_of(rows: list[Zone], runt: int) -> ZoneTable:
    table = np.zeros(len(rows), ZONE_DTYPE)
    for index, zone in enumerate(rows):
        start = index * ZONE_SECTORS
        length = runt if index == len(rows) - 1 else ZONE_SECTORS
        wp = start + zone.written
        if zone.condition in (RO, OFFLINE, FULL) or zone.kind == CONV:
            wp = 0xFFFFFFFFFFFFFFFF
        capacity = min(zone.capacity, length) if zone.kind != CONV else length
        table[index] = (start, length, wp, zone.kind, zone.condition, 0, 0, capacity)
        if zone.condition in (IMP, EXP, CLOSED):
            table["wp_sector"][index] = start + min(zone.written, capacity)
    return table


class _NoStore:
    """Reads as zeroes."""

    def pread_into(self, offset_bytes: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))


def drive_of(table: ZoneTable) -> Overlay:
    sectors = int(table["start_sector"][-1] + table["length_sectors"][-1])
    geometry = Geometry(Model.HOST_MANAGED, sectors * 512, ZONE_SECTORS * 512, len(table), 4096, 4096, 4096)
    return Overlay(EmulatedDrive("drive", geometry, table, _NoStore()))  # type: ignore[arg-type]  # reads only


def expected_files(table: ZoneTable, *, aggregated: bool) -> dict[str, dict[str, int]]:
    """Path to facts, by the rules for one zone after the other."""
    runs: list[list[int]] = []
    files: dict[str, dict[str, int]] = {}
    for zone in range(1, len(table)):
        if table["type"][zone] == CONV:
            joins = aggregated and runs and runs[-1][-1] == zone - 1
            if joins:
                runs[-1].append(zone)
            else:
                runs.append([zone])
    groups = {"cnv": runs, "seq": [[z] for z in range(1, len(table)) if table["type"][z] != CONV]}
    for group, members in groups.items():
        for index, run in enumerate(members):
            conditions = {int(table["condition"][z]) for z in run}
            capacity = sum(int(table["capacity_sectors"][z]) for z in run) * 512
            dead = conditions & {RO, OFFLINE}
            if OFFLINE in conditions or (dead and group == "seq"):
                size = 0
            elif group == "cnv" or FULL in conditions:
                size = capacity
            else:
                size = int(table["wp_sector"][run[0]] - table["start_sector"][run[0]]) * 512
            files[f"/{group}/{index}"] = {
                "ino": run[0],
                "size": size,
                "capacity": capacity,
                "mode": 0o100600 & ~(0o777 if dead else 0),
            }
    return files


@given(
    rows=st.lists(zones(), min_size=2, max_size=24),
    runt_blocks=st.integers(1, ZONE_SECTORS // 8),
    aggregated=st.booleans(),
)
def test_tree_of_any_table(rows: list[Zone], runt_blocks: int, *, aggregated: bool) -> None:
    table = table_of(rows, runt_blocks * 8)
    features = Feature.PERM | (Feature.AGGR_CNV if aggregated else 0)
    block = SuperBlock(features=int(features), perm=0o600, uuid=uuid.UUID(int=7))
    volume = Volume(drive_of(table), table)
    tree = ZonefsTree(volume, block, writable=False, options=TreeOptions())
    expected = expected_files(table, aggregated=aggregated)
    files = {e.path: e for e in tree.walk() if not e.is_directory}
    got = {
        path: {"ino": e.ino, "size": e.size_bytes, "capacity": e.capacity_bytes, "mode": e.mode}
        for path, e in files.items()
    }
    assert got == expected
    groups = {path.split("/")[1] for path in expected}
    assert set(tree.list_directory("/")) == groups
    root, n = tree.stat("/"), len(table)
    assert (root.ino, root.nlink, root.size_bytes) == (n, 2 + len(groups), 2 + len(groups))
    for name, ino in (("cnv", n + 1), ("seq", n + 2)):
        if name in groups:
            count = sum(path.startswith(f"/{name}/") for path in expected)
            directory = tree.stat(name)
            assert (directory.ino, directory.nlink, directory.size_bytes) == (ino, 2, count)
    facts = tree.statfs()
    assert facts.blocks == sum(f["capacity"] for f in expected.values()) // 4096
    assert facts.blocks - facts.bfree == sum(f["size"] for f in expected.values()) // 4096
    assert facts.files == len(expected) + len(groups)


@given(st.lists(zones(), min_size=2, max_size=12))
def test_mounting_closes_open_zones(rows: list[Zone]) -> None:
    table = table_of(rows, ZONE_SECTORS)
    device = drive_of(table)
    ZonefsTree(Volume(device, device.zones()), SuperBlock(), writable=True, options=TreeOptions())
    after = device.zones()
    for zone, before in enumerate(table):
        is_open = before["type"] != CONV and before["condition"] in (IMP, EXP)
        if not is_open:
            assert after["condition"][zone] == before["condition"]
        else:
            expected = CLOSED if before["wp_sector"] != before["start_sector"] else EMPTY
            assert after["condition"][zone] == expected


def test_target_of_a_partition_is_refused() -> None:
    import pytest

    from zoned_tools.errors import GeometryError
    from zoned_tools.formats.zonefs.open import open_volume

    device = drive_of(table_of([Zone(CONV, 0, ZONE_SECTORS, 0)] * 3, ZONE_SECTORS))
    with pytest.raises(GeometryError):
        open_volume(Target("zonefs", (device,), start_bytes=4096))
