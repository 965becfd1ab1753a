"""The rules for payloads, over whole batches of extents: bitmap entries against what is stored."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import Compressor, decode_many
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES, TAG_BYTES, TAG_MAGIC
from zoned_tools.formats.inplace_compress.payload import Span, decode_streams, failed_rules, read_sectors, spans
from zoned_tools.formats.inplace_compress.rejection import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zoned_tools.formats.inplace_compress.entries import Array
    from zoned_tools.formats.inplace_compress.extents import Extents
    from zoned_tools.formats.inplace_compress.open import Volume

GOOD, EXT_TAG, EXT_LEN, EXT_DECOMP, EXT_SHORT, EXT_PAD, EXT_MISTAG, UNREAD, UNFINISHED = range(9)
RULE_NAMES = ("", "EXT_TAG", "EXT_LEN", "EXT_DECOMP", "EXT_SHORT", "EXT_PAD", "EXT_MISTAG")
"""Of the rules; UNREAD and UNFINISHED break none."""

UNREADABLE = (EXT_TAG, EXT_LEN, EXT_DECOMP, EXT_SHORT)


@dataclass(frozen=True, slots=True)
class Judged:
    """First failing rule of every extent of a batch.

    Attributes:
        extents: the extents, in no particular order.
        rule: index into :data:`RULE_NAMES` (uint8), or UNREAD (a sector of the payload cannot be read), or
            UNFINISHED (a cut extent whose stream does not decode to just that).
        decoded_bytes: length of the output where EXT_SHORT failed.
        others: compressors that accept all compressed extents of the batch; only
            determined when every one of them fails with the volume's own.
    """

    extents: Extents
    rule: Array
    decoded_bytes: Array
    others: frozenset[Compressor]

    @property
    def has_tested(self) -> bool:
        """Whether there are compressed extents that tell something about the compressor."""
        extents = self.extents
        return bool((extents.is_compressed & (self.rule != UNREAD) & ~extents.cut).any())

    @property
    def good_compressed(self) -> int:
        """Compressed extents that can be read."""
        return int((self.extents.is_compressed & ((self.rule == GOOD) | (self.rule == EXT_PAD))).sum())


def judge(volume: Volume, extents: Extents, *, find_others: bool = False) -> Iterator[Judged]:
    """Judge extents with a payload and valid nibbles, a few MiB at a time.

    Streams are not tested when the volume's compressor is unknown.

    Args:
        find_others: also try the other compressors on batches where everything fails.
    """
    for span in spans(volume, extents):
        yield _judge_span(volume.compressor, span, find_others=find_others)


def _judge_span(compressor: Compressor | None, span: Span, *, find_others: bool) -> Judged:
    extents = span.extents
    rule = np.where(extents.is_compressed, failed_rules(span), GOOD).astype(np.uint8)
    rule[span.is_unread] = UNREAD
    decoded = np.zeros(len(extents), np.int64)
    tested = extents.is_compressed & (rule != UNREAD) & ~extents.cut
    candidates = np.flatnonzero(extents.is_compressed & (rule == GOOD))
    all_tagged = tested[candidates].sum() == tested.sum()
    others: frozenset[Compressor] = frozenset()
    if compressor is None:
        if find_others and all_tagged:
            others = _accepting(span, np.flatnonzero(tested), set(Compressor))
    else:
        _decode(compressor, span, candidates, rule, decoded)
        failed = np.flatnonzero(tested & np.isin(rule, UNREADABLE))
        if find_others and all_tagged and len(failed) and len(failed) == tested.sum():
            others = _accepting(span, failed, set(Compressor) - {compressor})
    _find_padded(span, candidates, rule)
    _find_mistagged(compressor, span, rule)
    rule[extents.cut & np.isin(rule, UNREADABLE)] = UNFINISHED
    return Judged(extents, rule, decoded, others)


def _decode(compressor: Compressor, span: Span, candidates: Array, rule: Array, decoded: Array) -> None:
    sizes = (span.extents.blocks[candidates] * BLOCK_BYTES).tolist()
    indexes = candidates.tolist()
    for index, size, outcome in zip(indexes, sizes, decode_streams(compressor, span, indexes), strict=True):
        if isinstance(outcome, Rejected):
            rule[index] = EXT_DECOMP
        elif len(outcome) != size:
            rule[index] = EXT_SHORT
            decoded[index] = len(outcome)


def _accepting(span: Span, indexes: Array, compressors: set[Compressor]) -> frozenset[Compressor]:
    """Compressors that decode every one of the streams to its extent's size."""
    sizes = (span.extents.blocks[indexes] * BLOCK_BYTES).tolist()
    return frozenset(
        compressor
        for compressor in compressors
        if all(
            not isinstance(outcome, Rejected) and len(outcome) == size
            for outcome, size in zip(decode_streams(compressor, span, indexes.tolist()), sizes, strict=True)
        )
    )


