"""What zonefs keeps on disk: one super block.

All integers are little-endian. Apart from the super block at byte 0 there is only the
drive's own zone table: file sizes are write pointers, and zone 0 is never a file.
Sources: ``fs/zonefs/zonefs.h`` and ``fs/zonefs/super.c`` of the kernel (structure),
verified against kernels 6.1 and 6.12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from construct import Bytes, Int32ul, Int64ul, Struct

from zoned_tools.codec.crc import crc32_le
from zoned_tools.codec.fields import NIL_UUID, Uuid
from zoned_tools.formats.zonefs.constants import DEFAULT_PERM, LABEL_BYTES, Feature

if TYPE_CHECKING:
    import uuid

SUPER_BLOCK_BYTES = 4096
MAGIC = 0x5A4F4653
RESERVED_OFFSET = 0x6C
RESERVED_BYTES = SUPER_BLOCK_BYTES - RESERVED_OFFSET

SUPER_BLOCK = Struct(
    "magic" / Int32ul,
    "crc" / Int32ul,
    "label" / Bytes(LABEL_BYTES),
    "uuid" / Uuid(),
    "features" / Int64ul,
    "uid" / Int32ul,
    "gid" / Int32ul,
    "perm" / Int32ul,
    "reserved" / Bytes(RESERVED_BYTES),
)


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """A super block, field by field; ``perm``, ``uid`` and ``gid`` hold what is stored, used or not."""

    magic: int = MAGIC
    crc: int = 0
    label_bytes: bytes = b""
    uuid: uuid.UUID = NIL_UUID
    features: int = 0
    uid: int = 0
    gid: int = 0
    perm: int = DEFAULT_PERM
    reserved: bytes = bytes(RESERVED_BYTES)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Take 4096 bytes apart; nothing is verified."""
        fields = SUPER_BLOCK.parse(raw)
        return cls(
            magic=fields.magic,
            crc=fields.crc,
            label_bytes=fields.label,
            uuid=fields.uuid,
            features=fields.features,
            uid=fields.uid,
            gid=fields.gid,
            perm=fields.perm,
            reserved=fields.reserved,
        )

    @property
    def aggregated(self) -> bool:
        return bool(self.features & Feature.AGGR_CNV)

    @property
    def label(self) -> str:
        """The text up to the first NUL; bytes that are not UTF-8 as surrogate escapes."""
        return self.label_bytes.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    @property
    def label_text(self) -> str:
        """The label fit for any output: what is not UTF-8 is shown as escapes."""
        return self.label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @property
    def file_uid(self) -> int:
        """Owner of the files as a kernel sees it."""
        return self.uid if self.features & Feature.UID else 0

    @property
    def file_gid(self) -> int:
        """Group of the files as a kernel sees it."""
        return self.gid if self.features & Feature.GID else 0

    @property
    def file_perm(self) -> int:
        """Permission bits OR-ed into the mode of the files: cut to 16 bits, otherwise as stored."""
        return self.perm & 0xFFFF if self.features & Feature.PERM else DEFAULT_PERM

    @property
    def fsid(self) -> int:
        """``f_fsid`` of ``statfs``: the two halves of the UUID XOR-ed."""
        raw = self.uuid.bytes
        return int.from_bytes(raw[:8], "little") ^ int.from_bytes(raw[8:], "little")

    def pack(self) -> bytes:
        """The 4096 bytes on disk, with a checksum that fits."""
        fields = {
            "magic": self.magic,
            "crc": 0,
            "label": self.label_bytes.ljust(LABEL_BYTES, b"\0"),
            "uuid": self.uuid,
            "features": self.features,
            "uid": self.uid,
            "gid": self.gid,
            "perm": self.perm,
            "reserved": self.reserved,
        }
        return with_checksum(SUPER_BLOCK.build(fields))


def checksum(raw: bytes) -> int:
    """CRC-32 from all ones, not inverted, over the block with ``s_crc`` taken as zero."""
    return crc32_le(0xFFFFFFFF, raw[:4] + bytes(4) + raw[8:SUPER_BLOCK_BYTES])


def with_checksum(raw: bytes) -> bytes:
    """``raw`` with a stored checksum that fits its content."""
    return raw[:4] + checksum(raw).to_bytes(4, "little") + raw[8:]


def with_magic(raw: bytes) -> bytes:
    """``raw`` with the right magic."""
    return MAGIC.to_bytes(4, "little") + raw[4:]
