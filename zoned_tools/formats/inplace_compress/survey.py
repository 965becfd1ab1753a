"""One pass over a volume that tests every rule and remembers what it found, as columns; no opinion.

:mod:`.findings` turns the survey into findings, :mod:`.repair_plan` into actions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoned_tools.formats.inplace_compress import verify
from zoned_tools.formats.inplace_compress.compressors import Compressor
from zoned_tools.formats.inplace_compress.deep import Shadows, find_shadows, tagged_blocks
from zoned_tools.formats.inplace_compress.extents import Extents, scan
from zoned_tools.formats.inplace_compress.layout import TAIL, WINDOW_MAX_BLOCKS
from zoned_tools.formats.inplace_compress.rules import UNREADABLE_CODES
from zoned_tools.formats.inplace_compress.statistics import Statistics
from zoned_tools.formats.inplace_compress.verify import Judged, Payloads, verifying_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Ranges
    from zoned_tools.formats.inplace_compress.open import Volume

_ORDER = ("MAP_TAIL0", "MAP_NIBBLE", "MAP_ORPHAN", "MAP_CANON", "MAP_LONG", *verify.RULE_NAMES[1:], "MAP_SLACK")
"""Codes of extents and entries in the order of the rules."""

_UNKNOWN, _UNREAD = "unknown", "unread"
"""Why an extent is lost: its entries, or its payload."""

_BATCH_ROWS = 4096


class Judge(Protocol):
    """Judges the payloads of a batch of extents; on request says which other compressors accept them."""

    def __call__(self, volume: Volume, extents: Extents, *, find_others: bool) -> Iterable[Judged]: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """A violated rule: code, first block and length of the extent concerned."""

    code: str
    block: int
    blocks: int
    payload_sectors: int
    decoded_bytes: int


@dataclass(frozen=True, slots=True)
class Problems:
    """Extents that violate one rule: int64 columns, ascending by block.

    Attributes:
        block, blocks, payload_sectors: the extent.
        decoded_bytes: what it decodes to, for EXT_SHORT.
    """

    block: Array
    blocks: Array
    payload_sectors: Array
    decoded_bytes: Array

    def __len__(self) -> int:
        return len(self.block)

    @classmethod
    def of(cls, extents: Extents, decoded_bytes: Array | None = None) -> Problems:
        decoded = np.zeros(len(extents), np.int64) if decoded_bytes is None else decoded_bytes
        return cls(extents.head, extents.blocks, extents.payload, decoded)

    @classmethod
    def single(cls, block: int, blocks: int) -> Problems:
        """A problem of which there is one at most."""
        nothing = np.zeros(1, np.int64)
        return cls(np.array([block]), np.array([blocks]), nothing, nothing)

    @classmethod
    def none(cls) -> Problems:
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, nothing)

    @classmethod
    def joined(cls, parts: Iterable[Problems]) -> Problems:
        """Parts that come in any order."""
        rows = np.concatenate([(p.block, p.blocks, p.payload_sectors, p.decoded_bytes) for p in parts], axis=1)
        return cls(*rows[:, np.argsort(rows[0], kind="stable")])


@dataclass(slots=True)
class Survey:
    """Everything that one pass found.

    Attributes:
        payloads: whether payloads were read and tested.
        problems: by code, in the order of the rules; codes that occur.
        good_compressed: compressed extents that can be read.
        unknown: extents of which the bitmap does not tell enough, because blocks of it cannot be read.
        unread: extents of whose payload sectors cannot be read.
        accepting: other compressors that decode every compressed extent while the
            volume's own (if known) decodes none.
        tagged: where payloads could start, by their tags; None when nobody has looked yet (:meth:`find_tagged`).
        shadows: from the deep check; None when it was not asked for.
        verifying: payloads that verify at the heads of unreadable extents; None when
            nobody has looked yet (:meth:`find_verifying`).
    """

    volume: Volume
    statistics: Statistics
    payloads: bool
    problems: dict[str, Problems] = field(default_factory=dict)
    good_compressed: int = 0
    unknown: Problems = field(default_factory=Problems.none)
    unread: Problems = field(default_factory=Problems.none)
    accepting: frozenset[Compressor] = frozenset()
    tagged: Array | None = None
    shadows: Shadows | None = None
    verifying: Payloads | None = None

    @property
    def unreadable_blocks(self) -> int:
        """Logical blocks that cannot be read."""
        return sum(int(p.blocks.sum()) for code, p in self.problems.items() if code in UNREADABLE_CODES)

    @property
    def unreadable_heads(self) -> Array:
        """First blocks of the extents that cannot be read (int64), ascending."""
        heads = [problems.block for code, problems in self.problems.items() if code in UNREADABLE_CODES]
        return np.unique(np.concatenate(heads)) if heads else np.zeros(0, np.int64)

    def find_tagged(self) -> Array:
        """Where payloads could start, whatever the bitmap says; the data area is read once."""
        if self.tagged is None:
            self.tagged = tagged_blocks(self.volume)
        return self.tagged

    def find_shadows(self) -> Shadows:
        """Payloads behind entries that say something else; looked for once."""
        if self.shadows is None:
            mistagged = self.problems.get("EXT_MISTAG")
            heads = frozenset() if mistagged is None else frozenset(mistagged.block.tolist())
            self.shadows = find_shadows(self.volume, self.find_tagged(), heads)
        return self.shadows

    def find_verifying(self) -> Payloads:
        """Payloads that verify at the heads of unreadable extents; looked for once."""
        if self.verifying is None:
            found = (verifying_payload(self.volume, block) for block in self.unreadable_heads.tolist())
            self.verifying = Payloads.of(payload for payload in found if payload is not None)
        return self.verifying

    def in_order(self) -> Iterator[Problem]:
        """All problems ascending by block, those of one extent in the order of the rules."""
        if not self.problems:
            return
        parts = list(self.problems.items())
        codes = np.concatenate([np.full(len(p), _ORDER.index(code)) for code, p in parts])
        rows = np.concatenate([(p.block, p.blocks, p.payload_sectors, p.decoded_bytes) for _, p in parts], axis=1)
        order = np.lexsort((codes, rows[0]))
        for start in range(0, len(order), _BATCH_ROWS):
            batch = order[start : start + _BATCH_ROWS]
            for code, row in zip(codes[batch].tolist(), rows[:, batch].T.tolist(), strict=True):
                yield Problem(_ORDER[code], *row)


class _Collector:
    """Parts of the problems columns as they come."""

    def __init__(self) -> None:
        self._parts: defaultdict[str, list[Problems]] = defaultdict(list)
        self._lost: defaultdict[str, list[Problems]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def lose(self, what: str, extents: Extents, mask: Array) -> None:
        """Take in the extents of a batch that no rule is about, because something of them cannot be read."""
        if mask.any():
            self._lost[what].append(Problems.of(extents.select(mask)))

    def lost(self, what: str) -> Problems:
        """The extents that are lost for one reason, ascending."""
        return Problems.joined(self._lost[what]) if what in self._lost else Problems.none()

    def add(self, code: str, extents: Extents, mask: Array, decoded_bytes: Array | None = None) -> None:
        """Take in the extents of a batch that violate a rule."""
        if mask.any():
            decoded = None if decoded_bytes is None else decoded_bytes[mask]
            self._parts[code].append(Problems.of(extents.select(mask), decoded))

    def note(self, code: str, block: int, blocks: int) -> None:
        """Take in a problem of which there is one at most."""
        self._parts[code].append(Problems.single(block, blocks))

    def finish(self) -> dict[str, Problems]:
        """The columns by code, in the order of the rules."""
        return {code: Problems.joined(self._parts.pop(code)) for code in _ORDER if code in self._parts}

    def add_structure(self, extents: Extents) -> None:
        """Test the rules that the entries alone decide."""
        valid = ~extents.bad_nibble
        self.lose(_UNKNOWN, extents, extents.unknown)
        self.add("MAP_NIBBLE", extents, extents.bad_nibble & ~extents.unknown)
        self.add("MAP_ORPHAN", extents, valid & (extents.payload == 0) & (extents.blocks > 1))
        self.add("MAP_CANON", extents, valid & extents.uneven)
        self.add("MAP_LONG", extents, valid & (extents.blocks > WINDOW_MAX_BLOCKS))

    def add_judged(self, judged: Judged) -> None:
        """Take in what is wrong with the payloads of a batch."""
        self.lose(_UNREAD, judged.extents, judged.rule == verify.UNREAD)
        self.lose(_UNKNOWN, judged.extents, judged.rule == verify.UNFINISHED)
        broken = (judged.rule != verify.GOOD) & (judged.rule < len(verify.RULE_NAMES))
        for number in np.unique(judged.rule[broken]).tolist():
            self.add(verify.RULE_NAMES[number], judged.extents, judged.rule == number, judged.decoded_bytes)


class _Others:
    """Which other compressors accept every compressed extent seen so far."""

    def __init__(self, compressor: Compressor | None) -> None:
        self.wanted = True
        self._seen = False
        self._accepting = frozenset(Compressor) - ({compressor} if compressor is not None else set())
        self._known = compressor is not None

    def note(self, judged: Judged) -> None:
        if not self.wanted or not judged.has_tested:
            return
        self._seen = True
        self._accepting &= judged.others
        if (self._known and judged.good_compressed) or not self._accepting:
            self.wanted, self._accepting = False, frozenset()

    @property
    def accepting(self) -> frozenset[Compressor]:
        return self._accepting if self._seen else frozenset()


def take_survey(volume: Volume, *, payloads: bool = True, deep: bool = False, judge: Judge = verify.judge) -> Survey:
    """Test the rules of bitmap and payloads.

    Args:
        payloads: also read and decode every payload.
        deep: also look for payloads behind wrong entries (reads the whole data area).
        judge: how batches of payloads are judged (over several processes, for example).
    """
    survey = Survey(volume, Statistics(volume.data_blocks), payloads)
    others, found = _Others(volume.compressor), _Collector()
    if volume.read_entries(0, 1)[0] & TAIL:
        found.note("MAP_TAIL0", 0, 1)
    for extents in scan(volume.entry_chunks()):
        survey.statistics.add(extents)
        found.add_structure(extents)
        tested = extents.with_payload if payloads else extents.select(extents.cut & (extents.payload > 0))
        for judged in judge(volume, tested, find_others=others.wanted):
            others.note(judged)
            survey.good_compressed += judged.good_compressed
            found.add_judged(judged)
    if volume.slack_bits():
        found.note("MAP_SLACK", volume.data_blocks, 0)
    survey.problems = found.finish()
    survey.unknown, survey.unread = found.lost(_UNKNOWN), found.lost(_UNREAD)
    survey.accepting = others.accepting
    if deep:
        survey.find_shadows()
    return survey


def survey_ranges(volume: Volume, ranges: Ranges) -> list[Problem]:
    """What is wrong with the extents that overlap ``ranges``, in the order of :meth:`Survey.in_order`."""
    survey, found = Survey(volume, Statistics(volume.data_blocks), payloads=True), _Collector()
    for batch in scan(volume.entry_chunks()):
        extents = batch.select(batch.touching(ranges))
        found.add_structure(extents)
        for judged in verify.judge(volume, extents.with_payload):
            found.add_judged(judged)
    survey.problems = found.finish()
    return list(survey.in_order())


def verifies(volume: Volume) -> bool:
    """Whether nothing is wrong with the bitmap and every payload, of which one at least is compressed."""
    found, good_compressed = _Collector(), 0
    if volume.read_entries(0, 1)[0] & TAIL:
        return False
    for extents in scan(volume.entry_chunks()):
        found.add_structure(extents)
        if found:
            return False
        for judged in verify.judge(volume, extents.with_payload):
            good_compressed += judged.good_compressed
            found.add_judged(judged)
            if found:
                return False
    return good_compressed > 0 and not volume.slack_bits()


def is_other_byte_order(survey: Survey) -> bool:
    """Whether the bitmap makes sense only when its words are reversed."""
    suspicious = any(code.startswith("MAP_") or code == "EXT_TAG" for code in survey.problems)
    return suspicious and verifies(survey.volume.other_byte_order())
