"""What a view of a device shows: rows without holes, and reads and lookups that agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.btrfs.images import MIB, Drive
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import shown_rows
from zoned_tools.formats.btrfs.mapper.view import CopyView, without

PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6)


@given(edges=st.sets(st.integers(0, 60), max_size=12), holes=PAIRS)
def test_rows_without_holes(edges: set[int], holes: list[tuple[int, int]]) -> None:
    ordered = sorted(edges)[: len(edges) // 2 * 2]
    rows = np.array(ordered, np.int64).reshape(-1, 2)
    wanted = {n for a, b in rows.tolist() for n in range(a, b)} - {n for a, b in holes for n in range(a, b)}
    left = without(rows, holes)
    assert {n for a, b in left.tolist() for n in range(a, b)} == wanted
    assert (left[:, 0] < left[:, 1]).all()
    assert (left[1:, 0] >= left[:-1, 1]).all()


def test_reads_and_lookups_agree(tmp_path: Path) -> None:
    """Every block that is not shown as stored reads as zeroes; the placed ones are what was placed."""
    contents = {
        zone: [bytes([zone * 16 + n]) * 4096 for n in range(count)] for zone, count in ((2, 5), (3, 16), (7, 1))
    }
    image = Drive(tmp_path / "disk.img", contents=contents).make()
    with open_image(str(image)) as drive:
        rows = without(shown_rows(drive.zones(), drive.geometry.size_bytes), [(3 * 4 * MIB, 3 * 4 * MIB + 8192)])
        placed = {65536: b"p" * 4096, 8 * MIB + 4096: b"q" * 4096}
        view = CopyView(drive, 0, 0, rows, placed)
        whole = view.read(0, view.size_blocks)
        at = 0
        for extent in view.lookup(0, view.size_blocks):
            assert extent.logical_block == at
            at += extent.blocks
            part = whole[extent.logical_block * 4096 : at * 4096]
            assert any(part) == (extent.physical_block is not None)
        assert at == view.size_blocks
        for start, length in ((0, 20), (2 * 1024, 3), (2 * 1024 + 1, 1), (3 * 1024 + 1, 5)):
            assert view.read(start, length) == whole[start * 4096 : (start + length) * 4096]
        assert whole[65536 : 65536 + 4096] == b"p" * 4096
        assert whole[8 * MIB : 8 * MIB + 3 * 4096] == contents[2][0] + b"q" * 4096 + contents[2][2]
        assert not any(whole[12 * MIB : 12 * MIB + 8192])
        assert whole[12 * MIB + 8192 : 12 * MIB + 12288] == contents[3][2]
