"""The super block as a document, and back; the files are in the zones and stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.device.zones import DEAD_CONDITIONS, has_condition
from zoned_tools.errors import MetadataError
from zoned_tools.formats.shared.documents import DocumentPart
from zoned_tools.formats.zonefs.constants import LABEL_BYTES
from zoned_tools.formats.zonefs.inspect import inspect
from zoned_tools.formats.zonefs.judge import UnreadableSuperBlockError, load_super_block, mount_faults
from zoned_tools.formats.zonefs.layout import SuperBlock
from zoned_tools.formats.zonefs.open import open_volume
from zoned_tools.formats.zonefs.repair_writes import rewrite_super_block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.formats.contract import Target

VERSION = 1
VERSION_KEY = "dump_version"
_OLD_VERSION_KEY = "zonefs_dump_version"
"""In documents of releases up to 0.1."""


def dump(target: Target) -> dict[str, object]:
    """The parameters of a volume that a kernel mounts (null where they cannot be read), and what :func:`inspect` tells.

    Raises:
        MetadataError: there is no such super block.
        GeometryError: not a zoned device.
    """
    try:
        block = load_super_block(open_volume(target))
    except UnreadableSuperBlockError:
        return {VERSION_KEY: VERSION, "super_block": None, "metadata": inspect(target)}
    fields: dict[str, object] = {
        "label": block.label,
        "uuid": str(block.uuid),
        "features": block.features,
        "uid": block.uid,
        "gid": block.gid,
        "perm": block.perm,
    }
    tail = block.label_bytes[len(block.label.encode("utf-8", "surrogateescape")) :]
    if any(tail):
        fields["label_tail"] = tail.hex()
    return {VERSION_KEY: VERSION, "super_block": fields, "metadata": inspect(target)}


def restore(target: Target, document: Mapping[str, object]) -> Plan:
    """Write the super block of a dump; nothing else is touched.

    Raises:
        MetadataError: the document is damaged, a kernel would refuse its super block, or zone 0
            cannot be written.
    """
    volume = open_volume(target)
    path = volume.device.path
    block = _block_of(DocumentPart.of(document, path))
    fault = next(mount_faults(block.pack()), None)
    if fault is not None:
        raise MetadataError(f"the dump's super block would not mount: {fault.message}", device=path)
    if has_condition(volume.table[:1], *DEAD_CONDITIONS)[0]:
        raise MetadataError("zone 0 cannot be written", device=path)
    plan = Plan("restore the zonefs super block")
    rewrite_super_block(plan, volume, block)
    return plan


def _block_of(document: DocumentPart) -> SuperBlock:
    document.require_version(VERSION_KEY if document.has(VERSION_KEY) else _OLD_VERSION_KEY, VERSION)
    fields = document.part("super_block")
    label = fields.text("label", LABEL_BYTES).encode("utf-8", "surrogateescape")
    if fields.has("label_tail"):  # bytes behind the first NUL
        label += fields.hex_bytes("label_tail", LABEL_BYTES - len(label))
    return SuperBlock(
        label_bytes=label,
        uuid=fields.uuid("uuid"),
        features=fields.number("features", 1 << 64),
        uid=fields.number("uid", 1 << 32),
        gid=fields.number("gid", 1 << 32),
        perm=fields.number("perm", 1 << 32),
    )
