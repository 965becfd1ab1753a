"""Extents that btrfs stored compressed: zlib, LZO and zstd, by the libraries that are there.

Source of the LZO form: Linux fs/btrfs/lzo.c, the comment at its top: the length of all, then segments of one sector
each behind their lengths; a length does not cross the end of a sector.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.items import COMPRESSIONS, LZO, ZLIB, ZSTD

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_EXTENT_BYTES = 128 << 10
"""Of a compressed extent, decompressed (BTRFS_MAX_UNCOMPRESSED of fs/btrfs/compression.h)."""

_LENGTH_BYTES = 4
_ZSTD_LIBRARY = "libzstd.so.1"


class DecompressError(ValueError):
    """What is stored cannot be decompressed, or no library for it is there."""


def decompress(data: bytes, compression: int, length: int, sector_bytes: int) -> bytes:
    """The ``length`` bytes of an extent; what is not stored of them is zeroes.

    Raises:
        DecompressError: it is damaged, too long, or of an unknown kind.
    """
    if length > MAX_EXTENT_BYTES:
        raise DecompressError(f"a compressed extent of {length} bytes")
    try:
        content = _DECODERS[compression](data, length, sector_bytes)
    except KeyError:
        raise DecompressError(f"compression {compression} is unknown") from None
    if len(content) > length:
        raise DecompressError(f"{COMPRESSIONS[compression]}: the content is longer than {length} bytes")
    return content.ljust(length, b"\0")


def _zlib(data: bytes, length: int, sector_bytes: int) -> bytes:
    del sector_bytes
    try:
        return zlib.decompressobj().decompress(data, max(length, 1))
    except zlib.error as error:
        raise DecompressError(str(error)) from None


def _lzo(data: bytes, length: int, sector_bytes: int) -> bytes:
    from lzallright import LZOCompressor, LZOError

    total = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES <= total <= len(data):
        raise DecompressError(f"LZO: {total} bytes are said to be stored, there are {len(data)}")
    at, parts, done = _LENGTH_BYTES, [], 0
    while at < total and done < length:
        if -at % sector_bytes < _LENGTH_BYTES and at % sector_bytes:
            at += -at % sector_bytes
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        if not 0 < size <= min(total - at, 2 * sector_bytes):
            raise DecompressError(f"LZO: a segment of {size} bytes")
        try:
            part = LZOCompressor.decompress(data[at : at + size], sector_bytes)
        except LZOError as error:
            raise DecompressError(f"LZO: {str(error.args[0]).removeprefix('EResult.')}") from None
        if len(part) > sector_bytes:
            raise DecompressError("LZO: a segment is longer than a sector")
        parts.append(part)
        done += len(part)
        at += size
    return b"".join(parts)


def _zstd(data: bytes, length: int, sector_bytes: int) -> bytes:
    del sector_bytes
    library = _zstd_library()
    size = library.ZSTD_findFrameCompressedSize(data, len(data))
    if library.ZSTD_isError(size):
        raise DecompressError("zstd: there is no whole frame")
    room = ctypes.create_string_buffer(length)
    written = library.ZSTD_decompress(room, length, data, size)
    if library.ZSTD_isError(written):
        raise DecompressError(f"zstd: {library.ZSTD_getErrorName(written).decode('ascii', 'replace')}")
    return room.raw[:written]


@functools.cache
def _zstd_library() -> ctypes.CDLL:
    """The system's libzstd (zstd.h): functions of one call.

    Raises:
        DecompressError: it is not installed.
    """
    try:
        library = ctypes.CDLL(_ZSTD_LIBRARY)
        size, text = ctypes.c_size_t, ctypes.c_char_p
        library.ZSTD_findFrameCompressedSize.argtypes, library.ZSTD_findFrameCompressedSize.restype = (text, size), size
        library.ZSTD_decompress.argtypes, library.ZSTD_decompress.restype = (ctypes.c_void_p, size, text, size), size
        library.ZSTD_isError.argtypes, library.ZSTD_isError.restype = (size,), ctypes.c_uint
        library.ZSTD_getErrorName.argtypes, library.ZSTD_getErrorName.restype = (size,), text
    except (OSError, AttributeError):
        raise DecompressError(f"zstd: the library {_ZSTD_LIBRARY} is not installed") from None
    return library


_DECODERS: dict[int, Callable[[bytes, int, int], bytes]] = {ZLIB: _zlib, LZO: _lzo, ZSTD: _zstd}
