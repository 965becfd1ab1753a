"""The super blocks that a reader of the whole file system goes by: one for each device, of one generation.

Source: chapter 11 of the specification of btrfs (``docs/formats/btrfs-zoned.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError
from zoned_tools.formats.btrfs.judge import MAX_ROOT_TESTS, rows_newest_first, without_log
from zoned_tools.formats.btrfs.layout import SuperBlock, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.survey import FileSystem, MirrorSurvey
    from zoned_tools.formats.contract import Settings


@dataclass(frozen=True, slots=True)
class ChosenSupers:
    """What a file system is read by.

    Attributes:
        blocks: the super block of each device, as it is on the device but for a dropped log.
        leader: number of the device whose super block leads to the trees.
        warnings: what is odd about the choice.
    """

    blocks: tuple[bytes, ...]
    leader: int
    warnings: tuple[str, ...]

    @property
    def block(self) -> SuperBlock:
        return parse(self.blocks[self.leader])


def choose_supers(fs: FileSystem, settings: Settings) -> ChosenSupers:
    """The newest super blocks with readable roots, or those of ``generation=G``; ``log=drop`` clears the tree log.

    Of each device the ring of mirror 0 counts, the other mirrors where it has none. Several devices get one
    generation, that of the newest which all of them have.

    Raises:
        MetadataError: a device has no valid super block, none of the generation, or is of another file system.
    """
    leader = _refuse_strangers(fs)
    wanted = settings.number("generation")
    rows = _common(fs, leader) if wanted is None else [find_generation(fs, i, wanted) for i in range(len(fs.surveys))]
    warnings = list(_warnings(fs, leader, rows))
    blocks = [fs.surveys[index].block(mirror.copies[row]) for index, (mirror, row) in enumerate(rows)]
    if settings.text("log") == "drop":
        blocks = [without_log(block) if parse(block).log_root else block for block in blocks]
    return ChosenSupers(tuple(blocks), leader, tuple(warnings))


def _refuse_strangers(fs: FileSystem) -> int:
    """Number of the device with the newest super block, of devices that belong together."""
    newest = fs.newest
    devids: set[int] = set()
    for survey, block in zip(fs.surveys, fs.supers, strict=True):
        path = survey.device.path
        if block is None or newest is None:
            raise MetadataError("no valid btrfs super block", device=path)
        if block.fsid != newest.fsid:
            raise MetadataError(f"belongs to file system {block.fsid}, not {newest.fsid}", device=path)
        if block.dev_item.devid in devids:
            raise MetadataError(f"device {block.dev_item.devid} of the file system is given twice", device=path)
        devids.add(block.dev_item.devid)
    return max(range(len(fs.supers)), key=lambda index: _generation(fs.supers[index]))


def _generation(block: SuperBlock | None) -> int:
    return -1 if block is None else block.generation


Row = tuple["MirrorSurvey", int]
"""A mirror and a row of its copies."""


def _common(fs: FileSystem, leader: int) -> list[Row]:
    """For each device its copy of the newest generation with readable roots that all of them have."""
    first: Row | None = None
    for mirror, row in islice(_candidates(fs, leader), MAX_ROOT_TESTS):
        if fs.readability(leader, mirror, row).readable is False:
            continue
        first = first or (mirror, row)
        generation = mirror.generation(row)
        found = [_last_of(fs, index, generation) for index in range(len(fs.surveys))]
        found[leader] = (mirror, row)
        sure = [one for one in found if one is not None]
        if len(sure) == len(found):
            return sure
    rows = [next(_candidates(fs, index)) for index in range(len(fs.surveys))]
    rows[leader] = first or rows[leader]
    return rows


def _candidates(fs: FileSystem, index: int) -> Iterator[Row]:
    """The valid copies of one device: mirror 0 from the newest back, then the others, the highest generation first."""
    mirrors = sorted(fs.surveys[index].mirrors, key=lambda one: (one.number != 0, -one.newest_generation))
    for mirror in mirrors:
        yield from ((mirror, row) for row in rows_newest_first(mirror))


def _last_of(fs: FileSystem, index: int, generation: int) -> Row | None:
    """The last valid copy of a generation on a device, mirror 0 preferred."""
    for mirror in fs.surveys[index].mirrors:
        for row in rows_newest_first(mirror):
            if mirror.generation(row) == generation:
                return mirror, row
    return None


def find_generation(fs: FileSystem, index: int, generation: int) -> Row:
    """The mirror and row of the last valid copy of a generation on a device, mirror 0 preferred.

    Raises:
        MetadataError: there is none.
    """
    found = _last_of(fs, index, generation)
    if found is None:
        raise MetadataError(
            f"no valid super block has generation {generation}",
            device=fs.surveys[index].device.path,
            hint=_available(fs, index),
        )
    return found


def _available(fs: FileSystem, index: int) -> str:
    """Which generations there are, as a range."""
    found = [m.copies["generation"][m.copies["valid"]] for m in fs.surveys[index].mirrors]
    generations = np.unique(np.concatenate(found)) if found else np.zeros(0)
    if not len(generations):
        return "there is no valid one at all"
    return f"there are generations {int(generations[0])} to {int(generations[-1])}"


def _warnings(fs: FileSystem, leader: int, rows: list[Row]) -> Iterator[str]:
    mirror, row = rows[leader]
    roots = fs.readability(leader, mirror, row)
    if not roots.readable:
        yield f"the trees of generation {mirror.generation(row)} cannot be read: {roots.reason}"
    generations = sorted({one.generation(number) for one, number in rows})
    if len(generations) > 1:
        yield f"the devices have no generation in common: {', '.join(map(str, generations))}"
    missing = fs.missing()
    if missing is not None:
        yield missing.sentence
