"""Fields that several layouts use: UUIDs, fixed-size labels, and numpy types derived from a declaration."""

from __future__ import annotations

import uuid
from typing import Any, cast

import numpy as np
from construct import Adapter, Bytes, Construct, FormatField, Renamed, Struct, Subconstruct

NIL_UUID = uuid.UUID(int=0)


# The stubs have type parameters that construct's own classes do not take at run time.
class _UuidAdapter(Adapter):  # type: ignore[type-arg]
    def _decode(self, obj: bytes, context: Any, path: Any) -> uuid.UUID:
        return uuid.UUID(bytes=obj)

    def _encode(self, obj: uuid.UUID, context: Any, path: Any) -> bytes:
        return obj.bytes


def Uuid() -> Construct[Any, Any]:  # noqa: N802 - reads like construct's own fields
    """16 raw bytes in text order (RFC 4122 big-endian) as a :class:`uuid.UUID`."""
    return _UuidAdapter(Bytes(16))


class _LabelAdapter(Adapter):  # type: ignore[type-arg]
    def _decode(self, obj: bytes, context: Any, path: Any) -> str:
        return obj.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def _encode(self, obj: str, context: Any, path: Any) -> bytes:
        raw = obj.encode("utf-8", "surrogateescape")
        size = self.subcon.sizeof()
        if len(raw) > size:
            raise ValueError(f"label {obj!r} is longer than {size} bytes")
        return raw.ljust(size, b"\0")


def Label(size: int) -> Construct[Any, Any]:  # noqa: N802 - reads like construct's own fields
    """``size`` bytes of NUL-padded text; bytes that are not UTF-8 survive a round trip."""
    return _LabelAdapter(Bytes(size))


def dtype_of(struct: Construct[Any, Any]) -> np.dtype[np.void]:
    """numpy type of the records that a construct ``Struct`` of fixed-size fields describes.

    Numbers become numbers of the same width and byte order, everything else raw bytes;
    unnamed padding is left out but keeps its room. One declaration serves both single
    records and whole tables.
    """
    names, formats, offsets = [], [], []
    offset = 0
    for part in cast("Struct", struct).subcons:
        size = part.sizeof()
        name = part.name
        if name is not None:
            names.append(name)
            formats.append(_format_of(part, size))
            offsets.append(offset)
        offset += size
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})


def _format_of(part: Any, size: int) -> str:
    inner = part
    while isinstance(inner, Renamed):
        inner = inner.subcon
    if isinstance(inner, FormatField):
        order, letter = inner.fmtstr[0], inner.fmtstr[1]
        kind = "i" if letter.islower() else "u"
        return f"{order}{kind}{size}"
    while isinstance(inner, Subconstruct):
        inner = inner.subcon
    return f"V{size}"
