"""A whole file system: the surveys of its devices, and the trees they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoned_tools.device.base import Device
from zoned_tools.formats.btrfs.checksum import seal
from zoned_tools.formats.btrfs.layout import SUPER_BLOCK_OFFSETS
from zoned_tools.formats.btrfs.ring import older_zone, smallest_generations
from zoned_tools.formats.btrfs.survey import DeviceSurvey, MirrorSurvey, survey_device
from zoned_tools.formats.btrfs.trees import Readability, RootFields, TreeReader
from zoned_tools.formats.registry import Target

MAX_ROOT_TESTS = 4096
"""Super blocks whose roots are tried when a good one is looked for; those of older ones are gone anyway."""


@dataclass(frozen=True, slots=True)
class Good:
    """A super block that may be written again.

    Attributes:
        block: its 4096 bytes, fit for the mirror it is meant for.
        offset_bytes: where it comes from.
        mirror: the mirror it comes from.
    """

    block: bytes
    generation: int
    offset_bytes: int
    mirror: int
    readable: bool | None


@dataclass(slots=True)
class FileSystem:
    """All given devices of one file system.

    Attributes:
        surveys: one for each device, in the target's order.
        supers: each device's newest valid super block, parsed; None without any.
    """

    target: Target
    surveys: tuple[DeviceSurvey, ...]
    supers: tuple[Any | None, ...]
    reader: TreeReader

    @property
    def newest(self) -> Any | None:
        """The super block with the highest generation of all devices, parsed."""
        found = [block for block in self.supers if block is not None]
        return max(found, key=lambda block: int(block.generation), default=None)

    def label(self, index: int, survey: MirrorSurvey | None = None) -> dict[str, object]:
        """``where`` of a finding: the mirror, and the device when there are several."""
        where: dict[str, object] = {}
        if len(self.surveys) > 1:
            where["device"] = self.surveys[index].device.path
        if survey is not None:
            where["mirror"] = survey.mirror.number
        return where

    def readability(self, index: int, survey: MirrorSurvey, row: int) -> Readability:
        """Whether the roots of one copy can be read; the verdict is kept in the survey."""
        found = self.reader.roots_readable(RootFields.of(self.surveys[index].block(survey.copies[row])))
        survey.readable[row] = found.readable
        return found


def open_file_system(target: Target) -> FileSystem:
    """Survey every device of a target."""
    surveys = tuple(survey_device(device, target.start_bytes) for device in target.devices)
    supers: list[Any | None] = []
    by_devid: dict[int, Device] = {}
    for survey in surveys:
        best = survey.best
        block = None if best is None else survey.super_block(best[1])
        supers.append(block)
        if block is not None:
            by_devid.setdefault(int(block.dev_item.devid), survey.device)
    return FileSystem(target, surveys, tuple(supers), TreeReader(by_devid, target.start_bytes))


def rows_newest_first(survey: MirrorSurvey) -> Iterator[int]:
    """Rows of the valid copies of a mirror, from the newest back, in the order of the ring."""
    copies = survey.copies
    newer = 1 - older_zone(smallest_generations(copies["zone"], copies["valid"], copies["generation"]))
    for zone in (newer, 1 - newer):
        yield from np.flatnonzero(copies["valid"] & (copies["zone"] == zone))[::-1].tolist()


def for_mirror(block: bytes, bytenr: int) -> bytes:
    """A super block changed to belong to the mirror with this ``bytenr``, its checksum computed anew."""
    at = SUPER_BLOCK_OFFSETS["bytenr"]
    if block[at : at + 8] == bytenr.to_bytes(8, "little"):
        return block
    type_at = SUPER_BLOCK_OFFSETS["csum_type"]
    changed = block[:at] + bytenr.to_bytes(8, "little") + block[at + 8 :]
    return seal(changed, int.from_bytes(block[type_at : type_at + 2], "little"))


def without_log(block: bytes) -> bytes:
    """A super block without a tree log, its checksum computed anew."""
    changed = bytearray(block)
    for name, size in (("log_root", 8), ("log_root_level", 1)):
        at = SUPER_BLOCK_OFFSETS[name]
        changed[at : at + size] = bytes(size)
    type_at = SUPER_BLOCK_OFFSETS["csum_type"]
    return seal(bytes(changed), int.from_bytes(block[type_at : type_at + 2], "little"))


def make_good(fs: FileSystem, index: int, source: MirrorSurvey, row: int, bytenr: int) -> Good:
    """The copy in ``row`` of ``source``, fit for the mirror with ``bytenr``."""
    copy = source.copies[row]
    block = for_mirror(fs.surveys[index].block(copy), bytenr)
    offset = int(copy["offset_bytes"])
    return Good(block, int(copy["generation"]), offset, source.mirror.number, source.readable.get(row))


def choose_good(fs: FileSystem, index: int, survey: MirrorSurvey) -> Good | None:
    """The super block to write again to a mirror: the newest with readable roots.

    The mirror's own copies are preferred; another mirror's newest is taken when its
    generation is higher or the mirror has none. If no roots can be read at all, the newest
    valid one is taken. None when no mirror of the device has a valid copy.
    """
    bytenr = survey.mirror.bytenr
    others = [m for m in fs.surveys[index].mirrors if m is not survey and m.newest is not None]
    others.sort(key=lambda m: int(m.copies["generation"][m.newest]), reverse=True)
    candidates = [(survey, row) for row in rows_newest_first(survey)][:MAX_ROOT_TESTS]
    own = int(survey.copies["generation"][survey.newest]) if survey.newest is not None else -1
    for place, other in enumerate(o for o in others if int(o.copies["generation"][o.newest]) > own):
        candidates.insert(place, (other, int(other.newest or 0)))
    for source, row in candidates:
        readable = fs.readability(index, source, row).readable
        if readable is not False:
            return make_good(fs, index, source, row, bytenr)
    for source in others:
        for row in list(rows_newest_first(source))[:MAX_ROOT_TESTS]:
            if fs.readability(index, source, row).readable is not False:
                return make_good(fs, index, source, row, bytenr)
    if candidates:
        return make_good(fs, index, *candidates[0], bytenr)
    return None
