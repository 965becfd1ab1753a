"""What a survey deviates in from the rules; the super block's rules in the order in which a kernel looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.badareas import known_bad_areas
from zoned_tools.device.zones import (
    ACTIVE_CONDITIONS,
    OPEN_CONDITIONS,
    IntArray,
    Model,
    ZoneCondition,
    condition_name,
    has_condition,
)
from zoned_tools.formats.shared.losses import Loss, blocks_of
from zoned_tools.formats.zonefs.constants import BLKID_LABEL_BYTES, DEFAULT_PERM, PERM_MASK, Feature
from zoned_tools.formats.zonefs.judge import mount_faults, zone_table_fault
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES
from zoned_tools.formats.zonefs.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.shared.findings import FindingGroup
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.mapper.tree import FileGroup
    from zoned_tools.formats.zonefs.survey import Survey

MAX_LISTED = 64
"""Files or zones named in one finding; the count is always there."""
_MAX_SHOWN = 8
"""Files named in a sentence."""


def volume_findings(survey: Survey) -> Iterator[FindingGroup]:
    """Everything that is wrong with a volume."""
    yield from _zone0_findings(survey)
    yield from _super_block_findings(survey)
    yield from _table_findings(survey)
    yield from _dead_zone_findings(survey)
    yield from _content_findings(survey)


def _zone0_findings(survey: Survey) -> Iterator[FindingGroup]:
    condition = int(survey.volume.table["condition"][0])
    name = condition_name(condition)
    if survey.zones.offline[0]:
        text = "zone 0 is offline, the super block cannot be read"
        yield RULES.finding("zone0-offline", text, zone=0, condition=name)
    elif survey.zones.conventional[0]:
        return
    elif survey.zones.empty[0]:
        yield RULES.finding("zone0-empty", "zone 0 is empty, the super block is gone", zone=0, condition=name)
    elif condition not in (ZoneCondition.FULL, ZoneCondition.READ_ONLY):
        text = f"zone 0 is {name}, not full: the format was interrupted"
        yield RULES.finding("zone0-not-full", text, zone=0, condition=name)


def _super_block_findings(survey: Survey) -> Iterator[FindingGroup]:
    writable = not survey.zones.dead[0]
    if survey.raw is None:
        if not survey.zones.offline[0]:  # that is a finding already
            text = (
                f"the super block cannot be read: {survey.unreadable}; contents of files are certain, names, modes and "
                "owners as for the default parameters"
            )
            yield RULES.finding(
                "metadata-lost", text, repairable=writable,
                what="super", zone=0, offset_bytes=0, length_bytes=SUPER_BLOCK_BYTES,
            )  # fmt: skip
        return
    for fault in mount_faults(survey.raw):
        yield RULES.finding(fault.code, fault.message, repairable=writable, zone=0, offset_bytes=fault.offset_bytes)
    if survey.super_block is not None:
        yield from _field_findings(survey.super_block)


def _field_findings(block: SuperBlock) -> Iterator[FindingGroup]:
    if block.features & Feature.PERM and block.perm & ~PERM_MASK:
        text = f"file permissions {block.perm:o} have bits above {PERM_MASK:o}"
        yield RULES.finding("sb-perm-bits", text, zone=0, offset_bytes=0x68, perm=f"{block.perm:o}")
    stored = (
        ("uid", Feature.UID, block.uid, 0, 0x60),
        ("gid", Feature.GID, block.gid, 0, 0x64),
        ("perm", Feature.PERM, block.perm, DEFAULT_PERM, 0x68),
    )
    for name, feature, value, default, offset in stored:
        if not block.features & feature and value != default:
            shown = f"{value:o}" if name == "perm" else str(value)
            text = f"{name} {shown} is stored, but the feature is off"
            yield RULES.finding("sb-ignored-field", text, zone=0, offset_bytes=offset, field=name)
    reasons = list(_label_oddities(block.label_bytes))
    if reasons:
        yield RULES.finding("sb-label", f"the label is unusual: {'; '.join(reasons)}", zone=0, offset_bytes=8)
    if block.uuid == NIL_UUID:
        yield RULES.finding("sb-uuid-nil", "the volume has no UUID", zone=0, offset_bytes=0x48)


def _label_oddities(label: bytes) -> Iterator[str]:
    text, nul, rest = label.partition(b"\0")
    if not nul:
        yield "it is not terminated by a NUL"
    if len(text) > BLKID_LABEL_BYTES:
        yield f"it is longer than {BLKID_LABEL_BYTES} bytes, and blkid shows the rest as a UUID"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        yield "it is not UTF-8"
    if any(rest):
        yield "there are other bytes after its end"


def _table_findings(survey: Survey) -> Iterator[FindingGroup]:
    fault = zone_table_fault(survey.volume)
    if fault:
        yield RULES.finding("zones-layout", fault)
    others = len(survey.zones) - 1
    offline = int(np.count_nonzero(survey.zones.offline[1:]))
    if offline == others:
        yield RULES.finding("no-zones", "no zone can be used for a file", zones=len(survey.zones), offline=offline)
    yield from _limit_findings(survey)
    yield from _state_findings(survey)


def _limit_findings(survey: Survey) -> Iterator[FindingGroup]:
    table, geometry = survey.volume.table, survey.volume.device.geometry
    limits = (
        ("active", ACTIVE_CONDITIONS, geometry.max_active_zones),
        ("open", OPEN_CONDITIONS, geometry.max_open_zones),
    )
    for name, conditions, limit in limits:
        count = int(np.count_nonzero(survey.zones.sequential & has_condition(table, *conditions)))
        if limit and count > limit:
            text = f"{count} zones are {name}, the drive allows {limit}"
            yield RULES.finding("active-limit", text, count=count, limit=limit)


def _state_findings(survey: Survey) -> Iterator[FindingGroup]:
    table, zones = survey.volume.table, survey.zones
    active = zones.sequential & has_condition(table, *ACTIVE_CONDITIONS)
    written, capacity = zones.wp_blocks, zones.capacity_blocks
    on_managed_drive = survey.volume.device.geometry.model is Model.HOST_MANAGED
    oddities = (
        (active & ((written > capacity) | (written < 0)), "their write pointer outside their capacity", "have"),
        (active & (written == capacity), "filled but not in condition full", "are"),
        (
            active & has_condition(table, ZoneCondition.IMPLICIT_OPEN) & (written == 0),
            "implicitly open and empty",
            "are",
        ),
        (zones.preferred & on_managed_drive, "sequential-write-preferred on a host-managed drive", "are"),
    )
    for mask, text, verb in oddities:
        chosen = np.flatnonzero(mask)
        if len(chosen):
            yield RULES.finding(
                "zones-state", f"{_count(len(chosen), 'zone')} {verb} {text}", zones=_listed(chosen), count=len(chosen)
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(zones: IntArray) -> list[int]:
    listed: list[int] = zones[:MAX_LISTED].tolist()
    return listed


def _dead_zone_findings(survey: Survey) -> Iterator[FindingGroup]:
    cases = (
        ("zone-readonly", survey.zones.read_only, "read-only"),
        ("zone-offline", survey.zones.offline, "offline"),
    )
    for code, mask, name in cases:
        zones = np.flatnonzero(mask)
        if not len(zones):
            continue
        files = [path for group in survey.groups.values() for path in _files_in(group, zones)]
        more = f" and {len(files) - _MAX_SHOWN} more" if len(files) > _MAX_SHOWN else ""
        verb = "loses" if len(files) == 1 else "lose"
        effect = f"{', '.join(files[:_MAX_SHOWN])}{more} {verb} access" if files else "no file is concerned"
        text = f"{_count(len(zones), 'zone')} {name}: {effect}"
        yield RULES.finding(code, text, zones=_listed(zones), count=len(zones), files=files[:MAX_LISTED])


def _files_in(group: FileGroup, zones: IntArray) -> list[str]:
    """Files that have one of ``zones`` (ascending)."""
    first = np.searchsorted(zones, group.zone)
    concerned = first < np.searchsorted(zones, group.zone + group.zone_count)
    return [f"/{group.name}/{index}" for index in np.flatnonzero(concerned).tolist()]


def _content_findings(survey: Survey) -> Iterator[FindingGroup]:
    """Files with bytes that are known to be unreadable; nothing is read to find them."""
    bad = known_bad_areas(survey.volume.device)
    files: list[str] = []
    lost: list[Loss] = []
    for group in survey.groups.values():
        touched = bad.touches(group.start_bytes, group.size_bytes) & (group.size_bytes > 0) & ~group.dead
        for index in np.flatnonzero(touched).tolist():
            files.append(f"/{group.name}/{index}")
            inside = bad.within(int(group.start_bytes[index]), int(group.size_bytes[index]))
            lost += (Loss(start, end - start, status, "") for start, end, status in inside)
    if not files:
        return
    lost.sort()
    more = f" and {len(files) - _MAX_SHOWN} more" if len(files) > _MAX_SHOWN else ""
    nr_bytes = sum(row.length_bytes for row in lost)
    text = f"{_count(nr_bytes, 'byte')} of {_count(len(files), 'file')} cannot be read: {', '.join(files[:_MAX_SHOWN])}"
    yield RULES.finding(
        "data-unreadable", text + more, blocks=blocks_of(lost), ranges=len(lost), files=files[:MAX_LISTED]
    )
