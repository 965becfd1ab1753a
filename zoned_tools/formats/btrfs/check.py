"""Check of the super blocks of a btrfs: rings, mirrors, features, geometry; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoned_tools.findings import CheckReport, Finding
from zoned_tools.formats.btrfs import check_ring
from zoned_tools.formats.btrfs.codes import CODES
from zoned_tools.formats.btrfs.filesystem import FileSystem, open_file_system
from zoned_tools.formats.btrfs.findings import finding
from zoned_tools.formats.btrfs.layout import MIN_ACTIVE_ZONES, Chunk, ChunkError, sys_chunks
from zoned_tools.formats.btrfs.nodatacow import count_nodatacow
from zoned_tools.formats.btrfs.survey import DeviceSurvey
from zoned_tools.formats.btrfs.trees import NodeError
from zoned_tools.formats.btrfs.validate import (
    chunk_array_fault,
    feature_faults,
    field_doubts,
    field_faults,
    is_zoned,
    place_faults,
    profile_faults,
    zone_size_fault,
)
from zoned_tools.formats.registry import CheckOptions, Target

__all__ = ["CODES", "check"]

MAX_PLACES = 16
"""Misplaced chunks that are reported one by one."""


def check(target: Target, options: CheckOptions) -> CheckReport:
    """Check all devices of one file system.

    With ``options.deep`` also every inode of the file system is looked at.
    """
    fs = open_file_system(target)
    report = CheckReport("btrfs", target.paths)
    report.findings.extend(_findings(fs, options))
    report.facts.update(_facts(fs))
    return report


def _findings(fs: FileSystem, options: CheckOptions) -> Iterator[Finding]:
    for index in range(len(fs.surveys)):
        yield from check_ring.check_device(fs, index)
        if fs.supers[index] is None:
            yield finding("nothing-valid", "no mirror holds a valid super block", fs.label(index))
    for index, survey in enumerate(fs.surveys):
        block = _block_to_judge(fs, index)
        if block is not None:
            yield from _check_fields(fs, index, block)
            yield from _check_geometry(fs, index, survey, block)
            yield from _check_device_item(fs, index, survey, block)
    yield from _check_set(fs)
    yield from _check_trees(fs, options)


def _facts(fs: FileSystem) -> dict[str, object]:
    facts: dict[str, object] = {}
    newest = fs.newest
    if newest is not None:
        facts.update(fsid=str(newest.fsid), generation=newest.generation)
    facts["valid_super_blocks"] = sum(int(m.copies["valid"].sum()) for s in fs.surveys for m in s.mirrors)
    return facts


def _block_to_judge(fs: FileSystem, index: int) -> Any | None:
    """The super block whose fields count: the kernel's choice in mirror 0, or the newest valid one."""
    survey = fs.surveys[index]
    first = survey.mirror(0)
    if first is not None and first.head_is_valid:
        return survey.super_block(first.head)
    return fs.supers[index]


def _check_fields(fs: FileSystem, index: int, block: Any) -> Iterator[Finding]:
    where = fs.label(index)
    for field, sentence in field_faults(block):
        yield finding("head-field", sentence, {**where, "field": field})
    for field, sentence in field_doubts(block):
        yield finding("field-doubtful", sentence, {**where, "field": field})
    if is_zoned(block):
        for code, sentence in feature_faults(block):
            yield finding(code, sentence, where)
    elif fs.surveys[index].device.geometry.is_zoned or fs.surveys[index].placement.derived:
        yield finding("zoned-flag-clear", "the ZONED feature is off, on a zoned drive", where)
    else:
        yield finding("not-zoned", "a regular file system: the ZONED feature is off", where)
    fault = chunk_array_fault(block)
    if fault:
        yield finding("chunk-array", fault, where)


def _emulated_zone_bytes(block: Any) -> int:
    """Zone size that a zoned file system on a regular device uses: that of its first chunk; 0 if there is none."""
    try:
        return sys_chunks(block)[0].length_bytes if is_zoned(block) else 0
    except ChunkError:
        return 0


def zone_bytes_of_device(survey: DeviceSurvey, block: Any) -> int:
    """Size of real or emulated zones; 0 when there are none."""
    return survey.placement.zone_bytes or _emulated_zone_bytes(block)


def _check_geometry(fs: FileSystem, index: int, survey: DeviceSurvey, block: Any) -> Iterator[Finding]:
    where = fs.label(index)
    geometry = survey.device.geometry
    zone_bytes = zone_bytes_of_device(survey, block)
    if zone_bytes:
        fault = zone_size_fault(zone_bytes)
        if fault:
            yield finding("zone-size", fault, where)
    if 0 < geometry.max_active_zones < MIN_ACTIVE_ZONES:
        yield finding("active-zones", f"the drive allows {geometry.max_active_zones} active zones", where)
    try:
        system = sys_chunks(block)
    except ChunkError:
        return
    expected = system[0].length_bytes
    if (
        is_zoned(block)
        and survey.placement.zone_bytes
        and expected != zone_bytes
        and system[0].profile in ("single", "DUP")
    ):
        sentence = f"made for zones of {expected} bytes, the drive has zones of {zone_bytes}"
        yield finding("zone-size-mismatch", sentence, where)
        return
    yield from _check_chunks(fs, index, survey, block, zone_bytes)


