"""The rescue vectors by name: damaged copies of images, and what must come of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.archives import unpack
from tests.engine.rescue_cases import CASES, build, call_installed, play

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.programs import Program, Result


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, program: Program) -> None:
    def run(words: Sequence[str]) -> Result:
        return program(words[0], *words[1:])

    case = CASES[name]
    build(case, tmp_path)
    prints_content = any("stdout_sha256" in step for step in case["run"])
    play(case, tmp_path, call_installed if prints_content else run)


def test_a_zone_that_no_device_has_is_a_loss_like_others(vectors: Path, tmp_path: Path, zoned: Program) -> None:
    """The map says that a chunk lives behind the end of the drive: its blocks are left out, and the rest is there."""
    image = unpack(vectors / "dm-zoned/hm64x1.tar.xz", tmp_path) / "disk.img"
    with open(image, "r+b") as file:
        for table in (4096, (1 << 20) + 4096):
            file.seek(table + 24 * 8)
            file.write((0x7FFFFFF0).to_bytes(4, "little"))
    result = zoned("export", image, "-q", "--json", "--skip-errors", "-o", tmp_path / "out")
    assert result.status == 4, result.err
    assert {row["offset_bytes"] // (1 << 20) for row in result.json["lost"]} == {24}
