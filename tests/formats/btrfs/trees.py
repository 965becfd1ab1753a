"""Reading all files of a file system as the kernel's vectors have them."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zoned_tools.device.opening import open_device
from zoned_tools.formats.btrfs import LAYOUT
from zoned_tools.formats.btrfs.constants import NAME
from zoned_tools.formats.btrfs.mapper.content import DataReader
from zoned_tools.formats.btrfs.mapper.files import FileError, Found, open_files
from zoned_tools.formats.contract import Journey, Target

if TYPE_CHECKING:
    from collections.abc import Iterable


def our_content(devices: Iterable[object], **settings: str) -> dict[str, str]:
    """Path -> digest of each regular file, ``-> target`` of each symbolic link, the reason of what cannot be read."""
    with ExitStack() as stack:
        drives = tuple(stack.enter_context(open_device(str(device))) for device in devices)
        tree = open_files(Target(NAME, drives), LAYOUT.parse_settings(settings, Journey.LOGICAL))
        reader = DataReader(tree)
        found = tree.listing(tree.resolve(b"/"), recursive=True)
        return {one.path[1:].decode(): _content(reader, one) for one in found if one.kind in ("file", "symlink")}


def _content(reader: DataReader, found: Found) -> str:
    if found.reason:
        return found.reason
    if found.target is not None:
        return f"-> {found.target.decode()}"
    digest = hashlib.sha256()
    try:
        for piece in reader.pieces(found, 0, None):
            if piece.reason:
                return piece.reason
            digest.update(piece.data)
    except FileError as error:
        return error.message
    return digest.hexdigest()


def content_sha256(content: dict[str, str]) -> str:
    """One digest over all files, as ``block-groups.json`` has it."""
    lines = (f"{path} {digest}" for path, digest in content.items())
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
