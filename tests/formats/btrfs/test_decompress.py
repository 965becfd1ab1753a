"""Compressed extents: what compressors made comes back, and damage ends in one error."""

from __future__ import annotations

import contextlib
import ctypes
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lzallright import LZOCompressor

from zoned_tools.formats.btrfs.items import LZO, ZLIB, ZSTD
from zoned_tools.formats.btrfs.mapper.decompress import DecompressError, decompress

SECTOR = 4096
CONTENT = b"".join(b"%d lines of text\n" % number for number in range(9000))[: 100 << 10]
NOISE = bytes((number * number * 31 >> 7) % 256 for number in range(50000))


def lzo(content: bytes) -> bytes:
    """As the kernel stores it: segments of a sector, no length across the end of one."""
    out = bytearray(4)
    for at in range(0, len(content), SECTOR):
        part = bytes(LZOCompressor().compress(content[at : at + SECTOR]))
        room = -len(out) % SECTOR
        out += bytes(room if 0 < room < 4 else 0) + len(part).to_bytes(4, "little") + part
    out[:4] = len(out).to_bytes(4, "little")
    return bytes(out)


def zstd(content: bytes) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    room = ctypes.create_string_buffer(len(content) + 1000)
    library.ZSTD_compress.restype = ctypes.c_size_t
    size = library.ZSTD_compress(room, ctypes.c_size_t(len(room)), content, ctypes.c_size_t(len(content)), 3)
    return room.raw[:size]


MAKERS: dict[int, Callable[[bytes], bytes]] = {ZLIB: zlib.compress, LZO: lzo, ZSTD: zstd}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("content", [CONTENT, NOISE, bytes(5000), b"x"])
def test_content_comes_back(kind: int, content: bytes) -> None:
    """Behind the stream are the zeroes up to the end of its last sector."""
    stream = MAKERS[kind](content)
    stored = stream.ljust(-(-len(stream) // SECTOR) * SECTOR, b"\0")
    assert decompress(stored, kind, len(content), SECTOR) == content
    longer = -(-len(content) // SECTOR) * SECTOR
    assert decompress(stored, kind, longer, SECTOR) == content.ljust(longer, b"\0")


@pytest.mark.parametrize("kind", MAKERS)
@given(at=st.integers(0, 3000), junk=st.binary(min_size=1, max_size=9), cut=st.integers(0, 4096))
def test_damage_is_one_error(kind: int, at: int, junk: bytes, cut: int) -> None:
    stored = bytearray(MAKERS[kind](CONTENT))
    stored[at : at + len(junk)] = junk
    for damaged in (bytes(stored), bytes(stored[:cut]), junk * 400):
        with contextlib.suppress(DecompressError):
            assert len(decompress(damaged, kind, len(CONTENT), SECTOR)) == len(CONTENT)


def test_what_is_not_possible() -> None:
    with pytest.raises(DecompressError, match="unknown"):
        decompress(b"", 9, 10, SECTOR)
    with pytest.raises(DecompressError, match="bytes"):
        decompress(b"", ZLIB, 1 << 40, SECTOR)
