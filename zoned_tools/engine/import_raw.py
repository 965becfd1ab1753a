"""Fill the logical device of a target with raw content, through its layout's importer.

What will be overwritten is saved first; the target is checked before and afterwards. The content is read once, so what
depends on it is refused when it comes: what was committed until then stays, and the same command with ``resume`` goes
on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.ranges import Ranges
from zoned_tools.engine.changing import Carried, identity_of, save_overwritten
from zoned_tools.engine.checking import gather
from zoned_tools.engine.logical import opened_logical
from zoned_tools.errors import DeviceError, RefusedError
from zoned_tools.formats import registry
from zoned_tools.formats.contract import LOGICAL_BLOCK_BYTES, CheckOptions, need

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zoned_tools.device.base import Buffer
    from zoned_tools.device.plan import Plan
    from zoned_tools.device.rawsource import RawSource
    from zoned_tools.formats.contract import Imported, Importer, ImportOptions, Target


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import may do.

    Attributes:
        importer: refuses what cannot be; nothing is written before it is handed content.
        plan: what may be overwritten.
        free: zones of each kind that content may go to.
        rehearses: nothing is ever written.
    """

    importer: Importer
    plan: Plan
    free: Mapping[str, int]
    rehearses: bool = False


def plan_import(source: RawSource, target: Target, options: ImportOptions) -> ImportPlan:
    """Everything that can be refused before the content is read.

    Raises:
        RefusedError: the target holds data or is not sound, or the content is too long.
        UsageError: the layout cannot be filled like this.
        ZonedError: something cannot be read.
    """
    importer = need(registry.of(target).open_importer, target, "import raw content to")(target, options)
    free = dict(importer.free_zones())
    if source.size_bytes is None:
        return ImportPlan(importer, importer.overwrites(None), free, options.rehearse)
    if source.size_bytes > importer.size_bytes:
        raise RefusedError(
            f"{source.path} has {source.size_bytes} bytes, the target {importer.size_bytes}", device=target.device.path
        )
    for offset, length in importer.taken():
        _refuse_taken(source, target, offset, min(length, source.size_bytes - offset))
    plan = importer.overwrites(source.chunks(importer.chunk_bytes))
    return ImportPlan(importer, plan, free, options.rehearse)


def _refuse_taken(source: RawSource, target: Target, offset_bytes: int, length_bytes: int) -> None:
    for at, data in source.pieces_of(offset_bytes, offset_bytes + length_bytes):
        if np.frombuffer(data, np.uint64).any():
            raise RefusedError(
                f"the target holds data at byte {at} of {source.path}, which is not zero there",
                device=target.device.path,
            )


def import_raw(
    source: RawSource,
    target: Target,
    planned: ImportPlan,
    *,
    verify: bool = False,
    undo: str | None = None,
    no_undo: bool = False,
    saved: Callable[[Carried], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Save what may be overwritten, write the content, check, and read it back where that is wanted.

    Args:
        verify: compare what can be read with digests of what was imported.
        progress: told the offset in the content.

    Raises:
        DeviceError: a device failed, or what was imported does not read back.
        RefusedError: the content does not suit what is there, or a check finds an error afterwards.
    """
    assert not planned.rehearses
    importer = planned.importer
    identity = identity_of(target.devices)
    saved(
        save_overwritten(
            planned.plan, target.devices, undo=undo, no_undo=no_undo, undo_if_it_fits=True, identity_after=identity
        )
    )
    kept, digests = Ranges(), list[tuple[int, int, bytes]]()
    for offset, length in importer.taken():
        kept.add(offset, offset + length)
    for offset, data in source.pieces():
        importer.write(offset, data)
        for start, end in kept.gaps(offset, offset + len(data)) if verify else ():
            digests.append((start, end - start, _digest(data[start - offset : end - offset])))
        progress(offset + len(data))
    done = importer.finish()
    evidence, _ = gather(target, CheckOptions())
    if evidence.has_errors:
        raise RefusedError("imported, and check finds errors", device=target.device.path)
    if verify:
        _verify(target, digests, progress)
    return done


def rehearse_import(
    source: RawSource, planned: ImportPlan, *, progress: Callable[[int], None] = lambda _: None
) -> Imported:
    """Read the content, and count what an import of it would write; the importer was opened for that.

    Raises:
        DeviceError: it does not fit, or cannot be read.
        RefusedError: it does not suit what is there.
    """
    assert planned.rehearses
    for offset, data in source.pieces():
        planned.importer.write(offset, data)
        progress(offset + len(data))
    return planned.importer.finish()


def _digest(data: Buffer) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _verify(target: Target, digests: list[tuple[int, int, bytes]], progress: Callable[[int], None]) -> None:
    with opened_logical(target, writable=False, settings={}) as mapper:
        end = mapper.size_blocks * LOGICAL_BLOCK_BYTES
        for offset, length, digest in digests:
            count = (min(offset + length, end) - offset) // LOGICAL_BLOCK_BYTES
            found = mapper.read(offset // LOGICAL_BLOCK_BYTES, count)
            if _digest(found.ljust(length, b"\0")) != digest:
                raise DeviceError(
                    f"what was imported from byte {offset} to {offset + length - 1} does not read back",
                    device=target.device.path,
                )
            progress(offset + length)
