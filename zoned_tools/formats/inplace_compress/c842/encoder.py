"""842 encoding of many inputs at a time, byte-identical to lib/842/842_compress.c.

The kernel's dictionaries are rings of the most recent values, so "the slot most recently
written among those holding an equal value" is the previous occurrence of the value when
it is not older than the ring: a stable sort finds all of them at once. Templates come
from a table over which of a group's seven values were found; bits are packed by or-ing
the tokens of each 64-bit word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.inplace_compress.c842.templates import (
    CODE_BITS,
    CRC_BITS,
    END,
    GROUP_BYTES,
    INDEX2,
    INDEX4,
    INDEX8,
    KIND,
    LITERAL,
    PREFERENCE,
    REPEAT,
    REPEAT_BITS,
    REPEAT_MAX,
    SHIFT,
    SHORT_COUNT_BITS,
    SHORT_DATA,
    TEMPLATES,
    TOKEN_BITS,
    ZEROS,
    Array,
    crc32_msb,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Buffer

_SLOTS = {2: 256, 4: 512, 8: 256}
_TRAILER_GROUPS = 2
"""Rows behind the groups of an input: short data (when there is any) and the end."""

BATCH_BYTES = 1 << 18
"""Input bytes of one numpy pass; its working memory is about 60 times as much."""


def _choose_templates() -> Array:
    """Code for every combination of found values: bit 0 the 8-byte value, 1-2 the 4-byte, 3-6 the 2-byte values."""
    needed = {}
    for code, arguments in TEMPLATES.items():
        mask = offset = 0
        for argument in arguments:
            size = int(argument[1])
            if argument[0] == "I":
                mask |= 1 << ({8: 0, 4: 1, 2: 3}[size] + offset // size)
            offset += size
        needed[code] = mask
    return np.array(
        [next(c for c in PREFERENCE if needed[c] & found == needed[c]) for found in range(128)], dtype=np.uint8
    )


_TEMPLATE_OF_FOUND = _choose_templates()
_FIRST_OF_VALUE = np.array(
    [
        [KIND[code, unit] in (LITERAL, INDEX2) or (KIND[code, unit] == INDEX4 and unit % 2 == 0) or unit == 0
         for unit in range(4)]
        for code in range(32)
    ]
)  # fmt: skip


def encode(data: Buffer) -> bytes:
    """Encode one input."""
    return encode_many([data])[0]


def encode_many(inputs: Sequence[Buffer]) -> list[bytes]:
    """Encode inputs, each to a stream of its own."""
    streams: list[bytes] = []
    batch: list[bytes] = []
    weight = 0
    for data in inputs:
        batch.append(bytes(data))
        weight += len(data)
        if weight >= BATCH_BYTES:
            streams += _encode_batch(batch)
            batch, weight = [], 0
    return streams + (_encode_batch(batch) if batch else [])


def _previous_occurrence(values: Array, per_group: int) -> Array:
    """Index of the last equal value in an earlier group, -1 when there is none."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    equal = ranked[1:] == ranked[:-1]
    previous = np.full(len(values), -1, np.int64)
    previous[order[1:][equal]] = order[:-1][equal]
    if per_group > 1:
        group_start = np.arange(len(values)) // per_group * per_group
        for _ in range(per_group - 1):
            inside = np.flatnonzero(previous >= group_start)
            if not len(inside):
                break
            previous[inside] = previous[previous[inside]]
    return previous


def _find(values: Array, size: int, first_group: Array) -> tuple[Array, Array]:
    """Whether each value is in its dictionary, and its slot: arrays of (groups, values in a group)."""
    per_group = GROUP_BYTES // size
    previous = _previous_occurrence(values, per_group).reshape(-1, per_group)
    inserted = (np.arange(len(first_group)) * per_group)[:, None]
    oldest = np.maximum((first_group * per_group)[:, None], inserted - _SLOTS[size])
    slot = (previous - (first_group * per_group)[:, None]) & (_SLOTS[size] - 1)
    return previous >= oldest, slot


def _repeat_tokens(equal: Array, last: Array) -> tuple[Array, Array]:
    """Which groups end a repeat token, and its length; ``last`` marks the final group of each input."""
    number = np.arange(len(equal))
    run = number - np.maximum.accumulate(np.where(equal, 0, number))
    closes = np.empty(len(equal), bool)
    closes[:-1] = ~equal[1:] | last[:-1]
    closes[-1] = True
    length = (run - 1) % REPEAT_MAX + 1
    return equal & (closes | (length == REPEAT_MAX)), length


