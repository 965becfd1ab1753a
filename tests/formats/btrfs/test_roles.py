"""What zones are used for: places of super blocks from the geometry, chunks from the trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.formats.btrfs.images import poke
from zoned_tools.device.image import open_image
from zoned_tools.formats.btrfs import LAYOUT
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.btrfs.layout import parse
from zoned_tools.formats.btrfs.roles import zone_roles
from zoned_tools.formats.contract import Target

if TYPE_CHECKING:
    from tests.programs import Program

Image = Callable[[str], Path]


def roles_of(image: Path) -> dict[str, list[int]]:
    with open_image(str(image)) as drive:
        return {name: zones.tolist() for name, zones in zone_roles(Target(NAME, (drive,))).items()}


def test_a_small_drive(vector_image: Image, program: Program) -> None:
    """mkfs makes one system, one metadata and one data chunk, from zone 2 on; the regular place of mirror 1 is free."""
    image = vector_image("p01-fresh")
    assert roles_of(image) == {
        "orphan": [],
        "data": [4],
        "metadata": [2, 3],
        "reserved": [0, 1, 16],
        "super blocks": [0, 1],
    }
    text = program("zoned", "diagram", image).out
    assert "SSMMD" in text
    assert "S super blocks (2)" in text
    assert "R reserved (1)" in text


def test_every_mirror_of_a_large_drive(vector_image: Image) -> None:
    found = roles_of(vector_image("p13-mirrors-8GiB-zones"))
    assert found["super blocks"] == [0, 1, 64, 65, 512, 513]
    assert found["reserved"] == [0, 1, 32, 64, 65, 512, 513]


@pytest.mark.parametrize("name", ["pv01-torn-last", "pv12-both-empty"])
def test_without_a_valid_head_the_super_blocks_are_known(name: str, vector_image: Image) -> None:
    found = roles_of(vector_image(name))
    assert found == {"orphan": [], "data": [], "metadata": [], "reserved": [0, 1, 16], "super blocks": [0, 1]}


def test_without_the_chunk_tree_the_system_chunks_are_known(own_image: Image) -> None:
    image = own_image("p01-fresh")
    with open_image(str(image)) as drive:
        block = parse(drive.read(0, 4096))
    poke(image, block.chunk_root, bytes(4096))  # mkfs puts the system chunk at its own logical address
    assert roles_of(image)["metadata"] == [2]


def test_orphans_are_shown(own_image: Image, program: Program) -> None:
    image = own_image("g11-orphans")
    assert roles_of(image)["orphan"] == [3, 20, 21, 22]
    assert "? orphan (4)" in program("zoned", "diagram", image).out


def test_declared_roles_are_the_ones_told(vector_image: Image) -> None:
    assert [role.name for role in LAYOUT.roles] == list(roles_of(vector_image("p01-fresh")))
