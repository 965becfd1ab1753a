"""The vectors by name: what real kernels showed, and what they accepted."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.formats.zonefs.images import VECTORS, make_image
from zoned_tools.device.opening import open_device
from zoned_tools.errors import MetadataError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.judge import mount_faults
from zoned_tools.formats.zonefs.layout import SuperBlock, checksum, with_checksum
from zoned_tools.formats.zonefs.mapper.files import FileError
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree, open_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.programs import Result

TREES = sorted(p.stem for p in VECTORS.glob("p*.json"))
SUPER_BLOCKS: dict[str, Any] = json.loads((VECTORS / "superblocks" / "expected.json").read_text())


def super_block_file(name: str) -> Path:
    return VECTORS / "superblocks" / f"{name.replace('|', '_')}.bin"


def content(tree: ZonefsTree, path: str) -> dict[str, str]:
    try:
        return {"sha256": hashlib.sha256(tree.read(path, 0, 1 << 40)).hexdigest()}
    except FileError as error:
        return {"read_error": os.strerror(error.errno)}


def shown(tree: ZonefsTree) -> list[dict[str, object]]:
    """The tree in the words of the vectors."""
    rows: list[dict[str, object]] = []
    for entry in tree.walk():
        row: dict[str, object] = {
            "path": entry.path,
            "type": "dir" if entry.is_directory else "file",
            "ino": entry.ino,
            "mode": f"{stat.S_IMODE(entry.mode):o}",
            "uid": entry.uid,
            "gid": entry.gid,
            "size": entry.size_bytes,
            "nlink": entry.nlink,
            "blocks": entry.blocks,
            "blksize": entry.block_bytes,
        }
        if entry.is_directory:
            row["entries"] = len(tree.list_directory(entry.path))
        else:
            row |= content(tree, entry.path)
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", TREES)
def test_tree(name: str, vector_image: Callable[[str], Path]) -> None:
    """Every field of every file and directory, contents included, as the kernel showed it."""
    expected = json.loads((VECTORS / f"{name}.json").read_text())
    with open_device(str(vector_image(name))) as device:
        target = Target("zonefs", (device,))
        if expected["mount_rc"] != 0:
            with pytest.raises(MetadataError):
                open_tree(target, writable=False)
            return
        tree = open_tree(target, writable=False)
        assert shown(tree) == expected["tree"]
        facts: dict[str, object] = {**tree.statfs().as_json()}
        assert f"{facts['fsid']} {facts['type']}" == expected["statfs"].pop("fsid")
        assert {key: facts[key] for key in expected["statfs"]} == expected["statfs"]
        assert {key: str(value) for key, value in tree.attributes().items()} == expected["sysfs"]


@pytest.mark.parametrize("name", [name for name in TREES if name != "pc3-zone0-reset"])
def test_ls_json(name: str, vector_image: Callable[[str], Path], program: Callable[..., Result]) -> None:
    expected = json.loads((VECTORS / f"{name}.json").read_text())
    document = program("zoned", "zonefs", "ls", "--json", vector_image(name)).json
    assert document["schema"] == "zoned.zonefs.ls/1"
    keys = {"path": "path", "type": "type", "ino": "ino", "size": "size_bytes", "blocks": "blocks", "mode": "mode"}
    keys |= {"uid": "uid", "gid": "gid", "nlink": "nlink", "blksize": "block_bytes"}
    got = [{old: entry[new] for old, new in keys.items()} for entry in document["entries"]]
    assert got == [{old: row[old] for old in keys} for row in expected["tree"]]
    files = [entry for entry in document["entries"] if entry["type"] == "file"]
    assert all(entry["capacity_bytes"] == entry["blocks"] * 512 and entry["zone"] == entry["ino"] for entry in files)


@pytest.mark.parametrize("name", TREES)
def test_check_of_vectors(name: str, vector_image: Callable[[str], Path], program: Callable[..., Result]) -> None:
    expected = {
        "p5-readonly-offline": {"zonefs.zone-readonly": "warning", "zonefs.zone-offline": "warning"},
        "pc1-zone0-not-full": {"zonefs.zone0-not-full": "warning"},
        "pc2-zone0-readonly": {"zonefs.zone-readonly": "warning"},
        "pc3-zone0-reset": {"zonefs.zone0-empty": "error", "zonefs.sb-magic": "error"},
    }.get(name, {})
    result = program("zoned", "zonefs", "check", "--json", vector_image(name))
    (row,) = result.json["devices"]
    assert {f["id"]: f["severity"] for f in row["findings"]} == expected
    assert result.status == (4 if name == "pc3-zone0-reset" else 0)


@pytest.mark.parametrize("name", list(SUPER_BLOCKS))
def test_super_block(name: str, tmp_path: Path, program: Callable[..., Result]) -> None:
    """The kernel's verdict, the owners and modes it showed, and the check's agreement with it."""
    expected = SUPER_BLOCKS[name]
    raw = super_block_file(name).read_bytes()
    assert SuperBlock.parse(raw).crc == int(expected["crc"], 16)
    image = make_image(tmp_path / "disk.img", size_bytes=32 << 20, block_bytes=512)
    with open_device(str(image), writable=True) as device:
        device.write(0, raw)
    mountable = expected["mount_rc"] == 0
    assert (next(mount_faults(raw), None) is None) == mountable
    with open_device(str(image)) as device:
        target = Target("zonefs", (device,))
        if not mountable:
            with pytest.raises(MetadataError):
                open_tree(target, writable=False)
        else:
            tree = open_tree(target, writable=False)
            files = dict(expected["files"])
            assert tree.statfs().as_json()["fsid"] == files.pop("fsid")
            for path, facts in files.items():
                entry = tree.stat(path)
                got = {"mode": f"{entry.mode:o}", "uid": entry.uid, "gid": entry.gid, "size": entry.size_bytes}
                assert got == facts
    result = program("zoned", "zonefs", "check", "--json", image)
    assert result.status == (0 if mountable else 4)


@pytest.mark.parametrize("name", list(SUPER_BLOCKS))
def test_round_trip(name: str) -> None:
    """A super block that decodes encodes to the same bytes, when its checksum was right."""
    raw = super_block_file(name).read_bytes()
    block = SuperBlock.parse(raw)
    if block.crc == checksum(raw):
        assert block.pack() == raw
    else:
        assert block.pack() == with_checksum(raw)
