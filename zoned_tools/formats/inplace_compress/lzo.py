"""LZO streams through the libraries that are there.

Decoding: lzallright. Encoding: liblzo2.so.2 through ctypes when it is installed (about
twice as fast), else lzallright; for streams equal to the kernel's, :mod:`.lzo1x`.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

from zoned_tools.formats.inplace_compress import lzo1x
from zoned_tools.formats.inplace_compress.rejection import Outcome, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned_tools.device.base import Buffer

_LIBRARY = "liblzo2.so.2"
_WORK_BYTES = 16384 * ctypes.sizeof(ctypes.c_void_p)
"""LZO1X_1_MEM_COMPRESS of lzo/lzo1x.h."""

_VERSIONED = 17

_UNBOUNDED_MAX_BYTES = 1 << 20
"""lzallright lets the output grow to 255 times its stream; a longer stream goes to the bounded decoder."""


def decode_many(streams: Sequence[Buffer], capacities: Sequence[int]) -> list[Outcome]:
    """Decode streams into at most ``capacities`` bytes each; a rejected one gives its reason instead."""
    from lzallright import LZOCompressor, LZOError

    decompress = LZOCompressor.decompress
    outcomes: list[Outcome] = []
    for stream, capacity in zip(streams, capacities, strict=True):
        if len(stream) > _UNBOUNDED_MAX_BYTES or (len(stream) >= 5 and stream[0] == _VERSIONED):
            outcomes.append(_decode_bounded(bytes(stream), capacity))
            continue
        try:
            content = decompress(stream, capacity)
        except LZOError as error:
            outcomes.append(Rejected(f"LZO: {str(error.args[0]).removeprefix('EResult.')}"))
            continue
        outcomes.append(content if len(content) <= capacity else Rejected("the output is longer than its extent"))
    return outcomes


def _decode_bounded(stream: bytes, capacity: int) -> Outcome:
    try:
        return lzo1x.decode(stream, capacity)
    except Rejected as reason:
        return reason


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    """liblzo2, None when it is not installed or too old."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        library.lzo1x_1_compress.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.c_void_p,
        )
    except (OSError, AttributeError):
        return None
    return library


@functools.cache
def fast_encoder() -> Callable[[bytes], bytes]:
    """The fastest encoder that is installed; its streams differ from the kernel's in some bytes."""
    library = _load_library()
    if library is None:
        from lzallright import LZOCompressor

        compress: Callable[[bytes], bytes] = LZOCompressor().compress
        return compress
    return _library_encoder(library.lzo1x_1_compress)


def _library_encoder(function: Callable[..., object]) -> Callable[[bytes], bytes]:
    work = ctypes.create_string_buffer(_WORK_BYTES)
    written = ctypes.c_size_t()
    reference = ctypes.byref(written)
    room = ctypes.create_string_buffer(1)

    def encode(data: bytes) -> bytes:
        nonlocal room
        worst = len(data) + len(data) // 16 + 67
        if len(room) < worst:
            room = ctypes.create_string_buffer(worst)
        function(data, len(data), room, reference, work)
        return ctypes.string_at(room, written.value)

    return encode


def encode_many(inputs: Sequence[Buffer], *, exact: bool) -> list[bytes]:
    """Encode inputs, each to a stream of its own.

    Args:
        exact: make the very bytes of the kernel's encoder, at about a fiftieth of the speed.
    """
    encode = lzo1x.encode if exact else fast_encoder()
    return [encode(bytes(data)) for data in inputs]
