"""Single fields of a good newest super block: what a 6.12 kernel did with each change, and what check says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.archives import unpack
from tests.formats.btrfs.images import VECTORS, poke, reseal
from tests.formats.btrfs.nodes import own_devices
from zoned_tools.formats.btrfs.layout import SUPER_BLOCK_OFFSETS

if TYPE_CHECKING:
    from tests.programs import Program

VERDICTS: dict[str, Any] = json.loads((VECTORS / "superblocks" / "field-verdicts.json").read_text())
CASES = {case["name"]: case for case in VERDICTS["cases"]}

Changed = Callable[..., Path]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    """The base image with some bytes of its newest super block changed; the same file every time."""
    directory = tmp_path_factory.mktemp("verdicts")
    unpack(VECTORS / "superblocks" / VERDICTS["base"], directory)
    image = directory / "disk.img"
    image.chmod(0o644)
    head = VERDICTS["head_offset_bytes"]
    with open(image, "rb") as file:
        file.seek(head)
        sound = file.read(4096)

    def change(edits: list[tuple[int, str]]) -> Path:
        block = bytearray(sound)
        for at, text in edits:
            raw = bytes.fromhex(text)
            block[at : at + len(raw)] = raw
        poke(image, head, bytes(block))
        return image

    return change


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_the_kernels(name: str, changed: Changed, program: Program) -> None:
    case = CASES[name]
    done = program("zoned", "check", "--json", changed(case["edits"]))
    [row] = done.json["devices"]
    severities = {finding["severity"] for finding in row["findings"]}
    shown = json.dumps(row["findings"])
    match case["check"]:
        case "error":
            assert "error" in severities
        case "warning":
            assert "warning" in severities
            assert "error" not in severities, shown
        case "no-error":
            assert "error" not in severities, shown
        case "not-clean":
            assert severities & {"error", "warning"}
        case _:
            assert case["check"] == "either"
    for word in case.get("names", []):
        assert word in shown


# -- the whole table of chapter 4.1, on the same image

CHUNK = SUPER_BLOCK_OFFSETS["sys_chunk_array"] + 17
"""The first chunk of the array, behind its key."""
SYSTEM, DATA, METADATA, RAID0, RAID1, DUP = 2, 1, 4, 8, 16, 32


def put(at: int, value: int, size: int = 8) -> Callable[[bytes], bytes]:
    return lambda raw: reseal(raw[:at] + value.to_bytes(size, "little") + raw[at + size :])


def field(name: str, value: int, size: int = 8) -> Callable[[bytes], bytes]:
    return put(SUPER_BLOCK_OFFSETS[name], value, size)


def device(at: int, value: int, size: int = 8) -> Callable[[bytes], bytes]:
    return put(SUPER_BLOCK_OFFSETS["dev_item"] + at, value, size)


def bits(name: str, *numbers: int, off: bool = False) -> Callable[[bytes], bytes]:
    """Bits of a 64-bit field set, or cleared."""
    mask, at = sum(1 << number for number in numbers), SUPER_BLOCK_OFFSETS[name]

    def change(raw: bytes) -> bytes:
        value = int.from_bytes(raw[at : at + 8], "little")
        return put(at, value & ~mask if off else value | mask)(raw)

    return change


def key(at: int, value: int, size: int = 8) -> Callable[[bytes], bytes]:
    return put(CHUNK - 17 + at, value, size)


def chunk(at: int, value: int, size: int = 8) -> Callable[[bytes], bytes]:
    return put(CHUNK + at, value, size)


NODES = 16384
ERRORS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    **{f"flag {bit}": (bits("flags", bit), "head-field") for bit in (3, 31, 34 + 3, 41, 63)},
    **{f"flag {bit}": (bits("flags", bit), "btrfstune-unfinished") for bit in (35, 36, 38, 39, 40)},
    "generation 8": (field("generation", 8), "roots-unreadable"),
    "root 0": (field("root", 0), "roots-unreadable"),
    "root is chunk root": (field("root", 8601600), "roots-unreadable"),
    "chunk root 0": (field("chunk_root", 0), "roots-unreadable"),
    "chunk root unaligned": (field("chunk_root", 8601601), "head-field"),
    "chunk root generation": (field("chunk_root_generation", 6), "roots-unreadable"),
    "root level 1": (field("root_level", 1, 1), "roots-unreadable"),
    "chunk root level 1": (field("chunk_root_level", 1, 1), "roots-unreadable"),
    "chunk root level 8": (field("chunk_root_level", 8, 1), "head-field"),
    "log root unaligned": (field("log_root", 5), "head-field"),
    "log root unreadable": (field("log_root", 12582912), "log-unreadable"),
    "total bytes one less": (field("total_bytes", 134217727), "head-field"),
    "bytes used": (field("bytes_used", 6 * NODES - 1), "head-field"),
    "no device": (field("num_devices", 0), "head-field"),
    **{f"sector size {n}": (field("sectorsize", n, 4), "head-field") for n in (0, 4095, 8192, 65536, 131072)},
    **{f"node size {n}": (field("nodesize", n, 4), "head-field") for n in (0, 2048, 32768, 131072)},
    "leaf size": (field("leafsize", 4096, 4), "head-field"),
    "stripe size": (field("stripesize", 4097, 4), "head-field"),
    **{f"array of {n}": (field("sys_array_size", n, 4), "chunk-array") for n in (0, 96, 98, 120, 2049)},
    "key type": (key(8, 227, 1), "chunk-array"),
    "key offset": (key(9, 8388608 - 4096), "roots-unreadable"),
    **{
        f"chunk type {n:#x}": (chunk(24, n), "chunk-array")
        for n in (0, DATA, METADATA, SYSTEM | DATA, SYSTEM | METADATA, SYSTEM | 1 << 11, SYSTEM | RAID0 | RAID1)
    },
    **{
        f"{n:#x} with one stripe": (chunk(24, SYSTEM | n), "chunk-array") for n in (RAID1, DUP, 64, 512, 1024, 128, 256)
    },
    "stripe length": (chunk(16, 65537), "chunk-array"),
    "chunk's sector size": (chunk(40, 8192, 4), "chunk-array"),
    "chunk length 0": (chunk(0, 0), "chunk-array"),
    "chunk length half": (chunk(0, 2 << 20), "chunk-array"),
    "no stripe": (chunk(44, 0, 2), "chunk-array"),
    "many stripes": (chunk(44, 50, 2), "chunk-array"),
    "stripe's devid": (chunk(48, 7), "device-uuid"),
    "stripe's offset": (chunk(56, 4096), "roots-unreadable"),
    "stripe's uuid": (chunk(64, 7, 16), "device-uuid"),
    "devid": (device(0, 9), "device-uuid"),
    "device's uuid": (device(66, 9, 16), "device-uuid"),
    "BLOCK_GROUP_TREE": (bits("compat_ro_flags", 3), "tree-lost"),
    "BLOCK_GROUP_TREE without space tree": (
        lambda raw: bits("compat_ro_flags", 1, off=True)(bits("compat_ro_flags", 3)(raw)),
        "head-field",
    ),
    **{f"unknown feature {bit}": (bits("incompat_flags", bit), "feature-unknown") for bit in (15, 18, 40, 63)},
    "not ZONED": (bits("incompat_flags", 12, off=True), "zoned-flag-clear"),
    "MIXED_GROUPS": (bits("incompat_flags", 2), "mixed-groups"),
    "EXTENT_TREE_V2": (bits("incompat_flags", 13), "head-field"),
    "RAID_STRIPE_TREE": (bits("incompat_flags", 14), "tree-lost"),
    "REMAP_TREE": (bits("incompat_flags", 17), "tree-lost"),
    "not SKINNY_METADATA": (bits("incompat_flags", 8, off=True), "head-field"),
    "checksum type": (field("csum_type", 2, 2), "roots-unreadable"),
}
WARNINGS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flag ERROR": (bits("flags", 2), "field-doubtful"),
    "two devices": (field("num_devices", 2), "field-doubtful"),
    "many devices": (field("num_devices", (1 << 31) + 1), "field-doubtful"),
    "cache generation": (field("cache_generation", 10), "field-doubtful"),
    "unknown compat_ro": (bits("compat_ro_flags", 40), "field-doubtful"),
}
NOTHING: dict[str, Callable[[bytes], bytes]] = {
    **{f"flag {bit}": bits("flags", bit) for bit in (1, 32, 33, 34)},
    "log transid": field("log_root_transid", 99),
    "log level": field("log_root_level", 7, 1),
    "total bytes": field("total_bytes", 1 << 40),
    "bytes used": field("bytes_used", 6 * NODES),
    "stripe size": field("stripesize", 8192, 4),
    "key's object": key(0, 257),
    "chunk's owner": chunk(8, 99),
    "sub stripes": chunk(46, 9, 2),
    "io align": chunk(32, 1, 4),
    "io width": chunk(36, 1, 4),
    "RAID0 of one stripe": chunk(24, SYSTEM | RAID0),
    **{f"device item {at}": device(at, 99, 4) for at in (8, 16, 24, 28, 32, 36, 44, 52, 60)},
    "metadata uuid": field("metadata_uuid", 7, 16),
    "cache generation 0": field("cache_generation", 0),
    "compat": field("compat_flags", 1 << 63),
    "uuid tree": field("uuid_tree_generation", 99),
    "root directory": field("root_dir", 0),
    "label": put(SUPER_BLOCK_OFFSETS["label"], int.from_bytes(b"x" * 256, "little"), 256),
    "reserved": put(SUPER_BLOCK_OFFSETS["reserved"], 1 << 63),
    "padding": put(SUPER_BLOCK_OFFSETS["padding"], 1 << 63),
    "backup roots": put(SUPER_BLOCK_OFFSETS["backup_roots"], 1),
    **{f"compat_ro {bit}": bits("compat_ro_flags", bit) for bit in (0, 1, 2)},
    "no space tree": bits("compat_ro_flags", 0, 1, off=True),
    **{f"feature {bit}": bits("incompat_flags", bit) for bit in (0, 1, 3, 4, 5, 6, 7, 9, 11, 16)},
    **{f"not feature {bit}": bits("incompat_flags", bit, off=True) for bit in (0, 1, 3, 4, 5, 6, 7, 9, 11, 16)},
}


def rows_of(change: Callable[[bytes], bytes], changed: Changed, program: Program) -> list[dict[str, Any]]:
    image = changed([])
    raw = image.read_bytes()[VERDICTS["head_offset_bytes"] :][:4096]
    done = program("zoned", "check", "--json", changed([(0, change(raw).hex())]))
    rows: list[dict[str, Any]] = done.json["devices"][0]["findings"]
    return rows


@pytest.mark.parametrize("name", ERRORS)
def test_fields_for_which_the_kernel_refuses(name: str, changed: Changed, program: Program) -> None:
    change, code = ERRORS[name]
    rows = rows_of(change, changed, program)
    assert (f"btrfs.{code}", "error") in {(row["id"], row["severity"]) for row in rows}, rows


@pytest.mark.parametrize("name", WARNINGS)
def test_fields_that_are_doubtful(name: str, changed: Changed, program: Program) -> None:
    change, code = WARNINGS[name]
    rows = rows_of(change, changed, program)
    assert (f"btrfs.{code}", "warning") in {(row["id"], row["severity"]) for row in rows}, rows
    assert "error" not in {row["severity"] for row in rows}, rows


@pytest.mark.parametrize("name", NOTHING)
def test_fields_that_do_not_matter(name: str, changed: Changed, program: Program) -> None:
    rows = rows_of(NOTHING[name], changed, program)
    assert not {row["severity"] for row in rows} & {"error", "warning"}, rows


def test_what_goes_on_with_an_unfinished_conversion(changed: Changed, program: Program) -> None:
    for bit, words in ((35, "btrfstune -u"), (38, "--convert-to-block-group-tree"), (40, "btrfstune --csum TYPE")):
        [row] = [r for r in rows_of(bits("flags", bit), changed, program) if r["severity"] == "error"]
        assert words in row["message"]


def test_which_kernels_know_a_feature(changed: Changed, program: Program) -> None:
    for bit, severity, words in (
        (16, "info", "from 6.7"),
        (13, "warning", "BTRFS_EXPERIMENTAL"),
        (17, "warning", "newest"),
    ):
        [row] = [r for r in rows_of(bits("incompat_flags", bit), changed, program) if r["id"] == "btrfs.feature-kernel"]
        assert row["severity"] == severity
        assert words in row["message"]
        assert row["where"]["bit"] == bit


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (bits("compat_ro_flags", 3, off=True), "head-field"),
        (bits("compat_ro_flags", 1, off=True), "head-field"),
        (bits("incompat_flags", 9, off=True), "head-field"),
        (bits("flags", 38), "btrfstune-unfinished"),
    ],
)
def test_a_block_group_tree(change: Callable[[bytes], bytes], code: str, tmp_path: Path, program: Program) -> None:
    """With the feature there is a tree 11; without the bit the first commit would fail, and nothing else is said."""
    [image] = own_devices("g21-bgt-cap-active", tmp_path)
    rings = program("zoned", "btrfs", "supers", "--latest", "--json", image).json
    at = rings["kernel_choice"]["offset_bytes"]
    poke(image, at, change(image.read_bytes()[at : at + 4096]))
    rows = program("zoned", "check", "--json", image).json["devices"][0]["findings"]
    assert {row["id"] for row in rows if row["severity"] == "error"} == {f"btrfs.{code}"}
