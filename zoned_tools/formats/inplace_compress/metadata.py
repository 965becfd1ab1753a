"""Where the metadata of a volume are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.inplace_compress.open import open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Target


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of the super block and the bitmap.

    Raises:
        MetadataError: there is no volume.
    """
    volume = open_volume(target.device, target.start_bytes)
    yield 0, volume.start_bytes, volume.data_offset_bytes - volume.start_bytes
