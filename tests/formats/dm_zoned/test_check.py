"""fsck: every published corruption by name, rules against a slow model, hostile input."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
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
    facts,
    patch,
    pattern,
    regular,
)
from zoned_tools.device.base import Device, ZoneOperation
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition
from zoned_tools.formats.contract import Severity, Target, Verdict
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.format import FormatOptions, format_target
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.shared.findings import Finding, Findings

CORRUPTIONS = corruptions()


def multiset(findings: list[tuple[str, dict[str, Any]]]) -> Counter[str]:
    return Counter(json.dumps([code, where], sort_keys=True) for code, where in findings)


def split(report: Findings) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Findings of the chosen set, and those of the other one without their mark."""
    own, other = [], []
    for found in report:
        where = dict(found.where)
        if not found.code.startswith("sb-") and "set" in where:
            del where["set"]
            other.append((found.code, where))
        else:
            own.append((found.code, where))
    return own, other


@pytest.mark.parametrize(("base", "variant"), CORRUPTIONS, ids=[f"{b}-{v['id']}" for b, v in CORRUPTIONS])
def test_published_corruption(images: Images, base: str, variant: dict[str, Any]) -> None:
    target = corrupted(images, base, variant)
    for zone, wp_bytes, condition in variant.get("zones_after", []):
        row = target.device.zones(zone, 1)[0]
        assert ((int(row["wp_sector"]) - int(row["start_sector"])) * 512, row["condition"]) == (wp_bytes, condition)
    used: int | None
    try:
        result = check_target(target)
    except NoValidSuperBlockError as error:
        findings, used = error.evidence.findings, None
    else:
        findings, used = result.findings, result.state.chosen
    own, other = split(findings)
    assert multiset(own) == multiset(variant["findings"])
    assert multiset(other) == multiset(variant.get("findings_other_set") or [])
    if "set_used" in variant:
        assert used == variant["set_used"]
    for found in findings:
        assert found.severity is RULES[found.code].severity
        assert found.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", ["fresh", "clean", "crash"])
def test_images_of_the_kernel_are_clean(images: Images, name: str, state: str) -> None:
    expected = facts(name)["images"].get(state)
    if expected is None:
        assert state == "crash"
        return
    result = check_target(images.target(name, state))
    assert result.verdict is Verdict.CLEAN
    codes = {f.code for f in result.findings}
    assert codes <= ({"zone-runt", "zone-unmapped-not-empty"} if name == "v1runt" else set())
    mapping, weight = result.chosen.map, result.chosen.bits.weight
    assert mapping.nr_mapped == len(expected.get("chunks", {}))
    for chunk, chunk_facts in expected.get("chunks", {}).items():
        zone, buffer_zone = int(mapping.data[int(chunk)]), int(mapping.buffer[int(chunk)])
        assert zone == chunk_facts["dzone"]
        assert buffer_zone == (0xFFFFFFFF if chunk_facts["bzone"] is None else chunk_facts["bzone"])
        assert weight[zone] == chunk_facts["weight"]
        if chunk_facts["bzone"] is not None:
            assert weight[buffer_zone] == chunk_facts["buffer_weight"]


def test_stale_primary_names_the_better_set(images: Images) -> None:
    """The kernel can leave set 0 without a whole commit although both generations are equal."""
    variant = next(v for _, v in CORRUPTIONS if v["id"] == "stale-primary")
    result = check_target(corrupted(images, "hm64x1", variant))
    assert (result.state.chosen, result.source) == (0, 1)
    differ = next(f for f in result.findings if f.code == "sets-content-differ")
    assert "set 1 is the better one" in differ.message


