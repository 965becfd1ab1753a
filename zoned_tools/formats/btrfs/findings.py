"""The findings about fields, features, geometry and devices; rings, trees and block groups have their own modules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.layout import MIN_ACTIVE_ZONES, SuperBlock
from zoned_tools.formats.btrfs.nodes import NodeError
from zoned_tools.formats.btrfs.ring_findings import MAX_LISTED, ring_findings
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.trees import DeviceFacts
from zoned_tools.formats.btrfs.validate import (
    MANY_DEVICES,
    chunk_array_faults,
    feature_faults,
    feature_notes,
    field_doubts,
    field_faults,
    known_sys_chunks,
    misplaced,
    profile_faults,
    unfinished,
    zone_size_fault,
)
from zoned_tools.formats.contract import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.survey import FileSystem, Where
    from zoned_tools.formats.shared.findings import FindingGroup

SIMPLE_QUOTA_BIT = 16

_MISPLACED = {
    "chunk-outside": "chunk {chunk} at byte {offset_bytes} does not lie inside the device",
    "chunk-unaligned": "chunk {chunk} at byte {offset_bytes} with {length_bytes} bytes is not made of whole zones",
    "chunk-in-reserved-zone": "chunk {chunk} at byte {offset_bytes} uses a zone reserved for super blocks",
}


def findings_of(fs: FileSystem) -> Iterator[FindingGroup]:
    """All findings about super blocks and devices of one file system."""
    for index in range(len(fs.surveys)):
        yield from ring_findings(fs, index)
        if fs.supers[index] is None and not any(len(mirror.unreadable) for mirror in fs.surveys[index].mirrors):
            yield RULES.finding("nothing-valid", "no mirror holds a valid super block", **fs.where(index))
    for index in range(len(fs.surveys)):
        block = _block_to_judge(fs, index)
        if block is not None:
            yield from _field_findings(fs, index, block)
            yield from _geometry_findings(fs, index, block)
            yield from _device_item_findings(fs, index, block)
    yield from _set_findings(fs)


def _block_to_judge(fs: FileSystem, index: int) -> SuperBlock | None:
    """The super block whose fields count: the kernel's choice in mirror 0, or the newest valid one."""
    survey = fs.surveys[index]
    first = survey.mirror(0)
    if first is not None and first.valid_head is not None:
        return survey.super_block(first.valid_head)
    return fs.supers[index]


def _field_findings(fs: FileSystem, index: int, block: SuperBlock) -> Iterator[FindingGroup]:
    where = fs.where(index)
    for field, sentence in field_faults(block):
        yield RULES.finding("head-field", sentence, **where, field=field)
    for field, sentence in field_doubts(block):
        yield RULES.finding("field-doubtful", sentence, **where, field=field)
    if block.is_zoned:
        for code, sentence in feature_faults(block):
            yield RULES.finding(code, sentence, **where)
    elif fs.surveys[index].device.geometry.is_zoned or fs.surveys[index].placement.derived:
        yield RULES.finding("zoned-flag-clear", "the ZONED feature is off, on a zoned drive", **where)
    else:
        yield RULES.finding("not-zoned", "a regular file system: the ZONED feature is off", **where)
    for bit, sentence in unfinished(block):
        yield RULES.finding("btrfstune-unfinished", sentence, **where, bit=bit)
    for bit, sentence in feature_notes(block):
        note = RULES.finding("feature-kernel", sentence, **where, bit=bit)
        yield replace(note, severity=Severity.INFO) if bit == SIMPLE_QUOTA_BIT else note
    for sentence in chunk_array_faults(block):
        yield RULES.finding("chunk-array", sentence, **where)
    yield from _against_chunk_tree(fs, block, where)


