"""The super block field by field, and the figures of the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.zonefs.constants import KNOWN_FEATURES, Feature, feature_names
from zoned_tools.formats.zonefs.judge import mount_faults
from zoned_tools.formats.zonefs.layout import MAGIC, SuperBlock, checksum
from zoned_tools.formats.zonefs.mapper.tree import build_groups, make_statfs
from zoned_tools.formats.zonefs.open import Volume, open_volume

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target


def inspect(target: Target) -> dict[str, object]:
    """Every field with its meaning, what a kernel would make of it, and the files that there are.

    Raises:
        GeometryError: not a zoned device.
    """
    volume = open_volume(target)
    try:
        raw = volume.read_super_block()
    except DeviceError as error:
        return {
            "super_block": {"unreadable": _field(None, error.message)},
            "mountable": False,
            "faults": [f"the super block cannot be read: {error.message}"],
            "files": _files(volume, SuperBlock()),
        }
    block = SuperBlock.parse(raw)
    faults = [fault.message for fault in mount_faults(raw)]
    return {
        "super_block": _fields(raw, block),
        "mountable": not faults,
        "faults": faults,
        "files": _files(volume, block),
    }


def _field(value: object, meaning: str) -> dict[str, object]:
    return {"value": value, "meaning": meaning}


def _fields(raw: bytes, block: SuperBlock) -> dict[str, object]:
    fits = block.crc == checksum(raw)
    known = feature_names(block.features)
    unknown = block.features & ~KNOWN_FEATURES
    names = ", ".join([*known, f"unknown bits {unknown:#x}"] if unknown else known)
    used = sum(byte != 0 for byte in block.reserved)
    return {
        "magic": _field(f"{block.magic:#010x}", "right" if block.magic == MAGIC else "wrong"),
        "crc": _field(f"{block.crc:#010x}", "right" if fits else f"should be {checksum(raw):#010x}"),
        "label": block.label_text,
        "uuid": str(block.uuid),
        "features": _field(f"{block.features:#x}", names or "none"),
        "uid": _field(block.uid, _use(block, Feature.UID, "owner of the files", block.file_uid)),
        "gid": _field(block.gid, _use(block, Feature.GID, "group of the files", block.file_gid)),
        "perm": _field(f"{block.perm:o}", _use(block, Feature.PERM, "mode of the files", f"{block.file_perm:o}")),
        "reserved": _field(f"{len(block.reserved)} bytes", f"{used} not zero" if used else "all zero"),
    }


def _use(block: SuperBlock, feature: Feature, what: str, effective: object) -> str:
    return what if block.features & feature else f"not used, {what}: {effective}"


def _files(volume: Volume, block: SuperBlock) -> dict[str, object]:
    groups = build_groups(volume, block)
    figures: dict[str, object] = {
        name: {
            "files": len(group),
            "capacity_bytes": int(group.capacity_bytes.sum()),
            "size_bytes": int(group.size_bytes.sum()),
            "inaccessible": int(group.dead.sum()),
        }
        for name, group in groups.items()
    }
    figures["statfs"] = make_statfs(volume, block, groups).as_json()
    return figures
