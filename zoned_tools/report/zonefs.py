"""What ``zoned zonefs`` prints; whole trees are built column by column: a large drive has 75,000 files."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from zoned_tools.device.zones import SECTOR_BYTES, condition_name
from zoned_tools.report.documents.zonefs import ZONEFS_LIST, zonefs_entry
from zoned_tools.report.stream import elements, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.formats.zonefs.mapper.files import Stat
    from zoned_tools.formats.zonefs.mapper.open import ZonefsTree
    from zoned_tools.formats.zonefs.mapper.tree import FileGroup
    from zoned_tools.formats.zonefs.transfer import Put


def _groups(tree: ZonefsTree, path: str) -> tuple[list[str], list[FileGroup]]:
    """The directories at and below ``path``, and the groups whose files are listed."""
    name = path.strip("/")
    if not name:
        return ["/", *(f"/{group}" for group in tree.groups)], list(tree.groups.values())
    return [f"/{name}"], [tree.groups[name]]


def _columns(group: FileGroup) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """``(zone, zones, size, capacity, condition, mode, index)`` of each file."""
    return zip(
        group.zone.tolist(),
        group.zone_count.tolist(),
        group.size_bytes.tolist(),
        group.capacity_bytes.tolist(),
        group.condition.tolist(),
        group.mode.tolist(),
        range(len(group)),
        strict=True,
    )


def list_document(tree: ZonefsTree, path: str) -> dict[str, object]:
    """The fields of a ``zoned.zonefs.ls/1`` document, the entries as JSON text, a line each.

    Raises:
        FileError: there is no such path.
    """
    found = tree.stat(path)
    entries = _entries_json(tree, path) if found.is_directory else iter([encode(zonefs_entry(found))])
    return {"schema": ZONEFS_LIST, "entries": elements(entries), "statfs": tree.statfs().as_json()}


def _entries_json(tree: ZonefsTree, path: str) -> Iterator[str]:
    directories, groups = _groups(tree, path)
    for directory in directories:
        yield encode(zonefs_entry(tree.stat(directory)))
        for group in groups:
            if directory == f"/{group.name}":
                yield from _file_json(tree, group)


def _file_json(tree: ZonefsTree, group: FileGroup) -> Iterator[str]:
    uid, gid = tree.super_block.file_uid, tree.super_block.file_gid
    template = (
        f'{{"path": "/{group.name}/%d", "type": "file", "ino": %d, "size_bytes": %d, "capacity_bytes": %d,'
        f' "blocks": %d, "block_bytes": {tree.volume.block_bytes}, "mode": "%o", "uid": {uid}, "gid": {gid},'
        ' "nlink": 1, "zone": %d, "zones": %d, "condition": "%s", "st_mode": "%o"}'
    )
    names = {code: condition_name(code) for code in set(group.condition.tolist())}
    for zone, zones, size, capacity, condition, mode, index in _columns(group):
        blocks, imode = capacity // SECTOR_BYTES, mode & 0o7777
        yield template % (index, zone, size, capacity, blocks, imode, zone, zones, names[condition], mode)


def text_lines(tree: ZonefsTree, path: str, *, details: bool) -> Iterator[str]:
    """Paths at and below ``path``, one a line; with ``details`` as ``ls -l`` plus zone and condition.

    Raises:
        FileError: there is no such path.
    """
    found = tree.stat(path)
    if not found.is_directory:
        yield _detailed(found) if details else found.path
        return
    directories, groups = _groups(tree, path)
    width = max((len(str(int(group.capacity_bytes.max()))) for group in groups), default=1)
    if details:
        yield f"total {sum(int(group.capacity_bytes.sum()) for group in groups) // 1024}"
    below_root = len(directories) > 1
    for directory in directories[1:] if below_root else directories:
        if below_root:
            yield _detailed(tree.stat(directory), width) if details else directory
        group = tree.groups[directory[1:]]
        yield from _detailed_files(tree, group, width) if details else (f"{directory}/{i}" for i in range(len(group)))


def _detailed(entry: Stat, width: int = 1) -> str:
    line = f"{stat.filemode(entry.mode)} {entry.nlink} {entry.uid:5} {entry.gid:5} {entry.size_bytes:{width}}"
    if entry.zone is None or entry.condition is None:
        return f"{line} {'-':>6} {'-':<13} {entry.path}"
    return f"{line} {entry.zone:6} {condition_name(entry.condition):<13} {entry.path}"


def _detailed_files(tree: ZonefsTree, group: FileGroup, width: int) -> Iterator[str]:
    uid, gid = tree.super_block.file_uid, tree.super_block.file_gid
    template = f"%s 1 {uid:5} {gid:5} %{width}d %6d %-13s /{group.name}/%d"
    modes = {mode: stat.filemode(mode) for mode in set(group.mode.tolist())}
    names = {code: condition_name(code) for code in set(group.condition.tolist())}
    for zone, _, size, _, condition, mode, index in _columns(group):
        yield template % (modes[mode], size, zone, names[condition], index)


# -- changes


def put_line(device: str, put: Put) -> str:
    """What a write would do."""
    return f"{device}: would {put.describe()}"


def truncate_line(device: str, path: str, sizes_bytes: tuple[int, int]) -> str:
    """What a truncation would do; the size before and after it."""
    return f"{device}: would truncate {path} from {sizes_bytes[0]} to {sizes_bytes[1]} bytes"


def lost_lines(device: str, path: str, lost: Iterable[tuple[int, int, str]]) -> Iterator[str]:
    """``(start, end, status)`` bytes of a file that could not be read."""
    for start, end, _ in lost:
        yield f"{device}: {path}: lost {end - start} bytes at byte {start}"
