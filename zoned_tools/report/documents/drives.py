"""Documents about drives: ``zoned.report``, ``zoned.image``, ``zoned.list``, ``zoned.probe``.

Zone reports are streamed by :mod:`zoned_tools.report.zones`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Device, Geometry
    from zoned_tools.device.inventory import Disk
    from zoned_tools.device.sidecar_repair import SidecarRepair
    from zoned_tools.device.zones import Model
    from zoned_tools.engine.scanning import ScanResult
    from zoned_tools.formats.contract import Probed


class ZoneRow(TypedDict):
    """One zone of ``zoned.report/1``; the write pointer is null where the zone has none."""

    zone: int
    start_bytes: int
    length_bytes: int
    capacity_bytes: int
    wp_bytes: int | None
    type: str
    condition: str
    reset_recommended: bool
    non_seq: bool


class DriveFacts(TypedDict):
    """A drive ahead of its zones; a limit of 0 is none."""

    schema: Literal["zoned.report/1"]
    device: str
    model: Model
    vendor: str
    size_bytes: int
    zone_size_bytes: int
    nr_zones: int
    logical_block_bytes: int
    physical_block_bytes: int
    write_granularity_bytes: int
    max_open_zones: int
    max_active_zones: int


class ReportDocument(DriveFacts):
    """``zoned.report/1`` of one drive."""

    zones: list[ZoneRow]


class ReportSummary(TypedDict):
    """Counts of zones by type and condition."""

    zones: int
    capacity_bytes: int
    written_sequential_bytes: int
    types: dict[str, int]
    conditions: dict[str, int]


class ReportSummaryDocument(DriveFacts):
    """``zoned.report/1`` of ``--summary``."""

    summary: ReportSummary


class ReportsDocument(TypedDict):
    """``zoned.report/1`` of several drives, each as it is by itself."""

    schema: Literal["zoned.report/1"]
    drives: list[ReportDocument | ReportSummaryDocument]


REPORT: Final = "zoned.report/1"


def drive_facts(path: str, geometry: Geometry) -> DriveFacts:
    """Everything of a ``zoned.report/1`` document but the zones."""
    return {
        "schema": REPORT,
        "device": path,
        "model": geometry.model,
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

    schema: Literal["zoned.image/1"]
    device: str
    model: Model
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
        "model": geometry.model,
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

    schema: Literal["zoned.image.repair/1"]
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


class DiskRow(TypedDict):
    """One device of ``zoned.list/1``, as the kernel describes it; a limit of 0 is none."""

    device: str
    model: str
    size_bytes: int
    zone_size_bytes: int
    nr_zones: int
    logical_block_bytes: int
    max_open_zones: int
    max_active_zones: int
    vendor: str
    holders: list[str]


class ListDocument(TypedDict):
    """``zoned.list/1``."""

    schema: Literal["zoned.list/1"]
    devices: list[DiskRow]


def _disk_row(disk: Disk) -> DiskRow:
    return {
        "device": disk.device,
        "model": disk.model,
        "size_bytes": disk.size_bytes,
        "zone_size_bytes": disk.zone_size_bytes,
        "nr_zones": disk.nr_zones,
        "logical_block_bytes": disk.logical_block_bytes,
        "max_open_zones": disk.max_open_zones,
        "max_active_zones": disk.max_active_zones,
        "vendor": disk.vendor,
        "holders": disk.holders,
    }


def list_document(disks: Iterable[Disk]) -> ListDocument:
    """The machine's drives."""
    return {"schema": "zoned.list/1", "devices": [_disk_row(disk) for disk in disks]}


class ProbeRow(TypedDict):
    """One device of ``zoned.probe/1``; ``layout`` is null where nothing is recognised."""

    device: str
    model: Model
    emulated: bool
    layout: str | None
    version: str
    uuid: str
    label: str
    start_sector: int


class ProbeDocument(TypedDict):
    """``zoned.probe/1``."""

    schema: Literal["zoned.probe/1"]
    devices: list[ProbeRow]


class ScanDocument(TypedDict):
    """``zoned.scan/1``; each layout has ``gives``, sentences, and tables of its own."""

    schema: Literal["zoned.scan/1"]
    device: str
    scanned_bytes: int
    unreadable_bytes: int
    layouts: dict[str, dict[str, object]]


def scan_document(device: Device, result: ScanResult) -> ScanDocument:
    """What a scan found."""
    return {
        "schema": "zoned.scan/1",
        "device": device.path,
        "scanned_bytes": result.scanned_bytes,
        "unreadable_bytes": result.unreadable_bytes,
        "layouts": {name: dict(found) for name, found in result.layouts.items()},
    }


def probe_row(probed: Probed) -> ProbeRow:
    """What was found on one device."""
    device, identity = probed.device, probed.identity
    return {
        "device": device.path,
        "model": device.geometry.model,
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
