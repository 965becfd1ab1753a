"""Bytes of a drive that cannot be read: what they are, who knows them, and reading around them.

Source: sections 1.1 and 1.3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from zoned_tools.device.base import Device
    from zoned_tools.device.zones import BoolArray, IntArray

FINISHED = "+"
NON_TRIED = "?"
BAD_SECTOR = "-"
STATUSES = "?*/-+"
"""Of ddrescue: non-tried, non-trimmed, non-scraped, bad sector, finished."""

UNIT_BYTES = 4096
"""Metadata are read by whole blocks: one with an unreadable byte is unreadable."""


def _none() -> IntArray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class BadAreas:
    """Unreadable ranges: ascending, disjoint, as columns of one length.

    Attributes:
        starts, ends: bytes, the end not included.
        status: code point of ddrescue's letter for each range; never that of ``+``.
    """

    starts: IntArray = field(default_factory=_none)
    ends: IntArray = field(default_factory=_none)
    status: IntArray = field(default_factory=_none)

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, str]]) -> BadAreas:
        """From ``(start, end, letter)`` rows, ascending; ranges that touch and have one letter are joined."""
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        letters = np.array([ord(letter) for letter in columns[2]], np.int64)
        return cls.of_columns(np.array(columns[0], np.int64), np.array(columns[1], np.int64), letters)

    @classmethod
    def of_columns(cls, starts: IntArray, ends: IntArray, status: IntArray) -> BadAreas:
        """The same from columns, as the attributes have them but for empty ranges, and such that can be joined."""
        some = starts < ends
        starts, ends, status = starts[some], ends[some], status[some]
        if not len(starts):
            return cls()
        begins = np.append(True, (starts[1:] != ends[:-1]) | (status[1:] != status[:-1]))
        first = np.flatnonzero(begins)
        return cls(starts[first], ends[np.append(first[1:], len(starts)) - 1], status[first])

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        for start, end, letter in zip(self.starts.tolist(), self.ends.tolist(), self.status.tolist(), strict=True):
            yield start, end, chr(letter)

    @property
    def total_bytes(self) -> int:
        return int((self.ends - self.starts).sum())

    def within(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """The parts inside a range."""
        end = offset_bytes + length_bytes
        first = int(np.searchsorted(self.ends, offset_bytes, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left"))
        if first >= last or not length_bytes:
            return BadAreas()
        rows = slice(first, last)
        return BadAreas(
            np.maximum(self.starts[rows], offset_bytes), np.minimum(self.ends[rows], end), self.status[rows]
        )

    def shifted(self, by_bytes: int) -> BadAreas:
        """The same ranges on a device that begins elsewhere."""
        return BadAreas(self.starts + by_bytes, self.ends + by_bytes, self.status)

    def joined(self, later: BadAreas) -> BadAreas:
        """These and others that all lie behind them."""
        columns = ((self.starts, later.starts), (self.ends, later.ends), (self.status, later.status))
        return BadAreas(*(np.concatenate(pair) for pair in columns))

    def without(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What is left when a range was written anew."""
        end = offset_bytes + length_bytes
        size = int(self.ends[-1]) if len(self) else 0
        return self.within(0, offset_bytes).joined(self.within(end, max(size - end, 0)))

    def over(self, size_bytes: int) -> Iterator[tuple[int, int, str]]:
        """``(start, end, status)`` rows that cover a whole drive, as a map file has them."""
        return covering(self, size_bytes, FINISHED)

    def touches(self, starts_bytes: IntArray, length_bytes: int | IntArray) -> BoolArray:
        """Which of many pieces, of one length or each of its own, have an unreadable byte."""
        first = np.searchsorted(self.ends, starts_bytes, side="right")
        last = np.searchsorted(self.starts, starts_bytes + length_bytes, side="left")
        hit: BoolArray = first < last
        return hit

    def refuse(self, offset_bytes: int, length_bytes: int, path: str) -> None:
        """Fail as a drive does when a read touches one of the ranges.

        Raises:
            DeviceError: it does (``EIO``).
        """
        bad = self.within(offset_bytes, length_bytes)
        if len(bad):
            start, end, letter = next(iter(bad))
            raise DeviceError(f"bytes {start} to {end - 1} were not rescued ({letter})", device=path, errno=errno.EIO)