def minimal_sectors(stream_bytes: Array) -> Array:
    """Sectors that streams of these lengths need with their tags."""
    return -(-(stream_bytes.astype(np.int64) + TAG_BYTES) // SECTOR_BYTES)


def _find_padded(span: Span, candidates: Array, rule: Array) -> None:
    spare = minimal_sectors(span.stream_bytes[candidates]) < span.extents.payload[candidates]
    padded = candidates[spare]
    rule[padded[rule[padded] == GOOD]] = EXT_PAD


def _find_mistagged(compressor: Compressor | None, span: Span, rule: Array) -> None:
    """Raw extents whose last bytes are a tag of just this size in front of a stream that decodes to the extent."""
    if compressor is None:
        return
    room = span.extents.payload * SECTOR_BYTES - TAG_BYTES
    tagged = span.extents.is_raw & (rule == GOOD) & (span.tag_magic == TAG_MAGIC) & (span.stream_bytes >= 1)
    tagged &= (span.stream_bytes <= room) & (minimal_sectors(span.stream_bytes) == span.extents.payload)
    indexes = np.flatnonzero(tagged)
    sizes = (span.extents.blocks[indexes] * BLOCK_BYTES).tolist()
    outcomes = decode_streams(compressor, span, indexes.tolist())
    for index, size, outcome in zip(indexes.tolist(), sizes, outcomes, strict=True):
        if not isinstance(outcome, Rejected) and len(outcome) == size:
            rule[index] = EXT_MISTAG


@dataclass(frozen=True, slots=True)
class VerifyingPayload:
    """A payload that decodes, found by its tag alone.

    Attributes:
        block: data block at whose start it lies.
        blocks, payload_sectors: the extent that it would make.
        crc32: of what it decodes to.
    """

    block: int
    blocks: int
    payload_sectors: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Payloads:
    """Payloads that verify as columns (int64), ascending by block."""

    block: Array
    blocks: Array
    payload_sectors: Array
    crc32: Array

    @classmethod
    def of(cls, payloads: Iterable[VerifyingPayload]) -> Payloads:
        """Columns of payloads that come in ascending order."""
        rows = [(p.block, p.blocks, p.payload_sectors, p.crc32) for p in payloads]
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        return cls(*columns)

    def __len__(self) -> int:
        return len(self.block)

    def __iter__(self) -> Iterator[VerifyingPayload]:
        columns = self.block.tolist(), self.blocks.tolist(), self.payload_sectors.tolist(), self.crc32.tolist()
        for row in zip(*columns, strict=True):
            yield VerifyingPayload(*row)

    def find(self, blocks: Array) -> tuple[Array, Array]:
        """For each of ``blocks`` whether a payload starts there (bool), and its row (int64, only then meaningful)."""
        if not len(self):
            return np.zeros(len(blocks), bool), np.zeros(len(blocks), np.int64)
        rows = np.minimum(np.searchsorted(self.block, blocks), len(self) - 1)
        return self.block[rows] == blocks, rows

    def at(self, block: int) -> VerifyingPayload | None:
        """The payload that starts at ``block``."""
        found, rows = self.find(np.array([block]))
        if not found[0]:
            return None
        row = int(rows[0])
        return VerifyingPayload(block, int(self.blocks[row]), int(self.payload_sectors[row]), int(self.crc32[row]))


PAYLOAD_MAX_SECTORS = 255
"""A payload found by its tag is shorter than the largest extent, 32 blocks."""

_CAPACITY = layout.WINDOW_MAX_BLOCKS * BLOCK_BYTES


def verifying_payload(volume: Volume, block: int) -> VerifyingPayload | None:
    """The shortest payload at the start of ``block`` that verifies; None when there is none."""
    sectors = min(PAYLOAD_MAX_SECTORS, (volume.data_blocks - block) * BLOCK_SECTORS)
    if sectors <= 0:
        return None
    buffer, unread = read_sectors(volume, block * BLOCK_BYTES, sectors * SECTOR_BYTES)
    if len(unread):
        sectors = (int(unread.starts[0]) - block * BLOCK_BYTES) // SECTOR_BYTES
    words = np.frombuffer(buffer, "<u4").reshape(-1, SECTOR_BYTES // 4)[:sectors]
    numbers = np.arange(1, sectors + 1)
    fits = (words[:, -2] == TAG_MAGIC) & (words[:, -1] >= 1) & (minimal_sectors(words[:, -1]) == numbers)
    for count in numbers[fits].tolist():
        found = verify_candidate(volume, block, count, buffer[: int(words[count - 1, -1])])
        if found is not None:
            return found
    return None


def verify_candidate(volume: Volume, block: int, sectors: int, stream: memoryview) -> VerifyingPayload | None:
    """The payload of ``sectors`` at ``block`` if its stream decodes to an extent that holds it."""
    if volume.compressor is None:
        return None
    outcome = decode_many(volume.compressor, [stream], [_CAPACITY])[0]
    if isinstance(outcome, Rejected) or not outcome or len(outcome) % BLOCK_BYTES:
        return None
    blocks = len(outcome) // BLOCK_BYTES
    if sectors >= blocks * BLOCK_SECTORS or block + blocks > volume.data_blocks:
        return None
    return VerifyingPayload(block, blocks, sectors, zlib.crc32(outcome))
