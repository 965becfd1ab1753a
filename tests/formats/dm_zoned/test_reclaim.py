"""Empty data zones of buffered chunks: moved where the buffer zone certainly has the blocks, else asked."""

from __future__ import annotations

import numpy as np
import pytest

from tests.formats.dm_zoned.crash_model import logical
from tests.formats.dm_zoned.images import Images, check_target, corrupted, logical_sha256
from tests.formats.dm_zoned.repair_support import (
    clean_sha256,
    done,
    errors_of,
    plan_of,
    repair,
    sentences,
    tables,
    variant_of,
    waiting,
)
from tests.formats.dm_zoned.test_choice import read_sha256
from zoned_tools.device.base import ZoneOperation
from zoned_tools.formats.contract import Consent, Target
from zoned_tools.formats.dm_zoned import reclaim
from zoned_tools.formats.dm_zoned.mapper.open import open_mapper
from zoned_tools.formats.dm_zoned.reclaim import Emptied, find_emptied, judge_emptied


def judged(target: Target) -> Emptied:
    survey = check_target(target).chosen
    zones = np.flatnonzero(survey.emptied_zones)
    assert find_emptied(survey.view, survey.map).tolist() == zones.tolist()
    return judge_emptied(survey.view, survey.map, zones)


def reset_buffered(target: Target) -> list[tuple[int, int]]:
    """``(chunk, data zone)`` of buffered chunks; the zone's device and number there are found by the caller."""
    survey = check_target(target).chosen
    chunks = np.flatnonzero((survey.map.buffer != 0xFFFFFFFF) & (survey.map.data != 0xFFFFFFFF))
    return [(int(c), int(survey.map.data[c])) for c in chunks]


def reset(target: Target, zone: int) -> None:
    member = check_target(target).geometry.member_of(zone)
    target.devices[member.index].manage(ZoneOperation.RESET, zone - member.first_zone)


def test_what_a_reclaim_copied_is_moved_unasked(images: Images) -> None:
    variant = variant_of("reclaim-crash")
    target = corrupted(images, "hm64x1", variant)
    found = judged(target)
    assert (found.count.tolist(), found.zero.tolist(), found.dup.tolist()) == ([111], [0], [0])
    assert read_sha256(target) == variant["recoverable_sha256"]
    plan = repair(target)
    assert not waiting(plan)
    assert any("111 valid blocks are taken from buffer zone" in sentence for sentence in done(plan))
    assert logical_sha256(target) == variant["recoverable_sha256"]
    assert errors_of(target) == []


def test_a_reset_from_outside_is_asked(images: Images) -> None:
    variant = variant_of("zone-buffered-reset")
    target = corrupted(images, "hm64x1", variant)
    assert judged(target).copied.tolist() == [False]
    before = tables(target)
    plan = repair(target)
    assert waiting(plan) == {"bits-after-wp": Consent.GUESSES}
    assert sentences(plan)[-1].endswith("it waits for --set reclaim=move or --set reclaim=clear")
    assert tables(target) == before
    assert read_sha256(target) == variant["content_sha256"]
    mapper = open_mapper(target, writable=False, settings=logical())
    assert [w for w in mapper.warnings if "not certain" in w and "reclaim=move" in w]
    shown = read_sha256(target, reclaim="move")
    assert shown != variant["content_sha256"]
    for choice, content in (("clear", variant["content_sha256"]), ("move", shown)):
        target = corrupted(images, "hm64x1", variant)
        repair(target, reclaim=choice)
        assert errors_of(target) == []
        assert logical_sha256(target) == content


@pytest.mark.parametrize("base", ["hm64x1", "hm300x1", "dual", "triple", "ha32x4", "v1"])
def test_resets_of_other_buffered_chunks_are_never_taken_for_a_reclaim(images: Images, base: str) -> None:
    for chunk, zone in reset_buffered(images.target(base)):
        target = images.target(base)
        if not check_target(target).chosen.bits.weight[zone]:
            continue
        reset(target, zone)
        assert judged(target).chunks.tolist() == [chunk]
        assert judged(target).copied.tolist() == [False]
        plan = repair(target)
        assert "bits-after-wp" in waiting(plan)


def test_two_such_zones_of_a_member_are_not_certain(images: Images) -> None:
    """One reclaim worker a device, which commits before it takes the next zone."""
    target = corrupted(images, "hm64x1", variant_of("reclaim-crash"))
    (emptied,) = judged(target).zones.tolist()
    other = next(zone for _, zone in reset_buffered(target) if zone != emptied)
    reset(target, other)
    assert judged(target).copied.tolist() == [False, False]


def test_where_too_much_would_be_read_nothing_is_certain(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    target = corrupted(images, "hm64x1", variant_of("reclaim-crash"))
    monkeypatch.setattr(reclaim, "MOST_BLOCKS", 10)
    assert judged(target).copied.tolist() == [False]
    assert waiting(plan_of(target)) == {"bits-after-wp": Consent.GUESSES}


def test_content_is_the_same_before_and_after_the_repair(images: Images) -> None:
    """What a mapper shows needs no repair, and the clean content is what both come to."""
    target = corrupted(images, "hm64x1", variant_of("reclaim-crash"))
    assert read_sha256(target) == clean_sha256("hm64x1")
    repair(target)
    assert read_sha256(target) == clean_sha256("hm64x1")
