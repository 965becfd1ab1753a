"""mkfs: same bytes as the reference, sound geometries only, nothing lost in a power cut."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.formats.dm_zoned.images import BLOCK, MIB, NAMES, VECTORS, Images, check_target, drive, facts, regular
from zoned_tools.device.base import Device
from zoned_tools.device.overlay import Overlay, Recorder, replay_cut
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import Model, ZoneCondition, ZoneType
from zoned_tools.errors import GeometryError, UsageError
from zoned_tools.formats.contract import Severity, Target
from zoned_tools.formats.dm_zoned.check import NoValidSuperBlockError
from zoned_tools.formats.dm_zoned.format import FormatOptions, FormatResult, format_target
from zoned_tools.formats.dm_zoned.layout import SuperBlock
from zoned_tools.formats.dm_zoned.open import open_blocks

PARAMETERS = json.loads((VECTORS / "format-params.json").read_text())


def target_of(*devices: Device) -> Target:
    return Target("dm-zoned", tuple(devices))


def format_now(target: Target, **options: Any) -> FormatResult:
    result = format_target(target, FormatOptions(**{"label": "test", **options}))
    apply_plan(target.devices, result.plan.steps)
    return result


def vector_options(name: str) -> FormatOptions:
    fresh = facts(name)["images"]["fresh"]
    primary = fresh["superblocks"][0]
    reserved = [int(o.removeprefix("--seq=")) for o in facts(name)["format_options"] if o.startswith("--seq=")]
    if primary["version"] == 1:
        return FormatOptions(reserved[0] if reserved else None, metadata_version=1)
    return FormatOptions(
        reserved[0] if reserved else None,
        primary["label"],
        uuid.UUID(primary["dmz_uuid"]),
        [uuid.UUID(sb["dev_uuid"]) for sb in (primary, *fresh.get("tertiary", []))],
    )


def metadata_bytes(target: Target, result: FormatResult) -> list[bytes]:
    """Everything that a format writes: both sets and the tertiary super blocks."""
    blocks = open_blocks(target)
    layout = result.layout
    sets = [blocks.read(layout.set_block(number), layout.nr_meta_blocks) for number in (0, 1)]
    return sets + [blocks.read(member.block_offset, 1) for member in blocks.geometry.members[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_and_zone_states_as_the_reference(images: Images, name: str) -> None:
    reference = images.target(name, "fresh")
    used = images.target(name, "clean")
    result = format_target(used, vector_options(name))
    apply_plan(used.devices, result.plan.steps)
    assert metadata_bytes(used, result) == metadata_bytes(reference, result)
    for ours, theirs in zip(used.devices, reference.devices, strict=True):
        assert ours.zones().tolist() == theirs.zones().tolist()
    findings = check_target(used).findings
    assert [f.code for f in findings] == (["zone-runt"] if name == "v1runt" else [])


def devices_of(parameters: dict[str, Any]) -> list[Device]:
    zone_bytes = parameters["zone_mib"] * MIB
    if "zones" in parameters:
        return [drive(parameters["zones"], parameters["conventional"], zone_bytes)]
    members = [
        drive(m["size_mib"] // parameters["zone_mib"], m["conventional"], zone_bytes) for m in parameters["members"]
    ]
    return [regular(parameters["regular_mib"] * MIB), *members]


def geometry_name(parameters: dict[str, Any]) -> str:
    shape = (
        f"{parameters['zones']}z-{parameters['conventional']}c"
        if "zones" in parameters
        else f"{parameters['regular_mib']}m-"
        + "-".join(f"{m['size_mib']}m{m['conventional']}c" for m in parameters["members"])
    )
    return f"{shape}-{parameters['zone_mib']}mib-seq{parameters['seq']}"


HANGS = "11m-96m0c-4mib-seqNone"
"""Three emulated zones of which one is a runt: the reference formats, and the kernel never completes a write."""


@pytest.mark.parametrize("parameters", PARAMETERS, ids=geometry_name)
def test_published_geometry(parameters: dict[str, Any]) -> None:
    target = target_of(*devices_of(parameters))
    if parameters["rc"] or geometry_name(parameters) == HANGS:
        with pytest.raises(GeometryError) as caught:
            format_target(target, FormatOptions(parameters["seq"], "test"))
        assert caught.value.clone_status == 255
        for message in parameters.get("message", []):
            assert caught.value.message.startswith(message.removeprefix(": "))
        return
    result = format_now(target, reserved=parameters["seq"])
    blocks = open_blocks(target)
    sb = SuperBlock.parse(blocks.read(0, 1))
    assert {field: getattr(sb, field) for field in parameters["sb"]} == parameters["sb"]
    assert SuperBlock.parse(blocks.read(parameters["secondary_block"], 1)).sb_block == parameters["secondary_block"]
    tertiary = [SuperBlock.parse(blocks.read(m.block_offset, 1)).sb_block for m in result.geometry.members[1:]]
    assert tertiary == parameters.get("tertiary_sb_block", [])
    assert [f.code for f in check_target(target).findings] == (
        ["sb-short-chunks"] * 2 if parameters["check"][0] == 255 else []
    )


@pytest.mark.parametrize(
    ("zones", "conventional", "zone_mib", "reserve"),
    [(5, 4, 4, 4), (5, 4, 4, 3), (4, 3, 4, 2), (64, 8, 1, 0)],
    ids=["underflow", "zero-chunks", "nothing-left", "no-reserve"],
)
def test_impossible_geometry_is_refused_before_writing(
    zones: int, conventional: int, zone_mib: int, reserve: int
) -> None:
    recorder = Recorder(drive(zones, conventional, zone_mib * MIB))
    with pytest.raises((GeometryError, UsageError)):
        format_now(target_of(recorder), reserved=reserve)
    assert recorder.log == []


def test_negative_reserve_is_clamped_like_the_reference() -> None:
    result = format_target(target_of(drive(64, 8)), FormatOptions(-5, "test"))
    assert result.layout.nr_reserved_seq == 7


def test_host_aware_counts_conventional_zones_only() -> None:
    few = drive(64, 2, model=Model.HOST_AWARE)
    with pytest.raises(GeometryError, match="Not enough random zones"):
        format_target(target_of(few), FormatOptions(label="test"))
    with pytest.raises(GeometryError, match="none is left"):
        format_target(target_of(drive(300, 4, model=Model.HOST_AWARE)), FormatOptions(label="test"))
    result = format_now(target_of(drive(64, 8, model=Model.HOST_AWARE)))
    assert (result.layout.nr_reserved_seq, result.layout.nr_chunks) == (7, 55)


def table_with(conventional: set[int], dead: dict[int, ZoneCondition] | None = None, zones: int = 64) -> Any:
    table = drive(zones, zones).zones()
    for zone in range(zones):
        if zone not in conventional:
            table["type"][zone] = ZoneType.SEQ_REQUIRED
            table["condition"][zone] = ZoneCondition.EMPTY
            table["wp_sector"][zone] = table["start_sector"][zone]
    for zone, condition in (dead or {}).items():
        table["condition"][zone] = condition
    return table


def test_conventional_zones_that_are_not_contiguous() -> None:
    apart = drive(64, 0, table=table_with({0, 2, 4, 6, 8}))
    with pytest.raises(GeometryError, match="not contiguous"):
        format_target(target_of(apart), FormatOptions(label="test"))
    result = format_now(target_of(drive(64, 0, table=table_with({3, 4, 10, 11, 12}))))
    assert list(result.layout.metadata_zones) == [3, 4]


def test_dead_conventional_zones_hold_no_metadata() -> None:
    table = table_with(set(range(8)), {0: ZoneCondition.READ_ONLY, 40: ZoneCondition.OFFLINE})
    target = target_of(drive(64, 0, table=table))
    result = format_now(target)
    assert list(result.layout.metadata_zones) == [1, 2]
    assert result.layout.nr_chunks == 62 - 2 - result.layout.nr_reserved_seq
    assert check_target(target).findings.codes == frozenset()
    with pytest.raises(GeometryError, match="zone 1 is needed"):
        format_target(
            target_of(drive(64, 0, table=table_with(set(range(8)), {1: ZoneCondition.OFFLINE}))),
            FormatOptions(label="test"),
        )


def test_runt_last_zone_is_ignored() -> None:
    target = target_of(drive(16, 4, 4 * MIB, runt_bytes=2 * MIB))
    result = format_now(target, reserved=2)
    assert (result.layout.nr_chunks, result.layout.nr_bitmap_blocks) == (12, 17)
    assert [f.code for f in check_target(target).findings] == ["zone-runt"]


@pytest.mark.parametrize(
    "options",
    [
        {"metadata_version": 3},
        {"label": "x" * 32},
        {"label": ""},
        {"dmz_uuid": uuid.UUID(int=0)},
        {"device_uuids": [uuid.uuid4()] * 3},
        {"reserved": 0},
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        format_now(target_of(drive(64, 8)), **options)


def test_version_1_is_for_one_device() -> None:
    with pytest.raises(UsageError, match="single device"):
        format_now(target_of(regular(40 * MIB), drive(16, 0, 4 * MIB)), metadata_version=1)


def test_start_inside_the_device() -> None:
    whole = drive(72, 16)
    shifted = Target("dm-zoned", (whole,), 8 * MIB)
    result = format_now(shifted)
    assert result.layout.nr_bitmap_blocks == 64
    assert SuperBlock.parse(whole.read(8 * MIB, BLOCK)).sb_block == 0
    assert check_target(shifted).findings.codes == frozenset()


def test_large_drive_formats_quickly() -> None:
    device = drive(75_000, 750, 256 * MIB)
    started = time.perf_counter()
    format_now(target_of(device))
    assert time.perf_counter() - started < 5
    assert check_target(target_of(device)).findings.codes == frozenset()


# -- power cuts


def cut_states(old: Sequence[Device], log: list[Any], choose: random.Random) -> Iterator[tuple[int, list[Device]]]:
    """Devices as every cut of ``log`` may leave them, with random losses of what was not flushed."""
    for cut in range(len(log) + 1):
        for survivors in (lambda index: True, lambda index: False, lambda index: choose.random() < 0.5):
            devices: list[Device] = [Overlay(device) for device in old]
            replay_cut(devices, log, cut, survivors)
            yield cut, devices


@pytest.mark.parametrize("name", ["hm64x1", "hm300x1", "triple", "v1"])
def test_power_cut_during_format(images: Images, name: str) -> None:
    """A cut leaves the old target, none, or the new one - never old names over new tables."""
    old = images.target(name)
    log: list[Any] = []
    recorders = [Recorder(Overlay(device), log, number) for number, device in enumerate(old.devices)]
    version = facts(name)["images"]["fresh"]["superblocks"][0]["version"]
    new = uuid.uuid4()
    result = format_target(
        Target("dm-zoned", tuple(recorders)), FormatOptions(label="new", dmz_uuid=new, metadata_version=version)
    )
    apply_plan(recorders, result.plan.steps)
    was_clean = check_target(old).facts["generation"]
    outcomes = set()
    for cut, devices in cut_states(old.devices, log, random.Random(name)):
        target = Target("dm-zoned", tuple(devices))
        try:
            checked = check_target(target)
        except NoValidSuperBlockError:
            outcomes.add("none")
            continue
        if checked.state.rebuilt is not None:  # no super block is there, only what stands for them
            outcomes.add("none")
            continue
        codes = {f.code for f in checked.findings if f.severity is Severity.ERROR}
        if checked.state.superblock.gen == was_clean:
            outcomes.add("old")
            assert codes <= {"sb-bad-magic"}, cut
        else:
            outcomes.add("new")
            assert checked.facts["mapped_chunks"] == 0
            assert codes <= {"sb-bad-magic"}, cut
            assert all(f.where == {"set": 1} for f in checked.findings)
    assert outcomes == {"old", "none", "new"}
