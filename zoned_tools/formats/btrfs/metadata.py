"""Where the metadata of a file system are, on each of its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.chunks import ChunkError
from zoned_tools.formats.btrfs.layout import mirrors_on
from zoned_tools.formats.btrfs.roles import is_metadata
from zoned_tools.formats.btrfs.survey import survey_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.survey import FileSystem
    from zoned_tools.formats.contract import Target


def metadata(target: Target) -> Iterator[tuple[int, int, int]]:
    """``(device, first byte, bytes)`` of the zones of super blocks and of system and metadata block groups.

    Zones are those of the drive, or of a raw copy as the super blocks tell them.

    Raises:
        MetadataError: a device is not zoned.
    """
    fs = survey_file_system(target)
    places = _places(fs)
    usual = max(survey.placement.zone_bytes for survey in fs.surveys)
    told = {own.dev_item.devid for own in fs.supers if own is not None}
    for index, (survey, own) in enumerate(zip(fs.surveys, fs.supers, strict=True)):
        zone_bytes, size = survey.placement.zone_bytes or usual, survey.device.geometry.size_bytes
        if not zone_bytes:
            raise MetadataError("not zoned: its metadata are not in zones of their own", device=survey.device.path)
        # A device without a super block could be any of those that no other one is.
        mine = [at for devid, at in places if (devid == own.dev_item.devid if own is not None else devid not in told)]
        zones = {first + part for _, first in mirrors_on(-(-size // zone_bytes), zone_bytes) for part in (0, 1)}
        zones.update((target.start_bytes + at) // zone_bytes for at in mine if target.start_bytes + at < size)
        for first, end in runs(np.array(sorted(zones), np.int64)):
            yield index, first * zone_bytes, min(end * zone_bytes, size) - first * zone_bytes


def _places(fs: FileSystem) -> list[tuple[int, int]]:
    """``(devid, first byte)`` of the stripes of system and metadata chunks; none where no super block is valid."""
    newest = fs.newest
    if newest is None:
        return []
    try:
        chunks = fs.reader.known_chunks(newest)
    except ChunkError:
        return []
    return [(s.devid, s.offset_bytes) for chunk in chunks if is_metadata(chunk) for s in chunk.stripes]
