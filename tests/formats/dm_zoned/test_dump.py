"""Metadata documents: back and forth, edited, damaged."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.dm_zoned.images import (
    BLOCK,
    MIB,
    NAMES,
    Images,
    check_target,
    corrupted,
    corruptions,
    drive,
    logical_sha256,
    patch,
)
from zoned_tools.device.plan import apply_plan, verify_plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.dump import dump, restore
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.open import open_blocks

CORRUPTIONS = corruptions()


def document_of(target: Target) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(dump(target)))
    return document


def metadata(target: Target) -> list[bytes]:
    blocks = open_blocks(target)
    layout = read_state(blocks).layout
    assert layout is not None
    sets = [blocks.read(layout.set_block(number), layout.nr_meta_blocks) for number in (0, 1)]
    return sets + [blocks.read(m.block_offset, 1) for m in blocks.geometry.members[1:]]


def wipe(target: Target) -> None:
    """Overwrite the metadata zones and the tertiary super blocks."""
    layout = read_state(open_blocks(target)).layout
    assert layout is not None
    length = layout.set_zones * layout.zone_blocks
    for number in (0, 1):
        target.device.write(
            layout.set_block(number) * BLOCK, bytes([0xA5]) * (min(length, layout.nr_meta_blocks) * BLOCK)
        )
    for device in target.devices[1:]:
        patch(device, 0, bytes(BLOCK))


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(images: Images, name: str) -> None:
    target = images.target(name)
    before = metadata(target)
    document = document_of(target)
    assert not restore(target, document)
    wipe(target)
    plan = restore(target, document)
    apply_plan(target.devices, plan.steps)
    verify_plan(target.devices, plan)
    assert metadata(target) == before


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=[f"{b}-{v['id']}" for b, v in CORRUPTIONS])
def test_damaged_metadata_survive_a_round_trip(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    try:
        document = document_of(target)
    except NoValidSuperBlockError:
        assert variant.get("set_used") is None
        return
    before = [f.as_json() for f in check_target(target).findings]
    wipe(target)
    apply_plan(target.devices, restore(target, document).steps)
    assert [f.as_json()["where"] for f in check_target(target).findings] == [f["where"] for f in before]


def test_document_is_small_and_can_be_edited(images: Images) -> None:
    target = images.target("hm64x4")
    document = document_of(target)
    assert document["sets"][1] == {"set": 1, "same_as": 0}
    assert len(json.dumps(document)) < 20_000
    for row in document["super_blocks"]:
        row["label"] = "edited"
    apply_plan(target.devices, restore(target, document).steps)
    report = check_target(target)
    assert report.findings.codes == frozenset()
    assert report.facts["label"] == "edited"


def test_restore_rescues_a_wiped_target(images: Images) -> None:
    target = images.target("triple")
    content, document = logical_sha256(target), document_of(target)
    wipe(target)
    apply_plan(target.devices, restore(target, document).steps)
    assert check_target(target).findings.codes == frozenset()
    assert logical_sha256(target) == content


def test_document_of_other_devices(images: Images) -> None:
    document = document_of(images.target("hm64x1"))
    with pytest.raises(MetadataError, match="other zones"):
        restore(Target("dm-zoned", (drive(65, 8),)), document)
    empty = Target("dm-zoned", (drive(64, 8),))
    apply_plan(empty.devices, restore(empty, document).steps)
    assert SuperBlock.parse(empty.device.read(MIB, BLOCK)).gen == 23


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.data())
def test_nonsense_in_a_document_is_refused_or_harmless(images: Images, data: st.DataObject) -> None:
    target = images.target("dual")
    document: Any = copy.deepcopy(document_of(target))
    place = document
    for _ in range(data.draw(st.integers(1, 5))):
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key]:
            break
        parent, place = place, place[key]
    else:
        place = parent
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
    place[key] = data.draw(json_values)
    try:
        plan = restore(target, document)
    except MetadataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - what is raised depends on the draw
        return
    apply_plan(target.devices, plan.steps)
