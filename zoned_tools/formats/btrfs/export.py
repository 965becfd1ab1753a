"""The newest super block as raw bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.survey import survey_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Piece, Target


def export(target: Target) -> Iterator[Piece]:
    """The 4096 bytes of the newest valid super block of the first device that has one.

    Raises:
        MetadataError: there is none.
    """
    for survey in survey_file_system(target).surveys:
        best = survey.best
        if best is not None:
            block = survey.block(best[1])
            return iter([(len(block), block)])
    raise MetadataError("no valid btrfs super block", device=target.device.path)
