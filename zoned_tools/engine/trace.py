"""Traces of requests: fio iologs (versions 2 and 3), and the data that their writes carry.

The format is fio's own (fio(1), "TRACE FILE FORMAT"): a version line, then one action a
line, ``[timestamp] filename action [offset length]``, in bytes and microseconds (which
fio 3.33 writes; its manual names no unit). Traces are read as a stream. What a request does
is a :class:`Request`; logs of dm-log-writes (:mod:`zoned_tools.engine.log_writes`) give the same.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

from zoned_tools.errors import DeviceError, MetadataError, UsageError
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Buffer

MAX_LINE_BYTES = 8192
MAX_POSITION_BYTES = 1 << 63
CHUNK_BYTES = 4 << 20
"""Longest part of a request that is in memory at once."""

_HEADER = re.compile(rb"fio version (\d+) iolog\s*")
_NUMBER = re.compile(r"[0-9]{1,20}")
_FILE_ACTIONS = frozenset({"add", "open", "close"})


class Action(StrEnum):
    """What a request does; ``WAIT`` lets time pass."""

    READ = "read"
    WRITE = "write"
    TRIM = "trim"
    FLUSH = "flush"
    WAIT = "wait"


_ACTIONS = {
    "read": Action.READ,
    "write": Action.WRITE,
    "trim": Action.TRIM,
    "discard": Action.TRIM,
    "sync": Action.FLUSH,
    "datasync": Action.FLUSH,
    "sync_file_range": Action.FLUSH,
    "wait": Action.WAIT,
}
_RANGED = frozenset({Action.READ, Action.WRITE, Action.TRIM})


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the logical device.

    Attributes:
        place: where the trace has it (``line 17``), for messages.
        data: what a write carries; None when the trace does not say.
        microseconds: of a wait.
    """

    place: str
    action: Action
    offset_bytes: int = 0
    length_bytes: int = 0
    data: Buffer | None = None
    microseconds: int = 0


@contextmanager
def open_trace(path: str) -> Iterator[BinaryIO]:
    """Open a trace file for reading; ``-`` is standard input.

    Raises:
        DeviceError: it cannot be read.
    """
    if path == "-":
        import sys

        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; errors of the caller's body must not be wrapped
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, OSError) else OSError(0, str(error))
        raise DeviceError.from_os_error(reason, path, "cannot open the trace") from None
    with file:
        yield file


def parse_iolog(file: BinaryIO, path: str) -> Iterator[Request]:
    """The requests of a fio iolog, in order.

    Several files may be named, but only one may be read or written.

    Raises:
        MetadataError: not an iolog, or a damaged line, which is named.
        UsageError: requests to more than one file.
        DeviceError: the file cannot be read.
    """
    lines = _numbered_lines(file, path)
    version = _version(next(lines, (1, b""))[1], path)
    used: str | None = None
    previous_time = 0
    for number, raw in lines:
        words = raw.decode("utf-8", "surrogateescape").split()
        if not words:
            continue
        if version == 3:
            time = _integer(words.pop(0), path, number)
            if time > previous_time:
                yield Request(f"line {number}", Action.WAIT, microseconds=time - previous_time)
                previous_time = time
        if len(words) >= 2 and words[-1] in _FILE_ACTIONS:
            continue
        name, request = _request(words, version, path, number)
        if request.action in _RANGED or request.action is Action.FLUSH:
            if used is not None and name != used:
                raise UsageError(
                    f"line {number}: requests to '{name}' and to '{used}'; a trace may use one file", device=path
                )
            used = name
        yield request


def _numbered_lines(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        try:
            line = file.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise DeviceError.from_os_error(error, path, "cannot read the trace") from None
        if not line:
            return
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise MetadataError(f"line {number}: longer than {MAX_LINE_BYTES} bytes", device=path)
        yield number, line


def _version(line: bytes, path: str) -> int:
    match = _HEADER.fullmatch(line)
    version = int(match[1]) if match else 0
    if version not in (2, 3):
        raise MetadataError(
            "line 1: not a fio iolog", device=path, hint="it begins with 'fio version 2 iolog' or 'fio version 3 iolog'"
        )
    return version


def _integer(word: str, path: str, number: int) -> int:
    value = int(word) if _NUMBER.fullmatch(word) else MAX_POSITION_BYTES
    if value >= MAX_POSITION_BYTES:
        raise MetadataError(f"line {number}: '{word}' is not a number of bytes or a time", device=path)
    return value


def _request(words: list[str], version: int, path: str, number: int) -> tuple[str, Request]:
    """File name and request of an I/O line; names may contain blanks, the fields are at the end."""
    if len(words) >= 2 and _ACTIONS.get(words[-1]) is Action.FLUSH:
        words = [*words, "0", "0"]
    elif len(words) >= 3 and words[-2] == "wait":
        words = [*words, "0"]
    action = _ACTIONS.get(words[-3]) if len(words) >= 4 else None
    if action is None or (action is Action.WAIT and version == 3):
        raise MetadataError(f"line {number}: not '<file> <action> <offset> <length>'", device=path)
    offset, length = (_integer(word, path, number) for word in words[-2:])
    name, place = " ".join(words[:-3]), f"line {number}"
    if action is Action.WAIT:
        return name, Request(place, action, microseconds=offset)
    if action is Action.FLUSH:
        return name, Request(place, action)
    return name, Request(place, action, offset, length)


class Pattern(StrEnum):
    """What the writes of a trace without data carry."""

    STAMP = "stamp"
    ZERO = "zero"


def pattern_data(pattern: Pattern, sequence: int, offset_bytes: int, length_bytes: int) -> bytes:
    """The bytes of a write, any alignment.

    ``stamp``: every 16 bytes are the number of the logical block and ``sequence``, both
    unsigned 64-bit little-endian, so that a block tells which write it came from.
    """
    if pattern is Pattern.ZERO or not length_bytes:
        return bytes(length_bytes)
    import numpy as np

    first = offset_bytes // LOGICAL_BLOCK_BYTES
    end = -(-(offset_bytes + length_bytes) // LOGICAL_BLOCK_BYTES)
    stamps = np.empty((end - first, LOGICAL_BLOCK_BYTES // 16, 2), "<u8")
    stamps[:, :, 0] = np.arange(first, end, dtype="<u8")[:, None]
    stamps[:, :, 1] = np.uint64(sequence % (1 << 64))
    skip = offset_bytes - first * LOGICAL_BLOCK_BYTES
    return stamps.tobytes()[skip : skip + length_bytes]
