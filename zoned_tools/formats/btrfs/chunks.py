"""Chunks: runs of logical addresses, and where they are; the system chunk array of a super block. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from construct import Int8ul, Int16ul, Int32ul, Int64ul, Struct

from zoned_tools.codec.fields import Uuid
from zoned_tools.formats.btrfs.layout import SYS_CHUNK_ARRAY_BYTES, SYS_CHUNK_ARRAY_MIN_BYTES, Roots

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

CHUNK = Struct(
    "length" / Int64ul,
    "owner" / Int64ul,
    "stripe_len" / Int64ul,
    "type" / Int64ul,
    "io_align" / Int32ul,
    "io_width" / Int32ul,
    "sector_size" / Int32ul,
    "num_stripes" / Int16ul,
    "sub_stripes" / Int16ul,
)
STRIPE = Struct("devid" / Int64ul, "offset" / Int64ul, "dev_uuid" / Uuid())
KEY = Struct("objectid" / Int64ul, "type" / Int8ul, "offset" / Int64ul)

CHUNK_ITEM_TYPE = 228
FIRST_CHUNK_TREE_OBJECTID = 256
ROW_BYTES = 65536
"""Bytes that go to one stripe of RAID0 or RAID10 before the next one's turn (btrfs-zoned.md 8.2)."""

BLOCK_GROUP_TYPES = {0: "DATA", 1: "SYSTEM", 2: "METADATA"}
PROFILES = {
    3: "RAID0",
    4: "RAID1",
    5: "DUP",
    6: "RAID10",
    7: "RAID5",
    8: "RAID6",
    9: "RAID1C3",
    10: "RAID1C4",
}
LEAST_STRIPES = {"DUP": 2, "RAID1": 2, "RAID10": 2, "RAID1C3": 3, "RAID1C4": 4, "RAID5": 2, "RAID6": 3}
"""Stripes that a profile needs (btrfs-zoned.md 4.1)."""
COPY_PROFILES = frozenset({"single", "DUP", "RAID1", "RAID1C3", "RAID1C4"})
"""Profiles whose every stripe holds the whole chunk."""
ROW_PROFILES = frozenset({"RAID0", "RAID10"})
"""Profiles that deal a chunk out in rows, over its stripes or over pairs of them."""


def profile_name(chunk_type: int) -> str:
    """``single``, ``DUP``, ``RAID1``... of a chunk's type."""
    names = [name for bit, name in PROFILES.items() if chunk_type >> bit & 1]
    return "|".join(names) or "single"


def chunk_type_text(chunk_type: int) -> str:
    """As dump-super prints it: ``SYSTEM|single``."""
    groups = [name for bit, name in BLOCK_GROUP_TYPES.items() if chunk_type >> bit & 1]
    return "|".join([*groups, profile_name(chunk_type)])


def type_fault(chunk_type: int) -> str:
    """What is wrong with the type of a system chunk; empty when nothing is."""
    known = sum(1 << bit for bit in (*BLOCK_GROUP_TYPES, *PROFILES))
    if chunk_type & ~known:
        return f"unknown bits {chunk_type & ~known:#x} in its type"
    if [name for bit, name in BLOCK_GROUP_TYPES.items() if chunk_type >> bit & 1] != ["SYSTEM"]:
        return f"it is of type {chunk_type_text(chunk_type)}, not SYSTEM alone"
    return "it has two profiles" if "|" in profile_name(chunk_type) else ""


