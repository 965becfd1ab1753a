"""The super block as a document, and back; the files are in the zones and stay there."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import DEAD_CONDITIONS, has_condition, is_conventional
from zoned_tools.errors import MetadataError
from zoned_tools.formats.registry import Target
from zoned_tools.formats.zonefs import layout
from zoned_tools.formats.zonefs.constants import LABEL_BYTES
from zoned_tools.formats.zonefs.format import plan_super_block
from zoned_tools.formats.zonefs.inspect import inspect
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.volume import load_super_block, target_volume

VERSION = 1
_NUMBERS = {"features": 64, "uid": 32, "gid": 32, "perm": 32}
"""Fields and their bits."""


def dump(target: Target) -> dict[str, object]:
    """The parameters of a volume that a kernel mounts, and what :func:`inspect` tells.

    Raises:
        MetadataError: there is no such super block.
        GeometryError: not a zoned device.
    """
    block = load_super_block(target_volume(target))
    fields: dict[str, object] = {"label": block.label, "uuid": str(block.uuid)}
    fields |= {name: getattr(block, name) for name in _NUMBERS}
    return {"zonefs_dump_version": VERSION, "super_block": fields, "metadata": inspect(target)}


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Write the super block of a dump; nothing else is touched.

    Raises:
        MetadataError: the document is damaged, a kernel would refuse its super block, or zone 0
            cannot be written.
    """
    volume = target_volume(target)
    path = volume.device.path
    block = _block_of(document, path)
    fault = next(layout.mount_faults(block.encode()), None)
    if fault is not None:
        raise MetadataError(f"the dump's super block would not mount: {fault.message}", device=path)
    if has_condition(volume.table[:1], *DEAD_CONDITIONS)[0]:
        raise MetadataError("zone 0 cannot be written", device=path)
    plan = Plan("restore the zonefs super block")
    conventional = bool(is_conventional(volume.table[:1])[0])
    if not conventional:
        plan.manage(0, ZoneOperation.RESET, 0, note="only the super block is in this zone")
    plan_super_block(plan, volume.device, block, conventional=conventional)
    return plan


def _block_of(document: Mapping[str, object], path: str) -> SuperBlock:
    fields = document.get("super_block")
    damaged = MetadataError("not a dump of a zonefs super block", device=path)
    if document.get("zonefs_dump_version") != VERSION or not isinstance(fields, Mapping):
        raise damaged
    numbers: dict[str, int] = {}
    for name, bits in _NUMBERS.items():
        value = fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise damaged
        numbers[name] = value
    try:
        label = str(fields["label"]).encode("utf-8", "surrogateescape")
        identifier = uuid.UUID(str(fields["uuid"]))
    except (KeyError, ValueError):
        raise damaged from None
    if len(label) > LABEL_BYTES:
        raise damaged
    return SuperBlock(
        label_bytes=label,
        uuid=identifier,
        features=numbers["features"],
        uid=numbers["uid"],
        gid=numbers["gid"],
        perm=numbers["perm"],
    )
