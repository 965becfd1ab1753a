"""Where undo files are kept, and which there are."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoned_tools.device.files import open_regular, sync_directory
from zoned_tools.device.undo_format import read_header
from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.device.base import Device

SUFFIX = ".undo"
_ROOT = Path("/var/lib/zoned_tools/undo")
_NAME_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class UndoEntry:
    """One undo file, as its header describes it.

    Attributes:
        devices: as they were named when it was saved.
        identity: layout and uuid that were on them; empty when nothing was recognised.
        created: ISO 8601, UTC.
        size_bytes: of the file.
    """

    path: str
    title: str
    devices: tuple[str, ...]
    identity: str
    created: str
    size_bytes: int


def undo_directory() -> Path:
    """``$ZONED_UNDO_DIR``; else for root ``/var/lib/zoned_tools/undo``, for others the XDG state directory's."""
    chosen = os.environ.get("ZONED_UNDO_DIR")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return _ROOT
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "zoned_tools" / "undo"


def default_undo_path(devices: Sequence[Device], title: str) -> str:
    """A name for a new undo file, made of device, time and title; its directory is created, for its owner alone.

    Raises:
        DeviceError: the directory cannot be created.
    """
    directory = undo_directory()
    now = datetime.datetime.now(datetime.UTC)
    first = os.path.basename(devices[0].path.rstrip("/")) if devices else ""
    device = _plain(first) or "device"
    more = f"+{len(devices) - 1}" if len(devices) > 1 else ""
    words = "-".join(word for word in (device + more, now.strftime("%Y%m%dT%H%M%S.%fZ"), _plain(title)) if word)
    try:
        _make_directory(directory)
    except OSError as error:
        raise DeviceError.from_os_error(error, str(directory), "cannot create the directory of undo files") from None
    return str(directory / (words + SUFFIX))


def _make_directory(directory: Path) -> None:
    """Make it and what is missing above it, durable: a power cut must not take an undo file away with its directory.

    Raises:
        OSError: it cannot be done.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_directory(str(path))


def _plain(text: str) -> str:
    """Letters, digits and what is harmless in a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:_NAME_CHARACTERS]


def list_undo_files(directory: str | None = None) -> list[UndoEntry]:
    """The undo files in the default directory or another, newest first; only headers are read.

    Files that are no undo files are left out.

    Raises:
        DeviceError: the directory cannot be read; one that does not exist has no files.
    """
    where = Path(directory) if directory is not None else undo_directory()
    try:
        names = sorted(os.listdir(where))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DeviceError.from_os_error(error, str(where), "cannot read") from None
    found = [_entry(str(where / name)) for name in names if name.endswith(SUFFIX)]
    return sorted(
        (entry for entry in found if entry is not None), key=lambda entry: (entry.created, entry.path), reverse=True
    )


def _entry(path: str) -> UndoEntry | None:
    try:
        fd = open_regular(path, path, writable=False)
    except DeviceError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        try:
            header = read_header(file)
        except (OSError, ValueError):
            return None
    changed = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC).isoformat(timespec="seconds")
    return UndoEntry(
        path=path,
        title=header.title,
        devices=tuple(device.path for device in header.devices),
        identity=header.identity,
        created=header.created or changed,
        size_bytes=status.st_size,
    )
