"""Documents of ``zoned dm-zoned``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from zoned_tools.formats.dm_zoned.attach import Regrouped
    from zoned_tools.formats.dm_zoned.figures import Usage
    from zoned_tools.formats.dm_zoned.free import Freed


class FreeZones(TypedDict):
    """Zones that no chunk names, by the kernel's kinds; sequential ones without the reserve."""

    cache: int
    random: int
    sequential: int
    reserved: int


class DmZonedFreeDocument(TypedDict):
    """``zoned.dm-zoned.free/1``: chunks that lose their zones, and the sequential zones that are reset."""

    schema: Literal["zoned.dm-zoned.free/1"]
    devices: list[str]
    changed: bool
    chunks: list[int]
    zones_reset: list[int]
    moved_bytes: int
    chunks_left: int
    free_before: FreeZones
    free_after: FreeZones


def free_document(paths: tuple[str, ...], freed: Freed, after: Usage, *, changed: bool) -> DmZonedFreeDocument:
    """What was freed, or would be."""
    from zoned_tools.formats.dm_zoned.layout import BLOCK_BYTES

    return {
        "schema": "zoned.dm-zoned.free/1",
        "devices": list(paths),
        "changed": changed,
        "chunks": freed.chunks,
        "zones_reset": freed.zones_reset,
        "moved_bytes": freed.moved_blocks * BLOCK_BYTES,
        "chunks_left": freed.left,
        "free_before": _free(freed.before),
        "free_after": _free(after),
    }


def _free(usage: Usage) -> FreeZones:
    free = {kind.name: row.free for kind, row in usage.kinds.items()}
    return {
        "cache": free["CACHE"],
        "random": free["RANDOM"],
        "sequential": free["SEQUENTIAL"],
        "reserved": usage.reserved,
    }


class RegroupingStep(TypedDict):
    """A part of a change that is durable before the next one begins."""

    device: str
    what: str


class RegroupedDocument(TypedDict):
    """A target on other devices than before; ``zone_shift`` is added to every zone id."""

    devices: list[str]
    label: str
    uuid: str
    nr_chunks: int
    zone_shift: int
    copied_bytes: int
    metadata_bytes: int
    steps: list[RegroupingStep]


class DmZonedAttachDocument(RegroupedDocument):
    """``zoned.dm-zoned.attach/1``."""

    schema: Literal["zoned.dm-zoned.attach/1"]


class DmZonedDetachDocument(RegroupedDocument):
    """``zoned.dm-zoned.detach/1``."""

    schema: Literal["zoned.dm-zoned.detach/1"]


def attach_document(paths: tuple[str, ...], attached: Regrouped) -> DmZonedAttachDocument:
    """What was attached, or would be."""
    return {"schema": "zoned.dm-zoned.attach/1", **_regrouped(paths, attached)}


def detach_document(paths: tuple[str, ...], detached: Regrouped) -> DmZonedDetachDocument:
    """What was detached, or would be."""
    return {"schema": "zoned.dm-zoned.detach/1", **_regrouped(paths, detached)}


def _regrouped(paths: tuple[str, ...], result: Regrouped) -> RegroupedDocument:
    return {
        "devices": list(paths),
        "label": result.superblock.label,
        "uuid": str(result.superblock.dmz_uuid),
        "nr_chunks": result.superblock.nr_chunks,
        "zone_shift": result.zone_shift,
        "copied_bytes": result.copied_bytes,
        "metadata_bytes": result.metadata_bytes,
        "steps": [{"device": paths[device], "what": what} for device, what in result.steps],
    }
