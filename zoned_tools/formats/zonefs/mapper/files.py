"""The things in a zonefs tree: files, what ``stat`` shows of them, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from zoned_tools.formats.zonefs.mapper.tree import FileGroup

NAME_DIGITS = 12
"""More digits than any file number has."""


class FileError(DeviceError):
    """A file operation that zonefs refuses; ``errno`` is what the kernel returns."""

    error_id = "file"


@dataclass(frozen=True, slots=True)
class Stat:
    """What ``stat`` shows of a file or directory, and what zones are behind it.

    ``mode`` includes the file type; ``capacity_bytes``, ``zone`` and ``condition`` are None
    for directories; ``blocks`` are 512-byte sectors.
    """

    path: str
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size_bytes: int
    blocks: int
    block_bytes: int
    capacity_bytes: int | None = None
    zone: int | None = None
    zone_count: int = 0
    condition: int | None = None

    @property
    def is_directory(self) -> bool:
        return self.zone is None


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file: its group and its number there."""

    group: FileGroup
    index: int

    @property
    def path(self) -> str:
        return f"/{self.group.name}/{self.index}"

    @property
    def sequential(self) -> bool:
        return self.group.sequential

    @property
    def zone(self) -> int:
        return int(self.group.zone[self.index])

    @property
    def size_bytes(self) -> int:
        return int(self.group.size_bytes[self.index])

    @property
    def capacity_bytes(self) -> int:
        return int(self.group.capacity_bytes[self.index])

    @property
    def start_bytes(self) -> int:
        return int(self.group.start_bytes[self.index])


@dataclass(frozen=True, slots=True)
class Handle:
    """An open file."""

    ref: FileRef
    writing: bool
