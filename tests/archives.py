"""Vector archives, unpacked when a test wants them."""

from __future__ import annotations

import lzma
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from zoned_tools.device.dump import DESCRIPTOR_BYTES, HEADER_BYTES

_BLOCK = 4096
_PIECE_BYTES = 1 << 20


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


def copy_sparse(source: Path | str, target: Path | str) -> None:
    """Copy a file, its holes as holes."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def poke(file: Path | str, offset: int, data: bytes) -> None:
    """Write over some bytes."""
    with open(file, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def set_zone(image: Path | str, zone: int, *, wp: int | None = None, condition: int | None = None) -> None:
    """Change a zone's descriptor in an image's zone table; ``wp`` is a byte of the drive."""
    at = HEADER_BYTES + zone * DESCRIPTOR_BYTES
    if wp is not None:
        poke(f"{image}.zones", at + 24, struct.pack("<Q", wp))
    if condition is not None:
        poke(f"{image}.zones", at + 40, struct.pack("<I", condition))


def expand_extents(base: Path, image: Path) -> None:
    """Expand ``base.zx.xz``, a ZX1 container (runs of one byte, and literal blocks), and its zone table."""
    head, rest = lzma.decompress(base.with_name(f"{base.name}.zx.xz").read_bytes()).split(b"\n", 1)
    _, size, count = head.split()
    *lines, literal = rest.split(b"\n", int(count))
    at = 0
    with image.open("wb") as file:
        file.truncate(int(size))
        for start, blocks, kind, *value in map(bytes.split, lines):
            length = int(blocks) * _BLOCK
            file.seek(int(start) * _BLOCK)
            if kind == b"D":
                file.write(literal[at : at + length])
                at += length
                continue
            for done in range(0, length, _PIECE_BYTES):
                file.write(bytes([int(value[0], 16)]) * min(_PIECE_BYTES, length - done))
    zones = base.with_name(f"{base.name}.zones")
    packed = base.with_name(f"{base.name}.zones.xz")
    table = zones.read_bytes() if zones.exists() else lzma.decompress(packed.read_bytes())
    image.with_name(f"{image.name}.zones").write_bytes(table)
