"""Is there an inplace-compress volume? Its sizes may be damaged; check tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import Identity
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.judge import series_of
from zoned_tools.formats.inplace_compress.open import is_old_series, read_super_block

if TYPE_CHECKING:
    from zoned_tools.device.base import Device

VERSION_1 = "2013"
"""The version of volumes of the first series."""


def probe(device: Device, start_bytes: int) -> Identity | None:
    """The volume whose magic is at ``start_bytes``, None when there is none.

    The format has neither UUID nor label nor version; the version is a guess at the
    driver's series from the sizes.
    """
    try:
        super_block = read_super_block(device, start_bytes)
        if super_block is None or super_block.magic != layout.MAGIC:
            return None
        old = is_old_series(device, start_bytes)
    except DeviceError:  # unreadable: nothing to see
        return None
    size_bytes = device.geometry.size_bytes - start_bytes
    version = VERSION_1 if old else series_of(super_block, size_bytes)
    return Identity(layout.NAME, version=version, start_bytes=start_bytes)
