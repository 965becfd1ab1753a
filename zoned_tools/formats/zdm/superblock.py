"""The identity super block, block 0 of the partition: recognise, parse, pack."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from zoned_tools.codec.fields import NIL_UUID
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import crc64_we

if TYPE_CHECKING:
    import uuid as uuids

    from zoned_tools.device.base import Buffer


class Form(StrEnum):
    """Which releases of the tool write an identity like this, by its checksum."""

    CRC32_512 = "crc32 over 512 bytes"
    CRC32_176 = "crc32 over 176 bytes"
    CRC64_176 = "crc64 over 176 bytes"


RELEASES = {Form.CRC32_512: "0.119 to 0.127", Form.CRC32_176: "0.110 to 0.114", Form.CRC64_176: "0.101 to 0.108"}


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """A decoded identity; the defaults are those of create.

    ``gc_prio`` is default, low, high, critical; ``gc_wm`` critical, high, low. ``form`` is
    None when no checksum is right.
    """

    uuid: uuids.UUID
    sect_start: int
    sect_size: int
    zdm_blocks: int
    data_start: int
    version: int = layout.IDENTITY_VERSION
    mz_metadata_zones: int = 3
    mz_over_provision: int = 5
    discard: int = layout.DISCARD_TRIM
    disk_type: int = 0
    zac_zbc: int = 0
    label: str = ""
    zone_size: int = layout.ZONE_SECTORS
    uuid_meta: uuids.UUID = NIL_UUID
    is_meta: int = 0
    io_queue: int = 0
    gc_prio: tuple[int, int, int, int] = (0xFF00, 0x7FFF, 0x400, 0x40)
    gc_wm: tuple[int, int, int] = (7, 5, 25)
    gc_status: int = 1
    cache_size: int = 4096
    cache_reada: int = 64
    cache_ageout_ms: int = 9000
    cache_to_pagecache: int = 0
    journal_age: int = 3
    form: Form | None = Form.CRC32_512
    magic_ok: bool = True
    crc32: int = field(default=0, compare=False)

    @property
    def reserved(self) -> int:
        """Zones kept back of each 1024: metadata and over-provision."""
        return (self.mz_metadata_zones + self.mz_over_provision) & 0xFFFFFFFF

    @property
    def version_text(self) -> str:
        return f"{self.version >> 16}.{self.version >> 8 & 0xFF}.{self.version & 0xFF}"

    @property
    def usable(self) -> bool:
        return self.magic_ok and self.form is not None

    @classmethod
    def parse(cls, block: Buffer) -> SuperBlock:
        """Block 0 (at least 512 bytes), right or wrong; see ``magic_ok`` and ``form``."""
        return _parsed(bytes(block[: layout.IDENTITY_BYTES]))

    def pack(self) -> bytes:
        """The 4096-byte block, checksummed as release 0.125 does."""
        short = layout.IDENTITY_SHORT.build(
            {
                "crc32": 0,
                "magic": layout.IDENTITY_MAGIC,
                "uuid": self.uuid,
                "version": self.version,
                "sect_start": self.sect_start,
                "sect_size": self.sect_size,
                "mz_metadata_zones": self.mz_metadata_zones,
                "mz_over_provision": self.mz_over_provision,
                "zdm_blocks": self.zdm_blocks,
                "discard": self.discard,
                "disk_type": self.disk_type,
                "zac_zbc": self.zac_zbc,
                "label": self.label,
                "data_start": self.data_start,
                "zone_size": self.zone_size,
            }
        )
        parameters = layout.IDENTITY_PARAMETERS.build(
            {
                "uuid_meta": self.uuid_meta,
                "is_meta": self.is_meta,
                "io_queue": self.io_queue,
                "gc_prio": list(self.gc_prio),
                "gc_wm": list(self.gc_wm),
                "gc_status": self.gc_status,
                "cache_size": self.cache_size,
                "cache_reada": self.cache_reada,
                "cache_ageout_ms": self.cache_ageout_ms,
                "cache_to_pagecache": self.cache_to_pagecache,
                "journal_age": self.journal_age,
            }
        )
        raw = (short + parameters).ljust(layout.IDENTITY_BYTES, b"\0")
        checksum = zlib.crc32(raw).to_bytes(4, "little")
        return (checksum + raw[4:]).ljust(layout.BLOCK_BYTES, b"\0")

    def as_current(self) -> SuperBlock:
        """The same with the checksum form that :meth:`pack` writes."""
        return replace(self, form=Form.CRC32_512, magic_ok=True)


@lru_cache(maxsize=64)
def _parsed(raw: bytes) -> SuperBlock:
    """An identity from its 512 bytes; a repair and its checks read the same ones often."""
    short = layout.IDENTITY_SHORT.parse(raw)
    form = _form_of(raw) if any(raw) else None
    base = SuperBlock(
        uuid=short.uuid,
        sect_start=short.sect_start,
        sect_size=short.sect_size,
        zdm_blocks=short.zdm_blocks,
        data_start=short.data_start,
        version=short.version,
        mz_metadata_zones=short.mz_metadata_zones,
        mz_over_provision=short.mz_over_provision,
        discard=short.discard,
        disk_type=short.disk_type,
        zac_zbc=short.zac_zbc,
        label=short.label,
        zone_size=short.zone_size,
        form=form,
        magic_ok=short.magic == layout.IDENTITY_MAGIC,
        crc32=short.crc32,
    )
    if form in (Form.CRC32_176, Form.CRC64_176):
        return base
    more = layout.IDENTITY_PARAMETERS.parse(raw[layout.IDENTITY_SHORT_BYTES :])
    return replace(
        base,
        uuid_meta=more.uuid_meta,
        is_meta=more.is_meta,
        io_queue=more.io_queue,
        gc_prio=tuple(more.gc_prio),
        gc_wm=tuple(more.gc_wm),
        gc_status=more.gc_status,
        cache_size=more.cache_size,
        cache_reada=more.cache_reada,
        cache_ageout_ms=more.cache_ageout_ms,
        cache_to_pagecache=more.cache_to_pagecache,
        journal_age=more.journal_age,
    )


def _form_of(raw: bytes) -> Form | None:
    """Which checksum is right, tried in the order that tells the releases apart."""
    stored = int.from_bytes(raw[:4], "little")
    if stored == zlib.crc32(bytes(4) + raw[4 : layout.IDENTITY_BYTES]):
        return Form.CRC32_512
    if stored == zlib.crc32(bytes(4) + raw[4 : layout.IDENTITY_SHORT_BYTES]):
        return Form.CRC32_176
    if int.from_bytes(raw[:8], "little") == crc64_we(bytes(8) + raw[8 : layout.IDENTITY_SHORT_BYTES]):
        return Form.CRC64_176
    return None


def as_json(identity: SuperBlock) -> dict[str, object]:
    """Every field, for inspect and dump."""
    return {
        "checksum": str(identity.form) if identity.form else "wrong",
        "release": RELEASES[identity.form] if identity.form else "",
        "magic_ok": identity.magic_ok,
        "uuid": str(identity.uuid),
        "version": identity.version_text,
        "label": identity.label,
        "sect_start": identity.sect_start,
        "sect_size": identity.sect_size,
        "logical_sectors": identity.zdm_blocks,
        "data_start_zone": identity.data_start,
        "zone_size_sectors": identity.zone_size,
        "metadata_zones": identity.mz_metadata_zones,
        "over_provision_zones": identity.mz_over_provision,
        "discard": identity.discard,
        "disk_type": identity.disk_type,
        "zac_zbc": identity.zac_zbc,
        "uuid_meta": str(identity.uuid_meta),
        "is_meta": identity.is_meta,
        "io_queue": identity.io_queue,
        "gc_prio": list(identity.gc_prio),
        "gc_wm": list(identity.gc_wm),
        "gc_status": identity.gc_status,
        "cache_size": identity.cache_size,
        "cache_reada": identity.cache_reada,
        "cache_ageout_ms": identity.cache_ageout_ms,
        "cache_to_pagecache": identity.cache_to_pagecache,
        "journal_age": identity.journal_age,
    }
