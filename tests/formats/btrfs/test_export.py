"""Export: each device as a regular one that kernels mount; beside what a 6.12 kernel and btrfs restore took."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.btrfs.images import MIB, STATES, Drive, Images, change_zones, make_super, poke
from tests.formats.btrfs.nodes import own_devices
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.btrfs.layout import MIRROR_BYTENR, parse

if TYPE_CHECKING:
    from tests.programs import Program, Result


def run(program: Program, *words: object, status: int | None = 0) -> Result:
    """``zoned WORDS``, which ends with the status."""
    done = program("zoned", *words)
    assert status is None or done.status == status, done.err
    return done


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def outputs(out: Path, devices: int) -> list[Path]:
    return [out] if devices == 1 else [out / f"devid-{number + 1}.img" for number in range(devices)]


@pytest.mark.parametrize("name", [name for name in STATES if "export" in STATES[name]])
def test_what_is_exported(name: str, images: Images, program: Program, tmp_path: Path) -> None:
    wanted = STATES[name]["export"]
    out = tmp_path / "out"
    done = run(program, "export", "--json", *images(name), "-o", out, status=wanted["exit"])
    document = done.json
    assert document["generation"] == STATES[name]["generation"]
    files = outputs(out, len(wanted["devices"]))
    assert document["outputs"] == [str(file) for file in files]
    for file, device in zip(files, wanted["devices"], strict=True):
        content = file.read_bytes()
        assert len(content) == device["size_bytes"]
        assert {at: sha256(content[int(at) : int(at) + 4096]) for at in device["supers"]} == device["supers"]
        for zone, at, length, digest in device["zones"]:
            assert sha256(content[at : at + length]) == digest, zone
        assert file.stat().st_blocks * 512 <= device["most_allocated_bytes"]
    assert [[row["devid"], row["zone"]] for row in document["lost"]] == wanted["lost_zones"]


@pytest.mark.parametrize("name", STATES)
def test_a_copy_is_a_sound_file_system(name: str, images: Images, program: Program, tmp_path: Path) -> None:
    """Our own check reads the copy: the trees are those of the drive, and nothing is in front of the first place."""
    out = tmp_path / "out"
    dead = ["offline" for group in STATES[name]["block_groups"] for s in group["stripes"] if s["wp"] == "offline"]
    run(program, "export", *images(name), "-o", out, status=4 if dead else 0)
    files = outputs(out, len(images(name)))
    [row] = run(program, "check", "--deep", "--json", *files, status=None).json["devices"]
    assert row["facts"]["generation"] == STATES[name]["generation"]
    nodes = STATES[name]["nodes"]
    assert row["facts"]["nodes_read"] == nodes or name == "g12-leaf-lost"
    assert not any(file.read_bytes()[: MIRROR_BYTENR[0]].strip(b"\0") for file in files)


def test_an_older_generation(images: Images, program: Program, tmp_path: Path) -> None:
    """The newest of a generation; the ring's slot 16, which lies at byte 65536, is not what a kernel finds there."""
    [image] = images("g25-25-commits")
    newest = STATES["g25-25-commits"]["generation"]
    out = tmp_path / "out"
    for generation in (newest, newest - 1):
        run(program, "export", image, "-o", out, "--force", "--set", f"generation={generation}")
        for place in MIRROR_BYTENR[:2]:
            block = parse(out.read_bytes()[place : place + 4096])
            assert (block.generation, block.bytenr) == (generation, place)
    refused = run(program, "export", image, "-o", tmp_path / "no", "--set", "generation=999", status=8)
    assert "there are generations" in refused.err
    assert not (tmp_path / "no").exists()


def test_the_tree_log_is_kept_or_dropped(vector_image: Callable[[str], Path], program: Program, tmp_path: Path) -> None:
    image, out = vector_image("p12-fsync-equal-gen"), tmp_path / "out"
    logs = []
    for setting in ("log=keep", "log=drop"):
        run(program, "export", image, "-o", out, "--force", "--set", setting)
        logs.append(parse(out.read_bytes()[65536 : 65536 + 4096]).log_root)
    assert logs[0] != 0
    assert logs[1] == 0


def test_a_device_that_is_missing(images: Images, program: Program, tmp_path: Path) -> None:
    first, _ = images("g18-raid1-two-healthy")
    done = run(program, "export", first, "-o", tmp_path / "out")
    assert "1 of 2 devices given" in done.err
    assert (tmp_path / "out").is_file()
    both = images("g18-raid1-two-healthy")
    assert run(program, "export", *both, "-o", "-", status=16).err.endswith("(-o DIRECTORY)\n")
    (tmp_path / "file").write_bytes(b"")
    assert run(program, "export", *both, "-o", tmp_path / "file", status=8)
    made = tmp_path / "made"
    made.mkdir()
    (made / "devid-2.img").write_bytes(b"mine")
    assert "already exists" in run(program, "export", *both, "-o", made, status=8).err
    assert (made / "devid-2.img").read_bytes() == b"mine"


