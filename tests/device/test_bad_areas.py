"""Unreadable media: map files of ddrescue, images that end early, and reading around what cannot be read."""

from __future__ import annotations

import errno
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.archives import set_zone
from zoned_tools.device.badareas import BadAreas, known_bad_areas, missing_bytes, salvage_into
from zoned_tools.device.create import new_drive
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.importing import copy_drive
from zoned_tools.device.mapfile import mapfile_content, parse_mapfile, read_mapfile
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.partition import PartitionView
from zoned_tools.device.zones import ZoneCondition, shown_rows
from zoned_tools.errors import DeviceError, DeviceWarning, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from zoned_tools.device.emulated import EmulatedDrive

MIB = 1 << 20
SIZE = 8 * MIB

ranges = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60), st.sampled_from("?*/-+")), min_size=1, max_size=12)


def _rows(lengths: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Contiguous blocks of a map file out of gaps and lengths; the gaps are finished."""
    rows, at = [], 0
    for gap, length, letter in lengths:
        rows += [(at, at + gap, "+"), (at + gap, at + gap + length, letter)]
        at += gap + length
    return rows


def _model(bad: BadAreas, size: int) -> list[str]:
    cells = ["+"] * size
    for start, end, letter in bad:
        cells[start:end] = letter * (end - start)
    return cells


@given(ranges, st.integers(0, 3000), st.integers(0, 400))
def test_ranges_are_as_bytes_one_by_one(lengths: list[tuple[int, int, str]], start: int, length: int) -> None:
    size = 4000
    bad = parse_mapfile(mapfile_content(_rows(lengths)), "m", size)
    end = _rows(lengths)[-1][1]
    expected = [letter for first, last, letter in _rows(lengths) for _ in range(first, last)] + ["?"] * (size - end)
    assert _model(bad, size) == expected
    cells = ["+"] * size
    cells[start : start + length] = expected[start : start + length]
    assert _model(bad.within(start, length), size) == cells
    cells = list(expected)
    cells[start : start + length] = ["+"] * min(length, size - start)
    assert _model(bad.without(start, length), size) == cells
    assert parse_mapfile(mapfile_content(bad.over(size)), "m", size).total_bytes == bad.total_bytes


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0 +\n0 100 +\n", [(100, 200, "?")]),
        ("# c\r\n\t0x0 ? 1\r\n  010 0x10 - more words\r\n", [(0, 8, "?"), (8, 24, "-"), (24, 200, "?")]),
        ("0 F\n0 0 -\n0 200 /\n200 50 -\n", [(0, 200, "/")]),
    ],
)
def test_forms_of_a_map_file(text: str, rows: list[tuple[int, int, str]]) -> None:
    assert list(parse_mapfile(text.encode(), "m", 200)) == rows


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no block"), ("0 +\n", "no block"), ("0 x\n0 1 +\n", "line 1"), ("+ 0\n", "line 1"),
        ("0 +\n0 1 x\n", "line 2"), ("0 +\n\n0 1\n", "line 3"), ("0 +\n0 10 +\n11 1 +\n", "line 3: the blocks"),
        ("0 +\n0 10 +\n9 1 +\n", "line 3: the blocks"), ("0 +\n0 089 +\n", "line 2"), ("0 +\n-1 1 +\n", "line 2"),
        ("0 +\n0 0xffffffffffffffff +\n", "line 2"), ("\0\xff\n", "line 1"),
    ],
)  # fmt: skip
def test_what_is_no_map_file(text: str, line: str) -> None:
    with pytest.raises(DeviceError, match=line):
        parse_mapfile(text.encode("latin-1"), "m", 200)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Eight zones of 1 MiB, two of them conventional; zone 3 is written to its middle."""
    geometry, table = new_drive(model="host-managed", size_bytes=SIZE, zone_bytes=MIB, nr_conventional=2)
    path = str(tmp_path / "disk.img")
    create_image(path, geometry, table)
    with open_image(path, writable=True) as drive:
        drive.write(0, b"c" * 2 * MIB)
        drive.write(3 * MIB, b"s" * (MIB // 2))
    return path


def _warned(path: str, match: str = "") -> EmulatedDrive:
    """The image, which is opened with a warning."""
    with pytest.warns(DeviceWarning, match=match):
        return open_image(path)


def _map(path: str, *rows: tuple[int, int, str]) -> None:
    with open(f"{path}.map", "wb") as file:
        file.write(mapfile_content(BadAreas.of(rows).over(SIZE)))


def test_what_was_not_rescued_fails_with_its_range_and_letter(image: str) -> None:
    _map(image, (8192, 8704, "-"), (3 * MIB + 4096, 8 * MIB, "?"))
    with _warned(image, match="2 unreadable ranges") as drive:
        assert drive.read(0, 8192) == b"c" * 8192
        assert drive.read(8704, 512) == b"c" * 512
        with pytest.raises(DeviceError, match=r"bytes 8192 to 8703 were not rescued \(-\)") as caught:
            drive.read(0, MIB)
        assert caught.value.errno == errno.EIO
        # Above a write pointer is nothing to rescue.
        assert drive.read(5 * MIB, MIB) == bytes(MIB)
        assert list(drive.bad_areas(0, SIZE)) == [(8192, 8704, "-"), (3 * MIB + 4096, 3 * MIB + MIB // 2, "?")]
        assert list(drive.data_extents(3 * MIB, MIB)) == [(3 * MIB, MIB // 2)]


def test_views_know_what_is_below_them(image: str) -> None:
    _map(image, (8192, 12288, "-"), (3 * MIB, 3 * MIB + 4096, "*"))
    with _warned(image) as drive:
        overlay = Overlay(drive)
        overlay.write(8192, b"n" * 4096)
        assert list(known_bad_areas(overlay)) == [(3 * MIB, 3 * MIB + 4096, "*")]
        assert overlay.read(8192, 4096) == b"n" * 4096
        assert list(known_bad_areas(PartitionView(overlay, MIB))) == [(2 * MIB, 2 * MIB + 4096, "*")]


def test_an_image_with_a_map_file_is_not_written(image: str) -> None:
    _map(image, (0, 512, "-"))
    with pytest.raises(RefusedError, match="later pass of ddrescue"):
        open_image(image, writable=True)
    with open_image(image, writable=True, mapfile="none") as drive:
        drive.write(0, b"x" * 4096)


def test_a_named_map_file_must_be_one_and_another_beside_the_image_is_left(image: str, tmp_path: Path) -> None:
    (tmp_path / "disk.img.map").write_text("hello")
    with _warned(image, match="is not used: line 1") as drive:
        assert not known_bad_areas(drive)
    with pytest.raises(DeviceError, match="line 1"):
        open_image(image, mapfile=f"{image}.map")


def test_an_image_that_ends_early_reads_up_to_its_end(image: str) -> None:
    with open(image, "r+b") as file:
        file.truncate(3 * MIB + 4096)
    with pytest.raises(DeviceError, match="truncated"):
        open_image(image, writable=True)
    with _warned(image, match="ends early") as drive:
        assert missing_bytes(drive) == 5 * MIB - 4096
        assert drive.read(3 * MIB, 4096) == b"s" * 4096
        assert list(known_bad_areas(drive)) == [(3 * MIB + 4096, 3 * MIB + MIB // 2, "?")]


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 9)), max_size=8), st.integers(0, 9000), st.booleans())
def test_reading_around_what_fails(places: list[tuple[int, int]], offset: int, known: bool) -> None:
    """The same whole blocks are left out, whether a device knows its bad sectors or gives errors."""
    drive = _Failing({sector for first, count in places for sector in range(first, first + count)}, known=known)
    buffer = bytearray(40_000)
    bad = salvage_into(drive, offset, memoryview(buffer))
    end = offset + len(buffer)
    units = {sector // 8 for sector in drive.sectors if offset < (sector + 1) * 512 and sector * 512 < end}
    for at in range(len(buffer)):
        lost = (offset + at) // 4096 in units
        assert buffer[at] == (0 if lost else (offset + at) // 512 % 251 + 1)
    cells = {at for start, end, _ in bad for at in range(start, end)}
    assert cells == {at for at in range(offset, end) if at // 4096 in units}


class _Failing(PartitionView):
    """A drive whose sectors hold their number, and of which some give errors."""

    def __init__(self, sectors: set[int], *, known: bool) -> None:
        from zoned_tools.device.base import Geometry
        from zoned_tools.device.zones import Model

        self.sectors = sectors
        self._known = known
        self.geometry = Geometry(Model.REGULAR, 1 << 20)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        end = offset_bytes + len(buffer)
        if any(offset_bytes < (sector + 1) * 512 and sector * 512 < end for sector in self.sectors):
            raise DeviceError("no", errno=errno.EIO)
        buffer[:] = bytes(at // 512 % 251 + 1 for at in range(offset_bytes, end))

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        rows = ((sector * 512, sector * 512 + 512, "-") for sector in sorted(self.sectors)) if self._known else ()
        return BadAreas.of(rows).within(offset_bytes, length_bytes)


def test_a_copy_tells_what_it_lacks_until_that_is_written(image: str, tmp_path: Path) -> None:
    _map(image, (8192, 8704, "-"), (3 * MIB, 3 * MIB + 4096, "*"))
    copy = str(tmp_path / "copy.img")
    with _warned(image) as drive:
        copy_drive(drive, copy)
    assert list(read_mapfile(f"{copy}.map", SIZE)) == [(8192, 8704, "-"), (3 * MIB, 3 * MIB + 4096, "*")]
    with open_image(copy, writable=True, mends=True) as mended:
        mended.write(8192, b"n" * 4096)
        assert mended.read(8192, 4096) == b"n" * 4096
    assert list(read_mapfile(f"{copy}.map", SIZE)) == [(3 * MIB, 3 * MIB + 4096, "*")]


def test_a_new_image_does_not_inherit_a_map_file(image: str, tmp_path: Path) -> None:
    _map(image, (0, 512, "-"))
    geometry, table = new_drive(model="host-managed", size_bytes=SIZE, zone_bytes=MIB, nr_conventional=2)
    other = str(tmp_path / "new.img")
    (tmp_path / "new.img.map").write_bytes((tmp_path / "disk.img.map").read_bytes())
    with pytest.raises(DeviceError, match=r"new.img.map: already exists"):
        create_image(other, geometry, table)
    create_image(image, geometry, table, overwrite=True)
    assert not (tmp_path / "disk.img.map").exists()


def test_a_copy_that_ddrescue_has_not_finished_is_as_long_as_its_map(tmp_path: Path) -> None:
    path = tmp_path / "copy.img"
    path.write_bytes(b"x" * 8192)
    (tmp_path / "copy.img.map").write_bytes(mapfile_content([(0, 8192, "+"), (8192, SIZE, "?")]))
    with _warned(str(path)) as drive:
        assert drive.geometry.size_bytes == SIZE
        assert drive.read(0, 8192) == b"x" * 8192
        assert list(known_bad_areas(drive)) == [(8192, SIZE, "?")]
    (tmp_path / "copy.img.map").write_bytes(mapfile_content([(0, 8192, "+"), (8192, 1 << 62, "?")]))
    with _warned(str(path)) as drive:
        assert drive.geometry.size_bytes == 8192


def test_an_offline_zone_shows_nothing_that_could_be_unreadable(image: str) -> None:
    _map(image, (8192, 12288, "-"), (3 * MIB, 5 * MIB, "?"))
    set_zone(image, 3, condition=ZoneCondition.OFFLINE)
    with _warned(image) as drive:
        assert list(known_bad_areas(drive)) == [(8192, 12288, "-")]


def test_a_read_only_zone_shows_its_capacity(image: str) -> None:
    _map(image, (3 * MIB, 8 * MIB, "?"))
    set_zone(image, 3, condition=ZoneCondition.READ_ONLY)
    with _warned(image) as drive:
        assert list(known_bad_areas(drive)) == [(3 * MIB, 4 * MIB, "?")]


def test_a_map_file_of_many_lines_is_read_in_little_memory() -> None:
    """Half a million lines that say little: what is kept of them is columns, and only what lies on the image."""
    lines = [f"{at * 512} 512 {'+-'[at & 1]}" for at in range(500_000)]
    raw = ("0 +\n" + "\n".join(lines) + "\n").encode()
    tracemalloc.start()
    try:
        bad = parse_mapfile(raw, "disk.img.map", 4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(bad) == [(at, at + 512, "-") for at in (512, 1536, 2560, 3584)]
    assert peak < 40 << 20


@pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x1c"])
def test_words_are_parted_by_blanks_as_c_has_them(blank: str) -> None:
    with pytest.raises(DeviceError, match="line 2 is not a block"):
        parse_mapfile(f"0 +\n0{blank}4096 +\n".encode("latin-1"), "disk.img.map", 4096)


def test_many_bad_areas_are_cut_at_write_pointers(tmp_path: Path) -> None:
    """Areas all over sixteen zones, some empty, some partly written, some conventional."""
    image = tmp_path / "disk.img"
    geometry, table = new_drive(model="host-managed", size_bytes=16 * MIB, zone_bytes=MIB, nr_conventional=2)
    for zone in range(2, 16, 3):
        table["condition"][zone] = ZoneCondition.CLOSED
        table["wp_sector"][zone] = table["start_sector"][zone] + 104 * zone
    create_image(str(image), geometry, table)
    lines = [f"{at * 512} 512 {'+-?*/'[at % 5]}" for at in range(16 * MIB // 512)]
    image.with_name("disk.img.map").write_text("0 +\n" + "\n".join(lines) + "\n")
    with open_image(str(image), mapfile=f"{image}.map") as drive:
        found = list(known_bad_areas(drive))
    wanted = [
        (at, at + 512, "+-?*/"[at // 512 % 5])
        for start, end in shown_rows(table, 16 * MIB).tolist()
        for at in range(start, end, 512)
        if at // 512 % 5
    ]
    assert found == wanted
