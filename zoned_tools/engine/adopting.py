"""Derived zone tables of raw copies, to be shown or written beside them.

Source: section 3 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned_tools.device import dump
from zoned_tools.device.files import new_file
from zoned_tools.device.sidecar import find_sidecar, sidecar_path, write_sidecar
from zoned_tools.engine.opening import opened_targets, single_target
from zoned_tools.engine.raw_copies import NO_WISHES
from zoned_tools.errors import DeviceError, RefusedError, UsageError, ZonedError
from zoned_tools.formats import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.base import Device, Geometry
    from zoned_tools.device.zones import ZoneTable
    from zoned_tools.formats.contract import DerivedZones, Target, ZoneWishes


@dataclass(frozen=True, slots=True)
class AdoptedImage:
    """A raw copy and its zone table, which is written to ``sidecar``."""

    image: str
    sidecar: str
    zones: DerivedZones


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became, or would become, of the raw copies of one target."""

    layout: str
    images: tuple[AdoptedImage, ...]


def adopt(
    paths: Sequence[str],
    wishes: ZoneWishes = NO_WISHES,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Adopted:
    """Write the zone tables of raw copies beside them; nothing is written when one cannot be.

    A member that has its table keeps it where another one has none.

    Args:
        paths: the devices of one target, in order.
        wishes: what the user knows about their zones.
        overwrite: zone tables that are there are replaced.

    Raises:
        RefusedError: every member has a zone table, nothing can be derived, the metadata contradict the wishes, or a
            copy is longer than its drive.
        ZonedError: the devices are no target, or a file cannot be read or written.
    """
    from zoned_tools.device.opening import open_devices

    with open_devices(paths, sidecars=False) as devices:
        target = single_target(devices, layout=layout, wishes=replace(wishes, insisted=True))
        images = _images(target, devices)
        nr_wishes = len(wishes.conventional)
        if nr_wishes > len(images):
            raise UsageError(f"{nr_wishes} numbers of conventional zones for {len(images)} zoned devices")
        if not overwrite:
            images = _without_table(images)
        content = [dump.encode(image.zones.geometry, image.zones.table) for image in images]
        for image, raw in zip(images, content, strict=True) if not dry_run else ():
            _write(image, raw, overwrite=overwrite)
    return Adopted(target.layout, tuple(images))


def _images(target: Target, devices: Sequence[Device]) -> list[AdoptedImage]:
    """The raw copies of a target with their derived zones."""
    if not target.derived:
        layout = registry.of(target)
        why = "needs no zone table" if layout.derive_zones is None else "is no raw copy of a zoned drive"
        raise RefusedError(f"{target.layout}: {why}", device=target.device.path)
    sizes = {device.path: device.geometry.size_bytes for device in devices}
    images = []
    for device, row in zip(target.devices, target.derived, strict=True):
        if row is None:
            continue
        if not os.path.isfile(device.path):
            raise RefusedError("not an image file: only a file can have a zone table beside it", device=device.path)
        longer = sizes[device.path] - row.geometry.size_bytes
        if longer > 0:
            raise RefusedError(
                f"{longer} bytes longer than its drive",
                device=device.path,
                hint=f"truncate --size={row.geometry.size_bytes} takes the rest away, which holds nothing of it",
            )
        images.append(AdoptedImage(device.path, sidecar_path(device.path), row))
    return images


def _without_table(images: Sequence[AdoptedImage]) -> list[AdoptedImage]:
    """Those that have no zone table yet.

    Raises:
        RefusedError: there is none.
    """
    found = [image for image in images if not _has_table(image)]
    if not found:
        raise RefusedError("has a zone table", device=images[0].image, hint="--force replaces it")
    return found


def _has_table(image: AdoptedImage) -> bool:
    real = os.path.realpath(image.image)
    try:
        return bool(find_sidecar(real, os.stat(real).st_ino, writable=False))
    except OSError as error:
        raise DeviceError.from_os_error(error, image.image, "cannot look for a zone table") from None


def _write(image: AdoptedImage, content: bytes, *, overwrite: bool) -> None:
    path = sidecar_path(os.path.realpath(image.image))
    if overwrite:
        write_sidecar(path, content)
        return
    try:
        new_file(path, content)
    except OSError as error:
        raise DeviceError.from_os_error(error, image.sidecar, "cannot write") from None


class RawCopies:
    """The derived zones of raw copies among some paths; looked for when the first is asked for.

    Attributes:
        by_content: the zone tables beside the images are not believed.
    """

    def __init__(self, paths: Sequence[str], *, by_content: bool = False) -> None:
        self._paths = paths
        self.by_content = by_content
        self._found: dict[str, tuple[Geometry, ZoneTable] | ZonedError] | None = None

    def zones(self, path: str) -> tuple[Geometry, ZoneTable] | None:
        """Geometry and zone table of a raw copy; None for a device that is none.

        Raises:
            ZonedError: it is one, and its zones cannot be told.
        """
        if self._found is None:
            self._found = dict(self._look())
        found = self._found.get(path)
        if isinstance(found, ZonedError):
            raise found
        return found

    def _look(self) -> Iterator[tuple[str, tuple[Geometry, ZoneTable] | ZonedError]]:
        with opened_targets(self._paths, by_content=self.by_content, to_read=False) as opened:
            for failure in opened.failed:
                yield from ((path, failure.error) for path in failure.paths)
            for target in opened.targets:
                for device, row in zip(target.devices, target.derived, strict=False):
                    if row is not None:
                        yield device.path, (row.geometry, row.table)
