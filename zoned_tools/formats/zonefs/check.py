"""Check of a zonefs volume: the super block, zone 0 and the zone table; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.device.base import Geometry
from zoned_tools.device.zones import (
    ACTIVE_CONDITIONS,
    OPEN_CONDITIONS,
    IntArray,
    Model,
    ZoneCondition,
    ZoneTable,
    ZoneType,
    condition_name,
    has_condition,
    is_conventional,
    is_sequential,
)
from zoned_tools.errors import DeviceError, GeometryError
from zoned_tools.findings import CheckReport, Finding, Severity
from zoned_tools.formats.registry import CheckOptions, Code, Target
from zoned_tools.formats.zonefs import layout
from zoned_tools.formats.zonefs.constants import BLKID_LABEL_BYTES, DEFAULT_PERM, PERM_MASK, Feature
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.tree import FileGroup, build_groups
from zoned_tools.formats.zonefs.volume import Volume, check_zone_table, target_volume

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
_REWRITE = "rewrites the super block; label and UUID found are kept"
_DAMAGE = "The super block was overwritten or damaged on the medium."
MAX_LISTED = 64
"""Files or zones named in one finding; the count is always there."""

CODES: Mapping[str, Code] = {
    "not-zoned": Code(
        _ERROR, "The device is not zoned: a kernel does not mount it.", "The zone table of an image is missing."
    ),
    "sb-magic": Code(_ERROR, "The super block's magic is wrong.", _DAMAGE, _REWRITE),
    "sb-crc": Code(_ERROR, "The super block's checksum is wrong.", _DAMAGE, _REWRITE),
    "sb-features": Code(_ERROR, "Unknown feature bits are set.", "Damage, or a newer format.", _REWRITE),
    "sb-uid": Code(_ERROR, "The user id of the files is invalid.", "mkzonefs was given uid=-1.", "drops the feature"),
    "sb-gid": Code(_ERROR, "The group id of the files is invalid.", "mkzonefs was given gid=-1.", "drops the feature"),
    "sb-reserved": Code(_ERROR, "The reserved area is not all zero.", _DAMAGE, _REWRITE),
    "sb-perm-bits": Code(
        _WARNING,
        "The permissions have bits above 07777: files show a bogus type.",
        "mkzonefs was given a number over 07777.",
        "keeps the low twelve bits",
    ),
    "sb-ignored-field": Code(_INFO, "A user, group or permission is stored but its feature is off, so it is ignored."),
    "sb-label": Code(_WARNING, "The label is shown wrongly by other programs.", "It is too long, or not UTF-8 text."),
    "sb-uuid-nil": Code(_WARNING, "The volume has no UUID.", repair="writes the UUID given with --set uuid=UUID"),
    "zone0-not-full": Code(
        _WARNING,
        "The super block's zone is sequential and not full: a later write can land after the super block.",
        "mkzonefs was interrupted before it finished the zone.",
        "finishes the zone",
    ),
    "zone0-empty": Code(
        _ERROR,
        "The super block's zone is sequential and empty: there is no super block.",
        "The zone was reset.",
        "writes a super block from the parameters given with --set",
    ),
    "zone0-offline": Code(_ERROR, "The super block's zone is offline: it cannot be read.", "The medium failed."),
    "zone-readonly": Code(_WARNING, "Read-only zones: their files cannot be accessed.", "The medium failed."),
    "zone-offline": Code(_WARNING, "Offline zones: their files are lost.", "The medium failed."),
    "zones-layout": Code(_ERROR, "The zone table is not one that a kernel mounts.", "The drive's report is wrong."),
    "zones-state": Code(_WARNING, "A zone is in a state that drives do not report.", "The zone table was edited."),
    "active-limit": Code(_WARNING, "More zones are active than the drive allows.", "The zone table was edited."),
    "no-zones": Code(_ERROR, "No zone can be used for a file."),
}


def _finding(code: str, message: str, where: Mapping[str, object] | None = None, *, repair: bool = True) -> Finding:
    rule = CODES[code]
    return Finding(f"{layout.LAYOUT}.{code}", rule.severity, message, where or {}, rule.repair if repair else "")


def check(target: Target, options: CheckOptions) -> CheckReport:
    """Check one volume; the super block's rules come in the order in which a kernel looks."""
    report = CheckReport(layout.LAYOUT, target.paths)
    if not target.device.geometry.is_zoned:
        report.findings.append(_finding("not-zoned", "the device is not zoned, a kernel does not mount it"))
        return report
    volume = target_volume(target)
    report.findings += _zone0_findings(volume.table)
    block = _check_super_block(volume, report)
    report.findings += _table_findings(volume)
    report.findings += _dead_zone_findings(volume, block)
    return report


def _check_super_block(volume: Volume, report: CheckReport) -> SuperBlock:
    """Findings about the super block; returns what the tree is to be built with."""
    try:
        raw = volume.read_super_block()
    except DeviceError:
        if not any(f.code == "zone0-offline" for f in report.findings):
            raise
        return SuperBlock()
    block = layout.decode(raw)
    faults = list(layout.mount_faults(raw))
    repairable = not has_condition(volume.table[:1], ZoneCondition.READ_ONLY)[0]
    report.findings += [
        _finding(f.code, f.message, {"zone": 0, "offset_bytes": f.offset_bytes}, repair=bool(repairable))
        for f in faults
    ]
    if layout.recognise(raw) is None:
        return SuperBlock()
    report.findings += _field_findings(block)
    report.facts.update(
        label=block.label_text,
        uuid=str(block.uuid),
        features=[str(f.name).lower() for f in Feature if block.features & f],
    )
    return block


