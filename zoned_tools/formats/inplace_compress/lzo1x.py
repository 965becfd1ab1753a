"""LZO1X in plain Python: the kernel's encoder byte for byte, and a decoder for versioned streams.

Reading and bulk writing go through libraries (see :mod:`.lzo`); they produce and accept
interchangeable streams, but the bytes of an encoder differ. To predict what the kernel
stores, its own choices are needed: LZO1X-1 of lib/lzo/lzo1x_compress.c, bitstream
version 0. The decoder also reads lzo-rle streams (version 1 and up, first byte 17), which
the libraries do not know.
"""

from __future__ import annotations

from zoned_tools.formats.inplace_compress.rejection import Rejected

_CHUNK_BYTES = 49152
_TAIL_BYTES = 20
"""Bytes at the end of a chunk in which no match starts."""

_HASH_FACTOR = 0x1824429D
_HASH_SHIFT = 19
_END_MARKER = b"\x11\0\0"
_NEAR_MAX, _MIDDLE_MAX = 2048, 16384
_MATCH_STEP = 8
_VERSIONED = 17


def encode(data: bytes) -> bytes:
    """The stream that the kernel's crypto "lzo" makes of ``data``."""
    out = bytearray()
    pending = base = 0
    while len(data) - base > _TAIL_BYTES:
        end = min(base + _CHUNK_BYTES, len(data))
        pending = _encode_chunk(data, base, end, pending, out)
        base = end
    count = pending + len(data) - base
    if count:
        rest = data[len(data) - count :]
        if not out and count <= 238:
            out.append(17 + count)
            out += rest
        else:
            _put_literals(out, rest)
    return bytes(out + _END_MARKER)


def _encode_chunk(data: bytes, base: int, end: int, pending: int, out: bytearray) -> int:
    """Encode ``data[base:end]``; returns how many of its last bytes are literals still to be written."""
    table: dict[int, int] = {}
    limit = end - _TAIL_BYTES
    literal_start = base
    at = base + max(0, 4 - pending)
    at += 1 + (at - literal_start) // 32
    while at < limit:
        word = data[at : at + 4]
        key = (int.from_bytes(word, "little") * _HASH_FACTOR & 0xFFFFFFFF) >> _HASH_SHIFT
        match = table.get(key, base)
        table[key] = at
        if data[match : match + 4] != word:
            at += 1 + (at - literal_start) // 32
            continue
        _put_literals(out, data[literal_start - pending : at])
        pending = 0
        length = _match_length(data, at, match, limit)
        _put_match(out, at - match, length)
        at += length
        literal_start = at
    return end - (literal_start - pending)


