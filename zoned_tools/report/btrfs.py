"""What ``zoned btrfs`` prints: super blocks as a list and in full as dump-super prints them, zones, files."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.zones import condition_name
from zoned_tools.formats.btrfs.checksum import ALGORITHMS, csum_matches
from zoned_tools.formats.btrfs.chunks import ChunkError, chunk_type_text, sys_chunks
from zoned_tools.formats.btrfs.copies import Csum, Magic
from zoned_tools.formats.btrfs.layout import CSUM_BYTES, MAGIC, BackupRoot, SuperBlock, metadata_uuid, parse
from zoned_tools.formats.btrfs.names import (
    BACKUP_TREES,
    COMPAT_RO_NAMES,
    FLAG_NAMES,
    INCOMPAT_NAMES,
    SHOWN_DEVICE_FIELDS,
    SHOWN_FIELDS,
    TREE_NAMES,
    bit_names,
    magic_text,
    printable,
)
from zoned_tools.formats.btrfs.open import Mode
from zoned_tools.report.documents.btrfs import BTRFS_LIST, btrfs_entry, shown_path
from zoned_tools.report.stream import elements, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zoned_tools.formats.btrfs.mapper.content import FilePiece
    from zoned_tools.formats.btrfs.mapper.extents import ExtentCopy, ExtentRow
    from zoned_tools.formats.btrfs.mapper.files import FileTree, Found
    from zoned_tools.formats.btrfs.mapper.owners import Owners
    from zoned_tools.formats.btrfs.ring import RingZone
    from zoned_tools.formats.btrfs.supers import CopyRow
    from zoned_tools.formats.btrfs.survey import DeviceSurvey, MirrorSurvey
    from zoned_tools.formats.btrfs.zone_accounts import DeviceRow, ZoneAccounts, ZoneRow

# -- the list

_CSUM_TEXT = {int(Csum.OK): "ok", int(Csum.BAD): "bad", int(Csum.UNKNOWN_TYPE): "unknown", int(Csum.UNTESTED): "-"}
_ROOTS_TEXT = {True: "yes", False: "no", None: "-"}
_ROW = "%18s %12s %-9s %-7s %-5s %16s %16s %16s %-5s %s"
_HEADER = _ROW % ("offset", "generation", "magic", "csum", "valid", "root", "chunk root", "log root", "roots", "")


def list_lines(survey: DeviceSurvey) -> Iterator[str]:
    """Lines of one device: every mirror with its zones, then every copy."""
    path = survey.device.path
    if survey.placement.derived:
        yield (
            f"{path}: raw copy of a zoned drive without its zone table; zones of {survey.placement.zone_bytes} bytes "
            f"and their states are derived from the content"
        )
    elif survey.placement.zone_bytes:
        yield f"{path}: {survey.device.geometry.model}, zones of {survey.placement.zone_bytes} bytes"
    else:
        yield f"{path}: regular device"
    for mirror in survey.mirrors:
        yield from _mirror(mirror)


def _mirror(survey: MirrorSurvey) -> Iterator[str]:
    mirror = survey.mirror
    if mirror.mode is Mode.RING:
        zones = " and ".join(str(zone) for zone in mirror.zones)
        write = "unknown" if survey.next_write_bytes is None else f"byte {survey.next_write_bytes}"
        yield f"mirror {mirror.number}: ring in zones {zones}, state {survey.shown_state}, next write at {write}"
        for zone in mirror.pair or ():
            yield f"  {_zone(zone, known=mirror.capacity_known)}"
    elif mirror.mode is Mode.IN_PLACE:
        yield f"mirror {mirror.number}: in place in conventional zone {mirror.zones[0]}"
    else:
        yield f"mirror {mirror.number}: at its regular place"
    if len(survey.copies):
        yield _HEADER.rstrip()
        yield from _rows(survey)
    else:
        yield "  no super block"


def _zone(zone: RingZone, *, known: bool) -> str:
    capacity = f"{zone.slots} slots" if known else "unknown capacity"
    wp = "" if zone.wp_bytes is None else f", write pointer {zone.wp_bytes}"
    return f"zone {zone.zone}: {condition_name(zone.condition)}, {zone.written_slots} of {capacity} written{wp}"


def _rows(survey: MirrorSurvey) -> Iterator[str]:
    copies = survey.copies
    marks = {}
    if survey.head is not None:
        marks[int(survey.head["offset_bytes"])] = "kernel's choice"
    if survey.newest is not None:
        offset = int(copies["offset_bytes"][survey.newest])
        marks[offset] = ", ".join(filter(None, [marks.get(offset), "newest valid"]))
    for offset in survey.unreadable["offset_bytes"].tolist():
        marks[offset] = ", ".join(filter(None, ["cannot be read", marks.get(offset)]))
    names = ("offset_bytes", "generation", "magic", "csum", "valid", "zero", "root", "chunk_root", "log_root")
    columns = zip(*(np.atleast_1d(copies[name]).tolist() for name in names), strict=True)
    for row, (offset, generation, magic, csum, valid, zero, root, chunk_root, log_root) in enumerate(columns):
        text = "zero" if zero else Magic(magic).text
        verdict = "yes" if valid else "no"
        roots = _ROOTS_TEXT[survey.roots_readable(row)]
        values = (offset, generation, text, _CSUM_TEXT[csum], verdict, root, chunk_root, log_root, roots)
        yield (_ROW % (*values, marks.get(offset, ""))).rstrip()


# -- one super block, in the field names of ``btrfs inspect-internal dump-super``

DONT_MATCH = "DON'T MATCH"
_DEPRECATED = frozenset({"log_root_transid", "leafsize"})


def full_lines(raw: bytes, device: str) -> Iterator[str]:
    """Lines of a full dump, backup roots and system chunk array included."""
    block = parse(raw)
    yield f"superblock: bytenr={block.bytenr}, device={device}"
    yield "-" * 57
    yield from _identity_lines(raw, block)
    for name in SHOWN_FIELDS:
        yield _line(f"{name} (deprecated)" if name in _DEPRECATED else name, getattr(block, name))
    yield _line("compat_flags", f"{block.compat_flags:#x}")
    yield from _flag_lines("compat_ro_flags", block.compat_ro_flags, COMPAT_RO_NAMES)
    yield from _flag_lines("incompat_flags", block.incompat_flags, INCOMPAT_NAMES)
    yield _line("cache_generation", block.cache_generation)
    yield _line("uuid_tree_generation", block.uuid_tree_generation)
    yield from _device_lines(block)
    yield "sys_chunk_array[2048]:"
    yield from _chunk_lines(block)
    yield "backup_roots[4]:"
    for number, backup in enumerate(block.backup_roots):
        yield from _backup_lines(number, backup)


def _csum_verdict(raw: bytes, block: SuperBlock) -> str:
    if block.csum_type not in ALGORITHMS:
        return "UNKNOWN CSUM TYPE OR SIZE"
    return "match" if csum_matches(raw, block.csum_type) else DONT_MATCH


def _line(name: str, value: object) -> str:
    tabs = "\t" * max(3 - len(name) // 8, 1)
    return f"{name}{tabs}{value}"


def _flag_lines(name: str, value: int, names: dict[int, str]) -> Iterator[str]:
    yield _line(name, f"{value:#x}")
    listed = bit_names(value, names)
    if listed:
        last = len(listed) - 1
        yield from (f"\t\t\t{'  ' if n else '( '}{flag}{' )' if n == last else ' |'}" for n, flag in enumerate(listed))


def _identity_lines(raw: bytes, block: SuperBlock) -> Iterator[str]:
    algorithm = ALGORITHMS.get(block.csum_type)
    size = algorithm.size if algorithm else CSUM_BYTES
    yield _line("csum_type", f"{block.csum_type} ({algorithm.name if algorithm else 'INVALID'})")
    yield _line("csum_size", size)
    yield _line("csum", f"0x{block.csum[:size].hex()} [{_csum_verdict(raw, block)}]")
    yield _line("bytenr", block.bytenr)
    yield from _flag_lines("flags", block.flags, FLAG_NAMES)
    yield _line("magic", f"{magic_text(block.magic)} [{'match' if block.magic == MAGIC else DONT_MATCH}]")
    yield _line("fsid", block.fsid)
    yield _line("metadata_uuid", metadata_uuid(block))
    yield _line("label", printable(block.label))


def _device_lines(block: SuperBlock) -> Iterator[str]:
    item = block.dev_item
    verdict = "match" if item.fsid == metadata_uuid(block) else DONT_MATCH
    yield _line("dev_item.uuid", item.uuid)
    yield _line("dev_item.fsid", f"{item.fsid} [{verdict}]")
    for name in SHOWN_DEVICE_FIELDS:
        yield _line(f"dev_item.{name}", getattr(item, name))


def _chunk_lines(block: SuperBlock) -> Iterator[str]:
    try:
        chunks = sys_chunks(block)
    except ChunkError as error:
        yield f"\tERROR: {error}"
        return
    for number, chunk in enumerate(chunks):
        yield f"\titem {number} key (FIRST_CHUNK_TREE CHUNK_ITEM {chunk.logical})"
        yield (
            f"\t\tlength {chunk.length_bytes} owner {chunk.owner} stripe_len {chunk.stripe_len} "
            f"type {chunk_type_text(chunk.type)}"
        )
        yield f"\t\tio_align {chunk.io_align} io_width {chunk.io_width} sector_size {chunk.sector_size}"
        yield f"\t\tnum_stripes {len(chunk.stripes)} sub_stripes {chunk.sub_stripes}"
        for index, stripe in enumerate(chunk.stripes):
            yield f"\t\t\tstripe {index} devid {stripe.devid} offset {stripe.offset_bytes}"
            yield f"\t\t\tdev_uuid {stripe.dev_uuid}"


def _backup_lines(number: int, backup: BackupRoot) -> Iterator[str]:
    yield f"\tbackup {number}:"
    for tree in BACKUP_TREES:
        name = {"csum_root": "csum_root:", "fs_root": "backup_fs_root:\t"}.get(tree, f"backup_{tree}:")
        level = getattr(backup, f"{tree}_level")
        yield f"\t\t{name}\t{getattr(backup, tree)}\tgen: {getattr(backup, f'{tree}_gen')}\tlevel: {level}"
    for name in ("total_bytes", "bytes_used", "num_devices"):
        yield f"\t\tbackup_{name}:\t{getattr(backup, name)}"
    yield ""


# -- the newest one, and going back


def latest_line(path: str, mirror: int, copy: CopyRow) -> str:
    """What the kernel takes for the newest super block."""
    validity = "valid" if copy["valid"] else "not valid"
    return f"{path}: mirror {mirror}: generation {copy['generation']} at byte {copy['offset_bytes']}, {validity}"


def rollback_line(paths: Sequence[str], generation: int, *, changed: bool) -> str:
    """Which super block is the newest now."""
    return f"{', '.join(paths)}: generation {generation} is the newest {'now' if changed else 'already'}"


# -- zones

_ZONE_ROW = "%7s %-13s %-13s %-11s %12s %12s %12s %12s %s"
_ZONE_HEADER = _ZONE_ROW % ("zone", "type", "condition", "owner", "written", "used", "unusable", "free", "")


def zone_lines(accounts: ZoneAccounts) -> Iterator[str]:
    """One line for each zone, in bytes, and totals for each device."""
    for device in accounts.devices:
        yield f"{device['device']}: device {device['devid']}, zones of {device['zone_size_bytes']} bytes"
        yield _ZONE_HEADER.rstrip()
        yield from (_zone_line(row) for row in device["zones"])
        yield _zone_totals(device)


def _zone_line(row: ZoneRow) -> str:
    numbers = [row["written_bytes"], row.get("used_bytes"), row.get("unusable_bytes"), row.get("free_bytes")]
    words = ["-" if number is None else number for number in numbers]
    note = f"mirror {row['mirror']}" if "mirror" in row else ""
    if "block_group" in row:
        note = f"block group {row['block_group']}, {row['kind']}, {row['profile']}, stripe {row['stripe']}"
    return (_ZONE_ROW % (row["zone"], row["type"], row["condition"], row["owner"], *words, note)).rstrip()


def _zone_totals(device: DeviceRow) -> str:
    zones = device["zones"]
    used = sum(row.get("used_bytes") or 0 for row in zones)
    unusable = sum(row.get("unusable_bytes") or 0 for row in zones)
    free = sum(row.get("free_bytes") or 0 for row in zones)
    owners = [row["owner"] for row in zones]
    limit = f" of {device['max_active_zones']}" if device["max_active_zones"] else ""
    return (
        f"in block groups {used} bytes used, {unusable} unusable, {free} free; {owners.count('orphan')} orphans, "
        f"{owners.count('free')} free zones; {device['active_zones']}{limit} zones active"
    )


# -- files


def list_document(tree: FileTree, found: Iterable[Found], unread: list[str]) -> dict[str, object]:
    """The fields of a ``zoned.btrfs.ls/1`` document, entries as JSON text; ``unread`` gets what could not be read."""
    facts = {"schema": BTRFS_LIST, "fsid": str(tree.block.fsid), "generation": tree.block.generation}
    return {**facts, "entries": elements(encode(btrfs_entry(one)) for one in _noting(found, unread))}


def file_lines(found: Iterable[Found], unread: list[str], *, details: bool) -> Iterator[str]:
    """Paths, one a line; with ``details`` as ``ls -l``, the time in UTC."""
    for one in _noting(found, unread):
        if one.inode is None and one.path.endswith(b"/"):
            continue
        yield _detailed(one) if details else shown_path(one.path)


def _noting(found: Iterable[Found], unread: list[str]) -> Iterator[Found]:
    for one in found:
        if one.reason:
            unread.append(f"{shown_path(one.path)}: {one.reason}")
        yield one


def _detailed(found: Found) -> str:
    from datetime import UTC, datetime, timedelta

    name = shown_path(found.path) + ("" if found.target is None else f" -> {shown_path(found.target)}")
    inode = found.inode
    if inode is None:
        return f"?????????? {'?':>3} {'?':>5} {'?':>5} {'?':>12} {'?':<16} {name}"
    try:
        time = f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=inode.mtime):%Y-%m-%d %H:%M}"
    except OverflowError:
        time = "?"
    mode = stat.filemode(inode.mode)
    return f"{mode} {inode.nlink:3} {inode.uid:5} {inode.gid:5} {inode.size:12} {time:<16} {name}"


def lost_lines(path: str, lost: Sequence[FilePiece]) -> Iterator[str]:
    """What of a file could not be read."""
    for piece in lost:
        yield f"{path}: lost {piece.length} bytes at byte {piece.offset}: {piece.reason}"


# -- extents

_EXTENT_ROW = "%14s %12s %-8s %-5s %16s %12s  %s"


def extent_lines(rows: Iterable[ExtentRow]) -> Iterator[str]:
    """One line an extent, in bytes, with its copies."""
    yield _EXTENT_ROW % ("file offset", "length", "kind", "comp", "logical", "on disk", "copies")
    for row in rows:
        copies = "; ".join(_copy_text(copy) for copy in row["copies"])
        numbers = ["-" if number is None else number for number in (row["logical_bytes"], row["disk_bytes"])]
        words = (row["file_offset_bytes"], row["length_bytes"], row["kind"], row["compression"], *numbers, copies)
        yield (_EXTENT_ROW % words).rstrip()


def _copy_text(copy: ExtentCopy) -> str:
    if copy["devid"] is None:
        return "in no chunk"
    zone = "" if copy["zone"] is None else f" zone {copy['zone']}"
    state = "" if copy["state"] == "ok" else f" {copy['state']}"
    return f"device {copy['devid']}{zone} byte {copy['physical_bytes']}{state}"


# -- what zones hold


def owner_lines(tree: FileTree, owners: Owners) -> Iterator[str]:
    """The zones, then trees, then files."""
    from zoned_tools.formats.btrfs.mapper.owners import zone_condition

    if not owners.zones:
        yield f"{tree.path}: no zone is offline"
        return
    for zone in owners.zones:
        yield f"device {zone.devid} zone {zone.zone}: {zone_condition(tree.zones[zone.devid], zone.zone)}"
    for found in owners.trees:
        name = TREE_NAMES.get(found.tree, f"subvolume {found.tree}" if found.tree > 0 else f"tree {found.tree}")
        yield f"{name}: {found.nodes} nodes, {found.alone} of them without a copy elsewhere"
    for file in owners.files:
        name = f"inode {file.ref.inode} of subvolume {file.ref.tree}" if file.path is None else shown_path(file.path)
        yield f"{name}: {file.bytes} bytes, {file.alone_bytes} of them without a copy elsewhere"
    if owners.unread:
        yield f"{owners.unread} nodes cannot be read: files below them are not listed"
