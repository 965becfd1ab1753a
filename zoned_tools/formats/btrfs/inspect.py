"""The decoded metadata as a tree: the rings, and the newest super block of every device."""

from __future__ import annotations

from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.describe import as_tree
from zoned_tools.formats.btrfs.filesystem import open_file_system
from zoned_tools.formats.btrfs.supers import ring_as_json
from zoned_tools.formats.btrfs.survey import DeviceSurvey
from zoned_tools.formats.registry import Target


def inspect(target: Target) -> dict[str, object]:
    """The rings without their single copies, and the newest valid super block in full.

    Raises:
        MetadataError: nothing that looks like btrfs is there.
    """
    fs = open_file_system(target)
    members = [_device(survey) for survey in fs.surveys]
    if all(not survey.placement.mirrors for survey in fs.surveys):
        raise MetadataError("too small for a btrfs super block", device=target.device.path)
    newest = fs.newest
    return {
        "layout": "btrfs",
        "fsid": None if newest is None else str(newest.fsid),
        "generation": None if newest is None else newest.generation,
        "members": members,
    }


def _device(survey: DeviceSurvey) -> dict[str, object]:
    rings = []
    for mirror in survey.mirrors:
        ring = ring_as_json(mirror)
        ring["copies"] = len(mirror.copies)
        ring["valid_copies"] = int(mirror.copies["valid"].sum())
        rings.append(ring)
    best = survey.best
    return {
        "device": survey.device.path,
        "model": str(survey.device.geometry.model),
        "raw_copy_of_zoned_drive": survey.placement.derived,
        "zone_size_bytes": survey.placement.zone_bytes or None,
        "rings": rings,
        "super_block": None if best is None else as_tree(survey.block(best[1])),
    }
