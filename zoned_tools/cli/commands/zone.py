"""``zoned zone``: zone management."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, DryRun, Json, NoUndo, Undo
from zoned_tools.errors import UsageError

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
ForceZones: TypeAlias = Annotated[
    bool, typer.Option("--force", "-f", help="Also on a drive that carries a recognised layout with data.")
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="All zones of the drive.")]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which zones, as the user says it."""

    offset: str | None
    zone: int | None
    count: int | None
    everything: bool


def _manage(
    operation: str,
    path: str,
    choice: _Choice,
    *,
    dry_run: bool,
    force: bool,
    undo: str | None,
    no_undo: bool,
    json: bool,
) -> int:
    from zoned_tools.cli.changes import execute
    from zoned_tools.device.base import ZoneOperation
    from zoned_tools.device.identity import not_zoned
    from zoned_tools.device.opening import open_device
    from zoned_tools.engine.zone_commands import plan_whole_drive, plan_zone_command, refuse_loss
    from zoned_tools.report.documents.changes import zone_document

    named = choice.offset is not None or choice.zone is not None
    if choice.everything == named or (choice.offset is not None and choice.zone is not None):
        raise UsageError("say which zones: one of --offset, --zone or --all")
    if choice.everything and choice.count is not None:
        raise UsageError("--all and --count exclude each other")
    command = ZoneOperation(operation)
    with open_device(path, writable=not dry_run) as device:
        if not device.geometry.is_zoned:
            raise not_zoned(path)
        if choice.everything:
            first, count = 0, device.geometry.nr_zones
            plan = plan_whole_drive(device, command)
        else:
            first = _first_zone(path, device.geometry.zone_bytes, choice.offset, choice.zone)
            count = choice.count or 1
            plan = plan_zone_command(device, command, first, count)
        if not force:
            refuse_loss(device, command, first, count)
        carried = execute(plan, (device,), dry_run=dry_run, silent=json, undo=undo, no_undo=no_undo)
    if json:
        print_json(zone_document(path, operation, (first, count), plan, carried))
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
        force: ForceZones = False,
        undo: Undo = None,
        no_undo: NoUndo = False,
        json: Json = False,
    ) -> int:
        choice = _Choice(offset, zone, count, everything)
        return _manage(operation, device, choice, dry_run=dry_run, force=force, undo=undo, no_undo=no_undo, json=json)

    app.command(operation, help=summary)(prints("zone")(run))


for _operation, _summary in (
    ("reset", "Reset zones: their data are gone and their write pointers at their starts."),
    ("open", "Explicitly open zones."),
    ("close", "Close open zones."),
    ("finish", "Finish zones: they become full and take no more writes."),
):
    _command(_operation, _summary)
