"""``dmzadm`` as scripts written for the original call it."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from zoned_tools.formats.dm_zoned.layout import SuperBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Program

Unpack: TypeAlias = "Callable[[str], Path]"

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"
UUID = "7f801397-b5cc-4016-acb3-f146bfac620f"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Unpack:
    """Function that unpacks a vector's files once and returns their folder."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            with tarfile.open(VECTORS / f"{name}.tar.xz") as archive:
                archive.extractall(done[name], filter="data")
        return done[name]

    return unpack


def drive(program: Program, folder: Path, *options: object) -> Path:
    image = folder / "disk.img"
    options = options or ("--zones", 64, "--zone-size", "1MiB", "--conventional", 8)
    assert program("zoned", "image", "create", image, *options).status == 0
    return image


def test_usage(program: Program) -> None:
    for arguments in ((), ("--format",), ("--check",)):
        result = program("dmzadm", *arguments)
        assert result.status == 1
        assert result.out.startswith("Usage: dmzadm")
    assert program("dmzadm", "--help").status == 0
    assert program("dmzadm", "--fromat", "x").err == 'dmzadm: Unknown operation "--fromat"\n'
    assert program("dmzadm", "x", "--format").status == 1
    assert program("dmzadm", "--format", "--force").err == "dmzadm: No device specified\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seq=0",), "Invalid number of sequential zones"),
        (("--seq=x",), "Invalid number of sequential zones"),
        (("--seq=5x",), "Invalid number of sequential zones"),
        (("--seq=-3",), "Invalid number of sequential zones"),
        ((f"--label={'x' * 32}",), "Label too long (max 31 characters)"),
        (("--uuid=nonsense",), "not a UUID"),
        (("--uuid=00000000-0000-0000-0000-000000000000",), "null uuid"),
        (("--metadata-version=3",), "version is 1 or 2"),
        (("--nonsense",), "No such option"),
    ],
)
def test_bad_format_options(arguments: tuple[str, ...], words: str, tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    before = image.read_bytes()[:8192]
    result = program("dmzadm", "--format", image, *arguments)
    assert (result.status, result.out) == (1, "")
    assert words in result.err
    assert result.err.count("\n") == 1
    assert image.read_bytes()[:8192] == before


def test_options_of_other_operations(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    expected = {
        "--seq=3": "--seq option is valid only with the format operation",
        "--label=x": "--label option is valid",
    }
    for option, words in expected.items():
        result = program("dmzadm", "--check", image, option)
        assert result.status == 1
        assert words in result.err


def test_format_prints_the_originals_lines(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    out = program("dmzadm", "--format", image, "--label='quoted'", "--seq", "5", "--verbose").out.splitlines()
    assert out[:5] == [
        f"{image}: 131072 512-byte sectors (0 GiB)",
        "  Host-managed device",
        "  64 zones, offset 0",
        "  64 zones of 2048 512-byte sectors (1 MiB)",
        "  256 4KB data blocks per zone",
    ]
    for line in (
        "Format metadata 2:",
        "  DM-Zoned Label quoted",
        "  64 useble zones",
        "  Primary meta-data set: 66 metadata blocks from block 0 (zone 0)",
        "    Super block at block 0 and 256",
        "    1 chunk mapping table blocks",
        "    64 bitmap blocks",
        "    Using 1 zones per meta-data set (2 total)",
        "  57 data chunks capacity",
        "    6 cache zone(s)",
        "    51 data zone(s)",
        "  5 sequential zone(s) reserved for reclaim",
    ):
        assert line in out
    contents = ["  Writing mapping table", "  Writing bitmap blocks"]
    assert out[out.index("Resetting sequential zones") :] == [
        "Resetting sequential zones",
        *("Writing primary metadata set", *contents, "  Writing super block to disk.img block 0"),
        *("Writing secondary metadata set", *contents, "  Writing super block to disk.img block 256"),
        "Syncing disk(s)",
        "Done.",
    ]


def test_format_refuses_content_without_force(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    assert program("dmzadm", "--format", image, f"--uuid={UUID}").status == 0
    again = program("dmzadm", "--format", image)
    assert again.status == 1
    assert "appears to contain an existing filesystem (dm-zoned)" in again.err
    assert "--force" in again.err
    assert program("dmzadm", "--format", image, "--force").status == 0


def test_format_refuses_what_blkid_knows(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    with open(image, "r+b") as raw:  # an ext4 super block as blkid sees it
        raw.seek(1024 + 56)
        raw.write(b"\x53\xef")
        raw.seek(1024 + 76)
        raw.write(b"\x01\0\0\0")
    result = program("dmzadm", "--format", image)
    assert result.status == 1
    assert "appears to contain an existing filesystem (ext" in result.err


def test_reproducible_format(images: Unpack, tmp_path: Path, program: Program) -> None:
    facts = json.loads((VECTORS / "hm64x1.json").read_text())["images"]["fresh"]["superblocks"][0]
    image = drive(program, tmp_path)
    names = (f"--uuid={facts['dmz_uuid']}", f"--device-uuid={facts['dev_uuid']}", f"--label={facts['label']}")
    assert program("dmzadm", "--format", image, *names).status == 0
    assert image.read_bytes() == (images("hm64x1") / "fresh.img").read_bytes()


def test_dry_run_changes_nothing(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    result = program("dmzadm", "--format", image, "--dry-run")
    assert result.status == 0
    assert "write 4096 bytes at 0" in result.out
    assert image.stat().st_blocks == 0
    assert program("zoned", "probe", image).out.endswith("no known layout\n")


def test_geometry_failures_exit_255(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path, "--zones", 64, "--zone-size", "1MiB", "--conventional", 2)
    result = program("dmzadm", "--format", image)
    assert result.status == 255
    assert "Not enough random zones found" in result.err
    assert image.stat().st_blocks == 0


@pytest.mark.parametrize("name", ["hm64x1", "hm64x4", "hm300x1", "hm6x256", "v1", "dual", "triple"])
def test_check_of_a_clean_target_reads_as_the_originals(name: str, images: Unpack, program: Program) -> None:
    folder = images(name)
    reference = json.loads((VECTORS / f"{name}.json").read_text())["images"]["clean"]["reference_check"]
    devices = sorted(folder.glob("disk*.img"))
    result = program("dmzadm", "--check", *devices)
    assert result.status == 0
    expected = reference[1]
    for number, device in enumerate(devices):
        expected = expected.replace(f"/dev/nullb{number}:", f"{device}:")
    assert result.out == expected


def test_check_tells_scripts_about_errors(
    images: Unpack, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("disk.img", "disk.img.zones"):
        shutil.copy(images("hm64x1") / name, tmp_path / name)
    image = tmp_path / "disk.img"
    with open(image, "r+b") as raw:
        raw.seek(200)
        raw.write(b"\xff")
    result = program("dmzadm", "--check", image)
    assert result.status == 1
    assert result.out.endswith("Errors detected: running repair is recommended\n")
    document = json.loads(program("dmzadm", "--check", image, "--json").out)
    assert document["schema"] == "zoned.check/1"
    assert [f["id"] for f in document["devices"][0]["findings"]] == ["dm-zoned.sb-bad-crc"]
    monkeypatch.setenv("ZONED_TOOLS_LEGACY_EXIT", "1")
    assert program("dmzadm", "--check", image).status == 0


def test_no_super_block_exits_255(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    result = program("dmzadm", "--check", image)
    assert result.status == 255
    assert "No valid superblock found" in result.out
    assert result.err.count("\n") == 1


def test_repair_and_undo(images: Unpack, tmp_path: Path, program: Program) -> None:
    for name in ("disk.img", "disk.img.zones"):
        shutil.copy(images("hm64x1") / name, tmp_path / name)
    image, undo = tmp_path / "disk.img", tmp_path / "repair.undo"
    good = image.read_bytes()
    with open(image, "r+b") as raw:
        raw.write(b"damaged!")
    damaged = image.read_bytes()
    assert program("dmzadm", "--repair", image, f"--undo={undo}").status == 0
    assert image.read_bytes() == good
    assert program("dmzadm", "--check", image).status == 0
    assert program("zoned", "undo", undo, image).status == 0
    assert image.read_bytes() == damaged
    document = json.loads(program("zoned", "check", image, "--repair", "--json").out)
    assert document["changed"] is True
    assert document["devices"][0]["verdict"] == "corrected"
    assert image.read_bytes() == good


def header(image: Path) -> str:
    """What the original prints ahead of every operation but ``--stop``."""
    return (
        f"{image}: 131072 512-byte sectors (0 GiB)\n  Host-managed device\n  64 zones, offset 0\n"
        "  64 zones of 2048 512-byte sectors (1 MiB)\n  256 4KB data blocks per zone\n"
    )


def test_relabel(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    program("dmzadm", "--format", image, "--label=one")
    result = program("dmzadm", "--relabel", image, "--label=two")
    assert (result.status, result.out) == (0, f"{header(image)}Relabeling from one to two\n")
    again = program("dmzadm", "--relabel", image, "--label=two").out
    assert again == f"{header(image)}Device label already set to two\n"
    assert program("dmzadm", "--check", image).status == 0
    assert json.loads(program("zoned", "probe", image, "--json").out)["devices"][0]["label"] == "two"


def test_an_image_is_not_started(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    program("dmzadm", "--format", image, "--label=one")
    result = program("dmzadm", "--start", image)
    assert result.status == 1
    assert "image file cannot be started" in result.err
    table = program("dmzadm", "--start", image, "--dry-run").out
    assert table == f"one: table 0 {55 * 2048} zoned {image}\n"


def test_start_refuses_what_a_kernel_cannot_run(tmp_path: Path, program: Program) -> None:
    """All conventional zones hold metadata: no repair changes that."""
    image = tmp_path / "tight.img"
    program("zoned", "image", "create", image, "--size", "300M", "--zone-size", "1M", "--conventional", "4")
    assert program("dmzadm", "--format", image).status == 0
    result = program("dmzadm", "--start", image, "--dry-run")
    assert result.status == 255
    assert "every write waits for ever" in result.err
    assert "--repair" not in result.err


def test_start_only_warns_of_a_runt_zone(tmp_path: Path, program: Program) -> None:
    image = tmp_path / "runt.img"
    program("zoned", "image", "create", image, "--size", "66048K", "--zone-size", "1M", "--conventional", "8")
    assert program("dmzadm", "--format", image, "--label=short").status == 0
    result = program("dmzadm", "--start", image, "--dry-run")
    assert result.status == 0
    assert result.out.startswith("short: table 0 ")
    assert result.err.startswith("warning: ")
    assert "shorter" in result.err


def test_start_brings_sets_of_different_generations_together(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    program("dmzadm", "--format", image, "--label=cut")
    with open(image, "r+b") as file:
        primary = SuperBlock.parse(file.read(4096))
        file.seek(0)
        file.write(replace(primary, gen=2).pack())
    before = image.read_bytes()
    planned = program("dmzadm", "--start", image, "--dry-run")
    assert planned.status == 0
    assert "write 4096 bytes at 1048576" in planned.out
    assert planned.out.endswith(f"cut: table 0 {55 * 2048} zoned {image}\n")
    refused = program("dmzadm", "--start", image, "--no-sync", "--dry-run")
    assert refused.status == 255
    assert "sets-gen-differ" in refused.err
    assert f"run dmzadm --repair {image} first" in refused.err
    assert image.read_bytes() == before
    assert program("dmzadm", "--check", image, "--no-sync").status == 1


def test_start_names_the_repair_where_there_is_one(tmp_path: Path, program: Program) -> None:
    image = drive(program, tmp_path)
    program("dmzadm", "--format", image)
    with open(image, "r+b") as file:
        file.write(bytes(4096))
    result = program("dmzadm", "--start", image, "--dry-run")
    assert result.status == 255
    assert "dm-zoned.sb-bad-magic" in result.err
    assert f"run dmzadm --repair {image} first" in result.err


def test_a_repair_of_a_copy_leaves_the_original_alone(images: Unpack, tmp_path: Path, program: Program) -> None:
    for number in (0, 1):
        for name in (f"disk{number}.img", f"disk{number}.img.zones"):
            if (images("dual") / name).exists():
                shutil.copy(images("dual") / name, tmp_path / name)
    devices = [tmp_path / "disk0.img", tmp_path / "disk1.img"]
    copies = [tmp_path / "copy0.img", tmp_path / "copy1.img"]
    with open(devices[0], "r+b") as raw:
        raw.write(b"damaged!")
    before = [device.read_bytes() for device in devices]
    outputs = [word for copy in copies for word in ("--output", copy)]
    assert program("zoned", "check", *devices, "--repair", *outputs).status == 1
    assert program("dmzadm", "--check", *copies).status == 0
    assert [device.read_bytes() for device in devices] == before
    assert program("dmzadm", "--check", *devices).status == 1
    again = program("zoned", "check", *devices, "--repair", *outputs)
    assert (again.status, "already exists" in again.err) == (8, True)
    assert program("zoned", "check", *devices, "--repair", "--output", copies[0]).status == 16
    assert program("zoned", "check", *devices, "--output", copies[0]).status == 16


def test_start_of_a_part_of_a_target_says_what_to_name(tmp_path: Path, program: Program) -> None:
    cache, first, second = (tmp_path / name for name in ("cache.img", "first.img", "second.img"))
    cache.write_bytes(b"")
    os.truncate(cache, 9 << 20)
    for image in (first, second):
        program("zoned", "image", "create", image, "--zones", 16, "--zone-size", "1M")
    assert program("dmzadm", "--format", cache, first, second, "--seq=4", "--label=three").status == 0
    cases = {
        (cache,): "regular device of dm-zoned target 'three'",
        (first,): "zoned member of dm-zoned target 'three'",
        (cache, first): "are on a member that is not named",
        (cache, second, first): f"the members are in the wrong order; name them as {cache} {first} {second}",
    }
    for devices, words in cases.items():
        result = program("dmzadm", "--start", *devices, "--dry-run")
        assert result.status == 255, devices
        assert words in result.err
        assert "run dmzadm --repair" not in result.err
        assert len(result.err.splitlines()) == 1
    with open(second, "r+b") as file:  # of another target
        other = replace(SuperBlock.parse(file.read(4096)), dmz_uuid=uuid.UUID(int=7)).pack()
        file.seek(0)
        file.write(other)
    result = program("dmzadm", "--start", cache, first, second, "--dry-run")
    assert (result.status, "run dmzadm" in result.err) == (255, False)
    assert f"{second} is a member of another dm-zoned target" in result.err


def test_a_replay_that_is_cut_off_says_what_a_kernel_needs(tmp_path: Path, program: Program) -> None:
    """In the window in which the sets have different generations, and only there."""
    said = set()
    trace = tmp_path / "trace"
    trace.write_text("fio version 2 iolog\nd add\nd open\nd write 0 65536\nd datasync 0 0\nd close\n")
    for point in range(1, 9):
        image = tmp_path / f"{point}.img"
        program("zoned", "image", "create", image, "--zones", 24, "--zone-size", "1M", "--conventional", 6)
        program("dmzadm", "--format", image, "--seq=4")
        done = program("zoned", "replay", image, "--trace", trace, "--crash-at", point)
        assert done.status == 0
        needs = json.loads(program("zoned", "check", image, "--json").out)["devices"][0]["facts"]["needs_sync"]
        text = f"zoned check --repair {image} has to come before a kernel starts it (dm-zoned.sets-gen-differ)"
        assert (text in done.err) == needs, point
        said.add(needs)
    assert said == {True, False}
