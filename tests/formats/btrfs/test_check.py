"""The rules of the check that are not about rings: fields, features, geometry, several devices; hostile content."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.btrfs.images import MIB, SUPER_BYTES, Drive, change_zones, head_of, make_super, poke, reseal
from tests.programs import Result
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import open_image
from zoned_tools.formats.btrfs.layout import parse

Program = Callable[..., Result]
Image = Callable[[str], Path]

ZONED = 0x1341


def append_head(image: Path, **changes: Any) -> None:
    """Commit the newest super block of p02 once more, with other fields."""
    with open_image(str(image), writable=True) as drive:
        raw = drive.read(3 * SUPER_BYTES, SUPER_BYTES)
        drive.write(4 * SUPER_BYTES, make_super(9, base=raw, **changes))


def findings(program: Program, *arguments: object) -> dict[str, dict[str, Any]]:
    found = program("zoned", "check", "--json", *arguments).json["devices"][0]["findings"]
    return {f["id"].removeprefix("btrfs."): f for f in found}


FIELDS = [
    ({"flags": 1 << 20}, "flags"),
    ({"root_level": 8}, "root_level"),
    ({"chunk_root_level": 200}, "chunk_root_level"),
    ({"log_root_level": 9}, "log_root_level"),
    ({"sectorsize": 0}, "sectorsize"),
    ({"sectorsize": 6000}, "sectorsize"),
    ({"nodesize": 5000}, "nodesize"),
    ({"nodesize": 1 << 20}, "nodesize"),
    ({"leafsize": 4096}, "leafsize"),
    ({"stripesize": 3}, "stripesize"),
    ({"root": 13107201}, "root"),
    ({"chunk_root": 1}, "chunk_root"),
    ({"bytes_used": 0}, "bytes_used"),
    ({"num_devices": 0}, "num_devices"),
    ({"sys_array_size": 96}, "sys_array_size"),
    ({"sys_array_size": 2049}, "sys_array_size"),
    ({"compat_ro_flags": 0x9}, "compat_ro_flags"),
]


@pytest.mark.parametrize(("changes", "field"), FIELDS)
def test_fields_for_which_the_kernel_refuses(
    changes: dict[str, Any], field: str, own_image: Image, program: Program
) -> None:
    image = own_image("p02-inuse0")
    append_head(image, **changes)
    found = program("zoned", "check", "--json", image)
    assert found.status == 4
    fields = [f["where"]["field"] for f in found.json["devices"][0]["findings"] if f["id"] == "btrfs.head-field"]
    assert field in fields


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_devices": (1 << 31) + 1}, "num_devices"),
        ({"cache_generation": 500}, "cache_generation"),
        ({"flags": 5}, "flags"),
        ({"compat_ro_flags": 0x103}, "compat_ro_flags"),
    ],
)
def test_fields_that_are_only_doubtful(changes: dict[str, Any], field: str, own_image: Image, program: Program) -> None:
    image = own_image("p02-inuse0")
    append_head(image, **changes)
    found = program("zoned", "check", "--json", image)
    assert found.status == 0
    doubts = [f["where"]["field"] for f in found.json["devices"][0]["findings"] if f["id"] == "btrfs.field-doubtful"]
    assert doubts == [field]


@pytest.mark.parametrize(
    ("changes", "code", "status"),
    [
        ({"incompat_flags": ZONED & ~(1 << 12)}, "zoned-flag-clear", 4),
        ({"incompat_flags": ZONED | 1 << 2}, "mixed-groups", 4),
        ({"incompat_flags": ZONED | 1 << 16}, "feature-kernel", 0),
        ({"incompat_flags": ZONED | 1 << 40}, "feature-unknown", 4),
        ({"cache_generation": 9, "compat_ro_flags": 0}, "space-cache-v1", 0),
        ({"dev_item__devid": 0}, "device-item", 4),
        ({"dev_item__bytes_used": 1 << 40, "root": 0, "chunk_root": 0}, "device-item", 4),
        ({"dev_item__total_bytes": 1 << 40, "root": 0, "chunk_root": 0}, "device-too-small", 4),
        ({"flags": 1 << 35}, "btrfstune-unfinished", 4),
        ({"dev_item__uuid": uuid.UUID(int=5)}, "device-uuid", 4),
        ({"sys_chunk_array": bytes(2048)}, "chunk-array", 4),
    ],
)
def test_features_and_device_items(
    changes: dict[str, Any], code: str, status: int, own_image: Image, program: Program
) -> None:
    image = own_image("p02-inuse0")
    append_head(image, **changes)
    found = program("zoned", "check", "--json", image)
    assert f"btrfs.{code}" in {f["id"] for f in found.json["devices"][0]["findings"]}
    assert found.status == status


def chunk_array(
    image: Path, *, logical: int = 8 * MIB, length: int = 4 * MIB, offset: int = 8 * MIB, kind: int = 2
) -> bytes:
    """The system chunk array of p02 with one field or another changed."""
    with open_image(str(image)) as drive:
        array = bytearray(parse(drive.read(3 * SUPER_BYTES, SUPER_BYTES)).sys_chunk_array)
    for at, value in ((9, logical), (17, length), (41, kind), (73, offset)):
        array[at : at + 8] = value.to_bytes(8, "little")
    return bytes(array)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"offset": 1 << 50}, "chunk-outside"),
        ({"length": 1 << 60}, "zone-size-mismatch"),
        ({"length": 8 * MIB}, "zone-size-mismatch"),
        ({"offset": 8 * MIB + 65536}, "chunk-unaligned"),
        ({"offset": 4 * MIB}, "chunk-in-reserved-zone"),
        ({"kind": 2 | 1 << 7}, "profile-unsupported"),
    ],
)
def test_where_chunks_may_be(fields: dict[str, int], code: str, own_image: Image, program: Program) -> None:
    image = own_image("p02-inuse0")
    append_head(image, sys_chunk_array=chunk_array(image, **fields))
    assert code in findings(program, image)


def test_drive_with_few_active_zones(tmp_path: Path, own_image: Image, program: Program) -> None:
    image = own_image("p02-inuse0")
    sidecar = Path(f"{image}.zones")
    raw = bytearray(sidecar.read_bytes())
    raw[84:88] = (6).to_bytes(4, "little")
    sidecar.write_bytes(raw)
    assert "active-zones" in findings(program, image)


@pytest.mark.parametrize(
    ("zone_bytes", "fault"), [(2 * MIB, True), (4 * MIB, False), (8 << 30, False), (16 << 30, True)]
)
def test_zone_size_limits(zone_bytes: int, *, fault: bool, tmp_path: Path, program: Program) -> None:
    head = make_super(7, zone_bytes=zone_bytes)
    path = Drive(tmp_path / "disk.img", zone_bytes=zone_bytes, contents={0: [head]}).make()
    assert ("zone-size" in findings(program, path)) is fault


def test_foreign_file_system_in_the_ring(tmp_path: Path, program: Program) -> None:
    other = uuid.UUID(int=77)
    old = [make_super(n, fsid=other, dev_item__fsid=other) for n in (40, 41)]
    path = Drive(tmp_path / "disk.img", contents={0: [*old, make_super(50), make_super(51)]}).make()
    finding = findings(program, path)["fsid-foreign"]
    assert (finding["where"]["count"], finding["where"]["offset_bytes"]) == (2, 0)


def test_metadata_uuid_counts_where_the_feature_is_on(tmp_path: Path, program: Program) -> None:
    own, metadata = uuid.UUID(int=5), uuid.UUID(int=6)
    block = make_super(50, fsid=own, metadata_uuid=metadata, dev_item__fsid=metadata, incompat_flags=ZONED | 1 << 10)
    wrong = make_super(51, fsid=own, metadata_uuid=metadata, dev_item__fsid=own, incompat_flags=ZONED | 1 << 10)
    path = Drive(tmp_path / "disk.img", contents={0: [block, wrong]}).make()
    ring = program("zoned", "btrfs", "supers", "--json", path).json["rings"][0]
    assert [copy["valid"] for copy in ring["copies"]] == [True, False]
    assert "head-fsid" in findings(program, path)


def test_capacity_for_one_super_block(tmp_path: Path, program: Program) -> None:
    path = Drive(tmp_path / "disk.img", capacity_bytes=SUPER_BYTES, contents={0: [make_super(7)]}).make()
    assert "capacity-small" in findings(program, path)


def test_equal_generations_at_the_ends_are_told_by_the_starts(tmp_path: Path, program: Program) -> None:
    """Both zones full and ending with one generation: the kernel takes zone 1, the order says zone 0."""
    zones = {0: [make_super(n) for n in (20, 20, 20)], 1: [make_super(n) for n in (18, 19, 20)]}
    path = Drive(tmp_path / "disk.img", capacity_bytes=3 * SUPER_BYTES, contents=zones).make()
    ring = program("zoned", "btrfs", "supers", "--json", path).json["rings"][0]
    assert ring["kernel_choice"]["offset_bytes"] == 4 * MIB + 2 * SUPER_BYTES
    assert ring["newest_valid"]["offset_bytes"] == 2 * SUPER_BYTES
    assert "choice-stale" in findings(program, path)


# -- several devices


def several(tmp_path: Path, count: int = 2, **second: Any) -> list[Path]:
    """Devices of one file system; ``second`` changes the last one's super block or drive."""
    paths = []
    for number in range(1, count + 1):
        changes: dict[str, Any] = {
            "dev_item__devid": number,
            "dev_item__uuid": uuid.UUID(int=number),
            "num_devices": count,
        }
        generation, zone_bytes = 9, 4 * MIB
        if number == count:
            generation = second.pop("generation", 9)
            zone_bytes = second.pop("zone_bytes", 4 * MIB)
            changes |= second
        block = make_super(generation, zone_bytes=4 * MIB, **changes)
        path = tmp_path / f"disk{number}.img"
        paths.append(Drive(path, zone_bytes=zone_bytes, contents={0: [block]}).make())
    return paths