class ChunkError(ValueError):
    """A chunk item or the system chunk array cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Stripe:
    devid: int
    offset_bytes: int
    dev_uuid: uuid.UUID


class Place(NamedTuple):
    """One copy of a range of logical addresses; ``stripe`` is the position in the chunk item."""

    devid: int
    stripe: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: ``length_bytes`` of logical addresses from ``logical``, and where they are."""

    logical: int
    length_bytes: int
    owner: int
    stripe_len: int
    type: int
    io_align: int
    io_width: int
    sector_size: int
    sub_stripes: int
    stripes: tuple[Stripe, ...]

    @property
    def profile(self) -> str:
        return profile_name(self.type)

    @property
    def copies(self) -> int:
        """Stripes that hold the same bytes: all, one, or two of RAID10."""
        if self.profile in COPY_PROFILES:
            return len(self.stripes)
        return 2 if self.profile == "RAID10" and len(self.stripes) % 2 == 0 else 1

    @property
    def stripe_bytes(self) -> int:
        """Length of one stripe on its device: a whole zone."""
        return self.length_bytes * self.copies // len(self.stripes)

    def places(self, inside: int, length_bytes: int) -> list[Place] | None:
        """Every copy of a range that begins ``inside`` bytes into the chunk, in stripe order.

        None where the profile deals it out in a way that is not followed, or over several stripes.
        """
        first, at = 0, inside
        if self.profile in ROW_PROFILES:
            row, rest = divmod(inside, ROW_BYTES)
            if rest + length_bytes > ROW_BYTES:
                return None
            turns, turn = divmod(row, len(self.stripes) // self.copies)
            first, at = turn * self.copies, turns * ROW_BYTES + rest
        elif self.profile not in COPY_PROFILES:
            return None
        stripes = enumerate(self.stripes[first : first + self.copies], first)
        return [Place(stripe.devid, number, stripe.offset_bytes + at) for number, stripe in stripes]

    @classmethod
    def decode(cls, logical: int, raw: bytes) -> tuple[Chunk, int]:
        """Decode a chunk item at the start of ``raw``; returns it and its length.

        Raises:
            ChunkError: ``raw`` ends inside it, or it has no stripe.
        """
        size = CHUNK.sizeof()
        if len(raw) < size:
            raise ChunkError("a chunk item is cut off")
        head: Any = CHUNK.parse(raw[:size])
        end = size + head.num_stripes * STRIPE.sizeof()
        if head.num_stripes == 0:
            raise ChunkError(f"the chunk at {logical} has no stripe")
        if len(raw) < end:
            raise ChunkError(f"the chunk at {logical} claims {head.num_stripes} stripes, more than there is room for")
        stripes = [STRIPE.parse(raw[at : at + STRIPE.sizeof()]) for at in range(size, end, STRIPE.sizeof())]
        chunk = cls(
            logical,
            head.length,
            head.owner,
            head.stripe_len,
            head.type,
            head.io_align,
            head.io_width,
            head.sector_size,
            head.sub_stripes,
            tuple(Stripe(s.devid, s.offset, s.dev_uuid) for s in stripes),
        )
        return chunk, end


def iterate_sys_chunks(array: bytes) -> Iterator[Chunk]:
    """The chunks of a system chunk array, already cut to its size.

    Raises:
        ChunkError: a key is not that of a chunk, or the array ends inside an item.
    """
    at = 0
    while at < len(array):
        key_end = at + KEY.sizeof()
        if key_end > len(array):
            raise ChunkError("the system chunk array ends inside a key")
        key = KEY.parse(array[at:key_end])
        if key.type != CHUNK_ITEM_TYPE:  # the kernel does not look at the object id (btrfs-zoned.md 4.1)
            raise ChunkError(f"the system chunk array has a key ({key.objectid} {key.type} {key.offset}) of no chunk")
        chunk, size = Chunk.decode(key.offset, array[key_end:])
        yield chunk
        at = key_end + size


def sys_chunks(super_block: Roots) -> list[Chunk]:
    """The chunks in a parsed super block's system chunk array.

    Raises:
        ChunkError: the array's size or content is wrong.
    """
    size = super_block.sys_array_size
    if not SYS_CHUNK_ARRAY_MIN_BYTES <= size <= SYS_CHUNK_ARRAY_BYTES:
        raise ChunkError(f"a system chunk array of {size} bytes is not possible")
    return list(iterate_sys_chunks(super_block.sys_chunk_array[:size]))