def test_reclaim_crash_says_where_the_blocks_are(images: Images) -> None:
    variant = next(v for _, v in CORRUPTIONS if v["id"] == "reclaim-crash")
    findings = check_target(corrupted(images, "hm64x1", variant)).findings
    assert "still in the buffer zone" in findings[0].message


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("shared-dzone", "crashes the kernel"),
        ("both-sb-bad", "crashes the kernel"),
    ],
)
def test_dangers_for_a_kernel_are_named(images: Images, identifier: str, text: str) -> None:
    matching = [(b, v) for b, v in CORRUPTIONS if DANGERS[identifier](v)]
    assert matching
    for base, variant in matching:
        target = corrupted(images, base, variant)
        try:
            findings = check_target(target).findings
        except NoValidSuperBlockError as error:
            findings = error.evidence.findings
        assert any(text in f.message for f in findings), variant["id"]


DANGERS = {
    "shared-dzone": lambda v: any(code == "map-zone-shared" for code, _ in v["findings"]),
    "both-sb-bad": lambda v: (
        {w.get("set") for code, w in v["findings"] if code in ("sb-bad-crc", "sb-bad-magic")} == {0, 1}
    ),
}


def test_needs_sync_is_no_error(images: Images) -> None:
    """A power cut between the kernel's two super block writes is a normal state."""
    variant = next(v for _, v in CORRUPTIONS if v["id"] == "pri-old-gen")
    report = check_target(corrupted(images, "hm64x1", variant))
    assert [f.severity for f in report.findings] == [Severity.WARNING]
    assert report.verdict is Verdict.CLEAN


def test_nothing_of_dm_zoned() -> None:
    with pytest.raises(NoValidSuperBlockError) as caught:
        check_target(Target("dm-zoned", (drive(64, 8),)))
    assert caught.value.clone_status == 255
    assert not caught.value.evidence.state.found_magic
    assert str(caught.value) == "drive: No valid superblock found"


def rewrite(target: Target, numbers: tuple[int, ...] = (0, 1), **changes: Any) -> None:
    """Change fields of super blocks of a single-device target and re-sign them."""
    layout = check_target(target).state.layout
    assert layout is not None
    for number in numbers:
        offset = layout.set_block(number) * BLOCK
        sb = SuperBlock.parse(target.device.read(offset, BLOCK))
        target.device.write(offset, replace(sb, **changes).pack())


def test_names_lost_in_both_sets_still_leave_the_content_readable(images: Images) -> None:
    """dmzadm 2.2.2 --relabel leaves a version 1 device like this, and no kernel activates it."""
    target = images.target("v1")
    rewrite(target, version=2, label_raw=b"dmz".ljust(32, b"\0"))
    result = check_target(target)
    assert Counter(f.code for f in result.findings) == {"sb-null-uuid": 2}
    assert result.chosen.map.nr_mapped == 12


def test_zones_that_died_after_the_format(images: Images) -> None:
    base = images.target("hm64x1").device
    table = base.zones()
    result = check_target(images.target("hm64x1"))
    mapped = int(result.chosen.map.data[0])
    table["condition"][mapped] = ZoneCondition.OFFLINE
    table["condition"][63] = ZoneCondition.READ_ONLY
    target = Target("dm-zoned", (overlay_with(base, table),))
    findings = check_target(target).findings
    assert Counter(f.code for f in findings) == {"sb-bad-chunks": 2, "zone-offline-mapped": 1}
    offline = findings[-1]
    assert offline.where == {"chunk": 0, "zone": mapped}
    assert "logical blocks 0 to 255" in offline.message


def overlay_with(base: Device, table: Any) -> Device:
    """A view of ``base`` with another zone table."""
    view = Overlay(base)
    view.machine.table[:] = table
    return view


def test_secondary_of_two_zones_is_found_without_the_primary(images: Images) -> None:
    """The kernel looks in the wrong place when a set has more than one zone."""
    target = images.target("hm300x1")
    patch(target.device, 0, bytes(BLOCK))
    result = check_target(target)
    assert (result.state.chosen, result.state.sets[1].block) == (1, 512)
    assert "wrong place" in result.findings[0].message


