"""The compressors by the number in the super block, all over many streams at a time."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.formats.inplace_compress.rejection import Outcome, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Buffer


class Compressor(IntEnum):
    """``comp_alg`` of the super block; LZ4 exists only in the authors' development tree."""

    C842 = 0
    LZO = 1
    LZ4 = 2

    @property
    def label(self) -> str:
        return {Compressor.C842: "842", Compressor.LZO: "lzo", Compressor.LZ4: "lz4"}[self]


WRITABLE = (Compressor.C842, Compressor.LZO)


def compressor_by_number(number: int) -> Compressor | None:
    """The compressor of a ``comp_alg``, None for an unknown one."""
    return Compressor(number) if number in Compressor.__members__.values() else None


def compressor_by_name(name: str) -> Compressor:
    """``lzo`` or ``842``, or a crypto driver's name that begins so (``842-generic``, ``lzo-rle``).

    Raises:
        UsageError: neither.
    """
    for compressor in WRITABLE:
        if name.startswith(compressor.label):
            return compressor
    raise UsageError(f"unknown compressor {name!r}", hint="lzo or 842")


def _decode_lz4(stream: bytes, capacity: int) -> Outcome:
    from zoned_tools.formats.inplace_compress import lz4

    try:
        return lz4.decode(stream, capacity)
    except Rejected as reason:
        return reason


def decode_many(compressor: Compressor, streams: Sequence[Buffer], capacities: Sequence[int]) -> list[Outcome]:
    """Decode streams into at most ``capacities`` bytes each; a rejected one gives its reason instead."""
    if compressor is Compressor.LZO:
        from zoned_tools.formats.inplace_compress import lzo

        return lzo.decode_many(streams, capacities)
    if compressor is Compressor.C842:
        from zoned_tools.formats.inplace_compress import c842

        return c842.decode_many(streams, capacities)
    return [_decode_lz4(bytes(s), c) for s, c in zip(streams, capacities, strict=True)]


def encode_many(compressor: Compressor, inputs: Sequence[Buffer], *, exact: bool) -> list[bytes]:
    """Encode inputs, each to a stream of its own.

    Args:
        exact: the very bytes of the kernel's LZO encoder instead of the fastest library's
            (842 is always equal to the kernel's).
    """
    if compressor is Compressor.LZO:
        from zoned_tools.formats.inplace_compress import lzo

        return lzo.encode_many(inputs, exact=exact)
    if compressor is Compressor.C842:
        from zoned_tools.formats.inplace_compress import c842

        return c842.encode_many(inputs)
    raise UsageError("LZ4 volumes can only be read", hint="export the content and import it with lzo or 842")
