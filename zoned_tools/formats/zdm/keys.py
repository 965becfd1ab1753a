"""What a generation is written from: key blocks with their checksums, cache pages, CRC-of-CRC blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.codec.crc import crc32c_raw
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16
from zoned_tools.formats.zdm.layout import CACHE_PAGE_ENTRIES, Dialect

if TYPE_CHECKING:
    import uuid as uuids

    from zoned_tools.device.zones import IntArray


def key_checksum(raw: bytes) -> int:
    """crc32c of a key block, its own field taken as zero."""
    at = layout.KEY_CRC_OFFSET
    return crc32c_raw(raw[:at] + bytes(4) + raw[at + 4 :])


def super_checksum(raw: bytes) -> int:
    """Checksum of the super block inside a key block (the whole key is given)."""
    end = layout.SUPER_OFFSET + layout.SUPER_BYTES
    return crc32c_raw(raw[layout.SUPER_OFFSET : end - 4] + bytes(4)) ^ layout.SUPER_CSUM_XOR


@dataclass(slots=True)
class KeyFields:
    """What goes into a key block besides checksums of other blocks."""

    uuid: uuids.UUID
    nr_zones: int
    zdstart: int
    flags: int
    streams: bytes
    gc_reserve: int
    meta_reserve: int
    wb_blocks: int
    wb_next: int
    generation: int
    wp_crcs: list[int] = field(default_factory=list)
    zf_crcs: list[int] = field(default_factory=list)


def pack_key(fields: KeyFields, journal_map: bytes, maps: list[bytes], discards: list[bytes], md: bytes) -> bytes:
    """A key block with every checksum. ``md`` are the two blocks that will follow it."""
    pages = maps + discards
    crcs = [crc16(page) for page in pages]
    raw = bytearray(
        layout.KEY.build(
            {
                "sig0": layout.KEY_SIGNATURE,
                "sig1": layout.KEY_SIGNATURE,
                "super": {
                    "uuid": fields.uuid,
                    "nr_zones": fields.nr_zones,
                    "magic": layout.SUPER_MAGIC,
                    "zdstart": fields.zdstart,
                    "version": layout.SUPER_VERSION,
                    "packed_meta": 0,
                    "flags": fields.flags,
                    "csum": 0,
                },
                "streams": fields.streams,
                "gc_resv": fields.gc_reserve,
                "meta_resv": fields.meta_reserve,
                "n_crcs": len(pages),
                "crcs": np.array(crcs, "<u2").tobytes().ljust(800, b"\0"),
                "md_crc": crc16(md),
                "wp_crc": np.array(fields.wp_crcs, "<u2").tobytes().ljust(128, b"\0"),
                "zf_crc": np.array(fields.zf_crcs, "<u2").tobytes().ljust(128, b"\0"),
                "discards": len(discards),
                "maps": len(maps),
                "unused": 0,
                "wbjrnl": 0,
                "wb_blocks": fields.wb_blocks,
                "wb_next": fields.wb_next,
                # The reference passes the number of entries as the number of bytes.
                "wb_crc32": crc32c_raw(journal_map[: fields.wb_blocks * 1024]),
                "crc32": 0,
                "generation": fields.generation,
                "magic": layout.KEY_MAGIC,
            }
        )
    )
    csum_at = layout.SUPER_OFFSET + layout.SUPER_BYTES - 4
    raw[csum_at : csum_at + 4] = super_checksum(bytes(raw)).to_bytes(4, "little")
    at = layout.KEY_CRC_OFFSET
    raw[at : at + 4] = key_checksum(bytes(raw)).to_bytes(4, "little")
    return bytes(raw)


def cache_pages(entries: IntArray) -> list[bytes]:
    """Pages of ``(address, value)`` rows, at most 255 to a page, addresses descending as the reference sorts them."""
    ordered = entries[np.argsort(-entries[:, 0], kind="stable")] if len(entries) else entries
    pages = []
    for at in range(0, len(ordered), CACHE_PAGE_ENTRIES):
        part = ordered[at : at + CACHE_PAGE_ENTRIES].astype(np.uint64)
        words = np.full((256, 2), 0xFFFFFFFFFFFFFFFF, "<u8")
        words[0] = layout.CACHE_HEADER_TLBA, (len(part) << 48) | layout.ADDRESS_MASK
        words[1 : 1 + len(part)] = part
        pages.append(words.tobytes())
    return pages


def md_blocks(md_crcs: Words) -> bytes:
    """The CRC-of-CRC blocks."""
    return md_crcs.astype("<u2").tobytes()


def area_of(generation: int) -> int:
    """First block of the area that a generation is written to."""
    return layout.AREA_STARTS[Dialect.D3][generation % 3]
