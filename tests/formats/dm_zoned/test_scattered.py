"""Many small holes in both metadata sets, none of them in both: what is copied between the sets is never a block that
another step of the same plan writes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.programs import Program
from zoned_tools.device.plan import Copy, Plan, Write
from zoned_tools.engine import changing

BLOCK = 4096
ZONE_BLOCKS, NR_ZONES, NR_CONVENTIONAL = 16, 220, 64
NR_META = 1 + 1 + NR_ZONES
SET_BLOCKS = -(-NR_META // ZONE_BLOCKS) * ZONE_BLOCKS


@pytest.fixture
def image(tmp_path: Path, program: Program) -> Path:
    """All chunks hold data, so that hardly a bitmap is empty."""
    path, raw = tmp_path / "disk.img", tmp_path / "raw"
    size = f"{ZONE_BLOCKS * BLOCK}"
    words = ("--zones", NR_ZONES, "--zone-size", size, "--conventional", NR_CONVENTIONAL)
    assert program("zoned", "image", "create", path, *words).status == 0
    assert program("dmzadm", "--format", path).status == 0
    raw.write_bytes(random.Random(1).randbytes(110 * ZONE_BLOCKS * BLOCK))
    assert program("zoned", "import", raw, path, "--no-undo", "-q").status == 0
    return path


def _write_map(image: Path, bad: list[int]) -> None:
    """A map file in which some blocks were not rescued."""
    rows, at = ["0 + 1"], 0
    for block in sorted(bad):
        rows += [f"{at * BLOCK} {(block - at) * BLOCK} +", f"{block * BLOCK} {BLOCK} -"]
        at = block + 1
    rows.append(f"{at * BLOCK} {image.stat().st_size - at * BLOCK} +")
    Path(f"{image}.map").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_is_repaired_whatever_is_missing_of_each_set(
    seed: int, image: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo file brings the state before back, and its digests are those of what was written."""
    before = tmp_path / "before.raw"
    assert program("zoned", "export", image, "-q", "-o", before).status == 0
    chosen = random.Random(seed)
    bad = [chosen.randrange(2) * SET_BLOCKS + block for block in chosen.sample(range(1, NR_META), 200)]
    with open(image, "r+b") as file:
        for block in bad:
            file.seek(block * BLOCK)
            file.write(b"\xee" * BLOCK)
    _write_map(image, bad)
    plans: list[Plan] = []
    original = changing.carry_out

    def carry_out(plan: Plan, *arguments: object, **named: object) -> object:
        plans.append(plan)
        return original(plan, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("zoned_tools.engine.repairing.carry_out", carry_out)
    mended, undo, after = tmp_path / "mended.img", tmp_path / "undo", tmp_path / "after.raw"
    result = program("zoned", "check", "--repair", image, "--output", mended, "--undo", undo)
    assert result.status == 1, result.err
    _assert_sources_stay(plans[0])
    assert program("zoned", "check", mended).status == 0
    assert program("zoned", "export", mended, "-q", "-o", after).status == 0
    assert before.read_bytes() == after.read_bytes()


def _assert_sources_stay(plan: Plan) -> None:
    written: set[int] = set()
    for step in plan.steps:
        if isinstance(step, Copy):
            source = range(step.source_bytes // BLOCK, (step.source_bytes + step.length_bytes) // BLOCK)
            assert written.isdisjoint(source)
        elif isinstance(step, Write):
            written.update(range(step.offset_bytes // BLOCK, (step.offset_bytes + step.length_bytes) // BLOCK))