def covering(rows: Iterable[tuple[int, int, str]], size_bytes: int, rest: str) -> Iterator[tuple[int, int, str]]:
    """Ascending ``(start, end, letter)`` rows with what lies between them, and up to ``size_bytes``, as ``rest``."""
    at = 0
    for start, end, letter in rows:
        yield at, start, rest
        yield start, end, letter
        at = end
    yield at, size_bytes, rest


@runtime_checkable
class KnowsBadAreas(Protocol):
    """A device that can tell without reading what cannot be read: an image with a map file, a short image."""

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        """What of a range is unreadable, above write pointers excepted; in bytes of this device."""
        ...

    @property
    def missing_bytes(self) -> int:
        """How much shorter an image is than its zone table says; these bytes are unreadable."""
        ...


def known_bad_areas(device: Device, offset_bytes: int = 0, length_bytes: int | None = None) -> BadAreas:
    """What is known to be unreadable of a range (default: to the end); empty for a device that has to be read."""
    if not isinstance(device, KnowsBadAreas):
        return BadAreas()
    length = device.geometry.size_bytes - offset_bytes if length_bytes is None else length_bytes
    return device.bad_areas(offset_bytes, length)


def read_around(
    read_into: Callable[[int, memoryview], None], bad: BadAreas, offset_bytes: int, buffer: memoryview
) -> None:
    """Fill ``buffer`` from ``offset_bytes`` on, but for the bad areas, which lie inside and are left as they are."""
    at = offset_bytes
    for start, end, _ in bad:
        read_into(at, buffer[at - offset_bytes : start - offset_bytes])
        at = end
    read_into(at, buffer[at - offset_bytes :])


def missing_bytes(device: Device) -> int:
    """How much of an image that ended early is not there."""
    return device.missing_bytes if isinstance(device, KnowsBadAreas) else 0


def salvage_into(device: Device, offset_bytes: int, buffer: memoryview, *, unit_bytes: int = UNIT_BYTES) -> BadAreas:
    """Fill ``buffer`` as far as that can be read; the rest becomes zeroes.

    What the device knows to be unreadable is not tried. Where a read fails (``EIO``), its halves are tried, down to
    ``unit_bytes``; of a known bad area the same units are left out.

    Returns:
        the ranges that were not read: whole units, counted from the start of the device.

    Raises:
        DeviceError: a read failed otherwise.
    """
    known = known_bad_areas(device, offset_bytes, len(buffer))
    rows: list[tuple[int, int, str]] = []
    at, end = offset_bytes, offset_bytes + len(buffer)
    for start, stop, letter in known:
        first = max(start // unit_bytes * unit_bytes, at)
        last = min(-(-stop // unit_bytes) * unit_bytes, end)
        if last <= at:
            continue
        _salvage(device, at, buffer[at - offset_bytes : first - offset_bytes], unit_bytes, rows)
        buffer[first - offset_bytes : last - offset_bytes] = bytes(last - first)
        rows.append((first, last, letter))
        at = last
    _salvage(device, at, buffer[at - offset_bytes :], unit_bytes, rows)
    return BadAreas.of(rows)


def _salvage(
    device: Device, offset_bytes: int, buffer: memoryview, unit_bytes: int, rows: list[tuple[int, int, str]]
) -> None:
    """Read, by halves where it fails; ``rows`` gets what failed."""
    pending = [(offset_bytes, offset_bytes + len(buffer))]
    while pending:
        start, end = pending.pop()
        if start == end:
            continue
        part = buffer[start - offset_bytes : end - offset_bytes]
        try:
            device.read_into(start, part)
        except DeviceError as error:
            if error.errno != errno.EIO:
                raise
            middle = (start + end) // 2 // unit_bytes * unit_bytes
            if middle <= start:
                middle = (start // unit_bytes + 1) * unit_bytes
            if middle >= end:
                part[:] = bytes(end - start)
                rows.append((start, end, BAD_SECTOR))
            else:
                pending += [(middle, end), (start, middle)]
