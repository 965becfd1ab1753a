"""842 decoding token by token, for the streams that the batch decoder hands over.

Only streams with short data (input whose length was no multiple of 8) come here; the
writers of this layout never make any.
"""

from __future__ import annotations

from zoned_tools.formats.inplace_compress.c842.templates import (
    CODE_BITS,
    CRC_BITS,
    END,
    REPEAT,
    REPEAT_BITS,
    SHORT_COUNT_BITS,
    SHORT_DATA,
    TEMPLATES,
    ZEROS,
    crc32_msb,
)
from zoned_tools.formats.inplace_compress.rejection import Rejected

_RING_BYTES = {2: 512, 4: 2048, 8: 2048}
_INDEX_BITS = {2: 8, 4: 9, 8: 8}


class _Bits:
    """Reads a byte string most significant bit first."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self._position = 0

    def take(self, count: int) -> int:
        end = self._position + count
        if end > 8 * len(self._stream):
            raise Rejected("the stream ends inside a token")
        window = int.from_bytes(self._stream[self._position // 8 : (end + 7) // 8], "big")
        self._position = end
        return (window >> (-end % 8)) & ((1 << count) - 1)


def _copy_indexed(bits: _Bits, size: int, output: bytearray, group_start: int) -> None:
    offset = bits.take(_INDEX_BITS[size]) * size
    ring = _RING_BYTES[size]
    if group_start > ring:
        section = group_start - group_start % ring
        if offset >= group_start % ring:
            section -= ring
        offset += section
    if offset + size > group_start:
        raise Rejected("an index points past the output")
    output += output[offset : offset + size]


def _put_template(bits: _Bits, code: int, output: bytearray) -> None:
    group_start = len(output)
    for argument in TEMPLATES[code]:
        size = int(argument[1])
        if argument[0] == "D":
            output += bits.take(8 * size).to_bytes(size, "big")
        else:
            _copy_indexed(bits, size, output, group_start)


def _put_repeat(bits: _Bits, output: bytearray) -> None:
    if len(output) < 8:
        raise Rejected("repeat with no output before it")
    output += output[-8:] * (bits.take(REPEAT_BITS) + 1)


def _put_short_data(bits: _Bits, output: bytearray) -> None:
    count = bits.take(SHORT_COUNT_BITS)
    if count == 0:
        raise Rejected("short data of no bytes")
    output += bits.take(8 * count).to_bytes(count, "big")


def decode(stream: bytes, capacity: int) -> bytes:
    """Decode ``stream`` into at most ``capacity`` bytes.

    Raises:
        Rejected: the stream is damaged or its output longer than ``capacity``.
    """
    bits, output = _Bits(stream), bytearray()
    while True:
        code = bits.take(CODE_BITS)
        if code in TEMPLATES:
            _put_template(bits, code, output)
        elif code == ZEROS:
            output += bytes(8)
        elif code == REPEAT:
            _put_repeat(bits, output)
        elif code == SHORT_DATA:
            _put_short_data(bits, output)
        elif code == END:
            if bits.take(CRC_BITS) != crc32_msb(bytes(output)):
                raise Rejected("the CRC does not match")
            return bytes(output)
        else:
            raise Rejected(f"invalid template {code:#x}")
        if len(output) > capacity:
            raise Rejected("the output is longer than its extent")
