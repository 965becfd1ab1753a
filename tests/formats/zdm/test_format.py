"""Create and wipe, byte for byte."""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.zdm import zx1
from tests.formats.zdm.images import BLOCK, FOLDER, check_counts, drive_of, facts, reader, target, writer
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import GeometryError, MetadataError
from zoned_tools.formats.contract import Journey
from zoned_tools.formats.zdm import LAYOUT, layout
from zoned_tools.formats.zdm.format import check_place, format_plan, identity_for, place_of, plan_create, plan_wipe
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.superblock import SuperBlock

OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "fmt-16z": (8, {}),
    "fmt-64z-1mib": (20, {"label": "seagate-a", "discard": 0}),
    "fmt-1101z": (12, {"gc_status": 0, "journal_age": 0, "io_queue": 256}),
    "fmt-whole": (8, {}),
}


def template(**options: Any) -> SuperBlock:
    return SuperBlock(uuid.UUID(int=0), 0, 0, 0, 0, **options)


def content_digest(drive: zx1.VectorDrive) -> list[object]:
    """Number and SHA-256 of the blocks that are not zero."""
    digest, number = hashlib.sha256(), 0
    for block in sorted(drive.store.changed):
        data = drive.store.changed[block]
        if any(data):
            number += 1
            digest.update(struct.pack("<Q", block) + data)
    return [number, digest.hexdigest()]


@pytest.mark.parametrize("name", OPTIONS)
def test_format_is_byte_identical(name: str) -> None:
    expected = facts(name)
    start = expected["start_sector"]
    reserved, options = OPTIONS[name]
    drive = zx1.empty_drive(FOLDER, name)
    place = place_of(drive, start)
    identity = identity_for(place, reserved, template(**options), uuid.UUID(expected["identity"]["uuid"]))
    refused = name == "fmt-whole"
    if refused:
        with pytest.raises(GeometryError, match="whole drive"):
            plan_create(place, identity)
    apply_plan([drive], (format_plan if refused else plan_create)(place, identity).steps)
    assert content_digest(drive) == [expected["nonzero_blocks"], expected["nonzero_sha256"]]


@pytest.mark.parametrize(
    ("zones", "conventional", "zone_bytes", "start", "reserved", "message", "status"),
    [
        (64, 4, 1 << 28, 524288, 8, "conventional zones up to zone 4", 4),
        (64, 8, 1 << 27, 262144, 8, "zones of 134217728 bytes", 1),
        (16, 8, 1 << 28, 524288, 20, "logical device would have", 1),
        (16, 8, 1 << 28, 0, 8, "whole drive", 1),
        (1027, 8, 1 << 28, 524288, 8, "data would begin", 1),
        (8, 8, 1 << 28, 524288, 8, "data zones", 1),
        (16, 8, 1 << 28, 524284, 8, "multiple of 8", 1),
        (16, 8, 1 << 28, 16 * 524288, 8, "behind the end", 1),
    ],
)
def test_create_refuses(
    zones: int, conventional: int, zone_bytes: int, start: int, reserved: int, message: str, status: int
) -> None:
    drive = drive_of(zones, conventional, zone_bytes)
    with pytest.raises(GeometryError, match=message) as caught:
        check_place(place_of(drive, start), reserved)
    assert caught.value.clone_status == status


@given(st.integers(0, 3 * 65536), st.integers(5, 1200), st.integers(8, 100))
def test_what_is_not_refused_can_be_mapped(gap_blocks: int, zones: int, reserved: int) -> None:
    drive = drive_of(zones, zones)
    try:
        geometry, created = check_place(place_of(drive, gap_blocks * 8), reserved)
    except GeometryError:
        return
    assert geometry.start_block + geometry.data_start == geometry.zdstart * layout.ZONE_BLOCKS
    assert geometry.first_device_zone + geometry.data_zones <= zones
    assert 0 < created.logical_sectors <= geometry.area_blocks * 8
    assert layout.JOURNAL_BLOCK + geometry.journal_map_blocks * 1024 <= geometry.md_start


def test_wipe_leaves_nothing_that_could_be_taken_for_a_zdm() -> None:
    drive = zx1.open_vector(FOLDER, "pop-journal")
    place = place_of(drive, 524288)
    geometry, _ = check_place(place, 8)
    apply_plan([drive], plan_wipe(place, geometry, reset_zones=True).steps)
    assert probe(drive, 524288 * 512) is None
    assert drive.read(524288 * 512, layout.ZEROED_BLOCKS * BLOCK) == bytes(layout.ZEROED_BLOCKS * BLOCK)
    assert (drive.zones(6)["condition"] == 1).all()
    with pytest.raises(MetadataError, match="no ZDM"):
        reader(drive)


def test_create_over_an_old_zdm_is_fresh() -> None:
    drive = zx1.open_vector(FOLDER, "pop-journal")
    place = place_of(drive, 524288)
    apply_plan([drive], plan_create(place, identity_for(place, 8)).steps)
    assert check_counts(drive) == {"key.none": 1}
    mapper = writer(drive)
    mapper.write(5, b"x" * BLOCK)
    mapper.close()
    assert check_counts(drive, notes=False) == {}
    assert reader(drive).read(4, 3) == bytes(BLOCK) + b"x" * BLOCK + bytes(BLOCK)


@pytest.mark.parametrize("name", ["fmt-16z", "fmt-64z-1mib"])
def test_format_room_writes_what_create_does(name: str) -> None:
    expected = facts(name)
    reserved, options = OPTIONS[name]
    given = {"uuid": expected["identity"]["uuid"], "reserve": str(reserved), "label": str(options.get("label", ""))}
    given["trim"] = "no" if options.get("discard") == 0 else "yes"
    drive = zx1.empty_drive(FOLDER, name)
    settings = LAYOUT.parse_settings(given, Journey.FORMAT)
    assert LAYOUT.plan_format is not None
    apply_plan([drive], LAYOUT.plan_format(target(drive, expected["start_sector"]), settings).steps)
    assert content_digest(drive) == [expected["nonzero_blocks"], expected["nonzero_sha256"]]


@pytest.mark.parametrize(
    ("zones", "conventional", "start"),
    [
        (20, 4, 0),
        (20, 6, 0),
        (16, 3, 0),
        (1028, 8, 524288),
        (2052, 12, 524288),
        (20, 6, 524289),
        (20, 6, 524288 - 5780 * 8),
        (20, 6, 2047),
        (40, 0, 0),
        (4, 4, 0),
    ],
)
def test_a_refusal_names_a_start_and_a_number_of_zones_that_work(zones: int, conventional: int, start: int) -> None:
    drive = drive_of(zones, conventional)
    place = place_of(drive, start)
    with pytest.raises(GeometryError) as refused:
        check_place(place, 8)
    found = re.fullmatch(r"(\d+) zones from sector (\d+) on work", refused.value.hint)
    if conventional < 4 or zones == 4:  # metadata needs four conventional zones
        assert refused.value.hint == ""
        return
    assert found is not None, refused.value
    count, begin = int(found[1]), int(found[2])
    assert begin >= start
    better = replace(place_of(drive, begin), size_sectors=count * layout.ZONE_SECTORS)
    identity = identity_for(better, 8)
    apply_plan([drive], plan_create(better, identity).steps)
    assert probe(drive, begin * 512) is not None
