"""Undo files as they lie on disk, and reading them without believing them.

An undo file is a zip archive, so that ordinary tools read it and every member carries a
checksum:

- ``header.json``, the first member: schema, title, time, what lies on the devices before and
  after the plan, and for each device path, size and model (of a partition its size and start);
- ``written`` (:data:`WRITTEN`): SHA-256 of each block that the plan writes or copies;
- ``touched`` (:data:`TOUCHED`): the sequential zones that the plan changes;
- ``pieces`` (:data:`PIECES`): where the bytes in ``data/N`` belong;
- ``zones/D``: zone table of device number D, as a libzbd zone-info dump;
- ``data/N``: chunks of at most 4 MiB, the pieces one after the other, compressed where a
  sample shows that it pays.

Tables are stored uncompressed: what they take in memory is bounded by the file. Nothing
else is read further than its declared length, and that is bounded by what the devices hold.
Files of the first version (``zoned.undo/1``: a member ``data/D/OFFSET`` for each range,
zones in the header) are read too.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from zoned_tools.errors import DeviceError, MetadataError

if TYPE_CHECKING:
    from typing import BinaryIO

SCHEMA, FIRST_SCHEMA = "zoned.undo/2", "zoned.undo/1"
HEADER_NAME = "header.json"
CHUNK_BYTES = 4 << 20

BAD_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, LookupError, ArithmeticError),
)
"""What the standard library raises over archives that are none."""

Records: TypeAlias = npt.NDArray[np.void]
WRITTEN = np.dtype([("device", "<u4"), ("length_bytes", "<u4"), ("offset_bytes", "<u8"), ("digest", "V32")])
TOUCHED = np.dtype([("device", "<u4"), ("zone", "<u4")])
PIECES = np.dtype(
    [("device", "<u4"), ("chunk", "<u4"), ("offset_bytes", "<u8"), ("length_bytes", "<u8"), ("skip_bytes", "<u8")]
)

MAX_HEADER_BYTES = 4 << 20
MAX_DEVICES = 1024
MAX_FIRST_WRITTEN_BYTES = 64 << 20
"""Of the compressed table of the first version."""
_MAX_MEMBERS = 1 << 20
_MAX_DIRECTORY_BYTES = 64 << 20
_MAX_NUMBER = 1 << 63
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_DEFLATED = 8


class HeaderDevice(TypedDict):
    """A device in ``header.json``; of a partition its size and start."""

    path: str
    start_bytes: int
    size_bytes: int
    model: str


class HeaderDocument(TypedDict):
    """``header.json`` as it is written."""

    schema: str
    title: str
    identity: str
    identity_after: str
    created: str
    devices: list[HeaderDevice]


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """A device as the header describes it; the path is only to be shown."""

    path: str
    start_bytes: int
    size_bytes: int
    model: str


@dataclass(frozen=True, slots=True)
class Header:
    """What ``header.json`` says.

    Attributes:
        identity, identity_after: layout and uuid before the plan and after it; empty when nothing was recognised.
        created: ISO 8601, UTC; empty in files of the first version.
        touched: ``(device, zone)`` in files of the first version.
    """

    schema: str
    title: str
    identity: str
    identity_after: str
    created: str
    devices: tuple[SavedDevice, ...]
    touched: tuple[tuple[int, int], ...]


def damaged(path: str, what: str) -> MetadataError:
    """The error for a file that cannot be played back."""
    return MetadataError(f"damaged undo file: {what}", device=path)


def parse_header(raw: bytes) -> Header:
    """Decode ``header.json``.

    Raises:
        ValueError: it is not the header of an undo file.
    """
    try:
        header: Any = json.loads(raw)
        if header["schema"] not in (SCHEMA, FIRST_SCHEMA) or not 0 < len(header["devices"]) <= MAX_DEVICES:
            raise ValueError("schema or devices")
        return Header(
            schema=header["schema"],
            title=str(header["title"]),
            identity=str(header["identity"]),
            identity_after=str(header.get("identity_after", "")),
            created=str(header.get("created", "")),
            devices=tuple(
                SavedDevice(str(d["path"]), _number(d["start_bytes"]), _number(d["size_bytes"]), str(d["model"]))
                for d in header["devices"]
            ),
            touched=tuple((_number(d), _number(z)) for d, z in header.get("sequential_zones", ())),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < _MAX_NUMBER:
        raise ValueError("not a number of bytes or zones")
    return value


def read_header(file: BinaryIO) -> Header:
    """The header of an open undo file, which is its first member; nothing else is read.

    Raises:
        ValueError: it is not an undo file.
    """
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size:
        raise ValueError("too short")
    magic, _, _, method, _, _, _, packed, size, name_length, extra = _LOCAL.unpack(raw)
    if magic != b"PK\x03\x04" or file.read(name_length) != HEADER_NAME.encode():
        raise ValueError("does not begin with a header")
    if max(size, packed) > MAX_HEADER_BYTES:
        raise ValueError("its header is too long")
    file.read(extra)
    content = file.read(packed)
    if method == _DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_HEADER_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    return parse_header(content)


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """The archive, once its directory is known to be of a sane size.

    Raises:
        BAD_ARCHIVE: it is not.
    """
    size = file.seek(0, 2)
    at = max(size - _END.size, 0)
    file.seek(at)
    raw = file.read(_END.size)
    if len(raw) < _END.size or raw[:4] != b"PK\x05\x06":
        raise ValueError("it has no end, or something after it")
    _, _, _, _, count, directory_bytes, _, _ = _END.unpack(raw)
    if count == 0xFFFF or directory_bytes == 0xFFFFFFFF:
        file.seek(max(at - 20 - _END64.size, 0))
        raw = file.read(_END64.size)
        if len(raw) == _END64.size and raw[:4] == b"PK\x06\x06":
            *_, count, directory_bytes, _ = _END64.unpack(raw)
    if count > _MAX_MEMBERS or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError("it has too many members")
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"{info.filename} is packed in another way")
    return archive


def read_table(archive: zipfile.ZipFile, name: str, dtype: np.dtype[np.void], limit_bytes: int = 0) -> Records:
    """A member of fixed-size records, stored as they are or at most ``limit_bytes`` long.

    Raises:
        ValueError: it is not that.
    """
    info = archive.getinfo(name)
    stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    if not stored and info.file_size > limit_bytes:
        raise ValueError(f"{name} is too long")
    return np.frombuffer(archive.read(info), dtype)


def pieces_of_first_version(archive: zipfile.ZipFile) -> tuple[Records, list[str]]:
    """The ranges of the first version, cut as those of the second, and the members that hold them.

    Raises:
        ValueError: a member's name is not a place.
    """
    found = []
    for info in archive.infolist():
        if info.filename.startswith("data/") and info.file_size:
            _, number, at_byte = info.filename.split("/")
            found.append((int(number), int(at_byte), info.file_size, info.filename))
    found.sort()
    rows = []
    for chunk, (device, start, size, member) in enumerate(found):
        if not (0 <= device < MAX_DEVICES and 0 <= start < _MAX_NUMBER and size < _MAX_NUMBER):
            raise ValueError(f"{member} is no place")
        at = 0
        while at < size:
            length = min(CHUNK_BYTES - (start + at) % CHUNK_BYTES, size - at)
            rows.append((device, chunk, start + at, length, at))
            if len(rows) > _MAX_MEMBERS:
                raise ValueError("it has too many pieces")
            at += length
    return np.array(rows, PIECES), [name for *_, name in found]


class Content:
    """The saved bytes, piece by piece in ascending order; ``path`` is how messages name the file."""

    def __init__(self, path: str, archive: zipfile.ZipFile, pieces: Records, members: list[str]) -> None:
        self._path = path
        self._archive = archive
        self._pieces = pieces
        self._members = members
        self._next = 0
        self._chunk = -1
        self._stream: Any = None

    def next_piece(self) -> tuple[int, int, bytes] | None:
        """``(device, offset, data)`` of the piece after the last one that was read; None at the end.

        Raises:
            DeviceError: the file cannot be read.
            MetadataError: it is not what it was when it was validated.
        """
        if self._next >= len(self._pieces):
            return None
        device, chunk, offset, length, _ = self._pieces[self._next].item()
        try:
            if chunk != self._chunk:
                self.close()
                self._chunk, self._stream = chunk, self._archive.open(self._members[chunk])
            data = self._stream.read(length)
        except OSError as error:
            raise DeviceError.from_os_error(error, self._path, "cannot read") from None
        except BAD_ARCHIVE as error:
            raise damaged(self._path, self._members[chunk]) from error
        self._next += 1
        return device, offset, data

    def close(self) -> None:
        """Close the member that is being read."""
        if self._stream is not None:
            self._stream.close()


def pays_to_compress(data: bytes | bytearray | memoryview) -> bool:
    """Whether 17 samples of a chunk shrink by a fifth together: bitmaps in use and file content do not."""
    if len(data) <= 17 << 10:
        sample = bytes(data)
    else:
        sample = b"".join(bytes(data[at : at + 1024]) for at in ((len(data) - 1024) * n // 16 for n in range(17)))
    return len(zlib.compress(sample, 1)) < len(sample) * 4 // 5
