"""Files without a kernel: listings, contents, extents, and what zones hold; beside what a 6.12 kernel read."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.formats.btrfs.images import STATES, Images, poke
from tests.formats.btrfs.nodes import edit_leaves, edit_root, item_places, own_devices
from tests.formats.btrfs.trees import content_sha256, our_content
from zoned_tools.formats.btrfs.items import DIR_INDEX, EXTENT_CSUM, EXTENT_DATA, INODE_ITEM

if TYPE_CHECKING:
    from tests.programs import Program, Result

UNREADABLE = {"g07-data-offline", "g09-data-reset", "g12-leaf-lost"}


def run(program: Program, *words: object, status: int | None = 0) -> Result:
    done = program("zoned", "btrfs", *words)
    assert status is None or done.status == status, done.err
    return done


def cat(*words: object, status: int = 0) -> bytes:
    command = [sys.executable, "-m", "zoned_tools", "btrfs", "cat", *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [name for name in STATES if name not in UNREADABLE])
def test_every_file_has_the_content_that_a_kernel_reads(name: str, images: Images) -> None:
    """Refused states too: what the kernel read was before the damage, or with rescue=all."""
    assert content_sha256(our_content(images(name))) == STATES[name]["content_sha256"]


def test_files_that_are_lost(images: Images, program: Program) -> None:
    """Data in an offline or a reset zone, and files below a leaf that is gone."""
    sound = our_content(images("g01-dup-healthy"))
    for name, reason in (("g07-data-offline", "offline"), ("g09-data-reset", "above-wp")):
        content = our_content(images(name))
        bad = {path for path, text in content.items() if text != sound[path]}
        assert bad == {"d/big", "zeros"}
        assert all(reason in content[path] for path in bad)
    done = run(program, "ls", "-R", "/", *images("g12-leaf-lost"), status=4)
    assert "/n/f030: the node at 25755648 is damaged" in done.err
    assert {"/inline", "/n/f030"} < set(done.out.splitlines())
    assert "25755648" in run(program, "ls", "/n/f030", *images("g12-leaf-lost"), status=8).err
    [image] = images("g07-data-offline")
    refused = run(program, "cat", "/d/big", image, status=8)
    assert "61440 bytes at byte 0 cannot be read" in refused.err
    assert cat("/d/big", image, "--skip-errors", status=4) == bytes(61440)


def test_a_listing(images: Images, program: Program) -> None:
    [image] = images("g01-dup-healthy")
    document = run(program, "ls", "--json", "/", image).json
    assert (document["schema"], document["generation"]) == ("zoned.btrfs.ls/1", STATES["g01-dup-healthy"]["generation"])
    rows = {row["path"]: row for row in document["entries"]}
    assert (rows["/l"]["type"], rows["/l"]["target"], rows["/l"]["mode"]) == ("symlink", "inline", "120777")
    assert (rows["/zeros"]["size_bytes"], rows["/zeros"]["disk_bytes"]) == (70000, 73728)
    assert rows["/d"]["type"] == "dir"
    assert all(row["path"].count("/") == 1 for row in document["entries"])
    every = run(program, "ls", "-R", "/", image).out.splitlines()
    assert len(every) == len(our_content([image])) + 2
    assert run(program, "ls", "/inline", image).out == "/inline\n"
    assert run(program, "ls", "-l", "/l", image).out.endswith(" /l -> inline\n")
    assert "no such file" in run(program, "ls", "/nothing", image, status=8).err
    assert "no directory" in run(program, "ls", "/inline/x", image, status=8).err
    assert "no subvolume 300" in run(program, "ls", "--subvolume", 300, "/", image, status=8).err


def test_parts_of_a_file(images: Images, program: Program) -> None:
    [image] = images("g01-dup-healthy")
    whole = cat("/d/big", image)
    assert len(whole) == 61440
    assert cat("/d/big", image, "--offset", 5000, "--length", 9000) == whole[5000:14000]
    assert cat("d//big", image, "--offset", 61000) == whole[61000:]
    assert cat("/d/big", image, "--offset", 70000) == b""
    for path, what in (("/d", "a directory"), ("/l", "a symbolic link to inline")):
        assert what in run(program, "cat", path, image, status=8).err


def test_an_older_generation(images: Images) -> None:
    [image] = images("g25-25-commits")
    newest = STATES["g25-25-commits"]["generation"]
    older = our_content([image], generation=str(newest - 1))
    assert older != our_content([image])


def test_data_are_held_against_their_checksums(tmp_path: Path, program: Program) -> None:
    [image] = own_devices("g01-dup-healthy", tmp_path)
    whole = cat("/d/big", image)
    rows = run(program, "extents", "/d/big", image, "--json").json["extents"]
    at = rows[0]["copies"][0]["physical_bytes"]
    poke(image, at + 8192 + 5, b"\xff\x00\xff")
    refused = run(program, "cat", "/d/big", image, status=8)
    assert "4096 bytes at byte 8192 cannot be read" in refused.err
    assert "checksum is wrong on device 1" in refused.err
    assert cat("/d/big", image, "--skip-errors", status=4) == whole[:8192] + bytes(4096) + whole[12288:]
    raw = cat("/d/big", image, "--no-verify")
    assert raw[:8192] + raw[12288:] == whole[:8192] + whole[12288:]
    assert raw[8192:12288] == image.read_bytes()[at + 8192 : at + 12288]


def test_checksums_that_are_not_there(tmp_path: Path, program: Program) -> None:
    images = own_devices("g01-dup-healthy", tmp_path)

    def lose(node: bytearray) -> None:
        for key, _ in item_places(node, EXTENT_CSUM):
            node[key + 8] = EXTENT_CSUM + 1

    edit_root(images, 7, lose)
    assert "it has no checksum" in run(program, "cat", "/d/big", *images, status=8).err
    assert len(cat("/d/big", *images, "--no-verify")) == 61440


def test_where_the_bytes_of_a_file_are(images: Images, program: Program) -> None:
    [image] = images("g01-dup-healthy")
    document = run(program, "extents", "/d/big", image, "--json").json
    assert document["size_bytes"] == 61440
    [row] = document["extents"]
    assert {key: row[key] for key in ("file_offset_bytes", "length_bytes", "kind", "compression")} == {
        "file_offset_bytes": 0,
        "length_bytes": 61440,
        "kind": "regular",
        "compression": "none",
    }
    [copy] = row["copies"]
    assert (copy["devid"], copy["zone"], copy["state"]) == (1, 4, "ok")
    at = copy["physical_bytes"]
    assert image.read_bytes()[at : at + 61440] == cat("/d/big", image)
    same = run(program, "extents", "-", image, "--inode", document["inode"], "--json").json
    assert same == document
    assert "zone 4 byte" in run(program, "extents", "/d/big", image).out
    run(program, "extents", "-", image, status=16)
    assert "no inode 9999" in run(program, "extents", "-", image, "--inode", 9999, status=8).err


def test_what_zones_hold(images: Images, program: Program) -> None:
    lost = run(program, "files", "--json", *images("g07-data-offline")).json
    assert lost["zones"] == [{"devid": 1, "zone": 4, "condition": "offline"}]
    assert {row["path"]: (row["bytes"], row["alone_bytes"]) for row in lost["files"]} == {
        "/d/big": (61440, 61440),
        "/zeros": (73728, 73728),
    }
    assert lost["trees"] == []
    both = images("g18-raid1-two-healthy")
    metadata = run(program, "files", "--json", "--zone", 7, "--devid", 1, *both).json
    assert sum(row["nodes"] for row in metadata["trees"]) == STATES["g18-raid1-two-healthy"]["nodes"] - 1
    assert {row["alone_nodes"] for row in metadata["trees"]} == {0}
    alone = run(program, "files", "--json", "--zone", 7, "--devid", 1, both[0]).json
    assert all(row["alone_nodes"] == row["nodes"] > 0 for row in alone["trees"])
    assert "no zone is offline" in run(program, "files", *both).out
    run(program, "files", "--zone", 99, *both, status=16)
    run(program, "files", "--zone", 4, "--devid", 9, *both, status=16)
    run(program, "files", "--devid", 1, *both, status=16)
    text = run(program, "files", "--zone", 4, "--zone", 8, *images("g01-dup-healthy")).out
    assert "/d/big: 61440 bytes, 61440 of them without a copy elsewhere" in text
    assert "file system tree: 5 nodes, 0 of them" in text


def test_names_from_the_disk_do_not_reach_a_terminal(tmp_path: Path, program: Program) -> None:
    """Control characters and bytes that are no UTF-8 are shown as escapes; PATH and JSON have them as they are."""
    images = own_devices("g01-dup-healthy", tmp_path)
    name = b"in\x1b[\xffe"

    def rename(node: bytearray) -> None:
        for _, at in item_places(node, DIR_INDEX):
            if node[at + 30 : at + 36] == b"inline":
                node[at + 30 : at + 36] = name

    edit_leaves(images, 5, rename)
    assert "/in\\x1b[\\udcffe" in run(program, "ls", "/", *images).out.splitlines()
    rows = run(program, "ls", "--json", "/", *images).json["entries"]
    path = f"/{name.decode('utf-8', 'surrogateescape')}"
    assert path in {row["path"] for row in rows}
    assert run(program, "ls", path, *images).status == 0


OFFSETS = (0, 8, 16, 17, 20, 21, 29, 37, 45)
"""Of the fields of a file extent."""


@pytest.mark.parametrize("seed", range(len(OFFSETS) * 2))
def test_hostile_extents(tmp_path: Path, seed: int) -> None:
    """File extents that claim anything: each file is read or has a reason, in bounded time."""
    choose = random.Random(seed)
    images = own_devices("g01-dup-healthy", tmp_path)
    changed = 0

    def damage(node: bytearray) -> None:
        nonlocal changed
        for _, at in item_places(node, EXTENT_DATA):
            if node[at + 20] == 1 or OFFSETS[seed % len(OFFSETS)] < 21:
                offset = at + OFFSETS[seed % len(OFFSETS)]
                node[offset : offset + 3] = choose.randbytes(3)
                changed += 1

    assert edit_leaves(images, 5, damage) > 1
    assert changed > 1
    sound, content = our_content(own_devices("g01-dup-healthy", tmp_path / "sound")), our_content(images)
    assert content.keys() == sound.keys()
    assert content != sound or OFFSETS[seed % len(OFFSETS)] not in (16, 17, 20, 21)


@pytest.mark.parametrize("kind", [INODE_ITEM, DIR_INDEX])
def test_hostile_directories(tmp_path: Path, kind: int, program: Program) -> None:
    """Directory entries and inodes that claim anything are listed with a reason, never for ever."""
    for seed in range(6):
        choose = random.Random(seed)
        images = own_devices("g01-dup-healthy", tmp_path / str(seed))

        def damage(node: bytearray, choose: random.Random = choose) -> None:
            for _, at in item_places(node, kind):
                offset = at + choose.randrange(30)
                node[offset : offset + 2] = choose.randbytes(2)

        assert edit_leaves(images, 5, damage) > 1
        assert program("zoned", "btrfs", "ls", "-R", "-l", "/", *images).status in (0, 4, 8)
