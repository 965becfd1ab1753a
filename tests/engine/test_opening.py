"""Which devices are one target, and in which order."""

from __future__ import annotations

import tarfile
from itertools import permutations
from pathlib import Path

import pytest

from tests.programs import Program
from zoned_tools.engine.opening import opened_targets
from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES, SuperBlock

VECTORS = Path(__file__).parents[1] / "vectors" / "dm-zoned"


@pytest.fixture
def triple(tmp_path: Path) -> list[str]:
    with tarfile.open(VECTORS / "triple.tar.xz") as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("disk")]
        archive.extractall(tmp_path, members, filter="data")
    return [str(tmp_path / f"disk{number}.img") for number in range(3)]


def grouped(paths: list[str]) -> list[tuple[str, ...]]:
    with opened_targets(paths) as opened:
        assert opened.unknown == []
        assert opened.failed == []
        return [target.paths for target in opened.targets]


def test_members_are_found_in_any_order(triple: list[str]) -> None:
    for order in permutations(triple):
        assert grouped(list(order)) == [tuple(triple)]


@pytest.mark.parametrize("wrong", [1, 7, 10_000_000])
@pytest.mark.parametrize("member", [1, 2])
def test_positions_that_cannot_be_right_leave_the_users_order(member: int, wrong: int, triple: list[str]) -> None:
    with open(triple[member], "r+b") as raw:
        superblock = SuperBlock.parse(raw.read(BLOCK_BYTES))
        from dataclasses import replace

        raw.seek(0)
        raw.write(replace(superblock, sb_block=wrong).pack())
    assert grouped(triple) == [tuple(triple)]


def test_a_member_with_damaged_super_block_joins_the_others(triple: list[str]) -> None:
    with open(triple[2], "r+b") as raw:
        raw.write(bytes(BLOCK_BYTES))
    assert grouped(triple) == [tuple(triple)]


def test_a_first_block_that_was_not_rescued_is_said(tmp_path: Path, zoned: Program) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    Path(f"{image}.map").write_text(f"0 +\n0 512 -\n512 {(1 << 20) - 512} +\n")
    result = zoned("check", image)
    assert result.status == 8
    assert "no layout is recognised, its first block cannot be read (--layout NAME forces one)" in result.err