def _arguments(code: Array, units: Array, slots2: Array, slots4: Array, slots8: Array) -> Array:
    """The argument bits of every group, left-aligned in 64 bits."""
    kind = KIND[code]
    value = np.where(kind == LITERAL, units, slots2)
    value = np.where(kind == INDEX4, np.repeat(slots4, 2, axis=1), value)
    value = np.where(kind == INDEX8, slots8, value).astype(np.uint64)
    value[~_FIRST_OF_VALUE[code]] = 0
    shifted = value << SHIFT[code]
    return np.asarray(shifted[:, 0] | shifted[:, 1] | shifted[:, 2] | shifted[:, 3])


def _encode_batch(inputs: list[bytes]) -> list[bytes]:
    groups = np.array([len(data) // GROUP_BYTES for data in inputs])
    rows = groups + _TRAILER_GROUPS
    start = np.cumsum(rows) - rows
    joined = b"".join(data.ljust(GROUP_BYTES * int(count), b"\0") for data, count in zip(inputs, rows, strict=True))
    whole = np.frombuffer(joined, ">u8").astype(np.uint64)
    halves = np.frombuffer(joined, ">u4").astype(np.uint32)
    units = np.frombuffer(joined, ">u2").astype(np.uint16)
    first_group = np.repeat(start, rows)

    found8, slots8 = _find(whole, 8, first_group)
    found4, slots4 = _find(halves, 4, first_group)
    found2, slots2 = _find(units, 2, first_group)
    found = np.packbits(np.hstack((found8, found4, found2)), axis=1, bitorder="little")[:, 0]
    code = _TEMPLATE_OF_FOUND[found]
    arguments = _arguments(code, units.reshape(-1, 4), slots2, slots4, slots8)
    code[whole == 0] = ZEROS
    arguments[whole == 0] = 0

    equal = np.zeros(len(whole), bool)
    equal[1:] = whole[1:] == whole[:-1]
    equal[start] = False
    trailer = start + groups
    equal[trailer] = equal[trailer + 1] = False
    last = np.zeros(len(whole), bool)
    last[trailer - 1] = True  # the row before the first input's start does not matter
    closing, repeats = _repeat_tokens(equal, last)
    code[equal] = REPEAT
    arguments[equal] = (repeats[equal] - 1).astype(np.uint64) << np.uint64(64 - REPEAT_BITS)
    bits = TOKEN_BITS[code].astype(np.int64)
    bits[equal & ~closing] = 0
    _set_trailers(inputs, trailer, code, arguments, bits)
    return _pack(code, arguments, bits, start)


def _set_trailers(inputs: list[bytes], trailer: Array, code: Array, arguments: Array, bits: Array) -> None:
    """Fill in the short data and end tokens of every input."""
    for data, row in zip(inputs, trailer.tolist(), strict=True):
        rest = data[len(data) // GROUP_BYTES * GROUP_BYTES :]
        count = len(rest)
        code[row] = SHORT_DATA
        content = int.from_bytes(rest.ljust(GROUP_BYTES, b"\0"), "big")
        arguments[row] = count << (64 - SHORT_COUNT_BITS) | content >> SHORT_COUNT_BITS
        bits[row] = CODE_BITS + SHORT_COUNT_BITS + 8 * count if count else 0
        code[row + 1] = END
        arguments[row + 1] = crc32_msb(data) << (64 - CRC_BITS)
        bits[row + 1] = CODE_BITS + CRC_BITS


def _pack(code: Array, arguments: Array, bits: Array, start: Array) -> list[bytes]:
    """Concatenate the tokens of every input (rows from ``start``), padded to 64-bit words."""
    ends = np.cumsum(bits)
    before = ends - bits
    stream_bits = np.add.reduceat(bits, start)
    words = (stream_bits + 63) // 64
    first_word = np.cumsum(words) - words
    shift_rows = np.diff(np.append(start, len(bits)))
    position = before - np.repeat(before[start] - 64 * first_word, shift_rows)
    used = bits > 0
    position, code, arguments = position[used], code[used].astype(np.uint64), arguments[used]

    high = (code << np.uint64(64 - CODE_BITS)) | (arguments >> np.uint64(CODE_BITS))
    low = arguments << np.uint64(64 - CODE_BITS)
    word, shift = position >> 6, (position & 63).astype(np.uint64)
    back = np.uint64(64) - shift
    out = np.zeros(int(words.sum()) + 2, np.uint64)
    firsts = np.flatnonzero(np.diff(word, prepend=-1))
    at = word[firsts]
    out[at] |= np.bitwise_or.reduceat(high >> shift, firsts)
    out[at + 1] |= np.bitwise_or.reduceat((high << back) | (low >> shift), firsts)
    out[at + 2] |= np.bitwise_or.reduceat(low << back, firsts)
    content = out.astype(">u8").tobytes()
    return [
        content[8 * begin : 8 * (begin + count)]
        for begin, count in zip(first_word.tolist(), words.tolist(), strict=True)
    ]
