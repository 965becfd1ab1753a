"""Documents about drives: ``zoned.report``, ``zoned.image``, ``zoned.list``, ``zoned.probe``.

Zone reports are streamed by :mod:`zoned_tools.report.zones`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypedDict

from zoned_tools.engine.raw_copies import ZoneSource, source_of_zones

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.base import Device, Geometry
    from zoned_tools.device.inventory import Disk
    from zoned_tools.device.sidecar_repair import SidecarRepair
    from zoned_tools.device.zones import Model
    from zoned_tools.engine.adopting import Adopted
    from zoned_tools.engine.scanning import ScanResult
    from zoned_tools.formats.contract import Probed


class ZoneRow(TypedDict):
    """One zone of ``zoned.report/2``; the write pointer is null where the zone has none."""

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
    """A drive ahead of its zones; a limit of 0 is none. ``zone_table``: where the zones come from."""

    device: str
    zone_table: ZoneSource | None
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


class ReportRow(DriveFacts):
    """One drive of ``zoned.report/2``."""

    zones: list[ZoneRow]


class ReportSummary(TypedDict):
    """Counts of zones by type and condition."""

    zones: int
    capacity_bytes: int
    written_sequential_bytes: int
    types: dict[str, int]
    conditions: dict[str, int]


class ReportDocument(TypedDict):
    """``zoned.report/2``: the drives in the order given, without those that an error is about."""

    schema: Literal["zoned.report/2"]
    drives: list[ReportRow]


class SummaryRow(DriveFacts):
    """One drive of ``zoned.report.summary/1``."""

    summary: ReportSummary


REPORT: Final = "zoned.report/2"
SUMMARY: Final = "zoned.report.summary/1"


class SummaryDocument(TypedDict):
    """``zoned.report.summary/1``: counts of zones instead of zones (``--summary``)."""

    schema: Literal["zoned.report.summary/1"]
    drives: list[SummaryRow]


def drive_facts(path: str, geometry: Geometry, zone_table: ZoneSource | None) -> DriveFacts:
    """Everything of a drive in ``zoned.report/2`` but its zones."""
    return {
        "device": path,
        "zone_table": zone_table,
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


class ConventionalRow(TypedDict):
    """Number of conventional zones of ``zoned.image.adopt/1``: the bounds, and what the zone table has."""

    low: int
    high: int
    used: int


class AdoptedRow(TypedDict):
    """One raw copy of ``zoned.image.adopt/1``."""

    image: str
    sidecar: str
    zone_size_bytes: int
    nr_zones: int
    conventional: ConventionalRow
    certain: list[str]
    estimated: list[str]


class AdoptDocument(TypedDict):
    """``zoned.image.adopt/1``."""

    schema: Literal["zoned.image.adopt/1"]
    layout: str
    devices: list[AdoptedRow]


def adopt_document(adopted: Adopted) -> AdoptDocument:
    """The zone tables that raw copies got."""
    rows: list[AdoptedRow] = [
        {
            "image": one.image,
            "sidecar": one.sidecar,
            "zone_size_bytes": one.zones.geometry.zone_bytes,
            "nr_zones": one.zones.geometry.nr_zones,
            "conventional": {
                "low": one.zones.conventional.low,
                "high": one.zones.conventional.high,
                "used": one.zones.conventional.used,
            },
            "certain": list(one.zones.certain),
            "estimated": list(one.zones.estimated),
        }
        for one in adopted.images
    ]
    return {"schema": "zoned.image.adopt/1", "layout": adopted.layout, "devices": rows}


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
    """One device of ``zoned.probe/1``; ``layout`` is null where nothing is recognised.

    ``zone_table``: where its zones come from, null without zones.
    """

    device: str
    zone_table: ZoneSource | None
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


def probe_row(probed: Probed, *, derived: bool = False) -> ProbeRow:
    """What was found on one device; ``derived``: its zones are."""
    device, identity = probed.device, probed.identity
    return {
        "device": device.path,
        "zone_table": source_of_zones(device, derived=derived),
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