def _against_chunk_tree(fs: FileSystem, block: SuperBlock, where: Where) -> Iterator[FindingGroup]:
    """Fields that the chunk tree knows better; nothing where it cannot be read, which is told as the roots."""
    try:
        chunks = fs.reader.chunk_map(block)
    except NodeError:
        return
    if not chunks.devices:
        return
    total = sum(device.total_bytes for device in chunks.devices.values())
    if block.total_bytes < total:
        sentence = (
            f"{block.total_bytes} bytes in all are less than the {total} of the devices' items "
            "(btrfs rescue fix-device-size mends it)"
        )
        yield RULES.finding("head-field", sentence, **where, field="total_bytes")
    if block.num_devices != len(chunks.devices) and 0 < block.num_devices <= MANY_DEVICES:
        sentence = f"{block.num_devices} devices are said to be there, the chunk tree has {len(chunks.devices)}"
        yield RULES.finding("field-doubtful", sentence, **where, field="num_devices")
    lengths = {chunk.logical: chunk.length_bytes for chunk in chunks.chunks}
    for chunk in known_sys_chunks(block):
        if lengths.get(chunk.logical) != chunk.length_bytes:
            sentence = f"chunk {chunk.logical}: {chunk.length_bytes} bytes long, the chunk tree says otherwise"
            yield RULES.finding("chunk-array", sentence, **where)


# -- geometry


def _geometry_findings(fs: FileSystem, index: int, block: SuperBlock) -> Iterator[FindingGroup]:
    where = fs.where(index)
    survey = fs.surveys[index]
    geometry = survey.device.geometry
    zone_bytes = survey.zone_bytes(block)
    fault = zone_size_fault(zone_bytes) if zone_bytes else ""
    if fault:
        yield RULES.finding("zone-size", fault, **where)
    if 0 < geometry.max_active_zones < MIN_ACTIVE_ZONES:
        yield RULES.finding("active-zones", f"the drive allows {geometry.max_active_zones} active zones", **where)
    system = known_sys_chunks(block)
    if not system:
        return
    expected = system[0].stripe_bytes if block.is_zoned else 0
    if expected and survey.placement.zone_bytes and expected != zone_bytes:
        sentence = f"made for zones of {expected} bytes, the drive has zones of {zone_bytes}"
        yield RULES.finding("zone-size-mismatch", sentence, **where)
        return
    yield from _chunk_findings(fs, index, block, zone_bytes)


