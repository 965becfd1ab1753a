"""The mapper against a plain model, and what power cuts leave."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.unreadable import BadDrive
from tests.formats.inplace_compress.images import (
    check_device,
    content,
    corrupt_bytes,
    everything,
    extents_of,
    image_bytes,
    in_memory,
    mapper_of,
    new_volume,
    patch,
    plan_for,
)
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import LogEntry, LoggedDiscard, LoggedFlush, LoggedWrite, Recorder
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import DeviceError, MetadataError, UsageError, ZonedError
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.encoding import Choice
from zoned_tools.formats.inplace_compress.import_ import plan_import
from zoned_tools.formats.inplace_compress.mapper.open import InplaceMapper
from zoned_tools.formats.inplace_compress.mapper.write import Behaviour
from zoned_tools.formats.inplace_compress.open import open_volume
from zoned_tools.formats.inplace_compress.source import open_source

BLOCKS = 200
KINDS = ("text", "rand", "zero", "mix")


def block_content(kind: str, seed: int, count: int) -> bytes:
    return content(
        {"text": f"text:{seed}", "rand": f"rand:{seed}", "zero": "zero", "mix": f"mix:{seed}:900"}[kind], 4096 * count
    )


operation = st.one_of(
    st.tuples(
        st.just("write"), st.integers(0, BLOCKS - 1), st.integers(1, 70), st.sampled_from(KINDS), st.integers(0, 9)
    ),
    st.tuples(st.just("discard"), st.integers(0, BLOCKS - 1), st.integers(1, 70)),
    st.tuples(st.just("flush")),
    st.tuples(
        st.just("reopen"),
        st.sampled_from(["2", "32"]),
        st.sampled_from(["writethrough", "writeback=3600", "writeback=0"]),
    ),
)


@settings(max_examples=60)
@given(st.lists(operation, max_size=14), st.sampled_from([Compressor.LZO, Compressor.C842]))
def test_mapper_behaves_as_a_plain_array(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[Any, ...]], compressor: Compressor
) -> None:
    device = new_volume(tmp_path_factory.mktemp("model"), 4096 * (BLOCKS + 3), compressor, data_blocks=BLOCKS)
    model = bytearray(4096 * BLOCKS)
    mapper = mapper_of(device, writable=True)
    for name, *values in operations:
        if name == "write":
            block, count, kind, seed = values
            count = min(count, BLOCKS - block)
            data = block_content(kind, seed, count)
            mapper.write(block, data)
            model[4096 * block : 4096 * (block + count)] = data
        elif name == "discard":
            block, count = values
            count = min(count, BLOCKS - block)
            mapper.discard(block, count)
            model[4096 * block : 4096 * (block + count)] = bytes(4096 * count)
        elif name == "flush":
            mapper.flush()
        else:
            mapper.close()
            mapper = mapper_of(device, writable=True, window=str(values[0]), mode=str(values[1]))
    assert mapper.read(0, BLOCKS) == model
    mapper.close()
    assert everything(device) == model
    runs = list(mapper_of(device).lookup(0, BLOCKS))
    assert sum(run.blocks for run in runs) == BLOCKS
    assert all(a.logical_block + a.blocks == b.logical_block for a, b in itertools.pairwise(runs))
    for run in runs:
        if run.physical_block is None:
            assert not any(model[4096 * run.logical_block : 4096 * (run.logical_block + run.blocks)])
    assert check_device(device).findings.groups == []


def test_reading_any_part(tmp_path: Path) -> None:
    device = in_memory(tmp_path, image_bytes("p3-lzo-64k"))
    whole, mapper, chooser = everything(device), mapper_of(device), random.Random(1)
    for _ in range(60):
        first = chooser.randrange(mapper.size_blocks)
        count = chooser.randrange(0, min(90, mapper.size_blocks - first + 1))
        wanted = whole[4096 * first : 4096 * (first + count)]
        assert mapper.read(first, count) == wanted
        buffer = bytearray(b"x" * len(wanted))
        mapper.read_into(first, memoryview(buffer))
        assert buffer == wanted
        pieces = bytearray(len(wanted))
        for block, piece in mapper.read_stored(first, count):
            pieces[4096 * (block - first) : 4096 * (block - first) + len(piece)] = piece
        assert pieces == wanted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_writeback_commits_when_the_seconds_have_passed(tmp_path: Path) -> None:
    device = new_volume(tmp_path, 4 << 20, Compressor.LZO)
    clock = Clock()
    mapper = InplaceMapper(open_volume(device), Behaviour(writeback_seconds=5), writable=True, clock=clock)
    mapper.write(0, content("text:1", 8192))
    assert everything(device)[:8192] == bytes(8192)
    clock.now = 4.9
    mapper.write(8, content("text:2", 8192))
    assert mapper.counters.metadata_bytes == 0
    clock.now = 5.0
    mapper.write(16, content("text:3", 8192))
    assert everything(device)[: 18 * 4096] == mapper.read(0, 18)
    mapper.write(0, bytes(8192))
    mapper.flush()
    assert everything(device)[:8192] == bytes(8192)


def test_requests_that_cannot_be(tmp_path: Path) -> None:
    device = in_memory(tmp_path, image_bytes("p1-lzo"))
    reader, writer, closed = mapper_of(device), mapper_of(device, writable=True, discard="refuse"), mapper_of(device)
    closed.close()
    actions: list[tuple[str, Callable[[], object]]] = [
        ("EINVAL", lambda: reader.read(1022, 1)),
        ("EINVAL", lambda: reader.read(-1, 1)),
        ("EROFS", lambda: reader.write(0, bytes(4096))),
        ("EINVAL", lambda: writer.write(0, bytes(100))),
        ("EINVAL", lambda: writer.write(1021, bytes(8192))),
        ("ENOTSUP", lambda: writer.discard(0, 1)),
        ("EBADF", lambda: closed.read(0, 1)),
    ]
    for errno_name, action in actions:
        with pytest.raises(DeviceError) as caught:
            action()
        assert caught.value.errno_name == errno_name
    for options in (
        {"window": "4"},
        {"encoder": "best"},
        {"table": "0 8 inplacecompress device=x"},
        {"mode": "sometimes"},
        {"unreadable": "zeroes"},
    ):
        with pytest.raises(UsageError):
            mapper_of(device, writable=True, **options)
    with pytest.raises(MetadataError):
        mapper_of(in_memory(tmp_path, corrupt_bytes("lzo-sb-alg-unknown")))


def test_partly_covered_unreadable_extent_stops_a_write_before_anything_changes(tmp_path: Path) -> None:
    raw = corrupt_bytes("lzo-payload-ext-torn")  # blocks 16 and 17
    device = in_memory(tmp_path, raw)
    mapper = mapper_of(device, writable=True, window="32")
    actions: list[Callable[[], None]] = [lambda: mapper.write(17, bytes(8192)), lambda: mapper.discard(10, 7)]
    for action in actions:
        with pytest.raises(DeviceError) as caught:
            action()
        assert caught.value.errno_name == "EIO"
    assert device.read(0, len(raw)) == raw
    mapper.write(16, content("text:1", 8192))
    assert mapper.read(16, 2) == content("text:1", 8192)


def test_writing_in_front_of_orphan_tails_does_not_swallow_them(tmp_path: Path) -> None:
    device = in_memory(tmp_path, corrupt_bytes("lzo-map-orphan"))  # blocks 60 to 62
    mapper = mapper_of(device, writable=True)
    mapper.write(60, content("rand:1", 4096))
    assert mapper.read(60, 3) == content("rand:1", 4096) + bytes(8192)
    mapper.close()
    assert check_device(device).findings.groups == []


def cut_device(folder: Path, base: bytes, log: list[tuple[int, LogEntry]], cut: int, seed: int) -> Device:
    """What a power cut before entry ``cut`` can leave: everything flushed, and any sectors written since."""
    folder.mkdir()
    chooser = random.Random(seed)
    device = in_memory(folder, base)
    entries = [entry for _, entry in log[:cut]]
    flushed = max((i for i, e in enumerate(entries) if isinstance(e, LoggedFlush)), default=-1)
    for index, entry in enumerate(entries):
        assert not isinstance(entry, LoggedDiscard)
        if not isinstance(entry, LoggedWrite):
            continue
        for offset in range(0, len(entry.data), 512):
            if index < flushed or chooser.random() < 0.6:
                device.write(entry.offset_bytes + offset, entry.data[offset : offset + 512])
    return device


@pytest.mark.parametrize("compressor", [Compressor.LZO, Compressor.C842])
@pytest.mark.parametrize("window", ["2", "32"])
@pytest.mark.parametrize("mode", ["writethrough", "writeback=3600"])
def test_power_cuts(tmp_path: Path, mode: str, window: str, compressor: Compressor, record_property: object) -> None:
    """What was flushed and not written again stays; everything else is found and can be repaired."""
    blocks, chooser = 96, random.Random(f"{mode}{window}{compressor}")
    start = new_volume(tmp_path, 4096 * (blocks + 2), compressor, data_blocks=blocks)
    base = start.read(0, start.geometry.size_bytes)
    recorder = Recorder(start)
    mapper = mapper_of(recorder, writable=True, mode=mode, window=window)
    history: list[tuple[int, bytes, set[int]]] = []  # log position of a flush, content, blocks written since
    model, touched = bytearray(4096 * blocks), set[int]()
    for number in range(24):
        first, count = chooser.randrange(blocks - 8), chooser.randrange(1, 9)
        data = block_content(chooser.choice(KINDS), number, count)
        aligned = set(range(first // 32 * 32, min(blocks, -(-(first + count) // 32) * 32)))
        touched |= aligned if window == "32" else set(range(first // 2 * 2, min(blocks, (first + count + 1) // 2 * 2)))
        history.append((len(recorder.log), b"", set(touched)))
        mapper.write(first, data)
        model[4096 * first : 4096 * (first + count)] = data
        if chooser.random() < 0.25:
            mapper.flush()
            history.append((len(recorder.log), bytes(model), set()))
            touched = set()
    for cut in range(1, len(recorder.log) + 1, 3):
        device = cut_device(tmp_path / f"cut{cut}", base, recorder.log, cut, cut)
        durable = next(
            ((c, i) for i, (at, c, _) in reversed(list(enumerate(history))) if c and at <= cut),
            (bytes(4096 * blocks), -1),
        )
        changed = set().union(*(t for at, c, t in history[durable[1] + 1 :] if at < cut and not c))
        survivor = mapper_of(device, unreadable="zeroes")
        for block in set(range(blocks)) - changed:
            assert survivor.read(block, 1) == durable[0][4096 * block : 4096 * (block + 1)], (cut, block)
        assert_repairable(device)
    if callable(record_property):
        record_property("power cuts of inplace-compress", len(range(1, len(recorder.log) + 1, 3)))


def assert_repairable(device: Device) -> None:
    """Repair without consent, then with everything agreed to, leaves no error; readable content does not change."""
    before = everything(device, unreadable="zeroes")
    for settings_ in ({}, {"relink": "yes", "zero-unreadable": "yes"}):
        for _ in range(3):
            report = check_device(device, settings_, deep=bool(settings_))
            apply_plan([device], plan_for(report, settings_).plan.steps)
        if not settings_:
            assert everything(device, unreadable="zeroes") == before
    assert not check_device(device).has_errors
    everything(device)


@settings(max_examples=80)
@given(st.binary(min_size=25, max_size=25), st.binary(max_size=640), st.binary(max_size=2000), st.booleans())
def test_nonsense_never_ends_in_anything_but_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, bitmap: bytes, data: bytes, sound: bool
) -> None:
    """Random super blocks, bitmaps and payloads: a check always ends, readers and repairs raise ZonedError at most."""
    raw = bytearray(image_bytes("p1-lzo"))
    raw[: 8 if not sound else 0] = head[: 8 if not sound else 0]
    if not sound:
        raw[8:25] = head[8:25]
        raw[0:8] = image_bytes("p1-lzo")[:8]
    raw[4096 : 4096 + len(bitmap)] = bitmap
    raw[8192 : 8192 + len(data)] = data
    device = in_memory(tmp_path_factory.mktemp("noise"), bytes(raw))
    assert len(check_device(device, deep=True).findings) or sound
    try:
        mapper = mapper_of(device, writable=True, unreadable="fail", window="32")
    except ZonedError:
        return
    for block in range(0, mapper.size_blocks, 50):
        try:
            mapper.read(block, 40 if block + 40 <= mapper.size_blocks else 1)
            mapper.write(block, content("text:1", 4096))
        except ZonedError:
            continue
    consents = {"zero-unreadable": "yes", "relink": "yes"}
    apply_plan([device], plan_for(check_device(device), consents).plan.steps)
    assert not [f for f in check_device(device).findings if f.code.startswith("EXT_") and f.severity == "error"]


@pytest.mark.parametrize("compressor", [Compressor.LZO, Compressor.C842])
@pytest.mark.parametrize("window", ["2", "32"])
@pytest.mark.parametrize("damage", ["tag", "stream", "nibble"])
def test_a_write_over_all_of_a_damaged_extent_heals_it(
    tmp_path: Path, compressor: Compressor, window: str, damage: str
) -> None:
    """Extents of 32 blocks: a host with windows of 2 covers them in 16 pieces."""
    plain = content("mix:3:900", 3 * 32 * 4096)
    (tmp_path / "raw").write_bytes(plain)
    device = in_memory(tmp_path, 1 << 20)
    plan, _ = plan_import(device, open_source(str(tmp_path / "raw")), Choice(compressor))
    apply_plan([device], plan.steps)
    head, blocks, sectors, *_ = extents_of(device)[1]
    assert (head, blocks) == (32, 32)
    place = open_volume(device).block_offset_bytes(32)
    if damage == "nibble":
        patch(device, 4096 + 20, bytes([device.read(4096, 512)[20] | 0x0F]))  # entry 32: bits 160 to 164
    else:
        patch(device, place + 512 * int(str(sectors)) - 8 if damage == "tag" else place + 100, b"\0" * 8)
        if damage == "stream":
            patch(device, place + 512 * int(str(sectors)) - 4, b"\x10\0\0\0")  # ends too early, whatever it holds
    with pytest.raises(DeviceError):
        mapper_of(device).read(32, 32)
    mapper = mapper_of(device, writable=True, window=window)
    for first, count in ((33, 31), (32, 31), (40, 4)):  # all but some of its blocks
        with pytest.raises(DeviceError):
            mapper.write(first, bytes(4096 * count))
    new = content("text:9", 34 * 4096)
    mapper.write(31, new)
    mapper.close()
    assert everything(device)[: len(plain)] == plain[: 31 * 4096] + new + plain[65 * 4096 :]
    assert check_device(device, deep=True).findings.groups == []


def test_a_write_heals_the_sectors_of_a_raw_extent_that_it_covers(tmp_path: Path) -> None:
    plain = content("rand:3", 32 * 4096)
    (tmp_path / "raw").write_bytes(plain)
    device = in_memory(tmp_path, 1 << 20)
    plan, _ = plan_import(device, open_source(str(tmp_path / "raw")), Choice(Compressor.LZO))
    apply_plan([device], plan.steps)
    bad = BadDrive(device, [open_volume(device).block_offset_bytes(5) // 4096])
    mapper = mapper_of(bad, writable=True, window="32")
    with pytest.raises(DeviceError):
        mapper.write(7, bytes(4096))
    mapper.write(4, bytes(8192))
    mapper.close()
    assert everything(device)[: 32 * 4096] == plain[: 4 * 4096] + bytes(8192) + plain[6 * 4096 :]
