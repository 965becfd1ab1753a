"""Creating a volume: what the driver writes on its first activation, in a safe order and asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.plan import Plan
from zoned_tools.device.runs import mask_runs
from zoned_tools.errors import GeometryError, UsageError
from zoned_tools.formats.inplace_compress import layout
from zoned_tools.formats.inplace_compress.compressors import (
    WRITABLE,
    Compressor,
    compressor_by_name,
    compressor_by_number,
)
from zoned_tools.formats.inplace_compress.layout import BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES, SuperBlock
from zoned_tools.formats.inplace_compress.open import read_super_block
from zoned_tools.formats.inplace_compress.probe import VERSION_1, probe
from zoned_tools.formats.inplace_compress.table import known_data_blocks, parse_table, require_device
from zoned_tools.formats.shared.zones import ZoneFacts

if TYPE_CHECKING:
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Settings, Target


def volume_sizes(device: Device, start_bytes: int = 0, data_blocks: int | None = None) -> tuple[int, int]:
    """``(meta_blocks, data_blocks)`` of a new volume, as large as the device allows unless told.

    Raises:
        GeometryError: the device is too small, not randomly writable, or has 4 KiB logical blocks.
        UsageError: ``data_blocks`` or the start is impossible.
    """
    if start_bytes % SECTOR_BYTES or start_bytes < 0:
        raise UsageError(f"a start of {start_bytes} bytes is not a multiple of {SECTOR_BYTES}", device=device.path)
    geometry = device.geometry
    if geometry.logical_block_bytes != SECTOR_BYTES:
        raise GeometryError(
            f"logical blocks of {geometry.logical_block_bytes} bytes", device=device.path,
            hint="the target only accepts devices with 512-byte logical blocks",
        )  # fmt: skip
    device_blocks = max(0, geometry.size_bytes - start_bytes) // BLOCK_BYTES
    most = layout.max_data_blocks(device_blocks)
    if data_blocks is not None and data_blocks <= 0:
        raise UsageError("a volume needs at least one data block", device=device.path)
    if most == 0 or (data_blocks or 1) > most:
        raise GeometryError(
            f"too small: {device_blocks} blocks of {BLOCK_BYTES} bytes carry at most {most} data blocks",
            device=device.path,
        )
    wanted = data_blocks or most
    meta_blocks = layout.meta_blocks_for(wanted)
    _require_random_writes(device, start_bytes, (1 + meta_blocks + wanted) * BLOCK_BYTES)
    return meta_blocks, wanted


def _require_random_writes(device: Device, start_bytes: int, length_bytes: int) -> None:
    geometry = device.geometry
    if not geometry.is_zoned:
        return
    first, last = geometry.zone_of(start_bytes), geometry.zone_of(start_bytes + length_bytes - 1)
    if not ZoneFacts(device.zones(first, last - first + 1)).conventional.all():
        raise GeometryError(
            "the target overwrites in place, but the range holds sequential zones",
            device=device.path,
            hint=_where_it_fits(device, start_bytes),
        )


def _where_it_fits(device: Device, start_bytes: int) -> str:
    """Start and size of the largest volume that conventional zones can carry, from the start if it is in one."""
    table = device.zones()
    ends = np.append(table["start_sector"][1:], device.geometry.size_bytes // SECTOR_BYTES)
    starts = table["start_sector"].astype(np.int64)
    places = [(int(starts[a]), int(ends[b - 1])) for a, b in mask_runs(ZoneFacts(table).conventional).tolist()]
    start = start_bytes // SECTOR_BYTES
    here = [(start, end) for first, end in places if first <= start < end]
    fitting = [(layout.max_data_blocks((end - first) // BLOCK_SECTORS), first) for first, end in here or places]
    blocks, first = max(fitting, key=lambda one: (one[0], -one[1]), default=(0, 0))
    if not blocks:
        return "no conventional zones have room for one"
    at = f"--start {first} " if first or start_bytes else ""
    return f"{at}--data-blocks {blocks} works"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new volume shall be.

    Attributes:
        named_compressor: None where nothing was said.
        data_blocks: None for as many as the device allows.
        notes: what the driver would understand otherwise in the table line.
    """

    named_compressor: Compressor | None
    data_blocks: int | None
    notes: tuple[str, ...] = ()

    @property
    def compressor(self) -> Compressor:
        """Of a volume where there was none."""
        return Compressor.LZO if self.named_compressor is None else self.named_compressor

    def compressor_over(self, device: Device, start_bytes: int) -> Compressor:
        """Of a volume that takes the place of what a device holds: that of a volume there, unless one is named."""
        present = _present_compressor(device, start_bytes) if self.named_compressor is None else None
        return self.compressor if present is None else present


def _present_compressor(device: Device, start_bytes: int) -> Compressor | None:
    """The compressor of the volume that a device holds; None where it holds none, or none that can be written."""
    found = probe(device, start_bytes)
    super_block = None if found is None or found.version == VERSION_1 else read_super_block(device, start_bytes)
    compressor = None if super_block is None else compressor_by_number(super_block.comp_alg)
    return compressor if compressor in WRITABLE else None


def wanted_volume(settings: Settings, device_path: str) -> Wanted:
    """Compressor and size of a volume on a device, from ``compressor``, ``data-blocks`` and ``table``.

    Raises:
        UsageError: they contradict each other or cannot be meant, or the table line is for another device.
    """
    line, name = settings.text("table"), settings.text("compressor")
    arguments = parse_table(line) if line else None
    named = arguments.compressor if arguments is not None else ""
    if name and named and compressor_by_name(name).label != named:
        raise UsageError(f"compressor={name}, but the table line says {named}")
    if arguments is not None:
        require_device(arguments, device_path)
    notes = arguments.notes if arguments is not None else ()
    chosen = name or named
    return Wanted(compressor_by_name(chosen) if chosen else None, known_data_blocks(settings), notes)


def plan_format(target: Target, settings: Settings) -> Plan:
    """Steps that create an empty volume on the target's device; settings as in :func:`wanted_volume`.

    Raises:
        GeometryError, UsageError: as :func:`plan_volume`.
    """
    wanted = wanted_volume(settings, target.device.path)
    return plan_volume(
        target.device,
        compressor=wanted.compressor,
        start_bytes=target.start_bytes,
        data_blocks=wanted.data_blocks,
    )


def plan_volume(
    device: Device, *, compressor: Compressor, start_bytes: int = 0, data_blocks: int | None = None
) -> Plan:
    """Steps that create an empty volume of one device.

    The super block comes last: a power cut before it leaves a device without the magic
    (the driver would format it), never a volume with a foreign bitmap.

    Raises:
        GeometryError, UsageError: as :func:`volume_sizes`; LZ4 cannot be written.
    """
    if compressor not in WRITABLE:
        raise UsageError(f"volumes with {compressor.label} cannot be made", hint="lzo or 842")
    meta_blocks, blocks = volume_sizes(device, start_bytes, data_blocks)
    plan = Plan(f"format {layout.NAME}: {blocks} data blocks, {meta_blocks} meta blocks, {compressor.label}")
    plan.fill(0, start_bytes, BLOCK_BYTES, 0, "clear block 0")
    plan.flush(0)
    plan.fill(0, start_bytes + BLOCK_BYTES, meta_blocks * BLOCK_BYTES, 0, "bitmap: all holes")
    plan.flush(0)
    raw = SuperBlock(layout.MAGIC, meta_blocks, blocks, int(compressor)).pack()
    plan.write(0, start_bytes, raw.ljust(SECTOR_BYTES, b"\0"), "super block")
    plan.flush(0)
    return plan
