"""Documents of ``zoned zonefs``; the listing is streamed by :mod:`zoned_tools.report.zonefs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

from zoned_tools.formats.zonefs.mapper.tree import StatFsRow

if TYPE_CHECKING:
    from zoned_tools.engine.changing import Carried
    from zoned_tools.formats.zonefs.mapper.files import Stat
    from zoned_tools.formats.zonefs.mapper.open import ZonefsTree
    from zoned_tools.formats.zonefs.transfer import Put


ZONEFS_LIST: Final = "zoned.zonefs.ls/1"


class ZonefsEntry(TypedDict):
    """A file or directory, as in ``zoned.zonefs.ls/1``; null where a directory has no zone."""

    path: str
    type: Literal["file", "dir"]
    ino: int
    size_bytes: int
    capacity_bytes: int | None
    blocks: int
    block_bytes: int
    mode: str
    uid: int
    gid: int
    nlink: int
    zone: int | None
    zones: int
    condition: str | None
    st_mode: str


class ZonefsListDocument(TypedDict):
    """``zoned.zonefs.ls/1``; ``statfs`` as in ``zoned.zonefs.statfs/1``."""

    schema: Literal["zoned.zonefs.ls/1"]
    entries: list[ZonefsEntry]
    statfs: StatFsRow


class ZonefsStatDocument(ZonefsEntry):
    """``zoned.zonefs.stat/1``: an entry by itself."""

    schema: Literal["zoned.zonefs.stat/1"]


def zonefs_entry(entry: Stat) -> ZonefsEntry:
    """One file or directory."""
    import stat

    from zoned_tools.device.zones import condition_name

    return {
        "path": entry.path,
        "type": "dir" if entry.is_directory else "file",
        "ino": entry.ino,
        "size_bytes": entry.size_bytes,
        "capacity_bytes": entry.capacity_bytes,
        "blocks": entry.blocks,
        "block_bytes": entry.block_bytes,
        "mode": f"{stat.S_IMODE(entry.mode):o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "nlink": entry.nlink,
        "zone": entry.zone,
        "zones": entry.zone_count,
        "condition": None if entry.condition is None else condition_name(entry.condition),
        "st_mode": f"{entry.mode:o}",
    }


def zonefs_stat_document(entry: ZonefsEntry) -> ZonefsStatDocument:
    """What stat(2) shows."""
    return {"schema": "zoned.zonefs.stat/1", **entry}


class ZonefsFigures(StatFsRow):
    """What statfs(2) shows of a volume, and the counters of sysfs."""

    attributes: dict[str, int]


class ZonefsStatFsDocument(ZonefsFigures):
    """``zoned.zonefs.statfs/1``."""

    schema: Literal["zoned.zonefs.statfs/1"]


def zonefs_figures(tree: ZonefsTree) -> ZonefsFigures:
    """The figures of a volume."""
    return {**tree.statfs().as_json(), "attributes": tree.attributes()}


def zonefs_statfs_document(figures: ZonefsFigures) -> ZonefsStatFsDocument:
    """What statfs(2) shows."""
    return {"schema": "zoned.zonefs.statfs/1", **figures}


class ZonefsPutDocument(TypedDict):
    """``zoned.zonefs.put/1``; the length includes padding."""

    schema: Literal["zoned.zonefs.put/1"]
    changed: bool
    path: str
    offset_bytes: int
    length_bytes: int


class ZonefsTruncateDocument(TypedDict):
    """``zoned.zonefs.truncate/1``; ``undo`` is the undo file, null without one."""

    schema: Literal["zoned.zonefs.truncate/1"]
    changed: bool
    path: str
    size_bytes: int
    new_size_bytes: int
    undo: str | None


def zonefs_truncate_document(path: str, sizes_bytes: tuple[int, int], carried: Carried) -> ZonefsTruncateDocument:
    """A truncation; the size before and after it."""
    return {
        "schema": "zoned.zonefs.truncate/1",
        "changed": carried.changed,
        "path": path,
        "size_bytes": sizes_bytes[0],
        "new_size_bytes": sizes_bytes[1],
        "undo": carried.undo_path or None,
    }


def zonefs_put_document(put: Put, *, changed: bool) -> ZonefsPutDocument:
    """A write to a file."""
    return {
        "schema": "zoned.zonefs.put/1",
        "changed": changed,
        "path": put.ref.path,
        "offset_bytes": put.offset_bytes,
        "length_bytes": put.length_bytes + put.padding_bytes,
    }
