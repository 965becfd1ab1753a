"""``zoned btrfs``: super blocks, zones and files of a zoned btrfs."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zoned_tools.cli.documents import expect, print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import (
    DevicePath,
    DevicePaths,
    DryRun,
    Json,
    Mapfiles,
    NoUndo,
    ReadLength,
    ReadOffset,
    Settings,
    Start,
    Undo,
)
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, MetadataError, UsageError
from zoned_tools.formats.shared.settings import Journey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.mapper.content import FilePiece
    from zoned_tools.formats.btrfs.mapper.files import FileTree
    from zoned_tools.formats.contract import Target

app = new_app("List super blocks, zones and files of a zoned btrfs, and go back to an older super block.")

FilePath: TypeAlias = Annotated[
    str, typer.Argument(metavar="PATH", help="File or directory, from the top of the file system.", show_default=False)
]
Subvolume: TypeAlias = Annotated[
    int,
    typer.Option("--subvolume", metavar="ID", min=5, help="Subvolume whose top PATH begins at (5: the file system's)."),
]


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


@contextmanager
def _files(
    devices: list[str], start: int | None, mapfiles: list[str] | None, settings: list[str] | None
) -> Iterator[FileTree]:
    """The files of a file system; what is odd about them is told."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats import registry
    from zoned_tools.formats.btrfs.mapper.files import open_files
    from zoned_tools.report.stream import write_lines

    paths, chosen = split_settings(devices, settings)
    with opened_target(paths, start, "btrfs", only_own=True, mapfiles=mapfiles or ()) as target:
        tree = open_files(target, registry.of(target).parse_settings(chosen, Journey.LOGICAL))
        write_lines((f"zoned: {tree.path}: {warning}" for warning in tree.warnings), sys.stderr)
        yield tree


@app.command("ls")
@takes_settings(Journey.LOGICAL, layout="btrfs")
@prints("btrfs.ls")
def list_files(
    path: FilePath,
    devices: DevicePaths,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="List what is below directories too, and in subvolumes.")
    ] = False,
    details: Annotated[bool, typer.Option("--long", "-l", help="List mode, links, owner, size and time too.")] = False,
    subvolume: Subvolume = 5,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """List a directory, or a file, without a kernel; symbolic links are not followed."""
    from zoned_tools.report.btrfs import file_lines, list_document
    from zoned_tools.report.stream import write_lines

    with _files(devices, start, mapfile, settings) as tree:
        top = tree.resolve(os.fsencode(path), subvolume)
        unread: list[str] = []
        found = tree.listing(top, recursive=recursive)
        if json:
            print_json(list_document(tree, found, unread))
        else:
            write_lines(file_lines(found, unread, details=details))
        write_lines((f"zoned: {tree.path}: {line}" for line in unread), sys.stderr)
    return FsckStatus.UNCORRECTED if unread else FsckStatus.CLEAN


@app.command("cat")
@takes_settings(Journey.LOGICAL, layout="btrfs")
def print_content(
    path: FilePath,
    devices: DevicePaths,
    offset: ReadOffset = "0",
    length: ReadLength = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Write zeroes for what cannot be read; status 4 then.")
    ] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not hold data against their checksums.")] = False,
    subvolume: Subvolume = 5,
    settings: Settings = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """Write the content of a file to standard output: from the first copy whose checksums are right."""
    from zoned_tools.formats.btrfs.mapper.content import DataReader, content
    from zoned_tools.report.btrfs import lost_lines
    from zoned_tools.report.stream import write_lines
    from zoned_tools.units import parse_size

    first, count = parse_size(offset), None if length is None else parse_size(length)
    lost: list[FilePiece] = []
    with _files(devices, start, mapfile, settings) as tree:
        found = tree.resolve(os.fsencode(path), subvolume)
        reader = DataReader(tree, verify=not no_verify)
        for data in content(tree, reader, found, first, count, lost if skip_errors else None):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        write_lines((f"zoned: {tree.path}: {line}" for line in lost_lines(path, lost)), sys.stderr)
    return FsckStatus.UNCORRECTED if lost else FsckStatus.CLEAN


@app.command("extents")
@takes_settings(Journey.LOGICAL, layout="btrfs")
@prints("btrfs.extents")
def list_extents(
    path: FilePath,
    devices: DevicePaths,
    inode: Annotated[
        int | None,
        typer.Option(
            "--inode", metavar="N", min=256, help="This inode of the subvolume; PATH is - then.", show_default=False
        ),
    ] = None,
    subvolume: Subvolume = 5,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """Tell where the bytes of a file are: logical addresses, devices, zones, every copy."""
    from zoned_tools.formats.btrfs.mapper.extents import extents_of
    from zoned_tools.report.btrfs import extent_lines
    from zoned_tools.report.documents.btrfs import btrfs_extents_document
    from zoned_tools.report.stream import write_lines

    if (path == "-") != (inode is not None):
        raise UsageError("--inode N takes the place of PATH", hint="zoned btrfs extents - DEV --inode N")
    with _files(devices, start, mapfile, settings) as tree:
        found = tree.resolve(os.fsencode(path), subvolume) if inode is None else tree.by_inode(subvolume, inode)
        rows = extents_of(tree, found)
        if json:
            print_json(btrfs_extents_document(tree, found, rows))
        else:
            write_lines(extent_lines(rows))
    return 0


@app.command("files")
@takes_settings(Journey.LOGICAL, layout="btrfs")
@prints("btrfs.files")
def list_owners(
    devices: DevicePaths,
    zone: Annotated[
        list[int] | None,
        typer.Option(
            "--zone", metavar="Z", min=0, help="Zone; repeatable (default: all that are offline).", show_default=False
        ),
    ] = None,
    devid: Annotated[
        int | None,
        typer.Option("--devid", metavar="N", min=1, help="Device whose zones these are.", show_default=False),
    ] = None,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    mapfile: Mapfiles = None,
) -> int:
    """Tell which trees and files have content in zones, and how much of it has no copy elsewhere."""
    from zoned_tools.formats.btrfs.mapper.owners import dead_zones, owners_of, zones_named
    from zoned_tools.report.btrfs import owner_lines
    from zoned_tools.report.documents.btrfs import btrfs_files_document
    from zoned_tools.report.stream import write_lines

    if devid is not None and not zone:
        raise UsageError("--devid needs --zone")
    with _files(devices, start, mapfile, settings) as tree:
        owners = owners_of(tree, zones_named(tree, zone, devid) if zone else dead_zones(tree))
        if json:
            print_json(btrfs_files_document(tree, owners))
        else:
            write_lines(owner_lines(tree, owners))
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
