"""The offline mapper: the reference's workloads, a model, reclaim, and what it refuses."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.zdm import zx1
from tests.formats.zdm.images import (
    BLOCK,
    FOLDER,
    START,
    check_counts,
    errors,
    facts,
    nonzero_digest,
    planned,
    reader,
    target,
    tight_drive,
    writer,
    written_block,
)
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.mapper.allocate import stream_of
from zoned_tools.formats.zdm.mapper.reclaim import needed_stale
from zoned_tools.formats.zdm.mapping import DiscardExtents
from zoned_tools.formats.zdm.open import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.formats.contract import Mapper
    from zoned_tools.formats.zdm.mapper.write import ZdmMapper


def perform(mapper: ZdmMapper, operation: list[Any]) -> ZdmMapper:
    """Carry an operation out; the mapper to go on with."""
    match operation:
        case ["write", first, count, sequence, stream]:
            mapper.write(first, b"".join(written_block(first + i, sequence) for i in range(count)), stream)
        case ["zero", first, count]:
            mapper.write(first, bytes(count * BLOCK))
        case ["discard", first, count]:
            mapper.discard(first, count)
        case ["flush"]:
            mapper.flush()
        case ["close"]:
            mapper.close()
            return writer(mapper.state.volume.device)
    return mapper


@pytest.mark.parametrize("flush_every", [0, 7], ids=["as recorded", "many syncs"])
@pytest.mark.parametrize("name", ["engine-1", "engine-2"])
def test_engine_case(name: str, flush_every: int) -> None:
    case = facts(name)
    drive = zx1.open_vector(FOLDER, case["base"])
    mapper = writer(drive)
    expected = {c["after_op"]: (c["nonzero_blocks"], c["content_sha256"]) for c in case["checkpoints"]}
    for number, operation in enumerate(case["ops"], 1):
        mapper = perform(mapper, operation)
        if flush_every and number % flush_every == 0:
            mapper.flush()
        if number in expected:
            assert nonzero_digest(mapper) == expected[number]
            mapper.flush()
            assert nonzero_digest(reader(drive)) == expected[number]
            assert errors(drive) == []
    assert check_counts(drive, notes=False) == {}, "closed"
    state = load(target(drive))
    assert {c.window for c in state.generations.candidates if c.complete and not c.dirty} == {1, 512, 1024}


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3000), st.integers(1, 40), st.integers(0, 300)),
        st.tuples(st.just("zero"), st.integers(0, 3000), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("discard"), st.integers(0, 3000), st.sampled_from([1, 3, 149, 150, 151, 900]), st.just(0)),
        st.tuples(st.sampled_from(["flush", "close"]), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(operations=OPERATIONS, base=st.sampled_from(["fmt-16z", "pop-journal", "stale-trim", "pop-clean"]))
def test_mapper_is_a_block_device(operations: list[tuple[str, int, int, int]], base: str) -> None:
    span = 4000
    drive = zx1.open_vector(FOLDER, base)
    model = bytearray(reader(drive).read(0, span))
    mapper = writer(drive)
    for number, (kind, first, count, stream) in enumerate(operations, 1):
        part = slice(first * BLOCK, (first + count) * BLOCK)
        if kind == "write":
            data = number.to_bytes(2, "little") * (count * BLOCK // 2)
            mapper.write(first, data, stream)
            model[part] = data
        elif kind in ("zero", "discard"):
            mapper.discard(first, count) if kind == "discard" else mapper.write(first, bytes(count * BLOCK))
            model[part] = bytes(count * BLOCK)
        elif kind == "flush":
            mapper.flush()
        else:
            mapper.close()
            mapper = writer(drive)
    assert mapper.read(0, span) == model
    mapper.close()
    assert reader(drive).read(0, span) == model
    assert check_counts(drive, notes=False) == {}


def test_small_trims_read_as_zeroes_and_leave_no_zero_entries() -> None:
    drive = zx1.open_vector(FOLDER, "pop-clean")
    mapper = writer(drive)
    mapped = next(e for e in mapper.lookup(0, 60000) if e.physical_block is not None)
    mapper.discard(mapped.logical_block, 1)
    assert mapper.read(mapped.logical_block, 1) == bytes(BLOCK)
    mapper.flush()
    assert "cache.zero" not in check_counts(drive)
    assert reader(drive).read(mapped.logical_block, 1) == bytes(BLOCK)


def test_streams_keep_to_their_zones() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-64z-1mib")
    mapper = writer(drive, 2048)
    for turn in range(3):
        for stream in (0, 1, 9, 40, 254, 255):
            mapper.write(turn * 100 + stream % 50, b"x" * BLOCK, stream)
    zones = mapper.zones
    assert {int(zones.streams[s]) for s in (1, 9, 40, 254)} == {0, 1, 2, 3}
    assert [int(zones.wp[z]) for z in range(4)] == [6, 3, 3, 6], "0 is 1, and 255 is kept for metadata"
    assert [stream_of(h) for h in (0, 1, 254, 255, 256, 0xFFFF)] == [1, 1, 254, 254, 1, 254]
    mapper.close()
    assert check_counts(drive, 2048, notes=False) == {}


def test_conventional_and_sequential_zones_of_a_thousand_zone_drive() -> None:
    drive = zx1.open_vector(FOLDER, "pop-1101z")
    mapper = writer(drive)
    last = mapper.size_blocks - 3
    mapper.write(last, b"abc" * BLOCK, 200)
    mapper.close()
    assert reader(drive).read(last, 3) == b"abc" * BLOCK
    assert check_counts(drive, notes=False) == {}


def test_a_fresh_format_empties_its_zones_on_the_first_change() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    table = drive.zones()
    table["wp_sector"][8] += 8 * 100
    table["condition"][8] = 4
    drive = zx1.VectorDrive("used", drive.geometry, table, drive.store, writable=True)
    mapper = writer(drive)
    mapper.read(0, 1)
    mapper.close()
    assert drive.zones(8, 1)["condition"][0] == 4, "reading changes nothing"
    mapper = writer(drive)
    mapper.write(0, b"x" * BLOCK)
    assert drive.zones(8, 1)["condition"][0] == 1
    mapper.close()
    assert check_counts(drive, notes=False) == {}


def wiped(base: str, blocks: range) -> zx1.VectorDrive:
    """An image whose first blocks, all generation areas among them, were overwritten with zeroes."""
    drive = zx1.open_vector(FOLDER, base)
    for block in blocks:
        drive.store.pwrite(START * 512 + block * BLOCK, bytes(BLOCK))
    return drive


@pytest.mark.parametrize(("base", "last"), [("pop-journal", 1535), ("pop-journal", 1675), ("pop-clean", 1535)])
def test_a_drive_without_keys_is_no_fresh_format_when_it_was_used(base: str, last: int) -> None:
    """Its tables may be in the journal alone: starting it would empty the data zones."""
    drive = wiped(base, range(1, last + 1))
    before = drive.zones()
    assert [e.split(":")[0] for e in errors(drive)] == ["key.none"]
    for opened in (reader, writer):
        with pytest.raises(MetadataError, match="no complete generation of the metadata is left, but"):
            opened(drive)
    waiting = planned(drive)
    assert [(a.id, a.waits) for a in waiting.actions] == [("zdm.key.none", True)]
    assert waiting.plan.steps == []
    apply_plan([drive], planned(drive, allow=frozenset({"key.none"})).plan.steps)
    assert (drive.zones() == before).all(), "a repair resets no zone"
    assert check_counts(drive, notes=False) == {}
    mapper = writer(drive)
    mapper.write(5, b"x" * BLOCK)
    mapper.close()
    assert check_counts(drive, notes=False) == {}


def test_a_first_start_that_was_cut_is_a_fresh_format_or_started() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-16z")
    recorder = Recorder(Overlay(drive))
    mapper = writer(recorder)
    mapper.write(7, b"x" * BLOCK)
    mapper.flush()
    for cut in range(len(recorder.log) + 1):
        for keep in (lambda _: True, lambda _: False, lambda number: number % 2 == 0, lambda number: number % 2 == 1):
            left = Overlay(drive)
            replay_cut([left], recorder.log, cut, keep)
            assert errors(left) == [], f"cut {cut}"
            mapper = writer(left)
            mapper.write(8, b"y" * BLOCK)
            mapper.close()
            assert check_counts(left, notes=False) == {}, f"cut {cut}"


def test_reclaim_moves_live_blocks_and_keeps_what_streams_wrote() -> None:
    drive = tight_drive()
    before = reader(drive).read(0, 4000)
    model = bytearray(before)
    mapper = writer(drive)
    choose = random.Random(5)
    for number in range(1, 60):
        first, count = choose.randrange(3900), choose.randrange(1, 60)
        data = bytes([number]) * (count * BLOCK)
        mapper.write(first, data, choose.choice([1, 2, 3]))
        model[first * BLOCK : (first + count) * BLOCK] = data
    mapper.close()
    assert reader(drive).read(0, 4000) == model
    assert check_counts(drive, notes=False) == {}
    wp = mapper.zones.wp
    assert (wp < 60000).sum() >= 5, "zones were emptied"


def test_reclaim_clears_what_hides_under_discards() -> None:
    drive = tight_drive()
    mapper = writer(drive)
    mapper.discard(0, 60000)
    for number in range(40):
        mapper.write(70000 + number * 20, bytes([number + 1]) * (20 * BLOCK), number % 3 + 1)
    mapper.close()
    assert reader(drive).read(0, 60000) == bytes(60000 * BLOCK)
    assert check_counts(drive, notes=False) == {}


def test_a_full_drive_says_so_and_stays_whole() -> None:
    drive = tight_drive()
    table = drive.zones()
    table["condition"][8:15] = 0xE  # full, nothing live in most of them, but read-only for reclaim
    table["condition"][8:13] = 0xD
    drive = zx1.VectorDrive("full", drive.geometry, table, drive.store, writable=True)
    mapper = writer(drive)

    def fill() -> None:
        for number in range(3000):
            mapper.write(number * 40, bytes([number % 250 + 1]) * (40 * BLOCK))

    with pytest.raises(DeviceError, match="room"):
        fill()
    mapper.close()
    assert [e for e in errors(drive) if "zone.cond" not in e] == []


def test_many_scattered_blocks_need_several_generations() -> None:
    """478008: one journal map block, 1024 slots."""
    from zoned_tools.device.base import Geometry as DriveGeometry
    from zoned_tools.device.emulated import EmulatedDrive
    from zoned_tools.device.zones import Model, make_table
    from zoned_tools.formats.zdm.format import format_plan, identity_for, place_of

    size = 20 << 28
    table = make_table(size // 512, layout.ZONE_SECTORS, nr_conventional=6)
    geometry = DriveGeometry(Model.HOST_MANAGED, size, 1 << 28, 20, 4096, 4096, 4096)
    drive = EmulatedDrive("small", geometry, table, zx1.ExtentStore(zx1.Extents(b"ZX1 %d 0\n" % size)), writable=True)
    place = place_of(drive, 478008)
    apply_plan([drive], format_plan(place, identity_for(place, 8)).steps)
    mapper = writer(drive, 478008)
    assert mapper.geometry.journal_map_blocks == 1
    blocks = random.Random(1).sample(range(mapper.size_blocks), 2500)
    for block in blocks:
        mapper.write(block, block.to_bytes(4, "little") * 1024)
    mapper.flush()
    fresh = reader(drive, 478008)
    assert all(fresh.read(b, 1) == b.to_bytes(4, "little") * 1024 for b in blocks)
    for block in blocks[::3]:
        mapper.discard(block, 1)
    mapper.close()
    fresh = reader(drive, 478008)
    assert all(fresh.read(b, 1) == bytes(BLOCK) for b in blocks[::3])
    assert check_counts(drive, 478008, notes=False) == {}


def test_damaged_pages_are_not_written_over() -> None:
    case = next(c for c in facts("corrupt-clean")["cases"] if c["name"] == "lut-fwd")
    drive = zx1.open_case(FOLDER, case["base"], case)
    mapper = writer(drive)
    page = (case["patches"][0]["block"] - START_BLOCK - 65536) * 1024
    mapper.write(page, b"x" * BLOCK)
    with pytest.raises(MetadataError, match="damaged"):
        mapper.close()


START_BLOCK = 65536


def test_idle_reclaim_and_warnings() -> None:
    drive = tight_drive()
    mapper = writer(drive)
    before = mapper.free_zones()
    assert mapper.reclaim() == 0, "no zone is full yet"
    for number in range(8):
        mapper.write(number * 200, bytes([number + 1]) * (60 * BLOCK), number % 3 + 1)
    assert mapper.reclaim() >= 0
    assert set(before) == {"empty", "writable"}
    mapper.close()
    assert check_counts(drive, notes=False) == {}
    assert reader(drive).warnings == []
    assert "not stopped cleanly" in reader(zx1.open_vector(FOLDER, "pop-small")).warnings[0]
    assert "incomplete" in reader(zx1.open_vector(FOLDER, "cut-torn-md")).warnings[1]
    assert "r127" in reader(zx1.open_vector(FOLDER, "old-r127")).warnings[0]


def test_refusals_of_requests() -> None:
    drive = zx1.open_vector(FOLDER, "pop-clean")
    mapper = writer(drive)
    for block, count in ((-1, 1), (mapper.size_blocks, 1), (0, mapper.size_blocks + 1)):
        with pytest.raises(DeviceError, match="not on the logical device"):
            mapper.read(block, count)
        with pytest.raises(DeviceError):
            mapper.discard(block, count)
    with pytest.raises(DeviceError, match="whole blocks"):
        mapper.write(0, b"abc")
    readonly: Mapper = reader(drive)
    assert not readonly.writable
    changes: list[Callable[[], object]] = [
        lambda: readonly.write(0, bytes(BLOCK)),
        lambda: readonly.discard(0, 1),
    ]
    for change in changes:
        with pytest.raises(DeviceError, match="read-only"):
            change()
    mapper.close()
    mapper.close()
    uses: list[Callable[[], object]] = [lambda: mapper.read(0, 1), lambda: mapper.write(0, bytes(BLOCK)), mapper.flush]
    for use in uses:
        with pytest.raises(DeviceError, match="closed"):
            use()


def test_closing_an_unchanged_clean_image_writes_nothing() -> None:
    drive = zx1.open_vector(FOLDER, "pop-clean")
    mapper = writer(drive)
    mapper.read(0, 100)
    mapper.close()
    assert drive.store.changed == {}


def test_the_third_area_is_not_overwritten_while_it_counts() -> None:
    base = zx1.open_vector(FOLDER, "cut-torn-md")  # generation 5 counts, number 6 is torn
    drive = Overlay(base)
    mapper = writer(drive)
    mapper.write(0, b"x" * BLOCK)
    mapper.flush()
    state = load(target(drive))
    assert state.current is not None
    assert state.current.generation == 7
    assert any(c.generation == 5 and c.complete for c in state.generations.candidates)


def test_thresholds_fall_as_zones_run_out() -> None:
    assert [needed_stale(n, 1000) for n in (300, 249, 49, 6, 4)] == [0xFF00, 0x7FFF, 0x400, 0x40, 1]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.integers(1, 60)), max_size=30))
def test_discard_extents_are_a_set_of_blocks(changes: list[tuple[bool, int, int]]) -> None:
    extents, model = DiscardExtents(), set()
    for add, start, count in changes:
        blocks = set(range(start, start + count))
        if add:
            extents.add(start, count)
            model |= blocks
        else:
            extents.remove(start, count)
            model -= blocks
    listed = list(extents)
    assert {b for s, n in listed for b in range(s, s + n)} == model
    assert all(a + n < b for (a, n), (b, _) in pairwise(listed)), "disjoint, joined, ascending"
    assert extents.mask_of(np.arange(300)).tolist() == [b in model for b in range(300)]
