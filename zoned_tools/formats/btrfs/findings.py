"""The findings about fields, features, geometry, devices and trees; those about rings are in ``ring_findings``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.chunks import Chunk, ChunkError, sys_chunks
from zoned_tools.formats.btrfs.layout import MIN_ACTIVE_ZONES, SuperBlock
from zoned_tools.formats.btrfs.nodatacow import count_nodatacow
from zoned_tools.formats.btrfs.ring_findings import ring_findings
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.validate import (
    chunk_array_fault,
    feature_faults,
    field_doubts,
    field_faults,
    misplaced,
    profile_faults,
    zone_size_fault,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.survey import DeviceSurvey, FileSystem, Where
    from zoned_tools.formats.shared.findings import FindingGroup

_MISPLACED = {
    "chunk-outside": "chunk {chunk} at byte {offset_bytes} does not lie inside the device",
    "chunk-unaligned": "chunk {chunk} at byte {offset_bytes} with {length_bytes} bytes is not made of whole zones",
    "chunk-in-reserved-zone": "chunk {chunk} at byte {offset_bytes} uses a zone reserved for super blocks",
}


def findings_of(fs: FileSystem, *, deep: bool) -> Iterator[FindingGroup]:
    """All findings of one file system; with ``deep`` every inode is looked at too."""
    for index in range(len(fs.surveys)):
        yield from ring_findings(fs, index)
        if fs.supers[index] is None:
            yield RULES.finding("nothing-valid", "no mirror holds a valid super block", **fs.where(index))
    for index in range(len(fs.surveys)):
        block = _block_to_judge(fs, index)
        if block is not None:
            yield from _field_findings(fs, index, block)
            yield from _geometry_findings(fs, index, block)
            yield from _device_item_findings(fs, index, block)
    yield from _set_findings(fs)
    yield from _tree_findings(fs, deep=deep)


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
    fault = chunk_array_fault(block)
    if fault:
        yield RULES.finding("chunk-array", fault, **where)


# -- geometry


def _system_chunks(block: SuperBlock) -> list[Chunk]:
    """The system chunks; none where the array cannot be decoded, which is a finding of its own."""
    try:
        return sys_chunks(block)
    except ChunkError:
        return []


def _zone_bytes(survey: DeviceSurvey, block: SuperBlock) -> int:
    """Size of real zones, or of emulated ones, which is that of the first chunk; 0 when there are none."""
    system = _system_chunks(block)
    emulated = system[0].length_bytes if system and block.is_zoned else 0
    return survey.placement.zone_bytes or emulated


def _geometry_findings(fs: FileSystem, index: int, block: SuperBlock) -> Iterator[FindingGroup]:
    where = fs.where(index)
    survey = fs.surveys[index]
    geometry = survey.device.geometry
    zone_bytes = _zone_bytes(survey, block)
    fault = zone_size_fault(zone_bytes) if zone_bytes else ""
    if fault:
        yield RULES.finding("zone-size", fault, **where)
    if 0 < geometry.max_active_zones < MIN_ACTIVE_ZONES:
        yield RULES.finding("active-zones", f"the drive allows {geometry.max_active_zones} active zones", **where)
    system = _system_chunks(block)
    if not system:
        return
    expected = _made_for(system[0]) if block.is_zoned else None
    if expected is not None and survey.placement.zone_bytes and expected != zone_bytes:
        sentence = f"made for zones of {expected} bytes, the drive has zones of {zone_bytes}"
        yield RULES.finding("zone-size-mismatch", sentence, **where)
        return
    yield from _chunk_findings(fs, index, block, zone_bytes)


def _made_for(chunk: Chunk) -> int | None:
    """Zone size that the first chunk tells; None where its profile does not."""
    return chunk.length_bytes if chunk.profile in ("single", "DUP") else None


def _chunk_findings(fs: FileSystem, index: int, block: SuperBlock, zone_bytes: int) -> Iterator[FindingGroup]:
    where = fs.where(index)
    chunks = fs.reader.known_chunks(block)
    usable = zone_bytes if block.is_zoned and not zone_size_fault(zone_bytes) else 0
    if block.is_zoned:
        for sentence in profile_faults(chunks, block.incompat_flags):
            yield RULES.finding("profile-unsupported", sentence, **where)
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
    if item.bytes_used > item.total_bytes:
        sentence = f"{item.bytes_used} of {item.total_bytes} bytes cannot be in use"
        yield RULES.finding("device-item", sentence, **where)
    if item.uuid.int == 0:
        yield RULES.finding("device-item", "the device has no uuid", **where)
    if item.total_bytes > size:
        sentence = f"the device item says {item.total_bytes} bytes, the device has {size}"
        yield RULES.finding("device-too-small", sentence, **where)
    stripes = [stripe for chunk in _system_chunks(block) for stripe in chunk.stripes]
    others = {s.dev_uuid for s in stripes if s.devid == item.devid and s.dev_uuid != item.uuid}
    for other in sorted(others):
        yield RULES.finding("device-uuid", f"a system chunk is on device {other}, this one is {item.uuid}", **where)


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
        sizes.setdefault(_zone_bytes(survey, block), []).append(path)
        if newest.generation - block.generation > 1:
            sentence = f"{path} is at generation {block.generation}, another device at {newest.generation}"
            yield RULES.finding("device-behind", sentence, **where)
    if len(sizes) > 1:
        text = ", ".join(f"{size} on {' and '.join(paths)}" for size, paths in sorted(sizes.items()))
        yield RULES.finding("zone-size-differs", f"zone sizes differ: {text}", zone_sizes=sorted(sizes))
    if len(devids) < newest.num_devices:
        sentence = f"{len(devids)} of {newest.num_devices} devices were given"
        yield RULES.finding("device-missing", sentence, given=len(devids), needed=newest.num_devices)


# -- trees


def _mounted(fs: FileSystem) -> tuple[SuperBlock, Where] | None:
    """The super block whose trees count, and its place: what the kernel would mount, of the first device with a
    valid head; where no device has one, the newest valid, which a repair makes the head."""
    for index, survey in enumerate(fs.surveys):
        first = survey.mirror(0)
        if first is not None and first.valid_head is not None:
            return survey.super_block(first.valid_head), fs.where(index, first)
    for index, survey in enumerate(fs.surveys):
        best = survey.best
        if best is not None:
            return survey.super_block(best[1]), fs.where(index, best[0])
    return None


def _tree_findings(fs: FileSystem, *, deep: bool) -> Iterator[FindingGroup]:
    """The roots of one super block, the trees that the kernel reads at mount, and the tree log."""
    chosen = _mounted(fs)
    if chosen is None:
        return
    block, where = chosen
    where["generation"] = block.generation
    roots = fs.reader.roots_readable(block)
    if roots.readable is False:
        yield RULES.finding("roots-unreadable", f"generation {block.generation}: {roots.reason}", **where)
        return
    for sentence in fs.reader.lost_trees(block):
        yield RULES.finding("tree-lost", sentence, **where)
    log = fs.reader.log_readable(block)
    if log.readable is False:
        yield RULES.finding("log-unreadable", f"tree log at {block.log_root}: {log.reason}", **where)
    files = count_nodatacow(fs.reader, block) if deep and roots.readable else 0
    if files:
        yield RULES.finding("nodatacow", f"{files} files have the NODATACOW attribute", **where, files=files)
