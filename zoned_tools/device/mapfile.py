"""Map files of GNU ddrescue: which bytes of an image were rescued, and which of a device are worth reading.

Source: section 1 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

import os
import re
import warnings
from array import array
from dataclasses import dataclass, field
from enum import Enum, auto
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.badareas import FINISHED, NON_TRIED, STATUSES, BadAreas
from zoned_tools.device.files import open_regular
from zoned_tools.errors import DeviceError, DeviceWarning, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAPFILE_SUFFIX = ".map"
NO_MAPFILE = "none"
"""Word in place of a map file: there is none, also beside the image."""

_CURRENT_STATUSES = "?*/-FG+"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_MAX_BYTES = 256 << 20
_MOST = 1 << 63


def read_mapfile(path: str, size_bytes: int) -> BadAreas:
    """What the map file at ``path`` says of an image of ``size_bytes``.

    Raises:
        DeviceError: it cannot be read, or is not a map file; the message names the line.
    """
    return parse_mapfile(_read(path), path, size_bytes)


def _read(path: str) -> bytes:
    fd = open_regular(path, path, writable=False)
    with open(fd, "rb") as file:
        try:
            raw = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot read") from None
    if len(raw) > _MAX_BYTES:
        raise DeviceError(f"larger than {_MAX_BYTES >> 20} MiB, not a map file", device=path)
    return raw


def warn_device(text: str) -> None:
    """Say what was assumed of a device, once in a process."""
    warnings.warn(text, DeviceWarning, stacklevel=3)


class Use(Enum):
    """What an image with a map file is opened for."""

    READ = auto()
    WRITE = auto()
    MEND = auto()
    """Writing to a copy that no ddrescue fills: what is written becomes readable."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """What a map file says of an image.

    Attributes:
        bad: what was not rescued.
        kept: path of the map file where it is kept in step with what is written; else empty.
        size_bytes: end of the last block; ddrescue gives an image its length when it comes there.
    """

    bad: BadAreas = field(default_factory=BadAreas)
    kept: str = ""
    size_bytes: int = 0


def map_of_image(path: str, real: str, mapfile: str | None, size_bytes: int, use: Use) -> Rescued:
    """What the map file of an image says was not rescued; the file beside it counts when none is named.

    Args:
        path: how messages name the image.
        real: where it is.
        mapfile: the file that the user named, :data:`NO_MAPFILE` for none.

    Raises:
        DeviceError: the named file is not a map file.
        RefusedError: the image is wanted for writing: a later pass of ddrescue would write over the change.
    """
    if mapfile == NO_MAPFILE:
        return Rescued()
    if mapfile is None and not os.path.isfile(real + MAPFILE_SUFFIX):
        return Rescued()
    name = mapfile if mapfile is not None else path + MAPFILE_SUFFIX
    source = mapfile if mapfile is not None else real + MAPFILE_SUFFIX
    try:
        rows = _parse_rows(_read(source), source)
    except DeviceError as error:
        if mapfile is not None:
            raise
        warn_device(f"{path}: {name} is not used: {error.message}")
        return Rescued()
    bad, end = _unreadable(rows, size_bytes), rows.end
    if use is Use.MEND:
        return Rescued(bad, real + MAPFILE_SUFFIX, end)
    if use is Use.WRITE:
        raise RefusedError(
            f"has the map file {name}: a later pass of ddrescue would write over what is changed now",
            device=path,
            hint="zoned check --repair --output repairs a copy; --mapfile none sets the map file aside",
        )
    if mapfile is None:
        ranges = "range" if len(bad) == 1 else "ranges"
        warn_device(f"{path}: using the map file {name}: {len(bad)} unreadable {ranges}, {bad.total_bytes} bytes")
    return Rescued(bad, size_bytes=end)


def parse_mapfile(raw: bytes, path: str, size_bytes: int) -> BadAreas:
    """Unreadable ranges of an image of ``size_bytes``; bytes that no line is about were not tried.

    Raises:
        DeviceError: a line is not one of a map file.
    """
    return _unreadable(_parse_rows(raw, path), size_bytes)


@dataclass(slots=True)
class _Rows:
    """Contiguous blocks from byte 0 on, as columns: real files have millions of lines.

    Attributes:
        ends: of each block, where the next one begins.
        letters: its status, as the letter's byte.
    """

    ends: array[int] = field(default_factory=lambda: array("q"))
    letters: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else 0

    def add(self, end: int, letter: str) -> None:
        self.ends.append(end)
        self.letters += letter.encode()


def _unreadable(rows: _Rows, size_bytes: int) -> BadAreas:
    """What is not finished of an image; behind the last row nothing was tried."""
    rows.add(max(size_bytes, rows.end), NON_TRIED)
    ends = np.array(rows.ends, np.int64)
    starts = np.append(0, ends[:-1])
    letters = np.frombuffer(bytes(rows.letters), np.uint8).astype(np.int64)
    bad = (letters != ord(FINISHED)) & (starts < size_bytes)
    return BadAreas.of_columns(starts[bad], ends[bad], letters[bad]).within(0, size_bytes)


def _parse_rows(raw: bytes, path: str) -> _Rows:
    """The blocks of a map file, with what lies before the first one."""
    rows = _Rows()
    has_status = has_block = False
    for number, words in _lines(raw):
        if not has_status:
            if len(words) < 2 or _number(words[0]) is None or words[1] not in _CURRENT_STATUSES or len(words[1]) != 1:
                raise DeviceError(f"line {number} is not the status line of a map file", device=path)
            has_status = True
            continue
        start, length = (_number(word) for word in [*words, "", ""][:2])
        letter = words[2] if len(words) > 2 else ""
        if start is None or length is None or len(letter) != 1 or letter not in STATUSES or start + length >= _MOST:
            raise DeviceError(f"line {number} is not a block of a map file", device=path)
        if has_block and start != rows.end:
            raise DeviceError(f"line {number}: the blocks are not contiguous", device=path)
        if not has_block:
            rows.add(start, NON_TRIED)
        rows.add(start + length, letter)
        has_block = True
    if not has_block:
        raise DeviceError("not a map file: it has no block", device=path)
    return rows


def _lines(raw: bytes) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and words of what is neither blank nor a comment."""
    for number, line in enumerate(BytesIO(raw), 1):
        words = line.split()
        if words and not words[0].startswith(b"#"):
            yield number, [word.decode("latin-1") for word in words[:3]]


