"""One pass over a volume that tests every rule and remembers what it found, in arrays.

:mod:`.check` turns the result into findings, :mod:`.repair` into changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from zoned_tools.formats.inplace_compress import verify
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.deep import Shadow, shadows
from zoned_tools.formats.inplace_compress.extents import Extents, scan
from zoned_tools.formats.inplace_compress.layout import TAIL, WINDOW_MAX_BLOCKS
from zoned_tools.formats.inplace_compress.metadata import Array
from zoned_tools.formats.inplace_compress.statistics import Statistics
from zoned_tools.formats.inplace_compress.verify import Judged
from zoned_tools.formats.inplace_compress.volume import CHUNK_ENTRIES, Volume

UNREADABLE_CODES = frozenset({"MAP_NIBBLE", "EXT_TAG", "EXT_LEN", "EXT_DECOMP", "EXT_SHORT"})
"""Problems of extents that cannot be read."""

KEPT_MAX = 100_000
"""Problems of one kind that are remembered; more are counted. Repair runs again for the rest."""

_ORDER = ("MAP_TAIL0", "MAP_NIBBLE", "MAP_ORPHAN", "MAP_CANON", "MAP_LONG", *verify.RULE_NAMES[1:], "MAP_SLACK")
_RANK = {code: number for number, code in enumerate(_ORDER)}

Judge = Callable[[Volume, Extents, bool], Iterable[Judged]]
"""Judges a batch of extents; the flag asks for other compressors."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A violated rule: code, first block and length of the extent concerned.

    ``payload_sectors`` is the extent's; ``decoded_bytes`` what EXT_SHORT decodes to.
    """

    code: str
    block: int
    blocks: int
    payload_sectors: int = 0
    decoded_bytes: int = 0


@dataclass(slots=True)
class Analysis:
    """Everything that one pass found.

    Attributes:
        problems: ascending by block, at most :data:`KEPT_MAX` of each code.
        counts: how many there are of each code.
        shadows: from the deep check.
        accepting: other compressors that decode every compressed extent while the
            volume's own (if known) decodes none.
    """

    volume: Volume
    statistics: Statistics
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    shadows: list[Shadow] = field(default_factory=list)
    good_compressed: int = 0
    unreadable_blocks: int = 0
    accepting: frozenset[Compressor] = frozenset()

    def count(self, code: str, extents: Extents, mask: Array, decoded_bytes: Array | None = None) -> list[Problem]:
        """Count the extents that violate a rule; the problems to remember, at most what is still wanted."""
        where = np.flatnonzero(mask)
        if not len(where):
            return []
        before = self.counts.get(code, 0)
        self.counts[code] = before + len(where)
        if code in UNREADABLE_CODES:
            self.unreadable_blocks += int(extents.blocks[where].sum())
        where = where[: max(0, KEPT_MAX - before)]
        chosen = extents.select(where)
        decoded = [0] * len(where) if decoded_bytes is None else decoded_bytes[where].tolist()
        columns = chosen.head.tolist(), chosen.blocks.tolist(), chosen.payload.tolist(), decoded
        return [Problem(code, *row) for row in zip(*columns, strict=True)]

    def keep(self, problems: Iterable[Problem]) -> None:
        """Remember problems of one chunk, in order."""
        self.problems += sorted(problems, key=lambda p: (p.block, _RANK[p.code]))

    def note(self, code: str, block: int, blocks: int) -> None:
        """Remember a problem of which there is one at most."""
        self.counts[code] = 1
        self.problems.append(Problem(code, block, blocks))


def judge_here(volume: Volume, extents: Extents, find_others: bool) -> Iterator[Judged]:
    """Judge in this process."""
    yield from verify.judge(volume, extents, find_others=find_others)


def _structure(analysis: Analysis, extents: Extents) -> list[Problem]:
    """Rules that the entries alone decide."""
    valid = ~extents.bad_nibble
    rules = {
        "MAP_NIBBLE": extents.bad_nibble,
        "MAP_ORPHAN": valid & (extents.payload == 0) & (extents.blocks > 1),
        "MAP_CANON": valid & extents.uneven,
        "MAP_LONG": valid & (extents.blocks > WINDOW_MAX_BLOCKS),
    }
    return [problem for code, mask in rules.items() for problem in analysis.count(code, extents, mask)]


class _Others:
    """Which other compressors accept every compressed extent seen so far."""

    def __init__(self, compressor: Compressor | None) -> None:
        self.wanted = True
        self.seen = False
        self.accepting = frozenset(Compressor) - ({compressor} if compressor is not None else set())
        self._known = compressor is not None

    def note(self, judged: Judged) -> None:
        if not self.wanted or not judged.extents.is_compressed.any():
            return
        self.seen = True
        self.accepting &= judged.others
        if (self._known and judged.good_compressed) or not self.accepting:
            self.wanted, self.accepting = False, frozenset()


def analyse(
    volume: Volume,
    *,
    payloads: bool = True,
    deep: bool = False,
    judge: Judge = judge_here,
    progress: Callable[[int, int], None] | None = None,
    stop_at_problem: bool = False,
) -> Analysis:
    """Test the rules of bitmap and payloads.

    Args:
        payloads: also read and decode every payload.
        deep: also look for payloads behind wrong entries (reads the whole data area).
        judge: how batches of payloads are judged (over several processes, for example).
        progress: told ``(blocks done, blocks)``.
        stop_at_problem: return as soon as anything is wrong.
    """
    analysis = Analysis(volume, Statistics(volume.data_blocks))
    others = _Others(volume.compressor)
    if volume.read_entries(0, 1)[0] & TAIL:
        analysis.note("MAP_TAIL0", 0, 1)
    done = 0
    for extents in scan(volume.entry_chunks()):
        analysis.statistics.add(extents)
        problems = _structure(analysis, extents)
        if payloads and not (stop_at_problem and problems):
            stored = extents.select((extents.payload > 0) & ~extents.bad_nibble)
            for judged in judge(volume, stored, others.wanted):
                others.note(judged)
                analysis.good_compressed += judged.good_compressed
                problems += _payload_problems(analysis, judged)
                if stop_at_problem and problems:
                    break
        analysis.keep(problems)
        if stop_at_problem and analysis.counts:
            return analysis
        done = min(done + CHUNK_ENTRIES, volume.data_blocks)
        if progress is not None:
            progress(done, volume.data_blocks)
    if volume.slack_bits():
        analysis.note("MAP_SLACK", volume.data_blocks, 0)
    if others.seen:
        analysis.accepting = others.accepting
    if deep:
        mistagged = frozenset(p.block for p in analysis.problems if p.code == "EXT_MISTAG")
        analysis.shadows = list(shadows(volume, mistagged))
    return analysis


def _payload_problems(analysis: Analysis, judged: Judged) -> list[Problem]:
    return [
        problem
        for number in np.unique(judged.rule[judged.rule != verify.GOOD]).tolist()
        for problem in analysis.count(
            verify.RULE_NAMES[number], judged.extents, judged.rule == number, judged.decoded_bytes
        )
    ]


def is_other_byte_order(analysis: Analysis) -> bool:
    """Whether the bitmap makes sense only when its words are reversed."""
    if not any(code.startswith("MAP_") or code == "EXT_TAG" for code in analysis.counts):
        return False
    other = analyse(analysis.volume.other_byte_order(), stop_at_problem=True)
    return not other.counts and other.good_compressed > 0