def _field_findings(block: SuperBlock) -> Iterator[Finding]:
    if block.features & Feature.PERM and block.perm & ~PERM_MASK:
        text = f"file permissions {block.perm:o} have bits above {PERM_MASK:o}"
        yield _finding("sb-perm-bits", text, {"zone": 0, "offset_bytes": 0x68, "perm": f"{block.perm:o}"})
    stored = (
        ("uid", Feature.UID, block.uid, 0, 0x60),
        ("gid", Feature.GID, block.gid, 0, 0x64),
        ("perm", Feature.PERM, block.perm, DEFAULT_PERM, 0x68),
    )
    for name, feature, value, default, offset in stored:
        if not block.features & feature and value != default:
            shown = f"{value:o}" if name == "perm" else str(value)
            where = {"zone": 0, "offset_bytes": offset, "field": name}
            yield _finding("sb-ignored-field", f"{name} {shown} is stored, but the feature is off", where)
    yield from _label_findings(block)
    if block.uuid == NIL_UUID:
        yield _finding("sb-uuid-nil", "the volume has no UUID", {"zone": 0, "offset_bytes": 0x48})


def _label_findings(block: SuperBlock) -> Iterator[Finding]:
    text, nul, rest = block.label_bytes.partition(b"\0")
    reasons = []
    if not nul:
        reasons.append("it is not terminated by a NUL")
    if len(text) > BLKID_LABEL_BYTES:
        reasons.append(f"it is longer than {BLKID_LABEL_BYTES} bytes, and blkid shows the rest as a UUID")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        reasons.append("it is not UTF-8")
    if any(rest):
        reasons.append("there are other bytes after its end")
    if reasons:
        yield _finding("sb-label", f"the label is unusual: {'; '.join(reasons)}", {"zone": 0, "offset_bytes": 8})


def _zone0_findings(table: ZoneTable) -> Iterator[Finding]:
    condition = int(table["condition"][0])
    where = {"zone": 0, "condition": condition_name(condition)}
    if condition == ZoneCondition.OFFLINE:
        yield _finding("zone0-offline", "zone 0 is offline, the super block cannot be read", where)
    elif is_conventional(table[:1])[0]:
        return
    elif condition == ZoneCondition.EMPTY:
        yield _finding("zone0-empty", "zone 0 is empty, the super block is gone", where)
    elif condition not in (ZoneCondition.FULL, ZoneCondition.READ_ONLY):
        text = f"zone 0 is {condition_name(condition)}, not full: the format was interrupted"
        yield _finding("zone0-not-full", text, where)


def _table_findings(volume: Volume) -> Iterator[Finding]:
    table, geometry = volume.table, volume.device.geometry
    try:
        check_zone_table(volume)
    except GeometryError as error:
        yield _finding("zones-layout", error.message)
    offline = int(np.count_nonzero(has_condition(table[1:], ZoneCondition.OFFLINE)))
    if offline == len(table) - 1:
        yield _finding("no-zones", "no zone can be used for a file", {"zones": len(table), "offline": offline})
    yield from _state_findings(table, geometry)


def _state_findings(table: ZoneTable, geometry: Geometry) -> Iterator[Finding]:
    active = is_sequential(table) & has_condition(table, *ACTIVE_CONDITIONS)
    limits = (
        ("active", active, geometry.max_active_zones),
        ("open", active & has_condition(table, *OPEN_CONDITIONS), geometry.max_open_zones),
    )
    for name, mask, limit in limits:
        count = int(np.count_nonzero(mask))
        if limit and count > limit:
            text = f"{count} zones are {name}, the drive allows {limit}"
            yield _finding("active-limit", text, {"count": count, "limit": limit})
    written = np.zeros(len(table), np.uint64)
    written[active] = table["wp_sector"][active] - table["start_sector"][active]
    oddities = (
        (active & (written > table["capacity_sectors"]), "have their write pointer outside their capacity"),
        (active & (written == table["capacity_sectors"]), "are filled but not in condition full"),
        (active & has_condition(table, ZoneCondition.IMPLICIT_OPEN) & (written == 0), "are implicitly open and empty"),
        (
            (table["type"] == ZoneType.SEQ_PREFERRED) & (geometry.model is Model.HOST_MANAGED),
            "are sequential-write-preferred on a host-managed drive",
        ),
    )
    for mask, text in oddities:
        zones = np.flatnonzero(mask)
        if len(zones):
            yield _finding("zones-state", f"{_count(len(zones), 'zone')} {text}", _where(zones))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _where(zones: IntArray, files: list[str] | None = None) -> dict[str, object]:
    where: dict[str, object] = {"zones": zones[:MAX_LISTED].tolist(), "count": len(zones)}
    if files is not None:
        where["files"] = files[:MAX_LISTED]
    return where


def _dead_zone_findings(volume: Volume, block: SuperBlock) -> Iterator[Finding]:
    groups = build_groups(volume, block)
    cases = (
        ("zone-readonly", ZoneCondition.READ_ONLY, "read-only"),
        ("zone-offline", ZoneCondition.OFFLINE, "offline"),
    )
    for code, condition, name in cases:
        zones = np.flatnonzero(has_condition(volume.table, condition))
        if not len(zones):
            continue
        files = [path for group in groups.values() for path in _files_in(group, zones)]
        shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
        verb = "loses" if len(files) == 1 else "lose"
        effect = f"{shown} {verb} access" if files else "no file is concerned"
        yield _finding(code, f"{_count(len(zones), 'zone')} {name}: {effect}", _where(zones, files))


def _files_in(group: FileGroup, zones: IntArray) -> list[str]:
    """Files that have one of ``zones`` (ascending)."""
    first = np.searchsorted(zones, group.zone)
    concerned = first < np.searchsorted(zones, group.zone + group.zone_count)
    return [f"/{group.name}/{index}" for index in np.flatnonzero(concerned).tolist()]
