"""Zone tables derived from the metadata of raw copies, against the ones that the drives had."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from tests.formats.dm_zoned.images import NAMES, Images, facts, logical_content, logical_sha256
from zoned_tools.device.base import Device
from zoned_tools.device.derived import DerivedDrive
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import ZoneTable, is_conventional, written_sectors
from zoned_tools.engine.opening import opened_target, opened_targets
from zoned_tools.errors import DeviceWarning, MetadataError, RefusedError, UsageError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.derive import derive_zones
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, SuperBlock
from zoned_tools.formats.shared.derived import DerivedZones, ZoneWishes

STATES = [(name, state) for name in NAMES for state in facts(name)["images"]]
BLOCK_SECTORS = 8


def raw_target(stack: ExitStack, paths: list[Path]) -> Target:
    """The files without their zone tables."""
    return Target("dm-zoned", tuple(stack.enter_context(open_image(str(path), sidecar=False)) for path in paths))


def derived(target: Target, wishes: ZoneWishes | None = None) -> list[DerivedZones | None]:
    return list(derive_zones(target, wishes or ZoneWishes()))


def on_zones(target: Target, rows: list[DerivedZones | None]) -> Target:
    pairs = zip(target.devices, rows, strict=True)
    devices: list[Device] = [d if row is None else DerivedDrive(d, row.geometry, row.table) for d, row in pairs]
    return Target("dm-zoned", tuple(devices), derived=tuple(rows))


def real_table(path: Path) -> ZoneTable:
    with open_image(str(path), content=False) as drive:
        return drive.zones()


def copied(images: Images, folder: Path, name: str, state: str = "clean") -> list[Path]:
    """Raw copies, sparse, to be damaged."""
    paths = []
    for source in images.paths(name, state):
        paths.append(folder / source.name)
        subprocess.run(["cp", "--sparse=always", source, paths[-1]], check=True)
    return paths


@pytest.mark.parametrize(("name", "state"), STATES)
def test_every_published_image_gets_its_zones_back(name: str, state: str, images: Images) -> None:
    paths = images.paths(name, state)
    with ExitStack() as stack:
        target = raw_target(stack, paths)
        rows = derived(target)
        assert [row is None for row in rows] == [not Path(f"{path}.zones").exists() for path in paths]
        for path, row in zip(paths, rows, strict=True):
            if row is None:
                continue
            real = real_table(path)
            assert row.geometry.zone_bytes == int(real["length_sectors"][0]) * 512
            assert (row.geometry.nr_zones, row.geometry.size_bytes) == (len(real), path.stat().st_size)
            conventional = int(np.count_nonzero(is_conventional(real)))
            assert row.conventional.low <= conventional <= row.conventional.high
            assert row.conventional.used <= conventional
            sequential = ~is_conventional(real)
            found, true = written_sectors(row.table)[sequential], written_sectors(real)[sequential]
            assert (found <= true).all()
            assert np.count_nonzero(found != true) <= 1
        content = logical_content(on_zones(target, rows))
        wanted = facts(name)["images"][state]["logical_sha256"]
        assert not any(content) if wanted == "all zeros" else hashlib.sha256(content).hexdigest() == wanted


@pytest.mark.parametrize("name", ["dual", "triple"])
def test_raw_members_are_put_in_order(name: str, images: Images, tmp_path: Path) -> None:
    paths = [str(path) for path in copied(images, tmp_path, name)]
    for order in permutations(paths):
        with pytest.warns(DeviceWarning, match="raw copy"), opened_targets(list(order)) as opened:
            assert [target.paths for target in opened.targets] == [tuple(paths)]


def test_a_member_with_its_zone_table_and_one_without(images: Images, tmp_path: Path) -> None:
    paths = copied(images, tmp_path, "triple")
    shutil.copy(f"{images.paths('triple', 'clean')[1]}.zones", f"{paths[1]}.zones")
    with ExitStack() as stack:
        with pytest.warns(DeviceWarning, match="disk2"):
            target = stack.enter_context(opened_target([str(path) for path in paths]))
        assert [row is None for row in target.derived] == [True, True, False]
        assert logical_sha256(target) == facts("triple")["images"]["clean"]["logical_sha256"]


def described(rows: list[DerivedZones | None]) -> list[object]:
    return [row and (row.geometry, row.conventional, row.table.tobytes()) for row in rows]


def zero(path: Path, block: int, count: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(block * BLOCK_BYTES)
        file.write(bytes(count * BLOCK_BYTES))


@pytest.mark.parametrize("name", ["hm64x1", "hm300x1", "hm64x4", "v1", "dual", "triple"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_super_block_is_enough(name: str, number: int, images: Images, tmp_path: Path) -> None:
    paths = copied(images, tmp_path, name)
    place = facts(name)["images"]["clean"]["superblocks"][number]["sb_block"] if number else 0
    with ExitStack() as stack:
        whole = described(derived(raw_target(stack, paths)))
        zero(paths[0], place)
        assert described(derived(raw_target(stack, paths))) == whole


@pytest.mark.parametrize("name", ["hm64x1", "hm64x4", "v1"])
def test_without_super_blocks_the_size_has_to_be_named(name: str, images: Images, tmp_path: Path) -> None:
    paths = copied(images, tmp_path, name)
    zero(paths[0], 0)
    zero(paths[0], facts(name)["images"]["clean"]["superblocks"][1]["sb_block"])
    with ExitStack() as stack, pytest.raises(MetadataError, match="do not tell"):
        derived(raw_target(stack, paths))


def test_wishes_that_contradict_the_metadata_are_refused(images: Images) -> None:
    with ExitStack() as stack:
        target = raw_target(stack, images.paths("hm64x1", "clean"))
        with pytest.raises(RefusedError, match="zones of 1048576 bytes"):
            derived(target, ZoneWishes(zone_bytes=4 << 20))
        with pytest.raises(UsageError, match="no size of a zone"):
            derived(target, ZoneWishes(zone_bytes=3 << 20))
        bounds = derived(target)[0]
        assert bounds is not None
        for wrong in (bounds.conventional.low - 1, bounds.conventional.high + 1):
            with pytest.raises(RefusedError, match="contradict the metadata"):
                derived(target, ZoneWishes(conventional=(wrong,)))


@pytest.mark.parametrize("lost", [512, 4096, 1 << 20, 9 << 20, 33 << 20])
def test_a_copy_that_ended_early_has_the_zones_of_its_drive(lost: int, images: Images, tmp_path: Path) -> None:
    (path,) = copied(images, tmp_path, "hm64x1")
    os.truncate(path, path.stat().st_size - lost)
    with ExitStack() as stack:
        target = raw_target(stack, [path])
        (row,) = derived(target)
        assert row is not None
        assert (row.geometry.nr_zones, row.geometry.size_bytes) == (64, 64 << 20)
        assert DerivedDrive(target.device, row.geometry, row.table).missing_bytes == lost


@pytest.mark.parametrize("more", [512, 1 << 20, 5 << 20])
@pytest.mark.parametrize("name", ["hm64x1", "hm300x1", "dual"])
def test_what_is_behind_the_drive_is_not_looked_at(name: str, more: int, images: Images, tmp_path: Path) -> None:
    paths = copied(images, tmp_path, name)
    size = paths[-1].stat().st_size
    with paths[-1].open("r+b") as file:
        file.seek(size)
        file.write(b"\xa5" * more)
    with ExitStack() as stack:
        row = derived(raw_target(stack, paths))[-1]
        assert row is not None
        assert row.geometry.size_bytes == size


def test_the_regular_device_alone_and_a_member_alone_are_no_raw_copies(images: Images) -> None:
    regular, member = images.paths("dual", "clean")
    with ExitStack() as stack:
        assert derived(raw_target(stack, [regular])) == [None]
        with pytest.raises(RefusedError, match=r"zoned member of .*name its regular device first"):
            derived(raw_target(stack, [member]))


def test_super_blocks_of_another_size_everywhere_are_a_tie_or_nothing(images: Images, tmp_path: Path) -> None:
    """A super block that fits two sizes equally well: nothing is derived."""
    (path,) = copied(images, tmp_path, "hm64x1")
    with path.open("r+b") as file:
        first = SuperBlock.parse(file.read(BLOCK_BYTES))
        zero(path, 256)
        file.seek(0)
        file.write(replace(first, nr_bitmap_blocks=63, nr_meta_blocks=65).pack())
    with ExitStack() as stack, pytest.raises(MetadataError, match="do not tell"):
        derived(raw_target(stack, [path]))


def test_unreadable_blocks_count_as_written(images: Images, tmp_path: Path) -> None:
    (path,) = copied(images, tmp_path, "hm64x1")
    bad = (60 << 20) + 5 * BLOCK_BYTES
    Path(f"{path}.map").write_text(f"0 + 1\n0 {bad} +\n{bad} 512 -\n{bad + 512} {(64 << 20) - bad - 512} +\n")
    with ExitStack() as stack:
        with pytest.warns(DeviceWarning, match="map file"):
            target = raw_target(stack, [path])
        (row,) = derived(target)
        assert row is not None
        assert int(written_sectors(row.table)[60]) == 6 * BLOCK_SECTORS


@pytest.mark.parametrize("more", [512, 4096, 3 << 20, -512, -4096, -(3 << 20)])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_files_of_other_lengths_move_no_member(number: int, more: int, images: Images, tmp_path: Path) -> None:
    """The members' super blocks say where each device begins; a copy that is short is no drive with a runt."""
    paths = copied(images, tmp_path, "triple")
    tables = [real_table(path) for path in images.paths("triple", "clean")]
    os.truncate(paths[number], os.stat(paths[number]).st_size + more)
    with ExitStack() as stack:
        rows = derived(raw_target(stack, paths))
        assert rows[0] is None
        for row, table in zip(rows[1:], tables[1:], strict=True):
            assert row is not None
            assert np.array_equal(row.table["start_sector"], table["start_sector"])
            assert np.array_equal(row.table["length_sectors"], table["length_sectors"])


def test_a_last_zone_that_a_chunk_has_is_whole(images: Images, tmp_path: Path) -> None:
    """Room for a runt, too: a zone has died before the format, or the copy has lost the end of a zone with data."""
    paths = copied(images, tmp_path, "hm64x1")
    nr_zones = len(real_table(images.paths("hm64x1", "clean")[0]))
    for place in (0, 1 << 20):
        _poke_super_block(paths[0], place, nr_chunks=54)
    for table in (4096, (1 << 20) + 4096):
        with open(paths[0], "r+b") as file:
            file.seek(table + 8 * 20)  # chunk 20 is not mapped
            file.write((nr_zones - 1).to_bytes(4, "little"))
    os.truncate(paths[0], os.stat(paths[0]).st_size - 512)
    with ExitStack() as stack:
        (row,) = derived(raw_target(stack, paths))
        assert row is not None
        assert int(row.table["length_sectors"][-1]) == 2048


def _poke_super_block(path: Path, place: int, *, nr_chunks: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        block = replace(SuperBlock.parse(file.read(4096)), nr_chunks=nr_chunks)
        file.seek(place)
        file.write(block.pack())
