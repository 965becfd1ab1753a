"""Documents about drives: ``zoned.report``, ``zoned.image``, ``zoned.list``, ``zoned.probe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Geometry
    from zoned_tools.device.inventory import Disk
    from zoned_tools.device.sidecar_repair import SidecarRepair
    from zoned_tools.formats.contract import Probed


class DriveFacts(TypedDict):
    """A drive ahead of its zones, in ``zoned.report/1``."""

    schema: str
    device: str
    model: str
    vendor: str
    size_bytes: int
    zone_size_bytes: int
    nr_zones: int
    logical_block_bytes: int
    physical_block_bytes: int
    write_granularity_bytes: int
    max_open_zones: int
    max_active_zones: int


REPORT = "zoned.report/1"


def drive_facts(path: str, geometry: Geometry) -> DriveFacts:
    """Everything of a ``zoned.report/1`` document but the zones."""
    return {
        "schema": REPORT,
        "device": path,
        "model": str(geometry.model),
        "vendor": geometry.vendor,
        "size_bytes": geometry.size_bytes,
        "zone_size_bytes": geometry.zone_bytes,
        "nr_zones": geometry.nr_zones,
        "logical_block_bytes": geometry.logical_block_bytes,
        "physical_block_bytes": geometry.physical_block_bytes,
        "write_granularity_bytes": geometry.write_granularity_bytes,
        "max_open_zones": geometry.max_open_zones,
        "max_active_zones": geometry.max_active_zones,
    }


class ImageDocument(TypedDict):
    """``zoned.image/1``."""

    schema: str
    device: str
    model: str
    vendor: str
    size_bytes: int
    zone_size_bytes: int
    nr_zones: int
    nr_conventional: int
    logical_block_bytes: int
    physical_block_bytes: int
    max_open_zones: int
    max_active_zones: int


def image_document(path: str, geometry: Geometry, nr_conventional: int) -> ImageDocument:
    """An emulated drive."""
    return {
        "schema": "zoned.image/1",
        "device": path,
        "model": str(geometry.model),
        "vendor": geometry.vendor,
        "size_bytes": geometry.size_bytes,
        "zone_size_bytes": geometry.zone_bytes,
        "nr_zones": geometry.nr_zones,
        "nr_conventional": nr_conventional,
        "logical_block_bytes": geometry.logical_block_bytes,
        "physical_block_bytes": geometry.physical_block_bytes,
        "max_open_zones": geometry.max_open_zones,
        "max_active_zones": geometry.max_active_zones,
    }


class SidecarDocument(TypedDict):
    """``zoned.image.repair/1``."""

    schema: str
    device: str
    sidecar: str
    changed: bool
    repaired: list[str]
    missing: list[str]


def sidecar_document(path: str, result: SidecarRepair, *, dry_run: bool) -> SidecarDocument:
    """What the repair of a zone table found."""
    return {
        "schema": "zoned.image.repair/1",
        "device": path,
        "sidecar": result.sidecar,
        "changed": result.content is not None and not dry_run,
        "repaired": result.repaired,
        "missing": result.missing,
    }


class ListDocument(TypedDict):
    """``zoned.list/1``: each device as :class:`zoned_tools.device.inventory.Disk`."""

    schema: str
    devices: list[dict[str, object]]


def list_document(disks: Iterable[Disk]) -> ListDocument:
    """The machine's drives."""
    return {"schema": "zoned.list/1", "devices": [disk.as_json() for disk in disks]}


class ProbeRow(TypedDict):
    """One device of ``zoned.probe/1``; ``layout`` is null where nothing is recognised."""

    device: str
    model: str
    emulated: bool
    layout: str | None
    version: str
    uuid: str
    label: str
    start_sector: int


class ProbeDocument(TypedDict):
    """``zoned.probe/1``."""

    schema: str
    devices: list[ProbeRow]


def probe_row(probed: Probed) -> ProbeRow:
    """What was found on one device."""
    device, identity = probed.device, probed.identity
    return {
        "device": device.path,
        "model": str(device.geometry.model),
        "emulated": device.emulated,
        "layout": identity.layout if identity else None,
        "version": identity.version if identity else "",
        "uuid": identity.uuid if identity else "",
        "label": identity.label if identity else "",
        "start_sector": identity.start_bytes // 512 if identity else 0,
    }


def probe_document(rows: Iterable[ProbeRow]) -> ProbeDocument:
    """All devices."""
    return {"schema": "zoned.probe/1", "devices": list(rows)}