def codes_of(program: Program, paths: list[Path]) -> set[str]:
    rows = program("zoned", "check", "--json", *paths).json["devices"]
    assert len(rows) == 1, "the devices are one target"
    assert sorted(rows[0]["devices"]) == sorted(str(path) for path in paths)
    return {f["id"].removeprefix("btrfs.") for f in rows[0]["findings"]}


SYNTHETIC = {"roots-unreadable", "device-too-small", "chunk-outside", "device-uuid", "device-foreign"}
"""What the check finds in any of these: there are no trees, and the template is from a larger device."""


def test_several_devices(tmp_path: Path, program: Program) -> None:
    assert codes_of(program, several(tmp_path)) <= SYNTHETIC


def test_devices_with_different_zone_sizes(tmp_path: Path, program: Program) -> None:
    codes = codes_of(program, several(tmp_path, zone_bytes=8 * MIB))
    assert {"zone-size-differs", "zone-size-mismatch"} <= codes


def test_device_twice(tmp_path: Path, program: Program) -> None:
    assert "device-duplicate" in codes_of(program, several(tmp_path, dev_item__devid=1))


def test_device_that_lags(tmp_path: Path, program: Program) -> None:
    assert "device-behind" in codes_of(program, several(tmp_path, generation=6))


def test_one_device_of_three(tmp_path: Path, program: Program) -> None:
    paths = several(tmp_path, count=3)
    found = program("zoned", "check", "--json", paths[1]).json["devices"][0]["findings"]
    [missing] = [f for f in found if f["id"] == "btrfs.device-missing"]
    assert missing["severity"] == "warning"
    assert missing["where"] == {"given": 1, "needed": 3, "devids": [1], "block_groups": [512 * MIB]}