def test_unreadable_data_need_consent_and_are_listed_by_zone(tmp_path: Path, program: Program) -> None:
    """Bad areas in a data zone, in the ring and in an orphan: only the first is a loss."""
    [image] = own_devices("g01-dup-healthy", tmp_path)
    data, orphan, size = 4 * 4 * MIB, 3 * 4 * MIB, image.stat().st_size
    bad = [(0, 512), (orphan, 4096), (data + 4096, 1024)]
    rows, at = ["0 + 1"], 0
    for start, length in bad:
        rows += [f"{at} {start - at} +"] if start > at else []
        rows.append(f"{start} {length} -")
        at = start + length
    rows.append(f"{at} {size - at} +")
    mapfile = tmp_path / "map"
    mapfile.write_text("\n".join(rows) + "\n")
    out, losses = tmp_path / "out", tmp_path / "losses"
    refused = run(program, "export", image, "--mapfile", mapfile, "-o", out, status=8)
    assert "1024 bytes in 1 range" in refused.err
    assert not out.exists()
    options = ("--skip-errors", "--mapfile-out", losses, "--json")
    done = run(program, "export", image, "--mapfile", mapfile, "-o", out, *options, status=4)
    place = {"devid": 1, "zone": 4, "block_group": 16777216}
    assert done.json["lost"] == [{"offset_bytes": data + 4096, "length_bytes": 1024, "reason": "bad sector", **place}]
    content, source = out.read_bytes(), image.read_bytes()
    assert content[data : data + 4096] == source[data : data + 4096]
    assert not any(content[data + 4096 : data + 5120])
    assert content[data + 5120 : data + 8192] == source[data + 5120 : data + 8192]
    assert f"0x{data + 4096:08X}  0x00000400  -" in losses.read_text()


def test_zones_that_are_dead(tmp_path: Path, program: Program) -> None:
    """Read-only zones are read whole; an offline zone of nobody is no loss, one of a block group is a hole."""
    [image] = own_devices("g01-dup-healthy", tmp_path)

    def kill(table: Any) -> None:
        table["condition"][[7, 8, 25]] = ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE, ZoneCondition.OFFLINE

    change_zones(image, kill)
    done = run(program, "export", image, "-o", tmp_path / "out", "--json", status=4)
    assert [(row["zone"], row["reason"]) for row in done.json["lost"]] == [(8, "zone 8 is offline")]
    content = (tmp_path / "out").read_bytes()
    written = 1114112
    assert content[7 * 4 * MIB :][:written] == image.read_bytes()[7 * 4 * MIB :][:written]
    assert not any(content[8 * 4 * MIB : 9 * 4 * MIB])


def test_conventional_zones_are_copied_whole_but_for_the_pairs(
    images: Images, program: Program, tmp_path: Path
) -> None:
    [image] = images("g15-conv7-mixed-healthy")
    out = tmp_path / "out"
    run(program, "export", image, "-o", out)
    content, source = out.read_bytes(), image.read_bytes()
    assert any(source[:4096])
    assert not any(content[:65536])
    assert content[8 * MIB : 28 * MIB] == source[8 * MIB : 28 * MIB]


def test_a_regular_device(vector_image: Callable[[str], Path], program: Program, tmp_path: Path) -> None:
    """Nothing is left out; every regular place gets the newest super block."""
    image, out = vector_image("p21-emulated-regular"), tmp_path / "out"
    run(program, "export", image, "-o", out)
    assert out.stat().st_size == image.stat().st_size
    assert out.read_bytes()[: 8 * MIB] == image.read_bytes()[: 8 * MIB]
    assert out.stat().st_blocks * 512 < 32 * MIB


def test_a_raw_copy_without_its_zone_table(tmp_path: Path, images: Images, program: Program) -> None:
    [image] = images("g01-dup-healthy")
    raw, out, same = tmp_path / "raw", tmp_path / "out", tmp_path / "same"
    raw.write_bytes(image.read_bytes())
    run(program, "export", raw, "-o", out)
    run(program, "export", image, "-o", same)
    assert out.read_bytes() == same.read_bytes()


def test_trees_that_cannot_be_read_are_told(tmp_path: Path, program: Program) -> None:
    """Without any readable roots the newest valid super block is exported, with a warning."""
    image = Drive(tmp_path / "disk.img", nr_zones=40, contents={0: [make_super(5), make_super(6)]}).make()
    done = run(program, "export", image, "-o", tmp_path / "out")
    assert "the trees of generation 6 cannot be read" in done.err
    assert parse((tmp_path / "out").read_bytes()[65536 : 65536 + 4096]).generation == 6
    empty = Drive(tmp_path / "no.img", contents={0: [b"_" * 4096]}).make()
    poke(empty, 0, bytes(4096))
    assert run(program, "export", "--layout", "btrfs", empty, "-o", tmp_path / "no", status=8)


def test_the_newest_super_block_raw(vector_image: Callable[[str], Path], program: Program) -> None:
    image = vector_image("pv01-torn-last")
    for words, at in ((), 8192), (("--mirror", "0"), 8192), (("--at", "4096"), 4096):
        command = [sys.executable, "-m", "zoned_tools", "btrfs", "supers", "--latest", "--raw", *words, str(image)]
        done = subprocess.run(command, capture_output=True, check=True)
        assert done.stdout == image.read_bytes()[at : at + 4096]
    run(program, "btrfs", "supers", "--latest", "--raw", vector_image("pv12-both-empty"), status=8)
    run(program, "btrfs", "supers", "--raw", image, status=16)
