"""A drive of which some blocks cannot be read until they are written."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.formats.dm_zoned.images import BLOCK, Images
from zoned_tools.device.overlay import Recorder
from zoned_tools.errors import DeviceError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.judge import read_state
from zoned_tools.formats.dm_zoned.open import open_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.base import Device
    from zoned_tools.formats.dm_zoned.layout import MetadataLayout


class BadDrive(Recorder):
    """Reads that touch a bad block fail with EIO; writing one makes it good again.

    Attributes:
        bad: blocks of the device.
        touched: bad blocks that somebody tried to read.
    """

    def __init__(self, device: Device, bad: Iterable[int]) -> None:
        super().__init__(device)
        self.bad = set(bad)
        self.touched: set[int] = set()

    def _check(self, offset_bytes: int, length_bytes: int) -> None:
        hit = self.bad.intersection(range(offset_bytes // BLOCK, -(-(offset_bytes + length_bytes) // BLOCK)))
        if hit:
            self.touched |= hit
            raise DeviceError(f"block {min(hit)} cannot be read", device=self.path, errno=errno.EIO)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self._check(offset_bytes, length_bytes)
        return super().read(offset_bytes, length_bytes)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self._check(offset_bytes, len(buffer))
        super().read_into(offset_bytes, buffer)

    def write(self, offset_bytes: int, data: Any) -> None:
        super().write(offset_bytes, data)
        self.bad -= set(range(offset_bytes // BLOCK, (offset_bytes + memoryview(data).nbytes) // BLOCK))

    def discard(self, offset_bytes: int, length_bytes: int) -> None:
        super().discard(offset_bytes, length_bytes)
        self.bad -= set(range(offset_bytes // BLOCK, (offset_bytes + length_bytes) // BLOCK))


class KnowingDrive(BadDrive):
    """The same, of a device that tells what is bad without being read, as an image with a map file does."""

    def bad_areas(self, offset_bytes: int, length_bytes: int) -> BadAreas:
        from zoned_tools.device.badareas import BadAreas

        return BadAreas.of((block * BLOCK, (block + 1) * BLOCK, "*") for block in sorted(self.bad)).within(
            offset_bytes, length_bytes
        )

    @property
    def missing_bytes(self) -> int:
        return 0


def damaged(target: Target, *bad: Iterable[int], kind: type[BadDrive] = BadDrive) -> Target:
    """A target with bad blocks on each device, filled with what a reader must not look at."""
    devices = []
    for device, blocks in zip(target.devices, [*bad, *([[]] * len(target.devices))], strict=False):
        for block in blocks:
            if not device.geometry.is_zoned or device.zones(device.geometry.zone_of(block * BLOCK), 1)["type"][0] == 1:
                device.write(block * BLOCK, b"\xee" * BLOCK)
        devices.append(kind(device, blocks))
    return Target(target.layout, tuple(devices))


def layout_of(images: Images, base: str, state: str = "clean") -> MetadataLayout:
    """Where the metadata of an image are."""
    layout = read_state(open_blocks(images.target(base, state))).layout
    assert layout is not None
    return layout


def metadata_blocks(layout: MetadataLayout, number: int) -> list[int]:
    """Absolute blocks of a set, its super block first; those of the first device are the same there."""
    first = layout.set_block(number)
    return list(np.arange(first, first + layout.nr_meta_blocks))
