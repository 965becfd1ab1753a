"""``zoned zone``: zone management."""

from __future__ import annotations

import errno
from typing import Annotated, TypeAlias

import typer

from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, DryRun
from zoned_tools.errors import DeviceError, UsageError

app = new_app("Reset, open, close or finish zones.")

Offset: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--offset", "-o", metavar="SECTOR", help="First 512-byte sector of the first zone.", show_default=False
    ),
]
Zone: TypeAlias = Annotated[
    int | None,
    typer.Option("--zone", "-z", metavar="ZONE", help="Number of the first zone.", min=0, show_default=False),
]
Count: TypeAlias = Annotated[
    int | None,
    typer.Option("--count", "-c", metavar="ZONES", help="How many zones (default 1).", min=1, show_default=False),
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="All zones of the drive.")]


def _manage(
    operation: str, path: str, offset: str | None, zone: int | None, count: int | None, everything: bool, dry_run: bool
) -> int:
    from zoned_tools.cli.changes import execute
    from zoned_tools.device.base import ZoneOperation
    from zoned_tools.device.opening import open_device
    from zoned_tools.device.plan import Plan

    if everything == (offset is not None or zone is not None) or (offset is not None and zone is not None):
        raise UsageError("say which zones: one of --offset, --zone or --all")
    with open_device(path, writable=not dry_run) as device:
        if not device.geometry.is_zoned:
            raise DeviceError("not a zoned device", device=path, errno=errno.ENOTTY)
        nr_zones = device.geometry.nr_zones
        first = 0 if everything else _first_zone(path, device.geometry.zone_bytes, offset, zone)
        number = nr_zones if everything else count or 1
        if first >= nr_zones:
            raise UsageError(f"zone {first} is not on the drive, it has {nr_zones}", device=path)
        number = min(number, nr_zones - first)
        plan = Plan(f"{operation} zones")
        plan.manage(0, ZoneOperation(operation), first, number)
        execute(plan, (device,), dry_run=dry_run)
    return 0


def _first_zone(path: str, zone_bytes: int, offset: str | None, zone: int | None) -> int:
    from zoned_tools.device.zones import SECTOR_BYTES
    from zoned_tools.units import parse_size

    if offset is None:
        return zone or 0
    first, rest = divmod(parse_size(offset) * SECTOR_BYTES, zone_bytes)
    if rest:
        sectors = zone_bytes // SECTOR_BYTES
        raise UsageError(f"offset {offset} is not aligned to zone size {sectors}", device=path)
    return first


def _command(operation: str, summary: str) -> None:
    """Add the command of one operation; all take the same parameters."""

    def run(
        device: DevicePath,
        offset: Offset = None,
        zone: Zone = None,
        count: Count = None,
        everything: Everything = False,
        dry_run: DryRun = False,
    ) -> int:
        return _manage(operation, device, offset, zone, count, everything, dry_run)

    app.command(operation, help=summary)(run)


for _operation, _summary in (
    ("reset", "Reset zones: their data are gone and their write pointers at their starts."),
    ("open", "Explicitly open zones."),
    ("close", "Close open zones."),
    ("finish", "Finish zones: they become full and take no more writes."),
):
    _command(_operation, _summary)
