"""Raw copies through the commands: read on derived zones, written only when somebody agreed, adopted."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archives import unpack
from tests.conftest import VECTORS
from tests.engine.rescue_cases import CASES, _unpack_base, build, play
from tests.programs import Program, Result
from zoned_tools.device.image import read_dump
from zoned_tools.device.zones import is_conventional, written_sectors

PUBLIC = [name for name, case in CASES.items() if name.startswith(("raw", "zones-foreign"))]
SAID = "raw copy of a zoned drive without its zone table"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    unpack(VECTORS / "dm-zoned/hm64x1.tar.xz", tmp_path)
    image = tmp_path / "disk.img"
    Path(f"{image}.zones").rename(tmp_path / "real.zones")
    return image


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(image: Path) -> None:
    """Without its primary super block."""
    with image.open("r+b") as file:
        file.write(bytes(4096))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_case(name: str, program: Program, tmp_path: Path) -> None:
    build(CASES[name], tmp_path)

    def call(words: Any) -> Result:
        return program(*words)

    play(CASES[name], tmp_path, call)


@pytest.mark.parametrize(
    "line",
    [
        "check @ --json",
        "inspect @ --json",
        "dump @",
        "export @ -o OUT --json",
        "map @ --json --at 0",
        "table @ --json",
        "report @ --json --summary",
        "probe @ --json",
    ],
)
def test_reading_commands_say_that_zones_are_derived(line: str, zoned: Program, raw: Path) -> None:
    from zoned_tools.cli import run

    run._SAID.clear()
    words = [word.replace("@", str(raw)).replace("OUT", f"{raw}.out") for word in line.split()]
    result = zoned(*words)
    assert result.status == 0, result.err
    assert result.err.count(SAID) == 1
    assert "64 zones of 1048576 bytes, derived from the dm-zoned metadata" in result.err
    document = result.json
    rows = {"check": "devices", "probe": "devices", "report": "drives"}.get(words[0])
    facts = document if rows is None else document[rows][0]
    assert facts["zone_table"] == "derived"


def test_where_zones_come_from(zoned: Program, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "real.zones").rename(f"{raw}.zones")
    assert zoned("inspect", raw, "--json").json["zone_table"] == "sidecar"
    assert zoned("inspect", raw, "--json", "--zones", "content").json["zone_table"] == "derived"
    regular = tmp_path / "regular.img"
    regular.write_bytes(bytes(1 << 20))
    assert zoned("probe", regular, "--json").json["devices"][0]["zone_table"] is None


def test_the_picture_and_the_report_show_the_derived_zones(zoned: Program, raw: Path) -> None:
    assert "M metadata (2), D data (22), B buffer (2)" in zoned("diagram", raw).out
    assert zoned("report", raw, "--format", "csv").out.count("\n") == 65


def test_a_repair_waits_for_consent_and_is_taken_back(zoned: Program, raw: Path, tmp_path: Path) -> None:
    whole = digest(raw)
    damaged(raw)
    broken = digest(raw)
    waits = zoned("check", "--repair", raw)
    assert waits.status == 4
    assert "waits for --allow dm-zoned.zones-derived" in waits.err
    assert digest(raw) == broken
    undo = tmp_path / "undo"
    done = zoned("check", "--repair", "--allow", "zones-derived", "--undo", undo, raw)
    assert done.status == 1, done.err
    assert "repaired info" not in done.out
    assert digest(raw) == whole
    assert not Path(f"{raw}.zones").exists()
    assert zoned("undo", undo, raw).status == 0
    assert digest(raw) == broken


def test_a_copy_is_repaired_with_consent_alone(zoned: Program, raw: Path, tmp_path: Path) -> None:
    whole = digest(raw)
    damaged(raw)
    assert zoned("check", "--repair", "--output", tmp_path / "a.img", raw).status == 4
    new = tmp_path / "b.img"
    assert zoned("check", "--repair", "--allow", "zones-derived", "--output", new, raw).status == 1
    assert digest(new) == whole


WRITING = [["replay", "--trace", "TRACE"], ["serve", "--write"], ["restore", "--input", "DUMP"]]


@pytest.mark.parametrize("words", WRITING)
def test_what_writes_refuses_until_it_is_adopted(words: list[str], zoned: Program, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "TRACE").write_text("fio version 2 iolog\n")
    assert zoned("dump", raw, "-o", tmp_path / "DUMP").status == 0
    before = digest(raw)
    given = [str(tmp_path / word) if word.isupper() else word for word in words]
    result = zoned(*given, raw)
    assert result.status == 8, result.err
    assert "zoned image adopt" in result.err
    assert digest(raw) == before
    assert not Path(f"{raw}.zones").exists()


# -- adopt


def test_an_adopted_copy_is_a_drive(zoned: Program, raw: Path, tmp_path: Path) -> None:
    dry = zoned("image", "adopt", raw, "--dry-run", "--json")
    assert not Path(f"{raw}.zones").exists()
    done = zoned("image", "adopt", raw, "--json", "--conventional", "8")
    assert done.status == 0
    row = done.json["devices"][0]
    assert done.json["schema"] == "zoned.image.adopt/1"
    assert done.json["layout"] == "dm-zoned"
    assert (row["zone_size_bytes"], row["nr_zones"], row["image"]) == (1 << 20, 64, str(raw))
    assert row["conventional"] == {**dry.json["devices"][0]["conventional"], "used": 8}
    real, ours = read_dump(str(tmp_path / "real.zones")), read_dump(f"{raw}.zones")
    assert (written_sectors(ours.table) == written_sectors(real.table)).all()
    assert (is_conventional(ours.table) == is_conventional(real.table)).all()
    checked = zoned("check", raw, "--json")
    assert checked.status == 0
    assert checked.json["devices"][0]["zone_table"] == "sidecar"
    again = zoned("image", "adopt", raw)
    assert again.status == 8
    assert "has a zone table (--force replaces it)" in again.err
    assert zoned("image", "adopt", raw, "--force").status == 0


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--zone-size", "4MiB"], 8, "zones of 4194304 bytes contradict the metadata"),
        (["--zone-size", "3MiB"], 16, "no size of a zone"),
        (["--zone-size", "0"], 16, "no size of a zone"),
        (["--conventional", "40"], 8, "40 conventional zones contradict the metadata"),
        (["--conventional", "8", "--conventional", "8"], 16, "2 numbers of conventional zones for 1 zoned device"),
    ],
)
def test_adopt_refuses_what_the_metadata_contradict(
    words: list[str], status: int, text: str, zoned: Program, raw: Path
) -> None:
    result = zoned("image", "adopt", raw, *words)
    assert (result.status, text in result.err) == (status, True), result.err
    assert not Path(f"{raw}.zones").exists()


def test_members_that_have_their_table_keep_it(zoned: Program, tmp_path: Path) -> None:
    """The table of the drive itself is never replaced for the sake of another member's."""
    unpack(VECTORS / "dm-zoned/triple.tar.xz", tmp_path)
    paths = [tmp_path / f"disk{number}.img" for number in range(3)]
    kept = Path(f"{paths[1]}.zones").read_bytes()
    Path(f"{paths[2]}.zones").unlink()
    done = zoned("image", "adopt", *paths, "--json")
    assert done.status == 0
    assert [row["image"] for row in done.json["devices"]] == [str(paths[2])]
    assert Path(f"{paths[1]}.zones").read_bytes() == kept
    assert zoned("check", *paths).status == 0
    again = zoned("image", "adopt", *paths)
    assert again.status == 8
    assert "has a zone table (--force replaces it)" in again.err


