"""File data against the checksum tree, in every copy: ``zoned check --deep=data``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoned_tools.device.runs import mask_runs
from zoned_tools.formats.btrfs.items import CSUM_TREE, EXTENT_CSUM
from zoned_tools.formats.btrfs.mapper.content import PIECE_BYTES, DataReader, Sums
from zoned_tools.formats.btrfs.mapper.files import FileTree
from zoned_tools.formats.btrfs.mapper.lookup import TreeLookup
from zoned_tools.formats.btrfs.mapper.owners import RangeFiles
from zoned_tools.formats.btrfs.nodes import leaf_items
from zoned_tools.formats.btrfs.rules import RULES
from zoned_tools.formats.btrfs.walk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.chunks import Chunk
    from zoned_tools.formats.btrfs.survey import FileSystem
    from zoned_tools.formats.btrfs.tree_survey import TreeSurvey
    from zoned_tools.formats.shared.findings import FindingGroup


class BadRun(NamedTuple):
    """Sectors next to each other; ``devid`` and ``zone`` are those of one bad copy, None where no copy is good."""

    logical: int
    length: int
    chunk: int
    reason: str
    devid: int | None = None
    zone: int | None = None
    stripe: int | None = None


@dataclass(slots=True)
class DataSurvey:
    """What was read of the data: bytes that have checksums, and what of them is bad."""

    checked_bytes: int = 0
    lost: list[BadRun] = field(default_factory=list)
    bad_copies: list[BadRun] = field(default_factory=list)


def survey_data(fs: FileSystem, trees: TreeSurvey) -> DataSurvey:
    """Read all data that have checksums, every copy. Leaves of the checksum tree that are lost are findings of it."""
    walk = trees.walk
    tree = file_tree(fs, trees)
    survey = DataSurvey()
    reading = _Reading(tree, DataReader(tree), survey)
    root = next((entry.pointer for entry in trees.roots if entry.pointer.tree == CSUM_TREE), None)
    if root is None:
        return survey
    for leaf in TreeWalk(walk.reader, walk.chunks, walk.rules, walk.zones).leaves(root):
        for item in leaf_items(leaf, root.logical):
            if item.type == EXTENT_CSUM:
                reading.item(item.offset, item.data)
    return survey


def file_tree(fs: FileSystem, trees: TreeSurvey) -> FileTree:
    """The files of what was surveyed."""
    lookup = TreeLookup(fs.reader, trees.walk.chunks, trees.walk.rules)
    return FileTree(fs, trees.block, lookup, trees.walk.zones, ())


class _Reading:
    def __init__(self, tree: FileTree, reader: DataReader, survey: DataSurvey) -> None:
        self._tree = tree
        self._reader = reader
        self._survey = survey
        self._sector = tree.block.sectorsize

    def item(self, logical: int, raw: bytes) -> None:
        """The sectors of one item of checksums, in pieces that lie in one chunk."""
        size, step = self._reader.sum_bytes, self._sector
        sums = np.frombuffer(raw, np.uint8, len(raw) // size * size).reshape(-1, size)
        done = 0
        while done < len(sums):
            at = logical + done * step
            chunk = self._tree.lookup.chunks.find(at)
            room = PIECE_BYTES if chunk is None else min(PIECE_BYTES, chunk.logical + chunk.length_bytes - at)
            count = max(min(len(sums) - done, room // step), 1)
            self._piece(at, sums[done : done + count], chunk)
            done += count

    def _piece(self, logical: int, sums: Sums, chunk: Chunk | None) -> None:
        survey, step = self._survey, self._sector
        length = len(sums) * step
        survey.checked_bytes += length
        read = self._reader.sectors(logical, length, sums=(sums, np.ones(len(sums), bool)), every_copy=True)
        start = logical if chunk is None else chunk.logical
        for first, end in mask_runs(read.bad).tolist():
            _add(survey.lost, BadRun(logical + first * step, (end - first) * step, start, read.reason))
        for place, bad, reason in read.failed:
            states = self._tree.zones.get(place.devid)
            zone = None if states is None else states.zone_of(place.offset_bytes)
            for first, end in mask_runs(bad & ~read.bad).tolist():
                where = (place.devid, zone, place.stripe)
                _add(survey.bad_copies, BadRun(logical + first * step, (end - first) * step, start, reason, *where))


def _add(runs: list[BadRun], run: BadRun) -> None:
    """Put a run behind the others; one that goes on is made longer."""
    last = runs[-1] if runs else None
    if (
        last is not None
        and last.logical + last.length == run.logical
        and last[4:] == run[4:]
        and last.chunk == run.chunk
    ):
        runs[-1] = last._replace(length=last.length + run.length)
    else:
        runs.append(run)


def data_findings(fs: FileSystem, trees: TreeSurvey, survey: DataSurvey) -> Iterator[FindingGroup]:
    """Data that are lost, with the files that have them, and bad copies of data that are not."""
    ranges = sorted((run.logical, run.logical + run.length) for run in survey.lost)
    files = RangeFiles(file_tree(fs, trees), ranges)
    for run in survey.lost:
        names = files.names(run.logical, run.logical + run.length)
        sentence = f"{run.length} bytes of data at logical address {run.logical} are lost{names}: {run.reason}"
        yield RULES.finding("data-lost", sentence, **_where(run))
    for run in survey.bad_copies:
        sentence = f"one copy of {run.length} bytes of data at logical address {run.logical} is bad: {run.reason}"
        place: dict[str, Any] = {"devid": run.devid, "zone": run.zone, "stripe": run.stripe}
        yield RULES.finding("data-copy-lost", sentence, **_where(run), **place)


def _where(run: BadRun) -> dict[str, Any]:
    return {"logical": run.logical, "length_bytes": run.length, "block_group": run.chunk}
