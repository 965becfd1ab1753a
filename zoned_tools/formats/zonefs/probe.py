"""Is there a zonefs volume? Its super block may be damaged; check tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import Identity
from zoned_tools.formats.zonefs.constants import NAME
from zoned_tools.formats.zonefs.judge import recognise
from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES

if TYPE_CHECKING:
    from zoned_tools.device.base import Device


def probe(device: Device, start_bytes: int) -> Identity | None:
    """The volume whose super block is at ``start_bytes``, None when there is none."""
    if start_bytes + SUPER_BLOCK_BYTES > device.geometry.size_bytes:
        return None
    try:
        block = recognise(device.read(start_bytes, SUPER_BLOCK_BYTES))
    except DeviceError:  # zone 0 is offline: nothing to see
        return None
    if block is None:
        return None
    identifier = "" if block.uuid == NIL_UUID else str(block.uuid)
    label = block.label_text
    return Identity(NAME, uuid=identifier, label=label, start_bytes=start_bytes)