def test_adopt_refuses_a_copy_that_is_longer_than_its_drive(zoned: Program, raw: Path) -> None:
    with raw.open("ab") as file:
        file.truncate(raw.stat().st_size + (3 << 20))
    result = zoned("image", "adopt", raw)
    assert result.status == 8
    assert "truncate --size=67108864" in result.err


def test_without_super_blocks_adopt_needs_to_be_told(zoned: Program, raw: Path) -> None:
    damaged(raw)
    with raw.open("r+b") as file:
        file.seek(256 * 4096)
        file.write(bytes(4096))
    assert zoned("image", "adopt", raw).status == 8
    assert zoned("image", "adopt", "--layout", "dm-zoned", raw).status == 8
    told = ("--layout", "dm-zoned", "--zone-size", "1MiB", "--conventional", "8")
    assert zoned("image", "adopt", *told, raw).status == 0
    assert read_dump(f"{raw}.zones").geometry.nr_zones == 64


def test_what_needs_no_zones_is_not_adopted(zoned: Program, tmp_path: Path) -> None:
    image = tmp_path / "ic.img"
    image.write_bytes(bytes(16 << 20))
    assert zoned("inplace-compress", "format", image).status == 0
    result = zoned("image", "adopt", image)
    assert result.status == 8
    assert "needs no zone table" in result.err


def test_zones_from_the_content_are_for_reading(zoned: Program, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "real.zones").rename(f"{raw}.zones")
    assert zoned("check", "--repair", "--zones", "content", raw).status == 16
    assert zoned("serve", "--write", "--zones", "content", raw).status == 8


def test_a_damaged_zone_table_is_set_aside(zoned: Program, raw: Path, tmp_path: Path) -> None:
    table = bytearray((tmp_path / "real.zones").read_bytes())
    Path(f"{raw}.zones").write_bytes(table[:100])
    assert zoned("export", raw, "-o", tmp_path / "out").status == 8
    assert zoned("export", raw, "--zones", "content", "-o", tmp_path / "out").status == 0
    assert (
        digest(tmp_path / "out")
        == json.loads((VECTORS / "dm-zoned/hm64x1.json").read_text())["images"]["clean"]["logical_sha256"]
    )


