"""Documents of the clones: ``zoned.dmzadm.format``, ``zoned.zdmadm``, ``zoned.mkzonefs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.format import FormatResult
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.open import Volume
    from zoned_tools.report.documents.targets import CheckedRow


class DmzadmFormatDocument(TypedDict):
    """``zoned.dmzadm.format/1``; ``primary_block`` and ``secondary_block`` are the super blocks' places."""

    schema: Literal["zoned.dmzadm.format/1"]
    changed: bool
    devices: list[str]
    metadata_version: int
    label: str
    uuid: str
    device_uuids: list[str]
    nr_meta_blocks: int
    nr_reserved_seq: int
    nr_chunks: int
    nr_map_blocks: int
    nr_bitmap_blocks: int
    primary_block: int
    secondary_block: int
    warnings: list[str]
    plan: list[str]


def dmzadm_format_document(target: Target, result: FormatResult, *, changed: bool) -> DmzadmFormatDocument:
    """A new dm-zoned target."""
    layout = result.layout
    return {
        "schema": "zoned.dmzadm.format/1",
        "changed": changed,
        "devices": list(target.paths),
        "metadata_version": result.version,
        "label": result.label,
        "uuid": str(result.dmz_uuid),
        "device_uuids": [str(u) for u in result.device_uuids],
        "nr_meta_blocks": layout.nr_meta_blocks,
        "nr_reserved_seq": layout.nr_reserved_seq,
        "nr_chunks": layout.nr_chunks,
        "nr_map_blocks": layout.nr_map_blocks,
        "nr_bitmap_blocks": layout.nr_bitmap_blocks,
        "primary_block": layout.set_block(0),
        "secondary_block": layout.set_block(1),
        "warnings": list(result.warnings),
        "plan": list(result.plan.describe(target.paths)),
    }


class ZdmadmFacts(TypedDict, total=False):
    """What verbs of zdmadm add to their document.

    ``identity`` is the super block as in ``zoned inspect``; ``commands`` are what a user could run instead; ``error``
    is why one of several devices failed.
    """

    changed: bool
    plan: list[str]
    identity: dict[str, object]
    name: str
    table: str
    messages: list[str]
    commands: list[str]
    started: bool
    error: str


class ZdmadmDocument(ZdmadmFacts):
    """``zoned.zdmadm/1``."""

    schema: Literal["zoned.zdmadm/1"]
    operation: str
    device: str


def zdmadm_document(verb: str, device: str) -> ZdmadmDocument:
    """A run of zdmadm that has changed nothing yet."""
    return {"schema": "zoned.zdmadm/1", "operation": verb, "device": device, "changed": False}


class ZdmadmDevices(TypedDict):
    """``zoned.zdmadm/1`` of several devices."""

    schema: Literal["zoned.zdmadm/1"]
    operation: str
    devices: list[ZdmadmDocument | CheckedRow]


def zdmadm_devices(verb: str, devices: list[ZdmadmDocument | CheckedRow]) -> ZdmadmDevices:
    """A run of zdmadm over several devices, one document each."""
    return {"schema": "zoned.zdmadm/1", "operation": verb, "devices": devices}


class MkzonefsDocument(TypedDict):
    """``zoned.mkzonefs/1``; ``files`` counts those of each directory."""

    schema: Literal["zoned.mkzonefs/1"]
    device: str
    changed: bool
    uuid: str
    label: str
    features: list[str]
    uid: int
    gid: int
    perm: str
    nr_zones: int
    usable_zones: int
    files: dict[str, int]
    plan: list[str]


def mkzonefs_document(volume: Volume, block: SuperBlock, plan: Plan, *, changed: bool) -> MkzonefsDocument:
    """A new zonefs volume."""
    from zoned_tools.device.zones import ZoneCondition, has_condition
    from zoned_tools.formats.zonefs.constants import feature_names
    from zoned_tools.formats.zonefs.mapper.tree import build_groups

    table: ZoneTable = volume.table
    offline = int(has_condition(table, ZoneCondition.OFFLINE).sum())
    return {
        "schema": "zoned.mkzonefs/1",
        "device": volume.device.path,
        "changed": changed,
        "uuid": str(block.uuid),
        "label": block.label_text,
        "features": feature_names(block.features),
        "uid": block.uid,
        "gid": block.gid,
        "perm": f"{block.perm:o}",
        "nr_zones": len(table),
        "usable_zones": len(table) - offline - 1,
        "files": {name: len(group) for name, group in build_groups(volume, block).items()},
        "plan": list(plan.describe([volume.device.path])),
    }
