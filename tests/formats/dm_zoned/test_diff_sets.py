"""What each metadata set would give."""

from __future__ import annotations

import pytest

from tests.formats.dm_zoned.images import BLOCK, Images, corrupted, logical_content, patch
from tests.formats.dm_zoned.repair_support import CORRUPTIONS, variant_of
from tests.formats.dm_zoned.unreadable import damaged, layout_of
from zoned_tools.engine.checking import CheckRequest, check_target
from zoned_tools.errors import ZonedError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.diff_sets import diff_sets
from zoned_tools.report.check import outcome_lines


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=[f"{b}-{v['id']}" for b, v in CORRUPTIONS])
def test_content_differs_nowhere_else(images: Images, base: str, variant: dict[str, object]) -> None:
    target = corrupted(images, base, variant)
    try:
        contents = [logical_content(target, number) for number in (0, 1)]
        rows = diff_sets(target)
    except (ZonedError, AssertionError):  # no two sets to compare
        return
    end = 0
    for row in rows:
        assert row.first_block * BLOCK >= end
        assert row.zones[0] != row.zones[1]
        assert contents[0][end : row.first_block * BLOCK] == contents[1][end : row.first_block * BLOCK]
        end = (row.first_block + row.blocks) * BLOCK
    size = min(map(len, contents))
    assert contents[0][end:size] == contents[1][end:size]


def test_a_tie_is_shown(images: Images) -> None:
    target = corrupted(images, "hm64x1", variant_of("log-uncommitted"))
    outcome = check_target(target, CheckRequest(diff_sets=True))
    assert outcome.differences
    text = "\n".join(outcome_lines(outcome))
    assert "the metadata sets give different data for " in text
    assert f"chunk {outcome.differences[0].chunk}, logical blocks {outcome.differences[0].first_block} to " in text


def test_equal_sets(images: Images) -> None:
    outcome = check_target(images.target("dual"), CheckRequest(diff_sets=True))
    assert outcome.differences == []
    assert "  both metadata sets give the same data" in list(outcome_lines(outcome))
    layout = layout_of(images, "dual")
    assert diff_sets(damaged(images.target("dual"), [layout.map_block(1), layout.bitmap_block(0, 13)])) == []


def test_one_entry(images: Images) -> None:
    target: Target = images.target("hm64x1")
    layout = layout_of(images, "hm64x1")
    patch(target.device, layout.map_block(1) * BLOCK, b"\xff" * 8)
    assert [(row.chunk, row.first_block, row.blocks, row.zones) for row in diff_sets(target)] == [
        (0, 0, 256, (15, None))
    ]