def test_members_in_the_wrong_order_are_named(images: Images) -> None:
    target = images.target("triple")
    swapped = Target("dm-zoned", (target.devices[0], target.devices[2], target.devices[1]))
    findings = check_target(swapped).findings
    assert ("sb-bad-location", {"device": 1}) in [(f.code, f.where) for f in findings]
    assert ("sb-bad-location", {"device": 2}) in [(f.code, f.where) for f in findings]


# -- against a slow model

ZONES, CONVENTIONAL, ZONE_BLOCKS = 24, 6, 64


def small_target() -> Target:
    """24 zones of 256 KiB, 6 conventional: small enough for a model that looks at every bit."""
    target = Target("dm-zoned", (drive(ZONES, CONVENTIONAL, ZONE_BLOCKS * BLOCK),))
    result = format_target(target, FormatOptions(2, "model"))
    apply_plan(target.devices, result.plan.steps)
    return target


def model_findings(  # noqa: C901 - the rules once more, one after the other
    table: list[tuple[int, int]], bits: list[set[int]], wps: list[int | None], held: set[int]
) -> list[tuple[str, dict[str, Any]]]:
    """The rules of the format, one chunk, zone and bit at a time."""
    none = 0xFFFFFFFF
    found: list[tuple[str, dict[str, Any]]] = []
    users: dict[int, list[int]] = {}
    for chunk, (data, buffer) in enumerate(table):
        if data != none and data >= ZONES:
            found.append(("map-dzone-range", {"chunk": chunk, "zone": data}))
        elif data in held:
            found.append(("map-meta-zone", {"chunk": chunk, "zone": data}))
        if data < ZONES:
            users.setdefault(data, []).append(chunk)
            if buffer == none and wps[data] == 0:
                found.append(("map-empty-seq", {"chunk": chunk, "zone": data}))
        if buffer == none:
            continue
        if buffer < ZONES and buffer != data:
            users.setdefault(buffer, []).append(chunk)
        if buffer >= ZONES:
            found.append(("map-bzone-range", {"chunk": chunk, "zone": buffer}))
        elif data == none:
            found.append(("map-bzone-without-dzone", {"chunk": chunk, "zone": buffer}))
        elif buffer in held:
            found.append(("map-meta-zone", {"chunk": chunk, "zone": buffer}))
        elif buffer == data:
            found.append(("map-bzone-is-dzone", {"chunk": chunk, "zone": buffer}))
        elif buffer >= CONVENTIONAL:
            found.append(("map-bzone-not-random", {"chunk": chunk, "zone": buffer}))
        elif data < CONVENTIONAL:
            found.append(("map-bzone-on-random", {"chunk": chunk, "zone": data}))
        elif data < ZONES:
            both = {b for b in bits[data] & bits[buffer] if b < (wps[data] or 0)}
            if both:
                found.append(("bits-overlap-buffer", {"zone": data, "bzone": buffer, "count": len(both)}))
    for zone in range(ZONES):
        wp = wps[zone]
        inside = {b for b in bits[zone] if b < ZONE_BLOCKS}
        if zone not in users:
            if inside:
                found.append(("bits-unmapped", {"zone": zone, "count": len(inside)}))
            if wp:
                found.append(("zone-unmapped-not-empty", {"zone": zone, "wp": wp}))
        else:
            if len(users[zone]) > 1:
                found.append(("map-zone-shared", {"zone": zone, "chunks": users[zone]}))
            late = {b for b in inside if wp is not None and b >= wp}
            if late:
                found.append(("bits-after-wp", {"zone": zone, "count": len(late)}))
        if len(bits[zone]) > len(inside):
            found.append(("bits-beyond-zone", {"zone": zone, "count": len(bits[zone]) - len(inside)}))
    return found


ids = st.one_of(st.just(0xFFFFFFFF), st.integers(0, ZONES - 1), st.sampled_from([ZONES, 0xFFFFFFFE, 0x7FFFFFF0]))
NR_CHUNKS = ZONES - 2 - 2


