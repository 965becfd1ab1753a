"""842 decoding of many streams at a time.

Three passes instead of a loop over arguments. The length of a token depends on its code
only, so a walk over precomputed token lengths finds where every token starts. Then numpy
takes all arguments of all tokens at once. Indexes become, for every 2-byte unit of
output, the unit that it copies; replacing each source by the source's source until
nothing changes (pointer doubling) resolves chains of copies in logarithmic rounds.

Every count is bounded by the capacity before memory for it is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress.c842 import sequential
from zoned_tools.formats.inplace_compress.c842.templates import (
    CODE_BITS,
    CRC_BITS,
    END,
    GROUP_BYTES,
    GROUP_UNITS,
    KIND,
    LITERAL,
    MASK,
    PREVIOUS_GROUP,
    REPEAT,
    RING_UNITS,
    SHIFT,
    SHORT_DATA,
    SUB_UNIT,
    TOKEN_BITS,
    VALUE_UNITS,
    Array,
    crc32_msb,
)
from zoned_tools.formats.inplace_compress.rejection import Outcome, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Buffer

_FRAME_MAGIC = b"\xf8\x42"
_FRAME_GROUPS_MAX = 32
_PADDING_BYTES = 16
"""Zeroes behind every stream in the batch, so that a token may be taken before its end is checked."""

BATCH_BYTES = 1 << 18
"""Stream and output bytes of one numpy pass; its working memory is about 60 times as much."""


def decode(stream: Buffer, capacity: int) -> bytes:
    """Decode one stream, bare or NX-framed, into at most ``capacity`` bytes.

    Raises:
        Rejected: the stream is damaged or its output longer than ``capacity``.
    """
    outcome = decode_many([stream], [capacity])[0]
    if isinstance(outcome, Rejected):
        raise outcome
    return outcome


def decode_many(streams: Sequence[Buffer], capacities: Sequence[int]) -> list[Outcome]:
    """Decode streams into at most ``capacities`` bytes each; a rejected one gives its reason instead."""
    outcomes: list[Outcome] = []
    batch: list[bytes] = []
    limits: list[int] = []
    weight = 0
    for stream, capacity in zip(streams, capacities, strict=True):
        if bytes(stream[:2]) == _FRAME_MAGIC:
            outcomes += _decode_batch(batch, limits)
            outcomes.append(_decode_frame(bytes(stream), capacity))
            batch, limits, weight = [], [], 0
            continue
        batch.append(bytes(stream))
        limits.append(capacity)
        weight += len(stream) + capacity
        if weight >= BATCH_BYTES:
            outcomes += _decode_batch(batch, limits)
            batch, limits, weight = [], [], 0
    return outcomes + _decode_batch(batch, limits)


def _decode_frame(frame: bytes, capacity: int) -> Outcome:
    """Decode the framing of the NX unit: independent streams behind a table of lengths."""
    groups = frame[4] if len(frame) > 4 else 0
    header_bytes = 5 + 10 * groups
    if not 1 <= groups <= _FRAME_GROUPS_MAX or len(frame) < header_bytes:
        return Rejected("the frame's header is damaged")
    output, at = bytearray(), 0
    last_bytes = 0
    for group in range(groups):
        entry = frame[5 + 10 * group : 15 + 10 * group]
        at += int.from_bytes(entry[:2], "big")
        length = int.from_bytes(entry[2:6], "big")
        plain_bytes = int.from_bytes(entry[6:], "big")
        if (group == 0 and at < header_bytes) or at + length > len(frame):
            return Rejected("a group of the frame lies outside of it")
        if len(output) + plain_bytes > capacity + GROUP_BYTES:
            return Rejected("the output is longer than its extent")
        piece = _decode_batch([frame[at : at + length]], [plain_bytes])[0]
        if isinstance(piece, Rejected):
            return piece
        if len(piece) != plain_bytes:
            return Rejected("a group of the frame has another length than its header says")
        output += piece
        last_bytes = len(piece)
        at += length
    ignored = int.from_bytes(frame[2:4], "big")
    if ignored > last_bytes:
        return Rejected("the frame ignores more than its last group")
    if len(output) - ignored > capacity:
        return Rejected("the output is longer than its extent")
    return bytes(output[: len(output) - ignored])


class _Walk:
    """Token starts of one stream, and how the run of ordinary tokens ended."""

    __slots__ = ("end_position", "number", "positions")

    def __init__(self, number: int, positions: list[int], end_position: int) -> None:
        self.number = number
        self.positions = positions
        self.end_position = end_position


def _walk(lengths: bytes, position: int, limit: int) -> tuple[list[int], int]:
    """Starts of the ordinary tokens from bit ``position``, and where something else begins."""
    positions: list[int] = []
    append = positions.append
    while position < limit:
        length = lengths[position]
        if length == 0:
            break
        append(position)
        position += length
    return positions, position


def _decode_batch(streams: list[bytes], capacities: list[int]) -> list[Outcome]:
    if not streams:
        return []
    joined = np.frombuffer(b"".join(s + bytes(_PADDING_BYTES) for s in streams), np.uint8)
    pairs = joined[:-1].astype(np.uint16) << 8 | joined[1:]
    codes = (pairs[:, None] >> np.arange(11, 3, -1, dtype=np.uint16)).astype(np.uint8).reshape(-1) & 31
    lengths = TOKEN_BITS[codes].tobytes()
    outcomes: list[Outcome] = [b""] * len(streams)
    walks: list[_Walk] = []
    start = 0
    for number, stream in enumerate(streams):
        limit = start + 8 * len(stream)
        positions, end = _walk(lengths, start, limit)
        code = int(codes[end]) if end + CODE_BITS <= limit else -1
        if code == SHORT_DATA:
            outcomes[number] = _decode_sequentially(stream, capacities[number])
        elif code == END and end + CODE_BITS + CRC_BITS <= limit:
            walks.append(_Walk(number, positions, end))
        else:
            reason = "the stream ends inside a token" if code in (-1, END) else f"invalid template {code:#x}"
            outcomes[number] = Rejected(reason)
        start += 8 * (len(stream) + _PADDING_BYTES)
    _decode_walks(joined, codes, walks, capacities, outcomes)
    return outcomes


def _decode_sequentially(stream: bytes, capacity: int) -> Outcome:
    try:
        return sequential.decode(stream, capacity)
    except Rejected as reason:
        return reason


def _arguments(joined: Array, positions: Array) -> Array:
    """The 64 bits behind the code of every token."""
    bit = positions + CODE_BITS
    byte, shift = bit >> 3, (bit & 7).astype(np.uint64)
    words = np.ndarray((len(joined) - 7,), ">u8", joined, strides=(1,))
    high = words[byte].astype(np.uint64)
    low = joined[byte + 8].astype(np.uint64)
    return np.asarray((high << shift) | (low >> (np.uint64(8) - shift)))


def _decode_walks(
    joined: Array, codes: Array, walks: list[_Walk], capacities: list[int], outcomes: list[Outcome]
) -> None:
    """Decode streams whose tokens are known, leaving out those whose output would not fit."""
    if not walks:
        return
    counts = np.array([len(w.positions) for w in walks])
    positions = np.fromiter((p for w in walks for p in w.positions), np.int64, int(counts.sum()))
    owner = np.repeat(np.arange(len(walks)), counts)
    code = codes[positions]
    arguments = _arguments(joined, positions)
    copies = np.where(code == REPEAT, (arguments >> np.uint64(58)).astype(np.int64) + 1, 1)
    groups = np.bincount(owner, copies, len(walks)).astype(np.int64)
    fits = groups * GROUP_BYTES <= np.array([capacities[w.number] for w in walks])
    if not fits.all():
        for index in np.flatnonzero(~fits).tolist():
            outcomes[walks[index].number] = Rejected("the output is longer than its extent")
        keep = fits[owner]
        arguments, code, copies, owner = arguments[keep], code[keep], copies[keep], owner[keep]
        groups = np.where(fits, groups, 0)
    units, bad = _resolve(arguments, code, copies, owner, groups)
    content = units.astype(">u2").tobytes()
    crcs = _arguments(joined, np.array([w.end_position for w in walks])) >> np.uint64(32)
    ends = np.cumsum(groups) * GROUP_BYTES
    for index, walk in enumerate(walks):
        if not fits[index]:
            continue
        end = int(ends[index])
        output = content[end - int(groups[index]) * GROUP_BYTES : end]
        if index in bad:
            outcomes[walk.number] = Rejected("an index points past the output")
        elif crc32_msb(output) != int(crcs[index]):
            outcomes[walk.number] = Rejected("the CRC does not match")
        else:
            outcomes[walk.number] = output


def _resolve(arguments: Array, code: Array, copies: Array, owner: Array, groups: Array) -> tuple[Array, set[int]]:
    """Content of all units of output (uint16), and the streams whose indexes point past their output."""
    group = np.cumsum(copies) - copies
    first_group = np.cumsum(groups) - groups
    kind = KIND[code]
    value = (arguments[:, None] >> SHIFT[code]) & MASK[code]
    produced = ((group - first_group[owner]) * GROUP_UNITS)[:, None]
    is_copy = kind != LITERAL
    size, ring = VALUE_UNITS[code], RING_UNITS[code]
    offset = value.astype(np.int64) * size
    behind = produced & (ring - 1)
    offset += np.where(produced > ring, produced - behind - np.where(offset >= behind, ring, 0), 0)
    previous = kind == PREVIOUS_GROUP
    if previous.any():
        unit = np.arange(GROUP_UNITS)
        offset = np.where(previous, produced - GROUP_UNITS + unit, offset)
        wrong = is_copy & np.where(previous, produced == 0, offset + size > produced)
    else:
        wrong = is_copy & (offset + size > produced)
    bad = set(owner[wrong.any(axis=1)].tolist())
    here = (group * GROUP_UNITS)[:, None] + np.arange(GROUP_UNITS)
    source = np.where(is_copy & ~wrong, offset + SUB_UNIT[code] + here[:, :1] - produced, here)
    literal = np.where(is_copy, 0, value).astype(np.uint16)
    if len(copies) and copies.max() > 1:
        source, literal = np.repeat(source, copies, axis=0), np.repeat(literal, copies, axis=0)
    return _follow(source.reshape(-1), literal.reshape(-1)), bad


def _follow(source: Array, literal: Array) -> Array:
    """Content of units that are literals (their own source) or copies of earlier units."""
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return np.asarray(literal[source])
        source = further