def _match_length(data: bytes, at: int, match: int, limit: int) -> int:
    """Equal bytes at both places, at least 4; the last step of 8 may pass ``limit``."""
    length, step = 4, _MATCH_STEP
    longest = 4 + _MATCH_STEP * max(1, -(-(limit - at - 4) // _MATCH_STEP))
    while length < longest:
        step = min(step, longest - length)
        ours = data[at + length : at + length + step]
        theirs = data[match + length : match + length + step]
        if ours != theirs:
            difference = int.from_bytes(ours, "little") ^ int.from_bytes(theirs, "little")
            return length + ((difference & -difference).bit_length() - 1) // 8
        length += step
        step = min(4 * step, 1024)
    return longest


def _put_extension(out: bytearray, count: int) -> None:
    zeroes, rest = divmod(count - 1, 255)
    out += bytes(zeroes)
    out.append(rest + 1)


def _put_literals(out: bytearray, literals: bytes) -> None:
    count = len(literals)
    if count == 0:
        return
    if count <= 3:
        out[-2] |= count
    elif count <= 18:
        out.append(count - 3)
    else:
        out.append(0)
        _put_extension(out, count - 18)
    out += literals


def _put_match(out: bytearray, distance: int, length: int) -> None:
    if length <= 8 and distance <= _NEAR_MAX:
        distance -= 1
        out += bytes(((length - 1) << 5 | (distance & 7) << 2, distance >> 3))
        return
    if distance <= _MIDDLE_MAX:
        opcode, inline_max = 32, 33
        low = distance - 1
    else:
        low = distance - _MIDDLE_MAX
        opcode, inline_max = 16 | (low >> 11) & 8, 9
    if length <= inline_max:
        out.append(opcode | (length - 2))
    else:
        out.append(opcode)
        _put_extension(out, length - inline_max)
    out += ((low & 0x3FFF) << 2).to_bytes(2, "little")


class _Reader:
    """The stream and the output of one decoding."""

    def __init__(self, stream: bytes, capacity: int) -> None:
        self.stream = stream
        self.at = 0
        self.output = bytearray()
        self.capacity = capacity

    def byte(self) -> int:
        if self.at >= len(self.stream):
            raise Rejected("the stream ends inside an instruction")
        self.at += 1
        return self.stream[self.at - 1]

    def word(self) -> int:
        return self.byte() | self.byte() << 8

    def extension(self, start: int) -> int:
        length = start
        while (value := self.byte()) == 0:
            length += 255
        return length + value

    def literals(self, count: int) -> None:
        self._reserve(count)
        if self.at + count > len(self.stream):
            raise Rejected("the stream ends inside literals")
        self.output += self.stream[self.at : self.at + count]
        self.at += count

    def zeroes(self, count: int) -> None:
        self._reserve(count)
        self.output += bytes(count)

    def copy(self, distance: int, count: int) -> None:
        if distance > len(self.output):
            raise Rejected("a match begins before the output")
        self._reserve(count)
        source = self.output[-distance:][:count]
        self.output += (source * (count // len(source) + 1))[:count]

    def _reserve(self, count: int) -> None:
        if len(self.output) + count > self.capacity:
            raise Rejected("the output is longer than its extent")


def decode(stream: bytes, capacity: int) -> bytes:
    """Decode a stream, versioned or not, that must be consumed exactly.

    Raises:
        Rejected: the stream is damaged or its output longer than ``capacity``.
    """
    reader = _Reader(stream, capacity)
    if len(stream) < len(_END_MARKER):
        raise Rejected("the stream is too short")
    version = 0
    if stream[0] == _VERSIONED and len(stream) >= 5:
        version, reader.at = stream[1], 2
    state = 0
    first = stream[reader.at]
    if first > 17:
        reader.at += 1
        reader.literals(first - 17)
        state = min(first - 17, 4)
    while True:
        instruction = reader.byte()
        if instruction < 16 and state == 0:
            reader.literals(3 + (instruction or reader.extension(15)))
            state = 4
            continue
        if 16 <= instruction < 32:
            following = _far_match(reader, instruction, version)
            if following is None:
                return bytes(reader.output)
        else:
            following = _near_match(reader, instruction, state)
        reader.literals(following)
        state = following


def _near_match(reader: _Reader, instruction: int, state: int) -> int:
    """A match within 16 KiB; returns the number of literals that follow."""
    if instruction >= 64:
        distance = (reader.byte() << 3) + (instruction >> 2 & 7) + 1
        reader.copy(distance, (instruction >> 5) + 1)
        return instruction & 3
    if instruction >= 32:
        length = 2 + (instruction & 31 or reader.extension(31))
        word = reader.word()
        reader.copy((word >> 2) + 1, length)
        return word & 3
    distance = (reader.byte() << 2) + (instruction >> 2) + 1
    if state == 4:
        reader.copy(distance + 2048, 3)
    else:
        reader.copy(distance, 2)
    return instruction & 3


def _far_match(reader: _Reader, instruction: int, version: int) -> int | None:
    """A match beyond 16 KiB, a run of zeroes, or the end (None)."""
    if version and instruction & 0xF8 == 0x18 and reader.at + 2 <= len(reader.stream):
        word = int.from_bytes(reader.stream[reader.at : reader.at + 2], "little")
        if word & 0xFFFC == 0xFFFC:
            reader.at += 2
            reader.zeroes((reader.byte() << 3 | instruction & 7) + 4)
            return word & 3
    length = 2 + (instruction & 7 or reader.extension(7))
    word = reader.word()
    distance = ((instruction & 8) << 11) + (word >> 2)
    if distance == 0:
        if length != 3 or reader.at != len(reader.stream):
            raise Rejected("the end marker is damaged or not at the end")
        return None
    reader.copy(distance + 16384, length)
    return word & 3
