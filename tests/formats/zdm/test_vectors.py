"""Every image and every corruption case that the reference's code made, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.formats.zdm import zx1
from tests.formats.zdm.images import FOLDER, START, cases, check_counts, digests, facts, reader, target
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import GeometryError, MetadataError, RefusedError
from zoned_tools.findings import CheckReport
from zoned_tools.formats.contract import RepairOptions
from zoned_tools.formats.zdm import inspect as inspect_room
from zoned_tools.formats.zdm.checksums import crc16
from zoned_tools.formats.zdm.judge import key_checksum
from zoned_tools.formats.zdm.mapper import open_mapper
from zoned_tools.formats.zdm.open import load, require_usable
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.repair import plan_repair

IMAGES = sorted(path.name.removesuffix(".zx.xz") for path in FOLDER.glob("*.zx.xz"))
POPULATED = [name for name in IMAGES if not name.startswith("fmt-")]
OLD = [name for name in IMAGES if name.startswith("old-")]
DIALECTS = {"r108": "r101-r108", "r110": "r110", "r114": "r112-r114", "r127": "r127"}
CASES = cases()


def repaired(drive: zx1.VectorDrive, start: int = START, allow: frozenset[str] = frozenset()) -> bool:
    """Repair; False when there was nothing that may be written."""
    plan = plan_repair(target(drive, start), CheckReport("zdm", ("",)), RepairOptions(allow=allow))
    apply_plan([drive], plan.steps)
    return bool(plan)


def test_all_vectors_are_there() -> None:
    assert len(IMAGES) == 19
    assert len(CASES) == 43


@pytest.mark.parametrize("name", POPULATED)
def test_image_resolves_to_what_was_written(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    start = expected["start_sector"]
    assert digests(drive, start) == (expected["mapped_blocks"], expected["content_sha256"], expected["map_sha256"])
    mapper = reader(drive, start)
    for logical, physical, _ in expected["samples"]:
        (extent,) = mapper.lookup(logical, 1)
        assert extent.physical_block == physical + start // 8
    for logical in expected["unmapped_samples"]:
        assert mapper.read(logical, 1) == bytes(4096)


@pytest.mark.parametrize("name", POPULATED)
def test_generation_and_its_facts(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    state = load(target(drive, expected["start_sector"]))
    current, geometry = state.current, state.geometry
    assert current is not None
    assert str(state.dialect) == DIALECTS[expected["dialect"]]
    assert (current.generation, current.window, current.block) == (
        expected["generation"],
        expected["area"],
        expected["key_block"],
    )
    assert current.dirty == expected["dirty"]
    assert current.key.super.uuid.hex == expected["sb_uuid"]
    assert geometry.data_zones == expected["data_zones"]
    assert (geometry.md_start, geometry.crc_start, geometry.data_start) == (
        expected["md_start"],
        expected["c_base"],
        expected["md_end"],
    )
    assert (current.key.maps, current.key.discards) == (expected["map_pages"], expected["discard_pages"])
    assert len(current.journal) == expected["journal_entries"]
    assert len(current.cache) == expected["map_entries"]
    assert len(current.discards) == expected["discard_entries"]
    streams = current.streams
    assert {str(i): int(streams[i]) for i in np.flatnonzero(streams >= 0)} == expected["streams"]
    rows = [
        [zone, int(state.wp[zone]) & 0xFFFFFF, int(state.wp[zone]) >> 24, int(state.zf[zone]) & 0xFFFFFF]
        for zone in inspect_room.used_zones(state)
    ]
    assert rows == [row[:4] for row in expected["zones_used"]]


@pytest.mark.parametrize("name", [n for n in POPULATED if "expected_findings" in facts(n)])
def test_check_finds_exactly_what_is_expected(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    assert check_counts(drive, expected["start_sector"]) == expected["expected_findings"]


@pytest.mark.parametrize("name", OLD)
def test_old_dialects_check_clean_and_are_never_written(name: str) -> None:
    drive = zx1.open_vector(FOLDER, name)
    assert check_counts(drive, notes=False) == {"key.dirty": 1}
    assert not repaired(drive)
    with pytest.raises(RefusedError, match="only read"):
        open_mapper(target(drive), writable=True, options={})


def test_extents_of_releases_119_and_120_are_read() -> None:
    """No image of these is public: the cache page of pop-small in their words of 45 bits address, 19 bits length."""
    expected = facts("pop-small")
    drive = zx1.open_vector(FOLDER, "pop-small")
    key_block = expected["key_block"]
    base = START * 512
    words = np.frombuffer(drive.read(base + (key_block - 1) * 4096, 4096), "<u8").reshape(256, 2).copy()
    count = int(words[0, 1] >> np.uint64(48))
    words[0] = 0, count << 45
    words[1 : count + 1, 1] |= np.uint64(1 << 45)
    raw = bytearray(drive.read(base + key_block * 4096, 4096))
    raw[1106:1108] = crc16(words.tobytes()).to_bytes(2, "little")
    raw[2168:2170] = b"\x01\x00"
    raw[4076:4080] = key_checksum(bytes(raw)).to_bytes(4, "little")
    drive.store.pwrite(base + (key_block - 1) * 4096, words.tobytes())
    drive.store.pwrite(base + key_block * 4096, raw)
    assert str(load(target(drive)).dialect) == "r119-r120"
    assert digests(drive)[:2] == (expected["mapped_blocks"], expected["content_sha256"])
    assert check_counts(drive, notes=False) == {"key.dirty": 1}


@pytest.mark.parametrize("name", ["fmt-16z", "fmt-64z-1mib", "fmt-1101z"])
def test_fresh_formats_are_clean_and_empty(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    start = expected["start_sector"]
    assert check_counts(drive, start) == {"key.none": 1}
    assert check_counts(drive, start, notes=False) == {}
    mapper = reader(drive, start)
    assert mapper.size_blocks == expected["identity"]["zdm_blocks"] // 8
    (extent,) = mapper.lookup(0, mapper.size_blocks)
    assert extent.physical_block is None


def test_whole_drive_format_is_refused() -> None:
    drive = zx1.open_vector(FOLDER, "fmt-whole")
    with pytest.raises(GeometryError, match="whole drive"):
        reader(drive, 0)
    assert check_counts(drive, 0) == {"ident.geometry": 1}
    assert not repaired(drive, 0)


@pytest.mark.parametrize("name", IMAGES)
def test_probe(name: str) -> None:
    expected = facts(name)
    drive = zx1.open_vector(FOLDER, name)
    found = probe(drive, expected["start_sector"] * 512)
    assert found is not None
    assert found.uuid.replace("-", "") == expected["identity"]["uuid"]
    assert found.label == expected["identity"]["label"]
    assert probe(drive, expected["start_sector"] * 512 + 4096) is None


@pytest.mark.parametrize("name", IMAGES)
def test_inspect(name: str) -> None:
    expected = facts(name)
    tree: Any = inspect_room.inspect(target(zx1.open_vector(FOLDER, name), expected["start_sector"]))
    assert tree["identity"]["sect_size"] == expected["identity"]["sect_size"]
    assert tree["generation"] == expected.get("generation")
    for key in expected.get("generations", []):
        (found,) = [k for k in tree["keys"] if k["generation"] == key["generation"]]
        assert (found["area"], found["complete"]) == (key["area"], key["valid"])


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_corruption_is_found(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]
    drive = zx1.open_case(FOLDER, case["base"], case)
    found = check_counts(drive)
    assert found == expected["findings"]
    assert set(expected["required_findings"]) <= set(found)
    state = load(target(drive))
    if expected["usable_generation"] is None:
        assert state.current is None
        with pytest.raises(MetadataError):
            require_usable(state)
        return
    assert state.current is not None
    assert state.current.generation == expected["usable_generation"]
    mapped, content, _ = digests(drive)
    assert mapped == expected["mapped_blocks"]
    # The drive shows zeroes above its write pointer, and nothing of an offline zone.
    if case["name"] not in ("dev-wp-lower", "zone-offline"):
        assert content == expected["content_sha256"]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_corruption_is_repaired(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]["repaired"]
    drive = zx1.open_case(FOLDER, case["base"], case)
    before = dict(drive.store.changed)
    changed = repaired(drive)
    if expected is None:
        assert not changed
        assert drive.store.changed == before, "report only"
        return
    assert changed
    assert check_counts(drive, notes=False) == {}
    mapped, content, _ = digests(drive)
    if expected.get("at_least"):
        assert mapped >= expected["mapped_blocks"]
    elif not expected.get("either_entry"):
        assert (mapped, content) == (expected["mapped_blocks"], expected["content_sha256"])
    assert not repaired(drive), "a second repair has nothing to do"


@pytest.mark.parametrize("name", [n for n in POPULATED if n not in OLD])
def test_unclean_images_are_repaired_without_loss(name: str) -> None:
    expected = facts(name)
    start = expected["start_sector"]
    drive = zx1.open_vector(FOLDER, name)
    unclean = bool(check_counts(drive, start, notes=False))
    assert repaired(drive, start) == unclean
    assert check_counts(drive, start, notes=False) == {}
    mapped, content, _ = digests(drive, start)
    wanted = expected.get("repaired", expected)
    if not wanted.get("any"):
        assert (mapped, content) == (wanted["mapped_blocks"], wanted["content_sha256"])
    state = load(target(drive, start))
    if unclean:
        assert state.current is not None
        assert not state.current.dirty
        complete = {c.window for c in state.generations.candidates if c.complete}
        assert complete == {1, 512, 1024}
        assert len(state.generations.candidates) == 3, "no stale key is left"


def test_all_keys_damaged_loses_nothing_when_the_generation_is_still_there() -> None:
    for name in ("corrupt-clean", "corrupt-journal"):
        case = next(c for c in facts(name)["cases"] if c["name"] == "all-keys")
        drive = zx1.open_case(FOLDER, case["base"], case)
        assert repaired(drive)
        assert digests(drive)[:2] == (facts(name)["base_mapped"], facts(name)["base_content_sha256"])


def test_lost_data_are_dropped_only_when_allowed() -> None:
    case = next(c for c in facts("corrupt-clean")["cases"] if c["name"] == "dev-wp-lower")
    drive = zx1.open_case(FOLDER, case["base"], case)
    assert not repaired(drive)
    assert repaired(drive, allow=frozenset({"fwd.beyond_wp"}))
    assert check_counts(drive, notes=False) == {}
    assert digests(drive)[0] == 2810 - 739
