"""LZ4 blocks, read only: the authors' development tree stores them as ``comp_alg`` 2.

Format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
"""

from __future__ import annotations

from zoned_tools.formats.inplace_compress.rejection import Rejected

_MINIMUM_MATCH = 4


def _length(stream: bytes, at: int, start: int) -> tuple[int, int]:
    """A length that begins with the nibble ``start``, and the position behind it."""
    length = start
    if start == 15:
        while True:
            if at >= len(stream):
                raise Rejected("the stream ends inside a length")
            value = stream[at]
            at += 1
            length += value
            if value != 255:
                break
    return length, at


def decode(stream: bytes, capacity: int) -> bytes:
    """Decode one block into at most ``capacity`` bytes.

    Raises:
        Rejected: the block is damaged or its output longer than ``capacity``.
    """
    output, at = bytearray(), 0
    while at < len(stream):
        token = stream[at]
        count, at = _length(stream, at + 1, token >> 4)
        if at + count > len(stream) or len(output) + count > capacity:
            raise Rejected("literals do not fit")
        output += stream[at : at + count]
        at += count
        if at == len(stream):
            return bytes(output)
        distance = int.from_bytes(stream[at : at + 2], "little")
        length, at = _length(stream, at + 2, token & 15)
        length += _MINIMUM_MATCH
        if not 0 < distance <= len(output) or at > len(stream) or len(output) + length > capacity:
            raise Rejected("a match does not fit")
        source = output[-distance:][:length]
        output += (source * (length // len(source) + 1))[:length]
    raise Rejected("the stream ends without last literals")
