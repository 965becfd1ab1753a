"""Where the metadata of a volume are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.formats.zonefs.layout import SUPER_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Target


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of the super block, all that is not in the zone table."""
    yield 0, target.start_bytes, SUPER_BLOCK_BYTES
