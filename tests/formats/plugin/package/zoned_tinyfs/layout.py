"""What tinyfs keeps on disk: magic, checksum, label, and how many blocks are in use; little-endian."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Self

BLOCK_BYTES = 4096
MAGIC = b"TINY"
LABEL_BYTES = 32
_FIELDS = struct.Struct("<4sI32sQ")


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """The super block; ``used_blocks`` counts itself."""

    label_bytes: bytes = b""
    used_blocks: int = 1
    magic: bytes = MAGIC
    crc: int = 0

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Take a block apart; nothing is verified."""
        magic, crc, label, used = _FIELDS.unpack_from(raw)
        return cls(label, used, magic, crc)

    @property
    def label(self) -> str:
        """The text up to the first NUL."""
        return self.label_bytes.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")

    @property
    def label_rest(self) -> bytes:
        """What is after that NUL; zeroes, if all is well."""
        return self.label_bytes.partition(b"\0")[2]

    def pack(self) -> bytes:
        """The 4096 bytes on disk, with a checksum that fits."""
        raw = _FIELDS.pack(self.magic, 0, self.label_bytes, self.used_blocks).ljust(BLOCK_BYTES, b"\0")
        return raw[:4] + checksum(raw).to_bytes(4, "little") + raw[8:]


def checksum(raw: bytes) -> int:
    """CRC-32 of the block with the checksum's field taken as zero."""
    return zlib.crc32(raw[:4] + bytes(4) + raw[8:])
