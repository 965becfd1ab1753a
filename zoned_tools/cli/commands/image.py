"""``zoned image``: make, import and describe emulated drives."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, DevicePaths, DryRun, Force, Json, LayoutName, Quiet, check_layout_name
from zoned_tools.cli.output import progress_bar
from zoned_tools.errors import UsageError
from zoned_tools.units import parse_size

if TYPE_CHECKING:
    from zoned_tools.device.base import Geometry

app = new_app("Make, import and describe emulated drives.")


class DriveModel(StrEnum):
    """Drives that can be emulated."""

    HOST_MANAGED = "host-managed"
    HOST_AWARE = "host-aware"
    ZNS = "zns"


Image: TypeAlias = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file to write.", show_default=False)]
Model: TypeAlias = Annotated[DriveModel, typer.Option("--model", help="Kind of drive; zns follows NVMe rules.")]
MaxOpen: TypeAlias = Annotated[
    int, typer.Option("--max-open", metavar="ZONES", help="Most open zones, 0 for no limit.", min=0)
]
MaxActive: TypeAlias = Annotated[
    int, typer.Option("--max-active", metavar="ZONES", help="Most active zones, 0 for no limit.", min=0)
]
BlockSize: TypeAlias = Annotated[
    int, typer.Option("--block-size", metavar="BYTES", help="Logical block size, 512 or 4096.")
]
Conventional: TypeAlias = Annotated[
    int,
    typer.Option("--conventional", metavar="ZONES", help="Conventional zones, at the start of the drive.", min=0),
]


@app.command()
@prints("image")
def create(
    image: Image,
    zone_size: Annotated[
        str, typer.Option("--zone-size", metavar="SIZE", help="Zone size, a power of two.")
    ] = "256MiB",
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Capacity; a rest makes a runt zone.", show_default=False),
    ] = None,
    zones: Annotated[
        int | None,
        typer.Option(
            "--zones", metavar="COUNT", help="Capacity in zones, instead of --size.", min=1, show_default=False
        ),
    ] = None,
    zone_capacity: Annotated[
        str | None,
        typer.Option(
            "--zone-capacity", metavar="SIZE", help="Usable part of each sequential zone.", show_default=False
        ),
    ] = None,
    conventional: Conventional = 0,
    model: Model = DriveModel.HOST_MANAGED,
    max_open: MaxOpen = 0,
    max_active: MaxActive = 0,
    block_size: BlockSize = 4096,
    force: Force = False,
    json: Json = False,
) -> int:
    """Make an emulated drive: a sparse image and its zone table."""
    from zoned_tools.device.create import new_drive
    from zoned_tools.device.image import create_image

    zone_bytes = parse_size(zone_size)
    if (size is None) == (zones is None):
        raise UsageError("say how large the drive is: one of --size or --zones")
    size_bytes = parse_size(size) if size is not None else (zones or 0) * zone_bytes
    geometry, table = new_drive(
        model=model.value,
        size_bytes=size_bytes,
        zone_bytes=zone_bytes,
        capacity_bytes=None if zone_capacity is None else parse_size(zone_capacity),
        nr_conventional=conventional,
        block_bytes=block_size,
        max_open_zones=max_open,
        max_active_zones=max_active,
    )
    create_image(image, geometry, table, overwrite=force)
    _describe(image, geometry, conventional, json=json)
    return 0


@app.command("import")
def import_drive(
    image: Image,
    zones: Annotated[
        str,
        typer.Option(
            "--zones",
            metavar="FILE",
            help="Zone table: a zbd zone-info dump, or the text of blkzone report.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="FILE", help="Raw content; default: the data file of a zbd dump pair.", show_default=False
        ),
    ] = None,
    model: Annotated[
        DriveModel | None,
        typer.Option("--model", help="Kind of drive, where a blkzone report does not tell.", show_default=False),
    ] = None,
    max_open: MaxOpen = 0,
    max_active: MaxActive = 0,
    block_size: BlockSize = 512,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Make an emulated drive from what was saved of a real one."""
    from zoned_tools.device.importing import copy_content, find_data, load_zone_table
    from zoned_tools.report.drives import import_line
    from zoned_tools.report.stream import write_line

    geometry, table = load_zone_table(
        zones,
        model=None if model is None else model.value,
        block_bytes=block_size,
        max_open_zones=max_open,
        max_active_zones=max_active,
    )
    source = data or find_data(zones)
    with progress_bar("importing", geometry.size_bytes, quiet=quiet) as progress:
        copied = copy_content(source, image, geometry, table, overwrite=force, progress=progress)
    write_line(import_line(image, geometry, copied))
    return 0


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Image file or zloop directory.", show_default=False)],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="New directory, or new image file.", show_default=False)
    ],
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Turn an image into a directory of the kernel's zoned loop driver, and back."""
    import os

    from zoned_tools.device.identity import not_zoned
    from zoned_tools.device.importing import copy_drive
    from zoned_tools.device.opening import open_device
    from zoned_tools.device.zloop import write_zloop
    from zoned_tools.report.drives import convert_line
    from zoned_tools.report.stream import write_line

    with open_device(source) as drive:
        if not drive.geometry.is_zoned:
            raise not_zoned(source)
        if os.path.isdir(source):
            with progress_bar("converting", drive.geometry.size_bytes, quiet=quiet) as progress:
                copied = copy_drive(drive, destination, overwrite=force, progress=progress)
        else:
            copied = write_zloop(drive, destination)
    write_line(convert_line(destination, drive.geometry, copied))
    return 0