# -- other layouts


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("zdm/pop-clean", []),
        ("zdm/pop-journal", []),
        ("zdm/cut-wp", []),
        ("zdm/old-r127", []),
        ("btrfs-zoned/g01-dup-healthy", []),
        ("btrfs-zoned/p08-full0-inuse1-again", []),
        ("btrfs-zoned/p11-conv-sb", []),
        ("zonefs/p2-aggr-owner-label", ["--zone-size", "4MiB", "--conventional", "5"]),
    ],
)
def test_other_layouts_are_adopted(base: str, words: list[str], zoned: Program, tmp_path: Path) -> None:
    _unpack_base({"base": base}, tmp_path)
    image, real = tmp_path / "disk.img", tmp_path / "real"
    Path(f"{image}.zones").rename(real)
    table = read_dump(str(real)).table
    result = zoned("image", "adopt", image, "--json", *words)
    assert result.status == 0, result.err
    ours = read_dump(f"{image}.zones")
    assert ours.geometry.zone_bytes == int(table["length_sectors"][0]) * 512
    assert len(ours.table) == len(table)
    bounds = result.json["devices"][0]["conventional"]
    assert bounds["low"] <= np.count_nonzero(is_conventional(table)) <= bounds["high"]
    both = ~is_conventional(table) & ~is_conventional(ours.table)
    assert (written_sectors(ours.table)[both] <= written_sectors(table)[both]).all()


@pytest.mark.parametrize("name", ["pop-clean", "pop-journal", "cut-direct", "stale-trim"])
def test_a_raw_copy_with_a_zdm_has_the_same_content(name: str, zoned: Program, tmp_path: Path) -> None:
    _unpack_base({"base": f"zdm/{name}"}, tmp_path)
    image, table = tmp_path / "disk.img", tmp_path / "disk.img.zones"

    def runs() -> Any:
        return zoned("map", image, "--json").json["extents"]

    before = runs()
    table.unlink()
    assert runs() == before
    checked = zoned("check", image, "--json").json["devices"][0]
    assert checked["zone_table"] == "derived"
    codes = {row["id"] for row in checked["findings"]}
    assert "zdm.zones-derived" in codes
    assert not codes & {"zdm.fwd.beyond_wp", "zdm.wp.behind", "zdm.wp.ahead"}


def test_a_raw_copy_with_a_btrfs_says_so(zoned: Program, tmp_path: Path) -> None:
    _unpack_base({"base": "btrfs-zoned/g01-dup-healthy"}, tmp_path)
    (tmp_path / "disk.img.zones").unlink()
    checked = zoned("check", tmp_path / "disk.img", "--json").json["devices"][0]
    assert checked["zone_table"] == "derived"
    assert [row["where"] for row in checked["findings"] if row["id"] == "btrfs.zones-derived"] == [
        {"zone_size_bytes": 4 << 20, "zones": 32}
    ]
    assert zoned("diagram", tmp_path / "disk.img").status == 0
    assert zoned("report", tmp_path / "disk.img", "--json", "--summary").json["drives"][0]["nr_zones"] == 32


def test_zonefs_needs_the_zone_size(zoned: Program, tmp_path: Path) -> None:
    _unpack_base({"base": "zonefs/p1-default"}, tmp_path)
    image = tmp_path / "disk.img"
    (tmp_path / "disk.img.zones").unlink()
    assert "--zone-size" in zoned("image", "adopt", image).err
    assert "--zone-size" in zoned("inspect", image).err


# -- what is no raw copy


def test_hostile_copies_give_a_line(zoned: Program, raw: Path) -> None:
    content = raw.read_bytes()
    chance = random.Random(7)
    for _ in range(25):
        damage = bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            at = chance.choice((0, 4096, 8192, 256 * 4096, 257 * 4096)) + chance.randrange(4096)
            damage[at : at + chance.randrange(1, 64)] = chance.randbytes(32)
        del damage[chance.choice((len(content), chance.randrange(512, len(content)), 1 << 20, 4096)) :]
        raw.write_bytes(damage[: len(damage) // 512 * 512])
        for line in (["check", "--json"], ["export", "-f", "-o", f"{raw}.out"], ["image", "adopt", "-n"], ["probe"]):
            result = zoned(*line, raw)
            assert result.status in (0, 4, 8), (result.status, result.err)
            assert "Traceback" not in result.err
            assert "internal error" not in result.err


def test_what_is_no_image_is_told_by_name(zoned: Program, tmp_path: Path) -> None:
    packed = tmp_path / "disk.img.gz"
    packed.write_bytes(gzip.compress(random.Random(1).randbytes(5000)))
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(4086) + b"SWAPSPACE2" + bytes(1 << 20))
    cow = tmp_path / "cow"
    cow.write_bytes(b"QFI\xfb" + bytes(65532))
    extended = tmp_path / "ext4"
    extended.write_bytes(bytes(1080) + b"\x53\xef" + bytes(1 << 20))
    for path, words in (
        (packed, "gzip data, and no layout of zoned drives (unpack it first: gzip -dc"),
        (swap, "swap space"),
        (cow, "a qcow image, and no layout of zoned drives (qemu-img convert"),
        (extended, "an ext2, ext3 or ext4 file system"),
    ):
        result = zoned("check", path)
        assert result.status == 8
        assert words in result.err
        assert result.err.count("\n") == 1
        assert f"no known layout, but {words.split(',')[0]}" in zoned("probe", path).out