def _all_chunks(fs: FileSystem, block: Any) -> list[Chunk]:
    try:
        return fs.reader.chunk_map(block).chunks
    except NodeError:
        return sys_chunks(block)


def _check_chunks(fs: FileSystem, index: int, survey: DeviceSurvey, block: Any, zone_bytes: int) -> Iterator[Finding]:
    where = fs.label(index)
    chunks = _all_chunks(fs, block)
    usable = zone_bytes if is_zoned(block) and not zone_size_fault(zone_bytes) else 0
    if is_zoned(block):
        for sentence in profile_faults(chunks, block.incompat_flags):
            yield finding("profile-unsupported", sentence, where)
    size = survey.device.geometry.size_bytes - survey.start_bytes
    nr_zones = -(-size // usable) if usable else 0
    for number, (code, chunk, sentence) in enumerate(
        place_faults(chunks, block.dev_item.devid, size, usable, nr_zones)
    ):
        if number == MAX_PLACES:
            break
        yield finding(code, sentence, {**where, "chunk": chunk.logical})


def _check_device_item(fs: FileSystem, index: int, survey: DeviceSurvey, block: Any) -> Iterator[Finding]:
    where = fs.label(index)
    item = block.dev_item
    size = survey.device.geometry.size_bytes - survey.start_bytes
    if item.devid == 0:
        yield finding("device-item", "device number 0 is not possible", where)
    if item.bytes_used > item.total_bytes:
        sentence = f"{item.bytes_used} of {item.total_bytes} bytes cannot be in use"
        yield finding("device-item", sentence, where)
    if item.uuid.int == 0:
        yield finding("device-item", "the device has no uuid", where)
    if item.total_bytes > size:
        sentence = f"the device item says {item.total_bytes} bytes, the device has {size}"
        yield finding("device-too-small", sentence, where)
    try:
        system = sys_chunks(block)
    except ChunkError:
        return
    others = {s.dev_uuid for c in system for s in c.stripes if s.devid == item.devid and s.dev_uuid != item.uuid}
    for other in sorted(others):
        yield finding("device-uuid", f"a system chunk is on device {other}, this one is {item.uuid}", where)


def _check_set(fs: FileSystem) -> Iterator[Finding]:
    """Rules over all devices of the file system."""
    newest = fs.newest
    if newest is None:
        return
    sizes: dict[int, list[str]] = {}
    devids: dict[int, str] = {}
    for index, (survey, block) in enumerate(zip(fs.surveys, fs.supers, strict=True)):
        if block is None:
            continue
        where = fs.label(index)
        path = survey.device.path
        if block.fsid != newest.fsid:
            yield finding("device-foreign", f"{path} belongs to file system {block.fsid}", where)
            continue
        if block.dev_item.devid in devids:
            sentence = f"{path} and {devids[block.dev_item.devid]} both are device {block.dev_item.devid}"
            yield finding("device-duplicate", sentence, where)
        devids.setdefault(block.dev_item.devid, path)
        sizes.setdefault(zone_bytes_of_device(survey, block), []).append(path)
        if newest.generation - block.generation > 1:
            sentence = f"{path} is at generation {block.generation}, another device at {newest.generation}"
            yield finding("device-behind", sentence, where)
    if len(sizes) > 1:
        text = ", ".join(f"{size} on {' and '.join(paths)}" for size, paths in sorted(sizes.items()))
        yield finding("zone-size-differs", f"zone sizes differ: {text}", {"zone_sizes": sorted(sizes)})
    if len(devids) < newest.num_devices:
        sentence = f"{len(devids)} of {newest.num_devices} devices were given"
        yield finding("device-missing", sentence, {"given": len(devids), "needed": newest.num_devices})


def _check_trees(fs: FileSystem, options: CheckOptions) -> Iterator[Finding]:
    """The roots of what the kernel would mount."""
    for index, survey in enumerate(fs.surveys):
        first = survey.mirror(0)
        if first is None or not first.head_is_valid:
            continue
        block = survey.super_block(first.head)
        where = {**fs.label(index, first), "generation": int(block.generation)}
        roots = fs.reader.roots_readable(block)
        if roots.readable is False:
            yield finding("roots-unreadable", f"generation {block.generation}: {roots.reason}", where)
            return
        for sentence in fs.reader.lost_trees(block):
            yield finding("tree-lost", sentence, where)
        log = fs.reader.log_readable(block)
        if log.readable is False:
            yield finding("log-unreadable", f"tree log at {block.log_root}: {log.reason}", where)
        if options.deep and roots.readable:
            files = count_nodatacow(fs.reader, block)
            if files:
                yield finding("nodatacow", f"{files} files have the NODATACOW attribute", {**where, "files": files})
        return
