"""Damaged zone tables: rebuilt where nothing else is possible, else named and left alone."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from zoned_tools.device import dump
from zoned_tools.device.base import Geometry, ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.sidecar import repair_sidecar
from zoned_tools.device.zones import Model, ZoneCondition, ZoneType, make_table
from zoned_tools.errors import BusyError, SidecarError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZONE = 64 << 10
ZONES = 8


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    geometry = Geometry(Model.HOST_MANAGED, ZONES * ZONE - 8192, ZONE, ZONES, 4096, 4096, 4096, 4, 6)
    table = make_table(geometry.size_bytes // 512, ZONE // 512, nr_conventional=3, capacity_sectors=96)
    create_image(str(path), geometry, table)
    with open_image(str(path), writable=True) as drive:
        drive.write(0, b"conv" * 4096)
        drive.write(3 * ZONE, b"3" * 4096)
        drive.write(4 * ZONE, b"4" * 49152)
        drive.write(5 * ZONE, b"5" * 8192)
        drive.manage(ZoneOperation.CLOSE, 5)
    return path


def patch(image: Path, offset: int, data: bytes) -> bytes:
    """Overwrite bytes of the sidecar; returns what it was."""
    sidecar = image.with_name("disk.img.zones")
    good = sidecar.read_bytes()
    sidecar.write_bytes(good[:offset] + data + good[offset + len(data) :])
    return good


def zone(number: int, field: int) -> int:
    return dump.HEADER_BYTES + number * dump.DESCRIPTOR_BYTES + field


U4, U8 = struct.Struct("<I"), struct.Struct("<Q")
CERTAIN: dict[str, tuple[int, bytes]] = {
    "zone size": (56, U8.pack(12345)),
    "zone sectors": (64, U4.pack(3)),
    "number of zones": (76, U4.pack(9)),
    "sectors": (32, U8.pack(7)),
    "logical block": (68, U4.pack(0)),
    "physical block": (72, U4.pack(3000)),
    "model": (88, U4.pack(77)),
    "start": (zone(4, 0), U8.pack(1)),
    "length": (zone(7, 8), U8.pack(1 << 50)),
    "start, length, capacity": (zone(6, 0), bytes(24)),
    "capacity of a conventional zone": (zone(1, 16), U8.pack(1)),
    "capacity of the runt": (zone(7, 16), U8.pack(0)),
    "type, by not-wp": (zone(1, 36), U4.pack(9)),
    "type, by empty": (zone(6, 36), U4.pack(0)),
    "condition of a conventional zone": (zone(2, 40), U4.pack(1)),
}


@pytest.mark.parametrize("what", CERTAIN)
def test_what_follows_from_the_rest_is_rebuilt(what: str, image: Path) -> None:
    good = patch(image, *CERTAIN[what])
    with pytest.raises(SidecarError):
        open_image(str(image))
    planned = repair_sidecar(str(image), dry_run=True)
    assert (planned.missing, planned.content) == ([], good)
    result = repair_sidecar(str(image))
    assert len(result.repaired) >= 1
    assert image.with_name("disk.img.zones").read_bytes() == good
    assert repair_sidecar(str(image)).content is None, "a second repair has nothing to do"


def test_a_torn_descriptor_of_an_empty_zone(image: Path) -> None:
    """The write pointer was new, the condition behind it still old; the content says the same."""
    patch(image, zone(3, 40), U4.pack(ZoneCondition.EMPTY))
    result = repair_sidecar(str(image))
    assert result.repaired == [f"zone 3: closed, written up to byte {3 * ZONE + 4096}, as its content says too"]
    with open_image(str(image)) as drive:
        assert drive.read(3 * ZONE, 8192) == b"3" * 4096 + bytes(4096)
        assert drive.zones(3, 1)["condition"][0] == ZoneCondition.CLOSED


def test_a_torn_descriptor_of_a_zone_that_was_filled(image: Path) -> None:
    patch(image, zone(4, 24), U8.pack(4 * ZONE + 49152) + U4.pack(0) + U4.pack(2) + U4.pack(ZoneCondition.EMPTY))
    repair_sidecar(str(image))
    with open_image(str(image)) as drive:
        assert drive.zones(4, 1)["condition"][0] == ZoneCondition.FULL


LOST: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "short": (lambda raw: raw[: zone(6, 20)], "zones 6 to 7: the file ends before their descriptors"),
    "no header": (lambda raw: raw[:100], "the header"),
    "empty": (lambda _: b"", "the header"),
    "zeroes": (lambda raw: bytes(len(raw)), "number of zones"),
    "condition": (lambda raw: raw[: zone(5, 40)] + U4.pack(7) + raw[zone(5, 44) :], "zone 5: its condition"),
    "pointer": (lambda raw: raw[: zone(5, 24)] + U8.pack(1) + raw[zone(5, 32) :], "zone 5: its condition"),
    "empty, pointer torn": (
        lambda raw: raw[: zone(5, 24)] + U8.pack(5 * ZONE + 4096) + raw[zone(5, 32) : zone(5, 40)] + U4.pack(1)
        + raw[zone(5, 44) :],
        "zone 5: its condition",
    ),
    "type and condition": (lambda raw: raw[: zone(5, 36)] + U4.pack(9) + U4.pack(13) + raw[zone(5, 44) :], "its type"),
}  # fmt: skip


@pytest.mark.parametrize("what", LOST)
def test_what_follows_from_nothing_is_named_and_nothing_is_written(what: str, image: Path) -> None:
    damage, sentence = LOST[what]
    sidecar = image.with_name("disk.img.zones")
    bad = damage(sidecar.read_bytes())
    sidecar.write_bytes(bad)
    result = repair_sidecar(str(image))
    assert result.content is None
    assert any(sentence in line for line in result.missing), result.missing
    assert sidecar.read_bytes() == bad


def test_capacities_that_differ_do_not_tell_a_lost_one(image: Path) -> None:
    patch(image, zone(6, 16), U8.pack(8192))
    patch(image, zone(5, 16), U8.pack(0))
    assert repair_sidecar(str(image)).missing == ["zone 5: its capacity"]


def test_a_good_table_is_left_alone_and_none_is_an_error(image: Path) -> None:
    sidecar = image.with_name("disk.img.zones")
    before = (sidecar.read_bytes(), sidecar.stat().st_ino)
    result = repair_sidecar(str(image))
    assert (result.repaired, result.missing, result.content) == ([], [], None)
    assert (sidecar.read_bytes(), sidecar.stat().st_ino) == before
    with open_image(str(image)), pytest.raises(BusyError):
        repair_sidecar(str(image))
    sidecar.unlink()
    with pytest.raises(SidecarError, match="no zone table"):
        repair_sidecar(str(image))


def test_every_torn_descriptor_opens_or_is_repaired_or_named(image: Path) -> None:
    """A new descriptor's first bytes before an old one's last bytes, at every byte."""
    sidecar = image.with_name("disk.img.zones")
    new = sidecar.read_bytes()
    fresh = make_table(ZONES * ZONE // 512 - 16, ZONE // 512, nr_conventional=3, capacity_sectors=96)
    old = dump.encode(dump.decode(new, "").geometry, fresh)
    outcomes = set()
    for number in (3, 4, 5):
        for cut in range(65):
            at = zone(number, 0)
            torn = new[:at] + new[at : at + cut] + old[at + cut : at + 64] + new[at + 64 :]
            sidecar.write_bytes(torn)
            result = repair_sidecar(str(image))
            outcomes.add((bool(result.repaired), bool(result.missing)))
            if not result.missing:
                with open_image(str(image)) as drive:
                    row = drive.zones(number, 1)[0]
                    assert row["type"] == ZoneType.SEQ_REQUIRED
                    shown = int(row["wp_sector"] - row["start_sector"]) * 512
                    assert drive.read(number * ZONE, shown).strip(str(number).encode()) == b""
    assert outcomes == {(False, False), (True, False)}
