"""Volumes of which the super block or sectors of files cannot be read."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.formats.media import DamagedDrive
from tests.formats.zonefs.images import MIB, make_image
from tests.formats.zonefs.volumes import UUID
from zoned_tools.device.badareas import BadAreas
from zoned_tools.device.base import Device
from zoned_tools.device.image import open_image
from zoned_tools.device.plan import apply_plan
from zoned_tools.errors import MetadataError, ZonedWarning
from zoned_tools.formats.contract import CheckOptions, Target
from zoned_tools.formats.shared.findings import Finding
from zoned_tools.formats.zonefs.check import check
from zoned_tools.formats.zonefs.dump import dump, restore
from zoned_tools.formats.zonefs.format import plan_volume
from zoned_tools.formats.zonefs.inspect import inspect
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.mapper.files import FileError
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree, open_tree
from zoned_tools.formats.zonefs.transfer import read_chunks

CONTENT = random.Random(7).randbytes(3 * MIB)
FILES = {"/cnv/0": 4 * MIB, "/seq/0": 3 * MIB, "/seq/2": MIB}
"""Sizes; the last MiB of the first is zero."""


def target_of(device: Device) -> Target:
    return Target("zonefs", (device,))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Device]:
    """Two conventional zones and sequential ones of 4 MiB; three files with content."""
    path = make_image(tmp_path / "disk.img", size_bytes=32 * MIB, conventional=2)
    with open_image(str(path), writable=True) as device:
        apply_plan([device], plan_volume(device, device.zones(), SuperBlock(uuid=UUID)).steps)
        with open_tree(target_of(device), writable=True) as tree:
            for name, size in FILES.items():
                tree.write(name, 0, CONTENT[:size], direct=True)
        yield device


def findings_of(device: Device) -> list[Finding]:
    return list(check(target_of(device), CheckOptions()).findings)


def content_of(tree: ZonefsTree, path: str, unread: Callable[[BadAreas], None] | None = None) -> bytes:
    return b"".join(read_chunks(tree, path, unread=unread))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_sectors_of_a_file(volume: Device, seed: int, known: bool) -> None:
    """Reading fails there, or goes on behind the sectors; a check tells what is known."""
    chance = random.Random(seed)
    name = chance.choice(list(FILES))
    with open_tree(target_of(volume), writable=False) as tree:
        ref, clean = tree.file(name), {path: content_of(tree, path) for path in FILES}
    at = chance.randrange(FILES[name])
    sectors = (at // 512 * 512, (at + 5000) // 512 * 512 + 512)
    device = DamagedDrive(volume, [(ref.start_bytes + at, ref.start_bytes + at + 5001)], known=known)
    end = min(sectors[1], FILES[name])
    with open_tree(target_of(device), writable=False) as tree:
        with pytest.raises(FileError, match=name) as failed:
            content_of(tree, name)
        assert failed.value.errno == errno.EIO
        lost: list[tuple[int, int, str]] = []
        expected = bytearray(clean[name])
        expected[sectors[0] : end] = bytes(end - sectors[0])
        assert content_of(tree, name, lost.extend) == expected
        assert sum(stop - start for start, stop, _ in lost) == end - sectors[0]
        for other in set(FILES) - {name}:
            assert content_of(tree, other) == clean[other]
    found = findings_of(device)
    blocks = -(-min(at + 5001, FILES[name]) // 4096) - at // 4096
    rows = [(f.code, f.where["blocks"], f.where["ranges"], f.where["files"]) for f in found]
    assert rows == ([("data-unreadable", blocks, 1, [name])] if known else [])


def test_what_lies_outside_of_files_is_no_finding(volume: Device) -> None:
    with open_tree(target_of(volume), writable=False) as tree:
        behind = tree.file("/seq/2").start_bytes + FILES["/seq/2"]
    assert findings_of(DamagedDrive(volume, [(4096, 8192), (behind, behind + 4096)], known=True)) == []


@pytest.mark.parametrize("known", [False, True])
def test_the_super_block(volume: Device, known: bool) -> None:
    """Contents are certain; it is assumed, said, not written to, and written anew with consent."""
    device = DamagedDrive(volume, [(511, 512)], known=known)
    with open_tree(target_of(volume), writable=False) as tree:
        clean = {path: content_of(tree, path) for path in FILES}
    with (
        pytest.warns(ZonedWarning, match="default parameters"),
        open_tree(target_of(device), writable=False) as tree,
    ):
        assert {path: content_of(tree, path) for path in FILES} == clean
    (finding,) = findings_of(device)
    assert (finding.code, finding.where["what"], finding.where["length_bytes"]) == ("metadata-lost", "super", 4096)
    tree_of = inspect(target_of(device))
    assert tree_of["mountable"] is False
    document = dump(target_of(device))
    assert document["super_block"] is None
    with pytest.raises(MetadataError):
        restore(target_of(volume), document)
    with pytest.raises(MetadataError, match="cannot read the super block"):
        open_tree(target_of(device), writable=True)
