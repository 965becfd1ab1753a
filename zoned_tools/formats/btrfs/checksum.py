"""The four checksums of btrfs, all from kept libraries.

Every algorithm covers bytes 0x20 to the end of a super block or tree node and fills the
first bytes of its 32-byte field; what follows in the field is not covered.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.codec.crc import crc32c
from zoned_tools.formats.btrfs.layout import CSUM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned_tools.device.base import Buffer


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One checksum algorithm.

    Attributes:
        name: as dump-super prints it.
        size: bytes of the field that it fills.
        digest: checksum bytes as they are stored.
        make_bulk: returns a function for very many blocks; its result is a number for
            algorithms of up to 8 bytes and the stored bytes for the others.
    """

    name: str
    size: int
    digest: Callable[[Buffer], bytes]
    make_bulk: Callable[[], Callable[[Buffer], int] | Callable[[Buffer], bytes]]


def crc32c_bulk() -> Callable[[Buffer], int]:
    """The library's own function: the cheapest to call very often."""
    from crc32c import crc32c as library  # its import is slow, and many commands need no checksum

    return library


def _xxhash64(data: Buffer) -> bytes:
    return _xxhash64_bulk()(data).to_bytes(8, "little")


def _xxhash64_bulk() -> Callable[[Buffer], int]:
    from xxhash import xxh64_intdigest

    return xxh64_intdigest


def _sha256(data: Buffer) -> bytes:
    return hashlib.sha256(data).digest()


def _blake2b(data: Buffer) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


ALGORITHMS = {
    0: Algorithm("crc32c", 4, lambda data: crc32c(data).to_bytes(4, "little"), crc32c_bulk),
    1: Algorithm("xxhash64", 8, _xxhash64, _xxhash64_bulk),
    2: Algorithm("sha256", 32, _sha256, lambda: _sha256),
    3: Algorithm("blake2", 32, _blake2b, lambda: _blake2b),
}
"""Algorithm of each ``csum_type``."""


def csum_matches(block: Buffer, csum_type: int) -> bool:
    """Whether the checksum of a whole super block or node is right; False for an unknown type."""
    algorithm = ALGORITHMS.get(csum_type)
    if algorithm is None:
        return False
    view = memoryview(block)
    return algorithm.digest(view[CSUM_BYTES:]) == view[: algorithm.size]


def seal(block: bytes, csum_type: int) -> bytes:
    """``block`` with its checksum field computed anew, the unused part of the field zero."""
    body = block[CSUM_BYTES:]
    return ALGORITHMS[csum_type].digest(body).ljust(CSUM_BYTES, b"\0") + body
