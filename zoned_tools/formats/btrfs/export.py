"""The newest super block as raw bytes."""

from __future__ import annotations

from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.filesystem import open_file_system
from zoned_tools.formats.registry import Target


def export(target: Target) -> bytes:
    """The 4096 bytes of the newest valid super block of the first device that has one.

    Raises:
        MetadataError: there is none.
    """
    fs = open_file_system(target)
    for survey in fs.surveys:
        best = survey.best
        if best is not None:
            return survey.block(best[1])
    raise MetadataError("no valid btrfs super block", device=target.device.path)