def _chunk_findings(fs: FileSystem, index: int, block: SuperBlock, zone_bytes: int) -> Iterator[FindingGroup]:
    where = fs.where(index)
    chunks = fs.reader.known_chunks(block)
    usable = zone_bytes if block.is_zoned and not zone_size_fault(zone_bytes) else 0
    if block.is_zoned:
        for logical, sentence in profile_faults(chunks, block.incompat_flags):
            yield RULES.finding("profile-unsupported", sentence, **where, block_group=logical)
    size = fs.surveys[index].size_bytes
    nr_zones = -(-size // usable) if usable else 0
    for code, columns in misplaced(chunks, block.dev_item.devid, size, usable, nr_zones).items():
        words = {"offset_bytes": columns.offset_bytes, "length_bytes": columns.length_bytes}
        group = RULES.findings(code, _MISPLACED[code], words=words, chunk=columns.chunk)
        yield group.with_place("device", where["device"]) if "device" in where else group


def _device_item_findings(fs: FileSystem, index: int, block: SuperBlock) -> Iterator[FindingGroup]:
    where = fs.where(index)
    item = block.dev_item
    size = fs.surveys[index].size_bytes
    if item.devid == 0:
        yield RULES.finding("device-item", "device number 0 is not possible", **where)
    if item.uuid.int == 0:
        yield RULES.finding("device-item", "the device has no uuid", **where)
    facts = _device_facts(fs, block)
    if facts is not None and facts.used_bytes > facts.total_bytes:
        sentence = f"{facts.used_bytes} of {facts.total_bytes} bytes cannot be in use"
        yield RULES.finding("device-item", sentence, **where)
    if facts is not None and facts.total_bytes > size:
        sentence = f"the device item says {facts.total_bytes} bytes, the device has {size}"
        yield RULES.finding("device-too-small", sentence, **where)
    yield from _device_uuid_findings(fs, index, block)


def _device_facts(fs: FileSystem, block: SuperBlock) -> DeviceFacts | None:
    """What the chunk tree says of the device, from which alone the kernel takes it; the super block where that tree
    cannot be read, which is told as the roots."""
    item = block.dev_item
    try:
        return fs.reader.chunk_map(block).devices.get(item.devid)
    except NodeError:
        return DeviceFacts(item.total_bytes, item.bytes_used, item.uuid.bytes)


def _device_uuid_findings(fs: FileSystem, index: int, block: SuperBlock) -> Iterator[FindingGroup]:
    """Whether the system chunks name this device as it names itself; others may be on devices that are missing."""
    where, item = fs.where(index), block.dev_item
    stripes = [stripe for chunk in known_sys_chunks(block) for stripe in chunk.stripes]
    others = {s.dev_uuid for s in stripes if s.devid == item.devid and s.dev_uuid != item.uuid}
    for other in sorted(others):
        yield RULES.finding("device-uuid", f"a system chunk is on device {other}, this one is {item.uuid}", **where)
    given = {(one.dev_item.devid, one.dev_item.uuid) for one in fs.supers if one is not None}
    nobody = {(s.devid, s.dev_uuid) for s in stripes} - given
    numbers = sorted({devid for devid, uuid in nobody if uuid == item.uuid} - {item.devid})
    if len(given) >= block.num_devices:  # none is missing
        numbers += sorted({devid for devid, _ in nobody} - {devid for devid, _ in given} - set(numbers))
    for devid in numbers:
        sentence = f"a system chunk is on device {devid}, which no device says to be; this one says {item.devid}"
        yield RULES.finding("device-uuid", sentence, **where)


# -- all devices together


def _set_findings(fs: FileSystem) -> Iterator[FindingGroup]:
    """Rules over all devices of the file system."""
    newest = fs.newest
    if newest is None:
        return
    sizes: dict[int, list[str]] = {}
    devids: dict[int, str] = {}
    for index, (survey, block) in enumerate(zip(fs.surveys, fs.supers, strict=True)):
        if block is None:
            continue
        where = fs.where(index)
        path = survey.device.path
        if block.fsid != newest.fsid:
            yield RULES.finding("device-foreign", f"{path} belongs to file system {block.fsid}", **where)
            continue
        if block.dev_item.devid in devids:
            sentence = f"{path} and {devids[block.dev_item.devid]} both are device {block.dev_item.devid}"
            yield RULES.finding("device-duplicate", sentence, **where)
        devids.setdefault(block.dev_item.devid, path)
        sizes.setdefault(survey.zone_bytes(block), []).append(path)
        if newest.generation - block.generation > 1:
            sentence = f"{path} is at generation {block.generation}, another device at {newest.generation}"
            yield RULES.finding("device-behind", sentence, **where)
    if len(sizes) > 1:
        text = ", ".join(f"{size} on {' and '.join(paths)}" for size, paths in sorted(sizes.items()))
        yield RULES.finding("zone-size-differs", f"zone sizes differ: {text}", zone_sizes=sorted(sizes))
    yield from _missing_findings(fs)


def _missing_findings(fs: FileSystem) -> Iterator[FindingGroup]:
    missing = fs.missing()
    if missing is None:
        return
    sentence = missing.sentence
    if missing.block_groups:
        sentence += f"; {len(missing.block_groups)} block groups with a stripe there are not judged"
    yield RULES.finding(
        "device-missing",
        sentence,
        given=missing.given,
        needed=missing.needed,
        devids=missing.devids[:MAX_LISTED],
        block_groups=missing.block_groups,
    )