def test_the_device_items_say_how_many_devices_there_are(own_image: Image, program: Program) -> None:
    """The super block's own number counts only where the chunk tree cannot be read."""
    image = own_image("p02-inuse0")
    append_head(image, num_devices=3)
    assert "device-missing" not in findings(program, image)


# -- hostile content


@settings(max_examples=40)
@given(data=st.data())
def test_any_super_block(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Random fields under a good checksum never break a command."""
    from zoned_tools.cli.run import run

    block = bytearray(make_super(9))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(
            st.sampled_from([0x38, 0x50, 0x58, 0x60, 0x88, 0x90, 0x94, 0xA0, 0xA4, 0xBC, 0xC6, 0xC9, 0x33C, 0x36C])
        )
        at += data.draw(st.integers(0, 12))
        value = data.draw(st.binary(min_size=1, max_size=8))
        block[at : at + len(value)] = value
    block[0x40:0x50] = make_super(9)[0x40:0x50]
    block[0xC4:0xC6] = bytes(2)
    path = tmp_path_factory.mktemp("hostile") / "disk.img"
    Drive(path, contents={0: [reseal(bytes(block))]}).make()
    for command in (
        ["probe"],
        ["btrfs", "supers", "--roots"],
        ["btrfs", "supers", "--full"],
        ["btrfs", "zones"],
        ["inspect", "--layout", "btrfs"],
        ["check", "--deep", "--layout", "btrfs"],
        ["check", "--repair", "--layout", "btrfs", "--allow", "roots-unreadable"],
        ["btrfs", "rollback", "--to-generation", "9"],
    ):
        assert run("zoned", [*command, str(path)]) in (0, 1, 4, 8)


@settings(max_examples=30)
@given(data=st.data())
def test_any_tree_node(tmp_path_factory: pytest.TempPathFactory, vector_image: Image, data: st.DataObject) -> None:
    """Random nodes under a good checksum: the walk ends and says what is wrong."""
    from zoned_tools.device.overlay import Overlay
    from zoned_tools.formats.btrfs.check import check
    from zoned_tools.formats.btrfs.checksum import seal
    from zoned_tools.formats.btrfs.survey import survey_device
    from zoned_tools.formats.btrfs.trees import TreeReader
    from zoned_tools.formats.contract import CheckOptions, Target

    with open_image(str(vector_image("p02-inuse0"))) as image:
        survey = survey_device(image)
        block = survey.super_block(head_of(survey.mirrors[0]))
        chunks = TreeReader({1: image}).chunk_map(block)
        [(_, place)] = chunks.places(data.draw(st.sampled_from([block.root, block.chunk_root])), block.nodesize)
        node = bytearray(image.read(place, block.nodesize))
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(96, 400))
            value = data.draw(st.binary(min_size=1, max_size=8))
            node[at : at + len(value)] = value
        overlay = Overlay(image)
        overlay._store.pwrite(place, seal(bytes(node), 0))  # behind the zone rules' back
        report = check(Target("btrfs", (overlay,)), CheckOptions(deep=True))
        assert {f.code for f in report.findings} <= {
            "roots-unreadable",
            "tree-lost",
            "profile-unsupported",
            "chunk-outside",
            "chunk-unaligned",
            "chunk-in-reserved-zone",
            "nodatacow",
            "device-missing",
            "node-lost",
            "bg-unmatched",
            "bg-used-differs",
            "bg-extents-beyond-wp",
            "zone-orphan",
        }


@pytest.mark.parametrize("size", [512, 4096, 65536, 65536 + 4096, 1 << 20])
def test_devices_too_small_for_anything(size: int, tmp_path: Path, program: Program) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * size)
    assert program("zoned", "btrfs", "supers", path).status == 8
    assert program("zoned", "check", "--layout", "btrfs", path).status in (4, 8)
    assert program("zoned", "inspect", "--layout", "btrfs", path).status in (0, 8)
    assert program("zoned", "btrfs", "rollback", "--to-generation", 1, path).status == 8
    assert program("zoned", "export", "--layout", "btrfs", path, "-o", tmp_path / "out").status == 8


def test_huge_full_zones_of_holes_end_quickly(tmp_path: Path, program: Program) -> None:
    """A zone table that claims 8 GiB of super blocks over a sparse image: holes are not read."""
    path = Drive(
        tmp_path / "disk.img", zone_bytes=8 << 30, capacity_bytes=8 << 30, contents={0: [make_super(9)]}
    ).make()

    def claim(table: Any) -> None:
        table["condition"][:2] = 0xE

    change_zones(path, claim)
    found = program("zoned", "check", "--json", path)
    assert found.status == 4
    assert {"btrfs.head-none", "btrfs.wp-ahead"} <= {f["id"] for f in found.json["devices"][0]["findings"]}


def test_label_with_control_characters(tmp_path: Path, program: Program) -> None:
    path = Drive(tmp_path / "disk.img", contents={0: [make_super(9, label="a\x1b[31m\nb\udcff")]}).make()
    for arguments in (("btrfs", "supers", "--full", path), ("inspect", path), ("probe", path)):
        text = program("zoned", *arguments).out
        assert "\x1b" not in text
        assert "a" in text


def test_random_image_is_no_btrfs(tmp_path: Path, program: Program) -> None:
    path = Drive(tmp_path / "disk.img", contents={0: [b"\xa5" * SUPER_BYTES] * 5}).make()
    assert program("zoned", "probe", "--json", path).json["devices"][0]["layout"] is None
    poke(path, 0x40, b"_BHRfS_M")
    assert program("zoned", "btrfs", "supers", path).status == 0


def test_files_without_copy_on_write(own_image: Image, program: Program) -> None:
    """The attribute is in the inode item of the only file; --deep finds it."""
    from zoned_tools.formats.btrfs.checksum import seal
    from zoned_tools.formats.btrfs.nodes import LEAF_ITEM_DTYPE, NODE_HEADER_BYTES, ROOT_ITEM, NodeRules
    from zoned_tools.formats.btrfs.survey import survey_device
    from zoned_tools.formats.btrfs.trees import TreeReader

    image = own_image("p02-inuse0")
    with open_image(str(image)) as drive:
        survey = survey_device(drive)
        block = survey.super_block(head_of(survey.mirrors[0]))
        reader = TreeReader({1: drive})
        chunks, rules = reader.chunk_map(block), NodeRules.of(block)
        items = reader.items(chunks, rules, block.root, block.generation, block.root_level)
        root = next(ROOT_ITEM.parse(item.data) for item in items if (item.objectid, item.type) == (5, 132))
        [(_, place)] = chunks.places(root.bytenr, block.nodesize)
        node = bytearray(drive.read(place, block.nodesize))
    inodes = [
        row.tolist()
        for row in leaf_rows(bytes(node), NODE_HEADER_BYTES, LEAF_ITEM_DTYPE)
        if row["type"] == 1 and row["objectid"] > 256
    ]
    assert inodes
    at = NODE_HEADER_BYTES + inodes[0][3] + 64
    node[at] |= 2
    poke(image, place, seal(bytes(node), 0))
    assert "nodatacow" not in findings(program, image)
    assert findings(program, "--deep", image)["nodatacow"]["where"]["files"] == 1


def leaf_rows(node: bytes, start: int, dtype: Any) -> Any:
    count = int.from_bytes(node[0x60:0x64], "little")
    return np.frombuffer(node, dtype, count, start)


def test_a_zone_finished_early_is_recognised_by_its_last_blocks(tmp_path: Path, program: Program) -> None:
    """The head is a block of zeroes and the first block is damaged: the copies between them are still found."""
    blocks = [bytes(range(256)) * 16, *(make_super(10 + n) for n in range(20))]
    path = Drive(tmp_path / "disk.img", capacity_bytes=64 * SUPER_BYTES, contents={0: blocks}).make()
    with open_image(str(path), writable=True) as drive:
        drive.manage(ZoneOperation.FINISH, 0)
    assert program("zoned", "probe", "--json", path).json["devices"][0]["layout"] == "btrfs"
    assert "head-none" in findings(program, path)
