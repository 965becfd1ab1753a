"""``zoned btrfs``: the super block log rings of a zoned btrfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.documents import expect, print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, DevicePaths, DryRun, Json, Mapfiles, NoUndo, Start, Undo
from zoned_tools.errors import MetadataError, UsageError

if TYPE_CHECKING:
    from zoned_tools.formats.contract import Target

app = new_app("List super blocks and zones of a zoned btrfs, and go back to an older super block.")


@app.command("supers")
@prints("btrfs.supers")
def supers(
    device: DevicePath,
    json: Json = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print every field of one super block instead of the list of all.")
    ] = False,
    mirror: Annotated[
        int | None,
        typer.Option(
            "--mirror", min=0, max=2, help="Mirror that --full and --latest look at (default 0).", show_default=False
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="BYTE", min=0, help="Super block that --full or --raw gives.", show_default=False),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Find only what the kernel takes for the newest, without reading the ring.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="With --latest: the newest valid super block's 4096 bytes, to standard output."),
    ] = False,
    roots: Annotated[
        bool, typer.Option("--roots", help="Test for every super block whether its chunk and root trees can be read.")
    ] = False,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """List all super blocks of a device: the kernel's choice, the newest valid one, every copy."""
    if at is not None and not (full or raw):
        raise UsageError("--at needs --full or --raw")
    if raw and (not latest or json):
        raise UsageError("--raw needs --latest, without --json")
    if latest and (full or roots):
        raise UsageError("--latest lists nothing that --full or --roots could add to")
    from zoned_tools.engine.opening import opened_target

    if latest:
        expect("btrfs.latest")
    with opened_target([device], start, "btrfs", only_own=True, mapfiles=mapfile or ()) as target:
        if raw:
            return _write_raw(target, mirror, at)
        if latest:
            return _print_latest(target, mirror or 0, json=json)
        return _print_supers(target, (mirror or 0, at) if full else None, roots=roots, json=json)


def _write_raw(target: Target, mirror: int | None, at: int | None) -> int:
    import sys

    from zoned_tools.formats.btrfs.supers import list_supers, newest_block

    sys.stdout.buffer.write(newest_block(list_supers(target), mirror, at))
    sys.stdout.buffer.flush()
    return 0


def _print_supers(target: Target, full: tuple[int, int | None] | None, *, roots: bool, json: bool) -> int:
    """The list of all, or one in full: of a mirror, or the one at a place."""
    from zoned_tools.formats.btrfs.supers import chosen_block, list_supers, refuse_nothing
    from zoned_tools.report import btrfs as text
    from zoned_tools.report.documents.btrfs import btrfs_super_document, btrfs_supers_document
    from zoned_tools.report.stream import write_lines

    survey = list_supers(target, roots=roots)
    refuse_nothing(survey)
    block = None if full is None else chosen_block(survey, *full)
    if json:
        print_json(btrfs_supers_document(survey) if block is None else btrfs_super_document(survey, block))
    else:
        write_lines(text.list_lines(survey) if block is None else text.full_lines(block, target.device.path), tabs=True)
    return 0


def _print_latest(target: Target, mirror: int, *, json: bool) -> int:
    from zoned_tools.formats.btrfs.latest import find_latest
    from zoned_tools.formats.btrfs.supers import copy_as_json, list_supers, refuse_nothing
    from zoned_tools.report.btrfs import latest_line
    from zoned_tools.report.documents.btrfs import btrfs_latest_document
    from zoned_tools.report.stream import write_line

    row = find_latest(target.device, target.start_bytes, mirror)
    if row is None or not row["valid"]:
        refuse_nothing(list_supers(target))
    copy = None if row is None else copy_as_json(row)
    path = target.device.path
    if json:
        print_json(btrfs_latest_document(path, mirror, copy))
    elif copy is None:
        raise MetadataError(f"the kernel finds no super block in mirror {mirror}", device=path)
    else:
        write_line(latest_line(path, mirror, copy))
    return 0


@app.command("zones")
@prints("btrfs.zones")
def zones(devices: DevicePaths, json: Json = False, start: Start = None) -> int:
    """List who owns each zone: super blocks, block groups with what they use, orphans, and what is free."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.btrfs.supers import list_supers, refuse_nothing
    from zoned_tools.formats.btrfs.zone_accounts import account_zones
    from zoned_tools.report.btrfs import zone_lines
    from zoned_tools.report.documents.btrfs import btrfs_zones_document
    from zoned_tools.report.stream import write_lines

    with opened_target(devices, start, "btrfs", only_own=True) as target:
        refuse_nothing(list_supers(target))
        accounts = account_zones(target)
        if json:
            print_json(btrfs_zones_document(accounts))
        else:
            write_lines(zone_lines(accounts))
    return 0


@app.command("rollback")
@prints("btrfs.rollback")
def rollback(
    devices: DevicePaths,
    to_generation: Annotated[
        int, typer.Option("--to-generation", metavar="G", min=0, help="Generation to go back to.", show_default=False)
    ],
    drop_log: Annotated[
        bool, typer.Option("--drop-log", help="Clear the tree log instead of leaving it to be replayed at mount.")
    ] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    start: Start = None,
) -> int:
    """Make an older super block the newest, in every mirror; the device must not be mounted."""
    from zoned_tools.cli.changes import execute
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.btrfs.rollback import plan_rollback
    from zoned_tools.report.btrfs import rollback_line
    from zoned_tools.report.documents.btrfs import btrfs_rollback_document
    from zoned_tools.report.stream import write_line

    with opened_target(devices, start, "btrfs", writable=not dry_run, only_own=True) as target:
        plan = plan_rollback(target, to_generation, drop_log=drop_log)
        changed = bool(execute(plan, target.devices, dry_run=dry_run, silent=json, undo=undo, no_undo=no_undo))
        if json:
            print_json(btrfs_rollback_document(target, to_generation, plan, changed=changed))
        elif not dry_run:
            write_line(rollback_line(target.paths, to_generation, changed=changed))
    return 0
