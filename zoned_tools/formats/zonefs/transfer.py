"""Moving whole contents into files and out of them, checked before anything is written."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from zoned_tools.device.plan import Plan, Stream
from zoned_tools.errors import DeviceError
from zoned_tools.formats.zonefs.mapper.files import FileError, FileRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.formats.zonefs.mapper.open import ZonefsTree

CHUNK_BYTES = 1 << 20


def read_chunks(
    tree: ZonefsTree,
    path: str,
    *,
    offset_bytes: int = 0,
    length_bytes: int | None = None,
    raw: bool = False,
    unread: Callable[[BadAreas], None] | None = None,
) -> Iterator[bytes]:
    """The content of a file from ``offset_bytes`` on; with ``raw`` its zones up to their capacity.

    Args:
        unread: told of what cannot be read, in bytes of the file, which becomes zeroes; None to fail there.

    Raises:
        FileError: as :meth:`ZonefsTree.read`.
    """
    read = tree.read_raw if raw else tree.read

    def salvage(path: str, at: int, count: int) -> bytes:
        content, bad = tree.salvage(path, at, count, raw=raw)
        if unread is not None and len(bad):
            unread(bad)
        return content

    end = tree.file(path).capacity_bytes
    if length_bytes is not None:
        end = min(end, offset_bytes + length_bytes)
    at = offset_bytes
    while True:
        chunk = (read if unread is None else salvage)(path, at, min(CHUNK_BYTES, max(end - at, 0)))
        if not chunk:
            return
        yield chunk
        at += len(chunk)


@dataclass(frozen=True, slots=True)
class Put:
    """A write that was checked: ``length_bytes`` from the source, then ``padding_bytes`` of zeroes."""

    ref: FileRef
    offset_bytes: int
    length_bytes: int
    padding_bytes: int

    def describe(self) -> str:
        total = self.length_bytes + self.padding_bytes
        return f"write {total} bytes to {self.ref.path} at byte {self.offset_bytes}"


def plan_put(
    tree: ZonefsTree, path: str, length_bytes: int, *, offset_bytes: int | None = None, pad: bool = False
) -> Put:
    """Check a write of ``length_bytes``; ``offset_bytes`` None is the end of a sequential file, the start of another.

    Raises:
        FileError: with the errno of :meth:`ZonefsTree.write`; EFBIG also when only a part would fit.
    """
    ref = tree.file(path)
    tree.check_changeable(path)
    offset = (ref.size_bytes if ref.sequential else 0) if offset_bytes is None else offset_bytes
    unit = tree.volume.block_bytes
    padding = -length_bytes % unit if pad else 0
    fault: tuple[str, int] | None = None
    if offset < 0:
        fault = ("negative offset", errno.EINVAL)
    elif offset + length_bytes + padding > ref.capacity_bytes:
        room = max(ref.capacity_bytes - offset, 0)
        fault = (f"{length_bytes + padding} bytes do not fit at byte {offset}, there is room for {room}", errno.EFBIG)
    elif ref.sequential and offset != ref.size_bytes:
        fault = (f"it can only be written at its end, byte {ref.size_bytes}", errno.EINVAL)
    elif ref.sequential and (length_bytes + padding) % unit:
        fault = (f"{length_bytes} bytes are not a multiple of the {unit}-byte block (--pad adds zeroes)", errno.EINVAL)
    if fault is not None:
        raise FileError(f"{ref.path}: {fault[0]}", device=tree.volume.device.path, errno=fault[1])
    return Put(ref, offset, length_bytes, padding)


def put_plan(
    tree: ZonefsTree,
    put: Put,
    source: BinaryIO,
    progress: Callable[[int], None] | None = None,
    *,
    name: str = "standard input",
) -> Plan:
    """A checked write as a plan of one step; empty when there is nothing to write."""
    plan = Plan(f"put {put.ref.path}")
    length = put.length_bytes + put.padding_bytes
    if length:
        at = put.ref.zone * tree.volume.device.geometry.zone_bytes + put.offset_bytes
        plan.steps.append(Stream(0, at, length, lambda: run_put(tree, put, source, progress, name=name), put.ref.path))
    return plan


def truncate_plan(tree: ZonefsTree, path: str, size_bytes: int) -> Plan:
    """A truncation as a plan of one step; empty when the file has that size.

    Raises:
        FileError: as :meth:`ZonefsTree.truncate`.
    """
    tree.check_truncate(path, size_bytes)
    ref = tree.file(path)
    plan = Plan(f"truncate {ref.path}")
    if ref.size_bytes != size_bytes:
        at = ref.zone * tree.volume.device.geometry.zone_bytes
        plan.steps.append(
            Stream(0, at, ref.capacity_bytes, lambda: tree.truncate(path, size_bytes), note=f"{size_bytes} bytes")
        )
    return plan


def run_put(
    tree: ZonefsTree,
    put: Put,
    source: BinaryIO,
    progress: Callable[[int], None] | None = None,
    *,
    name: str = "standard input",
) -> None:
    """Carry a checked write out; ``name`` is what messages call the source.

    Raises:
        FileError: the device failed, or the source is shorter than it was.
        DeviceError: the source cannot be read.
    """
    done = 0
    while done < put.length_bytes:
        wanted = min(CHUNK_BYTES, put.length_bytes - done)
        try:
            data = source.read(wanted)
        except OSError as error:
            raise DeviceError.from_os_error(error, name, "cannot read") from None
        if len(data) < wanted:
            raise FileError("the source ended early", device=tree.volume.device.path, errno=errno.EIO)
        if done + wanted == put.length_bytes:
            data += bytes(put.padding_bytes)
        at = put.offset_bytes + done
        tree.write(put.ref.path, at, data, direct=put.ref.sequential)
        done += wanted
        if progress is not None:
            progress(done)