def with_foreign_zones(
    findings: list[tuple[str, dict[str, Any]]],
    table: list[tuple[int, int]],
    bits: list[set[int]],
    wps: list[int | None],
) -> list[tuple[str, dict[str, Any]]]:
    """The findings, or what becomes of them when the write pointers cannot be this drive's."""
    used = late = empty = 0
    for zone in {data for data, _ in table if data < ZONES}:
        wp, valid = wps[zone], {block for block in bits[zone] if block < ZONE_BLOCKS}
        if wp is not None and valid:
            used += 1
            late += max(valid) >= wp
            empty += wp == 0
    if empty <= 1 and (late < 3 or 2 * late <= used):
        return findings
    replaced = ("bits-after-wp", "map-empty-seq", "zone-unmapped-not-empty")
    kept = [finding for finding in findings if finding[0] not in replaced]
    return [*kept, ("zones-foreign", {"zones": late, "empty": empty})]


@settings(max_examples=120)
@given(
    st.lists(st.tuples(ids, ids), min_size=NR_CHUNKS, max_size=NR_CHUNKS),
    st.lists(st.sets(st.integers(0, 90), max_size=6), min_size=ZONES, max_size=ZONES),
    st.lists(st.sampled_from([0, 1, 10, 63, 64]), min_size=ZONES, max_size=ZONES),
)
def test_rules_agree_with_a_slow_model(table: list[tuple[int, int]], bits: list[set[int]], written: list[int]) -> None:
    target = small_target()
    device = target.device
    layout = check_target(target).state.layout
    assert layout is not None
    assert layout.nr_chunks == NR_CHUNKS
    for zone in range(CONVENTIONAL, ZONES):
        if written[zone]:
            device.write(zone * ZONE_BLOCKS * BLOCK, bytes(written[zone] * BLOCK))
    raw_map = np.array(table, "<u4").tobytes()
    raw_bits = b"".join(sum(1 << b for b in zone).to_bytes(BLOCK, "little") for zone in bits)
    for number in (0, 1):
        patch(device, layout.map_block(number) * BLOCK, raw_map)
        device.write(layout.bitmap_block(number) * BLOCK, raw_bits)
    wps = [None if zone < CONVENTIONAL else written[zone] for zone in range(ZONES)]
    expected = with_foreign_zones(model_findings(table, bits, wps, set(layout.metadata_zones)), table, bits, wps)
    own, other = split(check_target(target).findings)
    assert multiset(own) == multiset(expected)
    assert other == []


# -- hostile input


@settings(max_examples=150)
@given(st.data())
def test_random_damage_gives_findings_or_one_clear_error(images: Images, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["hm64x1", "dual", "v1", "hm300x1"]))
    target = images.target(name)
    sound = check_target(target)
    assert sound.state.layout is not None
    span = sound.state.layout.set_zones * sound.state.layout.zone_blocks * BLOCK
    for _ in range(data.draw(st.integers(1, 6))):
        number = data.draw(st.integers(0, 1))
        place = data.draw(st.one_of(st.integers(0, 111), st.integers(0, 3 * BLOCK), st.integers(0, span - 16)))
        patch(target.device, number * span + place, data.draw(st.binary(min_size=1, max_size=16)))
    if data.draw(st.booleans()):
        resign(target.device, (0, span))
    started = time.perf_counter()
    try:
        report = check_target(target)
    except NoValidSuperBlockError as error:
        report = error.evidence
    assert time.perf_counter() - started < 5
    assert all(isinstance(f, Finding) and f.code in RULES and f.message.isprintable() for f in report.findings)
    json.loads("[" + ",".join(report.findings.json_blocks()) + "]")


def resign(device: Device, offsets: tuple[int, ...]) -> None:
    for offset in offsets:
        device.write(offset, SuperBlock.parse(device.read(offset, BLOCK)).pack())


