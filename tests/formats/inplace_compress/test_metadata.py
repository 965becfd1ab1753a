"""Entries, extents, sizes, dumps and table lines."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.inplace_compress.images import (
    CORRUPT,
    EXPECTED,
    corrupt_bytes,
    image_bytes,
    in_memory,
    line_of,
    new_volume,
    target_of,
)
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import MetadataError, UsageError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.bitmap import Bitmap
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.dump import dump, restore
from zoned_tools.formats.inplace_compress.entries import (
    extent_entries,
    fill_extents,
    pack_entries,
    swap_words,
    unpack_entries,
)
from zoned_tools.formats.inplace_compress.extents import join, scan
from zoned_tools.formats.inplace_compress.inspect import inspect
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.stat import statistics
from zoned_tools.formats.inplace_compress.table import parse_table


@given(st.lists(st.integers(0, 31), min_size=1, max_size=30).map(lambda e: (e * 8)[: len(e) // 8 * 8 or 8]))
def test_entries_are_five_bits_from_the_least_significant_on(entries: list[int]) -> None:
    entries = (entries * 8)[: max(8, len(entries) // 8 * 8)]
    number = sum(entry << (5 * i) for i, entry in enumerate(entries))
    raw = number.to_bytes(len(entries) * 5 // 8, "little")
    assert pack_entries(np.array(entries, np.uint8)) == raw
    assert unpack_entries(raw).tolist() == entries


def test_the_published_example() -> None:
    raw = bytes.fromhex("61208c220a011a88a681")
    assert unpack_entries(raw).tolist()[:14] == [1, 3, 8, 24, 8, 17, 8, 1, 1, 16, 6, 16, 8, 19]
    assert swap_words(swap_words(raw[:8])) == raw[:8]


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


def plain_scan(entries: list[int]) -> list[tuple[int, int, int, bool, bool]]:
    """Extents entry by entry: head, blocks, payload, bad nibble, uneven."""
    rows = []
    heads = [i for i, e in enumerate(entries) if i == 0 or not e & 16]
    for head, end in itertools.pairwise([*heads, len(entries)]):
        nibbles = [e & 15 for e in entries[head:end]]
        greedy = [max(0, min(8, sum(nibbles) - 8 * i)) for i in range(len(nibbles))]
        if sum(nibbles) or len(nibbles) > 1:
            bad = any(n > 8 for n in nibbles)
            rows.append((head, end - head, sum(nibbles), bad, not bad and nibbles != greedy))
    return rows


@settings(max_examples=300)
@given(st.lists(st.sampled_from([0, 1, 8, 16, 17, 24, 25, 31, 3, 19]), min_size=1, max_size=90), st.integers(1, 40))
def test_extents_do_not_depend_on_chunks(entries: list[int], step: int) -> None:
    array = np.array(entries, np.uint8)
    found = join(list(scan((at, array[at : at + step]) for at in range(0, len(entries), step))))
    uneven = found.uneven & ~found.bad_nibble
    columns = (a.tolist() for a in (found.head, found.blocks, found.payload, found.bad_nibble, uneven))
    wanted = plain_scan(entries)
    assert list(zip(*columns, strict=True)) == wanted
    assert found.holes == len(entries) - sum(blocks for _, blocks, *_ in wanted)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 72)), max_size=20))
def test_filling_extents(rows: list[tuple[int, int]]) -> None:
    rows = [(blocks, min(payload, 8 * blocks)) for blocks, payload in rows]
    blocks = np.array([r[0] for r in rows], np.int64)
    heads = np.cumsum(blocks) - blocks + 5
    entries = fill_extents(heads, blocks, np.array([r[1] for r in rows], np.int64), 200, origin=5)
    pieces = [extent_entries(*row) for row in rows]
    assert entries.tolist() == (np.concatenate(pieces).tolist() if pieces else []) + [0] * (200 - int(blocks.sum()))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 69_000), st.integers(1, 900), st.integers(1, 8)), max_size=12), st.booleans())
def test_bitmap_in_memory(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int]], big: bool
) -> None:
    device = new_volume(tmp_path_factory.mktemp("bitmap"), 290 << 20, Compressor.LZO)
    volume = open_volume(device)
    volume = volume.other_byte_order() if big else volume
    bitmap, model = Bitmap(volume), np.zeros(volume.data_blocks, np.uint8)
    for first, blocks, payload in changes:
        bitmap.put(first, extent_entries(blocks, payload))
        model[first : first + blocks] = extent_entries(blocks, payload)
    for first, last in bitmap.dirty_writes():
        device.write(*bitmap.page_write(first, last))
    bitmap.written(set(bitmap.dirty_pages))
    assert volume.read_entries(0, volume.data_blocks).tolist() == model.tolist()
    for first, _, _ in changes:
        heads = np.flatnonzero((model[: first + 1] & 16) == 0)
        ends = np.flatnonzero((model[first + 1 :] & 16) == 0)
        assert bitmap.head_of(first) == heads[-1]
        assert bitmap.end_of(first) == (first + 1 + ends[0] if len(ends) else volume.data_blocks)


@pytest.mark.parametrize("name", [*EXPECTED, *[n for n in CORRUPT if "-map-" in n]])
def test_dump_and_restore(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = image_bytes(name) if name in EXPECTED else corrupt_bytes(name)
    device = in_memory(tmp_path, raw)
    volume = open_volume(device)
    for limit in (200_000, 3):
        monkeypatch.setattr("zoned_tools.formats.inplace_compress.dump.RUNS_MAX", limit)
        document = json.loads(json.dumps(dump(target_of(device))))
        device.write(4096, bytes(4096 * volume.meta_blocks))
        device.write(0, bytes(25) + raw[25:512])
        apply_plan([device], restore(target_of(device), document).steps)
        end = 4096 + volume.bitmap_bytes
        assert device.read(0, end) == raw[:end]
        assert device.read(4096 * (1 + volume.meta_blocks), 8192) == raw[volume.data_offset_bytes :][:8192]


@pytest.mark.parametrize(
    "change",
    [
        {"data_blocks": 1 << 40},
        {"data_blocks": "x"},
        {"comp_alg": 9},
        {"extents": [[0, 1, 1]]},
        {"extents": [[0, 1 << 50, 1, 1]]},
        {"extents": [[-1, 1, 1, 1]]},
        {"extents": [[5000, 1, 1, 1]]},
        {"irregular": [[0, [99]]]},
        {"irregular": [[0, "x"]]},
        {"slack_bits": 1 << 40},
        {"bitmap_zlib_base64": "!"},
        {"bitmap_zlib_base64": "eJwDAAAAAAE="},
        {"extents": 7},
    ],
)
def test_damaged_documents(change: dict[str, object], tmp_path: Path) -> None:
    target = target_of(in_memory(tmp_path, image_bytes("p1-lzo")))
    with pytest.raises(MetadataError):
        restore(target, {**dump(target), **change})


def test_inspect_and_stat_agree(tmp_path: Path) -> None:
    target = target_of(in_memory(tmp_path, image_bytes("p3-lzo-64k")))
    tree, facts = inspect(target), statistics(target, 32)
    rows = EXPECTED["p3-lzo-64k"]["extents"]
    assert [[e["block"], e["blocks"], e["payload_sectors"]] for e in tree["extents"]] == [row[:3] for row in rows]  # type: ignore[attr-defined,index]
    assert facts["raw_extents"] == sum(row[3] == "raw" for row in rows)
    assert facts["stored_bytes"] == 512 * sum(row[2] for row in rows)
    assert facts["written_blocks"] == sum(row[1] for row in rows)
    assert facts["foreign_extents"] == 0
    assert statistics(target, 2)["foreign_extents"] != 0
    with pytest.raises(UsageError):
        statistics(target, 4)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("device=/dev/sdc,writethrough,compressor=lzo", ("/dev/sdc", None, "lzo", False, None)),
        ("device:/dev/sdc,writethough", ("/dev/sdc", None, "", False, None)),
        ("0 8176 inplacecompress device=8:32,writeback=0x10,compressor:842,critical", ("8:32", 16, "842", True, 8176)),
        ("0 8176 inplacecompress device=8:32, writeback:010, compressor=lzo-rle", ("8:32", 8, "lzo", False, 8176)),
        ("device=a,device=b,writeback=5,writethrough,,compressor=842-generic", ("b", None, "842", False, None)),
        ("254:3 writeback:5 compressor:842 critical:1", ("254:3", 5, "842", True, None)),
        ("254:3 writethrough compressor:lzo critical:0", ("254:3", None, "lzo", False, None)),
        ("/dev/sdb writeback 7 compressor lzo", ("/dev/sdb", 7, "lzo", False, None)),
        ("/dev/sdb", ("/dev/sdb", None, "", False, None)),
    ],
)
def test_spellings_of_the_table(line: str, wanted: tuple[object, ...]) -> None:
    found = parse_table(line)
    assert (found.device, found.writeback_seconds, found.compressor, found.critical, found.length_sectors) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0 8176 inplacecompress",
        "device=/dev/sdc writethrough",
        "device=x,writeback=5x",
        "device=x,writeback=",
        "device=x,writeback=09",
        "device=x,writeback=2147483648",
        "device=x,bogus=1",
        "device=x,compressor=zstd",
        "device=",
        "1 8176 inplacecompress device=x",
        "0 8177 inplacecompress device=x",
        "0 0 inplacecompress device=x",
        "0 x inplacecompress device=x",
        "device=x,critical=2",
        "device=x,writeback=-1",
        "device=x,writeback=" + "9" * 5000,
    ],
)
def test_table_lines_that_cannot_be_meant(line: str) -> None:
    with pytest.raises(UsageError):
        parse_table(line)


@pytest.mark.parametrize("mode", ["writethrough", "writeback=0", "writeback=2147483647"])
@pytest.mark.parametrize("critical", ["0", "1"])
def test_printed_lines_are_understood(mode: str, critical: str, tmp_path: Path) -> None:
    target = in_memory(tmp_path, image_bytes("p2-842"))
    line = line_of(target, {"mode": mode, "critical": critical, "device": "8:16"})
    found = parse_table(line)
    assert (found.device, found.mode, found.compressor, found.critical) == ("8:16", mode, "842", critical == "1")
    assert found.length_sectors == 8176
    assert found.notes == ()
    assert line_of(target, {"table": line}) == line


def test_no_table_line_for_a_device_that_activation_would_format(tmp_path: Path) -> None:
    with pytest.raises(MetadataError):
        line_of(in_memory(tmp_path, corrupt_bytes("lzo-sb-magic")))
    sound = in_memory(tmp_path, image_bytes("p1-lzo"))
    with pytest.raises(UsageError):
        line_of(sound, {"table": "0 8168 inplacecompress device=x"})
    with pytest.raises(UsageError):
        line_of(sound, {"device": "a b"})
