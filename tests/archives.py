"""Vector archives, unpacked when a test wants them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path


def unpack(archive_path: Path, directory: Path) -> Path:
    """Unpack a ``.tar.xz`` of sparse images; returns the directory."""
    with tarfile.open(archive_path) as archive:
        archive.extractall(directory, filter="data")
    return directory


def unpacked_once(vectors: Path, make_directory: Callable[[str], Path]) -> Callable[[str], Path]:
    """``image(name)``: ``disk.img`` of ``vectors/name.tar.xz``, unpacked at its first use; not to be written to."""
    done: dict[str, Path] = {}

    def image(name: str) -> Path:
        if name not in done:
            done[name] = unpack(vectors / f"{name}.tar.xz", make_directory(name)) / "disk.img"
        return done[name]

    return image