def test_many_shared_zones_stay_fast() -> None:
    """All of 60,000 chunks on one zone: one finding, no quadratic search."""
    target = Target("dm-zoned", (drive(60_000, 600, 256 * MIB),))
    result = format_target(target, FormatOptions(label="many"))
    apply_plan(target.devices, result.plan.steps)
    table = np.full((result.layout.nr_map_blocks * 512, 2), 0xFFFFFFFF, "<u4")
    table[: result.layout.nr_chunks, 0] = 700
    for number in (0, 1):
        target.device.write(result.layout.map_block(number) * BLOCK, table.tobytes())
    started = time.perf_counter()
    report = check_target(target)
    assert time.perf_counter() - started < 10
    codes = Counter(f.code for f in report.findings)
    assert codes["map-zone-shared"] == 1
    assert codes["map-empty-seq"] == result.layout.nr_chunks


def test_conventional_zone_of_a_member_is_no_buffer() -> None:
    target = Target("dm-zoned", (regular(40 * MIB), drive(16, 2, 4 * MIB)))
    result = format_target(target, FormatOptions(3, "multi"))
    apply_plan(target.devices, result.plan.steps)
    first = result.geometry.members[1].first_zone
    target.devices[1].write(5 * 4 * MIB, pattern(0, 1))
    entry = np.array([[first + 5, first + 1]], "<u4").tobytes()
    for number in (0, 1):
        patch(target.device, result.layout.map_block(number) * BLOCK, entry)
    assert [(f.code, f.where) for f in check_target(target).findings] == [
        ("map-bzone-not-random", {"chunk": 0, "zone": first + 1})
    ]
    target.devices[1].manage(ZoneOperation.RESET, 5)
    codes = [f.code for f in check_target(target).findings]
    assert codes == ["map-bzone-not-random"]  # a buffered chunk may be on an empty zone


def test_no_zone_left_for_first_writes_is_a_kernel_danger() -> None:
    """Four conventional zones, all of them metadata: the kernel activates and then never completes a write."""
    target = Target("dm-zoned", (drive(300, 4),))
    result = format_target(target, FormatOptions(label="full"))
    apply_plan(target.devices, result.plan.steps)
    assert any("every write" in w for w in result.warnings)
    dangers = check_target(target).kernel_dangers
    assert any("every write waits" in danger for danger in dangers)


def test_reserve_that_members_eat_up_is_warned_about() -> None:
    target = Target("dm-zoned", (regular(34 * MIB), drive(24, 0, 4 * MIB)))
    assert any("--seq" in w for w in format_target(target, FormatOptions(2, "small")).warnings)
    assert not format_target(target, FormatOptions(3, "enough")).warnings


def test_overlap_of_chunks_that_share_a_data_zone_names_the_right_buffer() -> None:
    """Only the second of two chunks on one zone has a buffer zone, and it overlaps."""
    target = small_target()
    state = check_target(target).state
    assert state.layout is not None
    target.device.write(10 * ZONE_BLOCKS * BLOCK, bytes(2 * BLOCK))
    for number in (0, 1):
        entries = np.array([[10, 0xFFFFFFFF], [10, 4]], "<u4").tobytes()
        patch(target.device, state.layout.map_block(number) * BLOCK, entries)
        for zone in (10, 4):
            patch(target.device, state.layout.bitmap_block(number, zone) * BLOCK, b"\x03")
    found = [(f.code, f.where) for f in check_target(target).findings]
    assert ("bits-overlap-buffer", {"zone": 10, "bzone": 4, "count": 2}) in found


def test_the_set_that_knows_all_chunks_is_recommended(images: Images) -> None:
    """Two valid super blocks of one generation, one of which has forgotten chunks that are mapped."""
    target = images.target("hm64x1")
    rewrite(target, (0,), nr_chunks=40)
    result = check_target(target)
    assert result.state.chosen == 0
    assert result.source == 1