@app.command()
@prints("image")
def info(device: DevicePath, json: Json = False) -> int:
    """Describe an emulated drive."""
    import numpy as np

    from zoned_tools.device.opening import open_device
    from zoned_tools.device.zones import is_conventional

    with open_device(device, content=False) as drive:
        conventional = int(np.count_nonzero(is_conventional(drive.zones())))
        _describe(device, drive.geometry, conventional, json=json)
    return 0


@app.command()
@prints("image.repair")
def repair(device: DevicePath, dry_run: DryRun = False, json: Json = False) -> int:
    """Rebuild what the zone table beside an image has lost, as far as that is certain."""
    from zoned_tools.device.sidecar import repair_sidecar
    from zoned_tools.errors import FsckStatus
    from zoned_tools.report.documents.drives import sidecar_document
    from zoned_tools.report.sidecars import sidecar_lines
    from zoned_tools.report.stream import write_lines

    result = repair_sidecar(device, dry_run=dry_run)
    if json:
        print_json(sidecar_document(device, result, dry_run=dry_run))
    else:
        write_lines(sidecar_lines(result, dry_run=dry_run))
    if result.missing:
        return FsckStatus.UNCORRECTED
    return FsckStatus.CORRECTED if result.repaired and not dry_run else FsckStatus.CLEAN


@app.command()
@prints("image.adopt")
def adopt(
    devices: DevicePaths,
    zone_size: Annotated[
        str | None,
        typer.Option(
            "--zone-size", metavar="SIZE", help="Zone size (default: as the metadata say).", show_default=False
        ),
    ] = None,
    conventional: Annotated[
        list[int] | None,
        typer.Option(
            "--conventional",
            metavar="ZONES",
            help="Conventional zones at the start of the drive (default: a guess inside the metadata's bounds); once "
            "for each zoned device in order.",
            show_default=False,
            min=0,
        ),
    ] = None,
    layout: LayoutName = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Derive the zone table of a raw copy of a zoned drive from its content, and write it beside the image."""
    from zoned_tools.engine.adopting import adopt as run
    from zoned_tools.formats.contract import ZoneWishes
    from zoned_tools.report.documents.drives import adopt_document
    from zoned_tools.report.sidecars import adopt_lines
    from zoned_tools.report.stream import write_lines

    check_layout_name(layout)
    zone_bytes = 0 if zone_size is None else parse_size(zone_size)
    if zone_size is not None and zone_bytes <= 0:
        raise UsageError("--zone-size 0 is no size of a zone")
    wishes = ZoneWishes(zone_bytes, tuple(conventional or ()))
    adopted = run(devices, wishes, layout=layout, overwrite=force, dry_run=dry_run)
    if json:
        print_json(adopt_document(adopted))
    else:
        write_lines(adopt_lines(adopted, dry_run=dry_run))
    return 0


def _describe(path: str, geometry: Geometry, nr_conventional: int, *, json: bool) -> None:
    from zoned_tools.report.documents.drives import image_document
    from zoned_tools.report.drives import image_lines
    from zoned_tools.report.stream import write_lines

    if json:
        print_json(image_document(path, geometry, nr_conventional))
    else:
        write_lines(image_lines(path, geometry, nr_conventional))