def _number(word: str) -> int | None:
    """A number as C reads it: decimal, hexadecimal or octal."""
    if not _NUMBER.fullmatch(word):
        return None
    try:
        return int(word, 8 if len(word) > 1 and word[0] == "0" and word[1] not in "xX" else 0)
    except ValueError:  # an octal number with an 8 or 9 in it
        return None


def mapfile_lines(rows: Iterable[tuple[int, int, str]], comments: Iterable[str] = ()) -> Iterator[str]:
    """A map file line by line, from contiguous ``(start, end, letter)`` rows that begin at 0; equal neighbours join."""
    yield "# Mapfile. Created by zoned_tools"
    for comment in comments:
        yield f"# {comment}"
    yield "# current_pos  current_status  current_pass"
    yield "0x00000000     +               1"
    yield "#      pos        size  status"
    pending: tuple[int, int, str] | None = None
    for start, end, letter in rows:
        if start >= end:
            continue
        if pending is not None and pending[2] == letter:
            pending = (pending[0], end, letter)
            continue
        if pending is not None:
            yield _block_line(*pending)
        pending = (start, end, letter)
    if pending is not None:
        yield _block_line(*pending)


def mapfile_content(rows: Iterable[tuple[int, int, str]], comments: Iterable[str] = ()) -> bytes:
    """A whole map file."""
    return "".join(f"{line}\n" for line in mapfile_lines(rows, comments)).encode()


def is_mapfile(path: str) -> bool:
    """Whether there is a file, and it is a map file."""
    try:
        read_mapfile(path, 0)
    except DeviceError:
        return False
    return True


def _block_line(start: int, end: int, letter: str) -> str:
    return f"0x{start:08X}  0x{end - start:08X}  {letter}"
