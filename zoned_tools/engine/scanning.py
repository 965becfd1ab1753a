"""The journey scan: everything that is written is looked at once, for metadata that can be found without a pointer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned_tools.device.badareas import salvage_into
from zoned_tools.device.zones import shown_rows
from zoned_tools.errors import UsageError
from zoned_tools.formats import registry
from zoned_tools.formats.shared.scanning import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned_tools.device.base import Device

CHUNK_BYTES = 4 << 20


@dataclass(slots=True)
class ScanResult:
    """What a scan found.

    Attributes:
        scanned_bytes, unreadable_bytes: how much is written, and how much of it cannot be read.
        layouts: what each layout's scanner says; only those that found something.
    """

    scanned_bytes: int = 0
    unreadable_bytes: int = 0
    layouts: dict[str, Mapping[str, object]] = field(default_factory=dict)


def scan_device(
    device: Device, layout: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> ScanResult:
    """Look at everything below the write pointers.

    Args:
        layout: only for this one.
        progress: told the position on the device.

    Raises:
        UsageError: the layout has nothing that can be found so.
        DeviceError: the device failed otherwise than by an unreadable block.
    """
    chosen = [one for one in registry.ours() if layout in (None, one.name) and one.scanner is not None]
    if not chosen:
        raise UsageError(f"{layout} metadata cannot be found by a scan", device=device.path)
    scanners = {one.name: one.scanner(device) for one in chosen if one.scanner is not None}
    result = ScanResult()
    for start, end in _pieces(device):
        buffer = bytearray(end - start)
        result.unreadable_bytes += salvage_into(device, start, memoryview(buffer)).total_bytes
        result.scanned_bytes += len(buffer)
        for scanner in scanners.values():
            scanner.feed(start, buffer)
        progress(end)
    found = {name: scanner.result() for name, scanner in scanners.items()}
    result.layouts = {name: one for name, one in found.items() if one["gives"]}
    return result


def _extents(device: Device) -> Iterator[tuple[int, int]]:
    for start, end in shown_rows(device.zones(), device.geometry.size_bytes).tolist():
        yield from device.data_extents(start, end - start)


def _pieces(device: Device) -> Iterator[tuple[int, int]]:
    """``(start, end)`` in whole blocks of what may hold something."""
    size = device.geometry.size_bytes // BLOCK_BYTES * BLOCK_BYTES
    done = 0
    for offset, length in _extents(device):
        start = max(offset // BLOCK_BYTES * BLOCK_BYTES, done)
        done = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, size)
        for at in range(start, done, CHUNK_BYTES):
            yield at, min(at + CHUNK_BYTES, done)
