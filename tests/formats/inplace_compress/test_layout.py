"""Sizes."""

from __future__ import annotations

import pytest

from zoned_tools.formats.inplace_compress import layout


@pytest.mark.parametrize(
    ("device_blocks", "data_blocks", "meta_blocks"),
    [
        (3, 1, 1),
        (10, 8, 1),
        (1024, 1022, 1),
        (4096, 4094, 1),
        (6555, 6553, 1),
        (6556, 6553, 1),
        (6912, 6909, 2),
        (16384, 16380, 3),
        (32774, 32768, 5),
        (262144, 262103, 40),
        (2, 0, 0),
        (0, 0, 0),
    ],
)
def test_largest_volume(device_blocks: int, data_blocks: int, meta_blocks: int) -> None:
    assert layout.max_data_blocks(device_blocks) == data_blocks
    assert layout.meta_blocks_for(data_blocks) == meta_blocks


def test_sizes_of_the_2016_series() -> None:
    assert layout.solved_sizes(6555) == (2, 6552)
    assert layout.sizes_fit(2, 6552, 6555)
    assert not layout.sizes_fit(2, 6552, 6556)


@pytest.mark.parametrize(("stream", "sectors"), [(1, 1), (504, 1), (505, 2), (3576, 7), (3577, 8), (5000, 8)])
def test_payload_sizes_of_one_block(stream: int, sectors: int) -> None:
    assert layout.payload_sectors_for(stream, 1) == sectors
