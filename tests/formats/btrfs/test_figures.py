"""Figures of a zoned btrfs for monitoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.formats.btrfs.images import VECTORS
from tests.formats.btrfs.nodes import own_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.programs import Program

STATE: dict[str, Any] = json.loads((VECTORS / "block-groups.json").read_text())["g11-orphans"]


def figures_of(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith("zoned_btrfs_")]
    return {line.partition("{")[0] + line[line.find(",") : line.find("}")]: float(line.split()[-1]) for line in lines}


def test_zones_and_bytes(tmp_path: Path, program: Program) -> None:
    found = figures_of(program("zoned", "metrics", *own_devices("g11-orphans", tmp_path)).out)
    data = sum(group["used"] for group in STATE["block_groups"] if group["kind"] == "DATA")
    assert found['zoned_btrfs_used_bytes,devid="1",kind="data"'] == data
    assert found['zoned_btrfs_zones,devid="1",owner="orphan"'] == 4
    assert found['zoned_btrfs_active_zones,devid="1"'] == STATE["zones"][0]["active_zones"]
    assert sum(value for name, value in found.items() if name.startswith("zoned_btrfs_zones")) == 32


def test_emulated_zones_are_counted_too(vector_image: Callable[[str], Path], program: Program) -> None:
    assert program("zoned", "metrics", vector_image("p21-emulated-regular")).status == 0
