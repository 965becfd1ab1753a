"""What ``zoned dm-zoned`` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.report.documents.dm_zoned import DmZonedFreeDocument, FreeZones, RegroupedDocument


def free_lines(document: DmZonedFreeDocument) -> Iterator[str]:
    """``disk.img: 2 chunks unmapped, 2 zones reset; free: 2 random, 29 -> 31 sequential``."""
    name = ", ".join(document["devices"])
    parts = [f"{_count(len(document['chunks']), 'chunk')} unmapped"]
    if document["moved_bytes"]:
        parts.append(f"{format_size(document['moved_bytes'])} moved")
    parts.append(f"{_count(len(document['zones_reset']), 'zone')} reset")
    yield f"{name}: {', '.join(parts)}; free: {_free(document['free_before'], document['free_after'])}"


def attach_line(document: RegroupedDocument) -> str:
    """``cache.img, disk.img: dm-zoned 'pub-a' has its metadata and buffers on cache.img now (140 KiB copied)``."""
    cache, _ = document["devices"]
    return f"{_regrouped(document)} is on both devices now, metadata and buffers on {cache} ({_copied(document)})"


def detach_line(document: RegroupedDocument) -> str:
    """``cache.img, disk.img: dm-zoned 'pub-a' is on disk.img alone now (3.0 MiB copied)``."""
    cache, drive = document["devices"]
    return f"{_regrouped(document)} is on {drive} alone now, {cache} is not used any more ({_copied(document)})"


def _regrouped(document: RegroupedDocument) -> str:
    return f"{', '.join(document['devices'])}: dm-zoned {document['label']!r}"


def _copied(document: RegroupedDocument) -> str:
    return f"{format_size(document['copied_bytes'])} of data copied"


def _free(before: FreeZones, after: FreeZones) -> str:
    rows = (
        (before["cache"], after["cache"], "cache"),
        (before["random"], after["random"], "random"),
        (before["sequential"], after["sequential"], "sequential"),
    )
    return ", ".join(f"{old if old == new else f'{old} -> {new}'} {kind}" for old, new, kind in rows if old or new)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
