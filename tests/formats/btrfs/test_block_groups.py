"""Rules over block groups and trees that the images of kernels do not show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.formats.btrfs.images import MIB, change_zones, poke
from tests.formats.btrfs.nodes import edit_root, item_places, own_devices
from zoned_tools.device.image import open_image
from zoned_tools.device.zones import SECTOR_BYTES, ZoneCondition
from zoned_tools.formats.btrfs import zone_accounts
from zoned_tools.formats.btrfs.block_groups import GROUP_DTYPE, STRIPE_DTYPE, UNJUDGED, BlockGroups
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.btrfs.survey import survey_file_system
from zoned_tools.formats.btrfs.zone_states import CONVENTIONAL, DEAD
from zoned_tools.formats.contract import Target

if TYPE_CHECKING:
    from tests.programs import Program

EXTENT_TREE = 2
DATA, METADATA, RAID0, RAID1, DUP, RAID10, RAID1C3 = 1, 4, 8, 16, 32, 64, 512
ROW = 65536
CAPACITY = 4 * MIB


def one_group(kind: int, written: list[int], last: int = 0, units: list[int] | None = None) -> BlockGroups:
    """A block group whose stripes have these W."""
    groups = np.zeros(1, GROUP_DTYPE)
    groups["logical"], groups["length"], groups["type"], groups["last"] = 8 * MIB, 4 * MIB, kind, last
    stripes = np.zeros(len(written), STRIPE_DTYPE)
    stripes["stripe"] = stripes["zone"] = range(len(written))
    stripes["unit"] = units or ([*range(len(written))] if kind & RAID0 else 0)
    stripes["written"], stripes["capacity"] = written, CAPACITY
    return BlockGroups(groups, stripes)


@pytest.mark.parametrize(
    ("kind", "written", "fault"),
    [
        (RAID0, [2 * ROW, 2 * ROW], ""),
        (RAID0, [2 * ROW, ROW], ""),
        (RAID0, [2 * ROW + 4096, 2 * ROW, 2 * ROW], ""),
        (RAID0, [ROW, 2 * ROW], "stripe position disorder"),
        (RAID0, [ROW + 8192, ROW + 4096], "multiple partial written stripes"),
        (RAID0, [3 * ROW, ROW], "a stripe gap that is too large"),
        (RAID0, [ROW, DEAD], ""),
        (RAID0, [ROW, CONVENTIONAL], ""),
        (RAID10, [2 * ROW, 2 * ROW, ROW, ROW], ""),
        (RAID10, [ROW, ROW, 2 * ROW, 2 * ROW], "stripe position disorder"),
        (RAID10, [ROW, 2 * ROW, ROW, ROW], ""),
        (RAID1, [ROW, 3 * ROW], ""),
    ],
)
def test_rows_are_dealt_in_order(kind: int, written: list[int], fault: str) -> None:
    found = one_group(METADATA | kind, written, units=[0, 0, 1, 1] if kind == RAID10 else None)
    assert found.striping_faults() == ({8 * MIB: fault} if fault else {})


@pytest.mark.parametrize(
    ("kind", "written", "units", "short"),
    [
        (DUP, [4096, 8192], None, [True, False]),
        (DUP, [8192, 8192], None, [False, False]),
        (DUP, [0, CONVENTIONAL], None, [False, False]),
        (DUP, [0, DEAD], None, [False, False]),
        (RAID1C3, [8192, 4096, 0], None, [False, True, True]),
        (RAID10, [8192, 4096, 4096, 4096], [0, 0, 1, 1], [False, True, False, False]),
        (RAID0, [8192, 4096], None, [False, False]),
        (DUP, [4096, UNJUDGED], None, [False, False]),
    ],
)
def test_copies_are_written_equally_far(
    kind: int, written: list[int], units: list[int] | None, short: list[bool]
) -> None:
    assert one_group(METADATA | kind, written, units=units).differs.tolist() == short


@pytest.mark.parametrize(
    ("kind", "written", "beyond"),
    [
        (0, [8192], [False]),
        (0, [4096], [True]),
        (0, [CONVENTIONAL], [False]),
        (DUP, [4096, 4096], [True, True]),
        (DUP, [4096, 8192], [False, False]),
        (DUP, [CONVENTIONAL, 4096], [False, True]),
        (DUP, [CONVENTIONAL, 8192], [False, False]),
        (RAID1, [4096, DEAD], [True, False]),
        (RAID0, [4096, 4096], [False, False]),
    ],
)
def test_extents_end_below_the_write_pointer(kind: int, written: list[int], beyond: list[bool]) -> None:
    assert one_group(METADATA | kind, written, last=8192).beyond.tolist() == beyond


@pytest.mark.parametrize(
    ("kind", "written", "last", "over"),
    [
        (0, [CAPACITY], CAPACITY, [False]),
        (0, [CAPACITY + 4096], 0, [True]),
        (0, [CONVENTIONAL], CAPACITY + 4096, [True]),
        (RAID0, [CONVENTIONAL, CONVENTIONAL], CAPACITY + 4096, [False, False]),
    ],
)
def test_nothing_reaches_behind_the_capacity(kind: int, written: list[int], last: int, over: list[bool]) -> None:
    assert one_group(METADATA | kind, written, last).over_capacity.tolist() == over


def test_lost_bytes_are_those_of_extents_above_the_pointer() -> None:
    """Extents below, across and above it, and one of the next block group."""
    found = one_group(DATA, [8192], last=20480)
    start = 8 * MIB
    extents = np.array([[start, 4096], [start + 4096, 8192], [start + 16384, 4096], [start + 4 * MIB, 4096]], np.uint64)
    assert found.lost_bytes(np.array([0]), extents).tolist() == [4096 + 4096]


# -- images


def findings(program: Program, *arguments: object) -> list[tuple[str, dict[str, Any]]]:
    [row] = program("zoned", "check", "--json", *arguments).json["devices"]
    return [(f["id"].removeprefix("btrfs."), f["where"]) for f in row["findings"] if f["id"] != "btrfs.zone-orphan"]


def set_written(image: Path, zone: int, written_bytes: int, condition: ZoneCondition = ZoneCondition.CLOSED) -> None:
    def edit(table: Any) -> None:
        table["wp_sector"][zone] = table["start_sector"][zone] + written_bytes // SECTOR_BYTES
        table["condition"][zone] = condition

    change_zones(image, edit)


def test_stripes_of_raid0_out_of_order(tmp_path: Path, program: Program) -> None:
    devices = own_devices("g20-raid0-two-healthy", tmp_path)
    set_written(devices[1], 3, 10 * ROW + ROW)
    assert ("bg-striping", {"block_group": 33554432}) in findings(program, *devices)


def test_the_first_stripe_of_raid1_is_never_skipped(tmp_path: Path, program: Program) -> None:
    devices = own_devices("g18-raid1-two-healthy", tmp_path)
    change_zones(devices[0], lambda table: table["condition"].__setitem__(7, ZoneCondition.OFFLINE))
    found = program("zoned", "check", "--json", *devices)
    [dead] = [f for f in found.json["devices"][0]["findings"] if f["id"] == "btrfs.bg-zone-dead"]
    assert (found.status, dead["severity"]) == (4, "error")
    assert dead["where"] == {
        "devid": 1,
        "zone": 7,
        "block_group": 29360128,
        "stripe": 0,
        "condition": "offline",
        "device": str(devices[0]),
    }


def test_more_active_zones_than_the_drive_allows(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)
    sidecar = Path(f"{image}.zones")
    raw = bytearray(sidecar.read_bytes())
    raw[84:88] = (8).to_bytes(4, "little")
    sidecar.write_bytes(raw)
    assert findings(program, image) == []
    for zone in (20, 21):
        set_written(image, zone, 4096)
    assert findings(program, image) == [("active-zones-exceeded", {"devid": 1})]


def test_a_chunk_without_block_group_item(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)

    def edit(node: bytearray) -> None:
        key, _ = item_places(node, 192)[-1]
        node[key : key + 8] = (1 << 40).to_bytes(8, "little")

    edit_root([image], EXTENT_TREE, edit)
    codes = [code for code, _ in findings(program, image)]
    places = [where["block_group"] for code, where in findings(program, image) if code == "bg-unmatched"]
    assert codes == ["bg-unmatched", "bg-unmatched"]
    assert places == [29360128, 1 << 40]


def test_an_item_that_says_another_size(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)

    def edit(node: bytearray) -> None:
        _, data = item_places(node, 192)[0]
        node[data : data + 8] = (4096).to_bytes(8, "little")

    edit_root([image], EXTENT_TREE, edit)
    wanted = {"block_group": 16777216, "used_bytes": 135168, "item_used_bytes": 4096}
    assert findings(program, image) == [("bg-used-differs", wanted)]


def test_an_unreadable_extent_tree_is_a_finding_and_pointers_are_still_compared(
    tmp_path: Path, program: Program
) -> None:
    """Nothing is taken for "no extents": what needs them is left out, what does not is judged."""
    [image] = own_devices("g04-dup-behind", tmp_path)
    logical = edit_root([image], EXTENT_TREE, lambda node: node.__setitem__(slice(0x30, 0x38), bytes(8)))
    found = dict(findings(program, image))
    assert set(found) == {"tree-lost", "bg-wp-differs"}
    lost = found["tree-lost"]
    assert (lost["tree"], lost["level"], lost["logical"]) == (EXTENT_TREE, 0, logical)
    assert [(copy["devid"], copy["zone"], copy["stripe"], copy["why"]) for copy in lost["copies"]] == [
        (1, 7, 0, "address"),
        (1, 8, 1, "address"),
    ]


def test_one_bad_copy_is_told_by_zone_and_stripe(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)
    logical = edit_root([image], EXTENT_TREE, lambda node: node.__setitem__(slice(0x50, 0x58), bytes(8)), copies=1)
    wanted = {"tree": 2, "level": 0, "logical": logical, "devid": 1, "zone": 7, "stripe": 0}
    assert findings(program, image) == [("node-copy-lost", wanted)]


def test_a_deep_check_names_lost_nodes_of_every_tree(tmp_path: Path, program: Program) -> None:
    """The tree for relocated data (-9) is not read at mount, and not by a plain check."""
    [image] = own_devices("g01-dup-healthy", tmp_path)
    logical = edit_root([image], -9, lambda node: node.__setitem__(slice(0x64, 0x65), b"\5"))
    assert findings(program, image) == []
    [(code, where)] = findings(program, "--deep", image)
    assert (code, where["tree"], where["logical"]) == ("node-lost", -9, logical)
    assert {copy["why"] for copy in where["copies"]} == {"level"}


def test_zones_that_cannot_be_read_are_named(tmp_path: Path, program: Program) -> None:
    """Both metadata zones offline: the roots are lost, and nothing is said of what they lead to."""
    [image] = own_devices("g01-dup-healthy", tmp_path)
    change_zones(image, lambda table: table["condition"].__setitem__([7, 8], ZoneCondition.OFFLINE))
    found = program("zoned", "check", "--json", image).json["devices"][0]
    [lost] = [f["where"] for f in found["findings"] if f["id"] == "btrfs.roots-unreadable"]
    assert (lost["tree"], lost["level"]) == (1, 0)
    assert [(c["devid"], c["zone"], c["stripe"], c["why"]) for c in lost["copies"]] == [
        (1, 7, 0, "offline"),
        (1, 8, 1, "offline"),
    ]
    assert "nodes_read" not in found["facts"]


def test_a_damaged_log_is_one_finding(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("p12-fsync-equal-gen", tmp_path)
    with open_image(str(image)) as drive:
        fs = survey_file_system(Target(NAME, (drive,)))
        block = fs.newest
        assert block is not None
        [(_, place)] = fs.reader.chunk_map(block).places(block.log_root, block.nodesize)
    poke(image, place + 200, b"damage")
    assert [code for code, _ in findings(program, "--deep", image)] == ["log-unreadable"]


def test_a_sparse_file_with_more_emulated_zones_than_any_drive(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked without a table of them; a list of them is refused."""
    [image] = own_devices("p21-emulated-regular", tmp_path)
    with open(image, "r+b") as file:
        file.truncate(1 << 43)
    assert {code for code, _ in findings(program, image)} == {"mirror-absent"}  # of one that the file begins to have
    assert program("zoned", "btrfs", "zones", image).status == 0
    monkeypatch.setattr(zone_accounts, "MAX_ZONES", 1 << 14)
    refused = program("zoned", "btrfs", "zones", image)
    assert refused.status == 8
    assert "32768 zones of 268435456 bytes are too many to list" in refused.err


def test_zones_of_a_file_system_whose_roots_are_lost(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)
    change_zones(image, lambda table: table["condition"].__setitem__([7, 8], ZoneCondition.OFFLINE))
    refused = program("zoned", "btrfs", "zones", image)
    assert (refused.status, refused.out) == (8, "")
    assert "the trees of generation 11 cannot be read" in refused.err
    assert len(refused.err.splitlines()) == 1
