"""ZDMs of whose metadata blocks cannot be read."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

import numpy as np
import pytest

from tests.formats.media import DamagedDrive
from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, POPULATED, START, facts, planned, reader, target
from tests.sampling import rounds, some
from zoned_tools.device.base import Device
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import DeviceError, MetadataError
from zoned_tools.formats.contract import CheckOptions, Settings, Severity
from zoned_tools.formats.shared.findings import Finding
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.check import check
from zoned_tools.formats.zdm.dump import dump, restore
from zoned_tools.formats.zdm.inspect import inspect
from zoned_tools.formats.zdm.layout import PAGE_ENTRIES
from zoned_tools.formats.zdm.mapper.open import open_mapper
from zoned_tools.formats.zdm.mapper.read import ZdmReader
from zoned_tools.formats.zdm.open import State, load
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.roles import zone_roles
from zoned_tools.formats.zdm.tables import Direction

NAMES = ("pop-clean", "pop-journal", "stale-trim", "gen-third-slot", "old-r127")
OFFSET = START * 512

Content = dict[int, bytes]


@pytest.fixture(scope="module", params=NAMES)
def whole(request: pytest.FixtureRequest) -> Device:
    return zx1.open_vector(FOLDER, request.param)


def damaged(device: Device, *blocks: int, known: bool = True) -> DamagedDrive:
    """A byte in the middle of each of some blocks of the partition cannot be read."""
    return DamagedDrive(device, [(OFFSET + b * BLOCK + 99, OFFSET + b * BLOCK + 100) for b in blocks], known=known)


def content(mapper: ZdmReader) -> Content:
    """Every mapped block that can be read; the others are in no hole, and give EIO."""
    found: Content = {}
    for run in mapper.lookup(0, mapper.size_blocks):
        if run.physical_block is None:
            continue
        for block in range(run.logical_block, run.logical_block + run.blocks):
            try:
                found[block] = mapper.read(block, 1)
            except DeviceError as error:
                if error.errno != errno.EIO:
                    raise
    return found


def lost(mapper: ZdmReader) -> set[int]:
    return {
        block
        for row in mapper.losses().metadata
        for block in range(row.offset_bytes // BLOCK, (row.offset_bytes + row.length_bytes) // BLOCK)
    }


def findings_of(device: Device) -> list[Finding]:
    return list(check(target(device), CheckOptions()).findings)


def codes(device: Device) -> set[str]:
    return {finding.code for finding in findings_of(device)}


def use(device: Device) -> None:
    """Everything that reads, which no damage may end."""
    probe(device, OFFSET)
    inspect(target(device))
    dump(target(device))
    zone_roles(target(device))
    planned(device)


def metadata_blocks(state: State) -> Iterator[tuple[str, int]]:
    """Kinds and blocks: all parts of the current generation, pointers, pages in use in both tables and a few others."""
    current, tables, chance = state.current, state.tables, random.Random(5)
    assert current is not None
    yield "super", 0
    yield "key", current.block
    yield "map", current.window
    yield "md", current.block + 1
    if current.key.maps:
        yield "cache", current.block - 1
    yield "gap", current.window + layout.WP_BLOCK // 3 - 2
    first = layout.WP_BLOCKS[state.dialect]
    yield "wp", first
    yield "zf", first + 1
    for direction, kind in ((Direction.FORWARD, "forward"), (Direction.REVERSE, "reverse")):
        used = [int(page) for chunk in tables.chunks(direction) for page in chunk.pages]
        empty = sorted(set(range(state.geometry.map_count)) - set(used))
        for page in {*some(used, 2, chance), *empty[-1:]}:
            yield kind, tables.current(tables.start(direction) + page)
        yield f"crc {kind}", tables.current(tables.crc_start(direction))


@pytest.mark.parametrize("known", [False, True])
def test_any_block_of_metadata(whole: Device, known: bool) -> None:
    """Nothing is lost that something else tells, the rest is read as it was, and no other rule is broken."""
    before, clean = codes(whole), content(reader(whole))
    for kind, block in metadata_blocks(load(target(whole))):
        device = damaged(whole, block, known=known)
        use(device)
        evidence = check(target(device), CheckOptions())
        if evidence.state.current is None:
            continue
        mapper = reader(device)
        gone, read = lost(mapper), content(mapper)
        falls_back = kind in ("key", "map", "md", "cache")
        if falls_back:
            assert evidence.state.generations.chosen is not None
            assert kind == "key" or "gen.torn" in codes(device)
        else:
            assert read.items() <= clean.items(), kind
            assert set(clean) - set(read) <= gone, kind
            assert not gone & set(read), kind
        if kind != "forward":
            assert not gone, kind
        told = {"metadata-lost"} if gone or kind == "super" else set() if kind == "gap" else {"block-unreadable"}
        new = {f.code for f in evidence.findings if f.severity is not Severity.INFO} - before
        if falls_back:  # the older generation is behind the blocks that were written since
            assert new >= told
        else:
            assert new == told, kind
        for finding in evidence.findings:
            if finding.code in told:
                assert finding.where["offset_bytes"] == OFFSET + block * BLOCK
                assert finding.where["length_bytes"] == BLOCK


def written_metadata(device: Device, start_sector: int) -> list[int]:
    """Blocks of the partition ahead of its data that hold more than one byte's value: not pages without entries."""
    state = load(target(device, start_sector))
    first = start_sector * 512
    length = state.geometry.data_start * BLOCK
    blocks = [
        block
        for at, count in device.data_extents(first, length)
        for block in range((at - first) // BLOCK, (at + count - first) // BLOCK)
    ]
    return [block for block in blocks if len({*device.read(first + block * BLOCK, BLOCK)}) > 1]


@pytest.mark.parametrize("name", POPULATED)
def test_any_written_block_ahead_of_the_data(name: str) -> None:
    """The newest generation is the same and only lookups that are said to be lost differ, or an older one serves."""
    device = zx1.open_vector(FOLDER, name)
    start_sector = int(facts(name).get("start_sector", START))
    before, clean = load(target(device, start_sector)), content(reader(device, start_sector))
    assert before.current is not None
    for block in some(written_metadata(device, start_sector), 3, random.Random(name)):
        at = start_sector * 512 + block * BLOCK
        drive = DamagedDrive(device, [(at + 99, at + 100)], known=block % 2 == 0)
        state = check(target(drive, start_sector), CheckOptions()).state
        assert state.current is not None, block
        if state.current.key.generation != before.current.key.generation:
            assert before.current.window <= block <= before.current.block + layout.WP_BLOCK, block  # a part of it
            continue
        mapper = reader(drive, start_sector)
        gone, read = lost(mapper), content(mapper)
        assert read.items() <= clean.items(), block
        assert set(clean) - set(read) <= gone, block


@pytest.mark.parametrize("known", [False, True])
def test_mappings_of_a_lost_page_come_from_the_reverse_table(known: bool) -> None:
    device = zx1.open_vector(FOLDER, "pop-clean")
    state = load(target(device))
    clean = content(reader(device))
    start = state.geometry.forward_start
    (page, *_) = [int(page) for chunk in state.tables.chunks(Direction.FORWARD) for page in chunk.pages]
    drive = damaged(device, state.tables.current(start + page), known=known)
    mapper = reader(drive)
    mine = {block for block in clean if block // PAGE_ENTRIES == page}
    assert mine
    assert {block: data for block, data in content(mapper).items() if block in mine} == {b: clean[b] for b in mine}
    hidden = {b for b in range(page * PAGE_ENTRIES, (page + 1) * PAGE_ENTRIES) if b in mapper.cache.arrays()[0]}
    assert lost(mapper) <= set(range(page * PAGE_ENTRIES, (page + 1) * PAGE_ENTRIES)) - mine - hidden
    (block,) = list(lost(mapper))[:1]
    with pytest.raises(DeviceError, match="no reverse entry") as failed:
        mapper.read(block, 1)
    assert failed.value.errno == errno.EIO


@pytest.mark.parametrize("seed", rounds(6, 200))
def test_two_blocks_at_random(whole: Device, seed: int) -> None:
    clean = content(reader(whole))
    chosen = random.Random(seed).sample(list(metadata_blocks(load(target(whole)))), 2)
    device = damaged(whole, *(block for _, block in chosen), known=seed % 2 == 0)
    use(device)
    codes(device)
    try:
        mapper = reader(device)
    except MetadataError as error:
        assert "no complete generation" in error.message  # noqa: PT017 - the only thing that ends it
        return
    read = content(mapper)
    if not {kind for kind, _ in chosen} & {"key", "map", "md", "cache"}:
        assert read.items() <= clean.items()
        assert set(clean) - set(read) <= lost(mapper)


def test_two_blocks_of_a_drive_that_is_damaged_besides() -> None:
    """After a power cut both tables disagree; nothing ends what reads."""
    device = zx1.open_vector(FOLDER, "cut-direct")
    blocks = list(metadata_blocks(load(target(device))))
    for seed in range(6):
        drive = damaged(device, *(block for _, block in random.Random(seed).sample(blocks, 2)))
        use(drive)
        codes(drive)
        content(reader(drive))


def test_without_a_generation_the_tables_at_home_are_read() -> None:
    device = zx1.open_vector(FOLDER, "pop-clean")
    state = load(target(device))
    keys = [candidate.block for candidate in state.generations.candidates]
    drive = damaged(device, *keys)
    with pytest.raises(MetadataError):
        load(target(damaged(device, 0, *keys)))
    mapper = reader(drive)
    assert [row[:2] for row in mapper.losses().guessed] == [(0, mapper.size_blocks * BLOCK)]
    assert any("home place" in text for text in mapper.warnings)
    assert content(mapper)
    found = findings_of(drive)
    assert {f.where["what"] for f in found if f.code == "metadata-lost"} == {"key"}
    assert not planned(drive).plan
    assert [action.id for action in planned(drive).waiting] == ["zdm.key.none"]


def test_a_repair_rewrites_what_another_copy_tells() -> None:
    """Certain without consent; what is read stays as it was, and nothing is unreadable afterwards."""
    device = zx1.open_vector(FOLDER, "pop-clean")
    clean = content(reader(device))
    for kind, block in metadata_blocks(load(target(device))):
        if kind in ("super", "forward", "gap", "key", "map", "md", "cache"):
            continue
        drive = damaged(device, block, known=False)
        plan = planned(drive)
        assert plan.waiting == [], kind
        apply_plan([drive], plan.plan.steps)
        assert drive.bad == [], kind
        assert content(reader(drive)) == clean, kind
        assert {f.code for f in findings_of(drive) if f.severity is not Severity.INFO} == set(), kind


def test_a_repair_gives_mappings_up_with_consent_only() -> None:
    device = zx1.open_vector(FOLDER, "pop-clean")
    state = load(target(device))
    clean = content(reader(device))
    pages = [int(page) for chunk in state.tables.chunks(Direction.FORWARD) for page in chunk.pages]
    drive = damaged(device, state.tables.current(state.geometry.forward_start + pages[0]), known=False)
    read = content(reader(drive))
    assert not planned(drive).plan
    assert [action.id for action in planned(drive).waiting] == ["zdm.metadata-lost"]
    apply_plan([drive], planned(drive, allow=frozenset({"metadata-lost"})).plan.steps)
    assert drive.bad == []
    after = content(reader(drive))
    assert after == read
    assert after.items() <= clean.items()
    assert {f.code for f in findings_of(drive) if f.severity is not Severity.INFO} == set()


def test_an_identity_is_rebuilt_with_consent() -> None:
    device = zx1.open_vector(FOLDER, "pop-clean")
    drive = damaged(device, 0, known=False)
    clean = content(reader(device))
    assert content(reader(drive)) == clean
    assert not planned(drive).plan
    apply_plan([drive], planned(drive, allow=frozenset({"metadata-lost"})).plan.steps)
    assert drive.bad == []
    assert load(target(drive)).identity.usable
    assert content(reader(drive)) == clean


def test_what_is_not_whole_is_not_written() -> None:
    device = zx1.open_vector(FOLDER, "pop-clean")
    state = load(target(device))
    drive = damaged(device, state.geometry.reverse_start, known=False)
    with pytest.raises(MetadataError, match="only reading"):
        open_mapper(target(drive), writable=True, settings=Settings())
    with pytest.raises(MetadataError, match="not whole"):
        restore(target(device), dump(target(drive)))
    assert np.array_equal(load(target(drive)).wp, state.wp)
