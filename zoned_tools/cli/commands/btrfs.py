"""``zoned btrfs``: the super block log rings of a zoned btrfs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePath, DevicePaths, DryRun, Json, NoUndo, Start, Undo
from zoned_tools.cli.output import print_json
from zoned_tools.errors import MetadataError, UsageError

if TYPE_CHECKING:
    from zoned_tools.formats.btrfs.survey import DeviceSurvey
    from zoned_tools.formats.contract import Target

app = new_app("List the super blocks of a zoned btrfs, and go back to an older one.")


@app.command("supers")
def supers(
    device: DevicePath,
    json: Json = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print every field of one super block instead of the list of all.")
    ] = False,
    mirror: Annotated[int, typer.Option("--mirror", min=0, max=2, help="Mirror that --full and --latest look at.")] = 0,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="BYTE", min=0, help="Super block that --full prints.", show_default=False),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Find only what the kernel takes for the newest, without reading the ring.")
    ] = False,
    roots: Annotated[
        bool, typer.Option("--roots", help="Test for every super block whether its chunk and root trees can be read.")
    ] = False,
    start: Start = None,
) -> int:
    """List all super blocks of a device: the kernel's choice, the newest valid one, every copy."""
    if at is not None and not full:
        raise UsageError("--at needs --full")
    if latest and (full or roots):
        raise UsageError("--latest lists nothing that --full or --roots could add to")
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.btrfs.supers import list_supers, supers_as_json

    with opened_target([device], start, "btrfs") as target:
        if latest:
            return _print_latest(target, mirror, json=json)
        survey = list_supers(target, roots=roots)
        _refuse_nothing(survey)
        if json:
            document = supers_as_json(survey)
            if full:
                document["super_block"] = _full_tree(survey, mirror, at)
            print_json(document)
        else:
            _print_text(survey, _chosen_block(survey, mirror, at) if full else None)
    return 0


def _print_text(survey: DeviceSurvey, block: bytes | None) -> None:
    """One super block in full, or the list of all."""
    from zoned_tools.formats.btrfs.describe import full_text
    from zoned_tools.formats.btrfs.listing import listing
    from zoned_tools.report.stream import write_lines

    write_lines(listing(survey) if block is None else full_text(block, survey.device.path))


def _refuse_nothing(survey: DeviceSurvey) -> None:
    """A regular device without any magic is no btrfs; an empty ring of a zoned one is worth seeing."""
    zoned = survey.device.geometry.is_zoned or survey.placement.derived
    if not survey.mirrors or not (zoned or any(m.copies["magic"].any() for m in survey.mirrors)):
        raise MetadataError("no btrfs super block", device=survey.device.path)


def _chosen_block(survey: DeviceSurvey, mirror: int, at: int | None) -> bytes:
    """The block that ``--full`` prints: the one at a place, the kernel's choice if valid, or the newest valid one."""
    path = survey.device.path
    if at is not None:
        from zoned_tools.formats.btrfs.copies import read_block

        block = read_block(survey.device, survey.start_bytes + at)
        if block is None:
            raise UsageError(f"there is no block at byte {at}", device=path)
        return block
    chosen = survey.mirror(mirror)
    if chosen is None:
        raise MetadataError(f"the device has no mirror {mirror}", device=path)
    copy = chosen.valid_head if chosen.head_is_valid else chosen.newest_copy
    if copy is None:
        raise MetadataError(f"mirror {mirror} holds no valid super block", device=path)
    return survey.block(copy)


def _full_tree(survey: DeviceSurvey, mirror: int, at: int | None) -> dict[str, object]:
    from zoned_tools.formats.btrfs.inspect import as_tree

    return as_tree(_chosen_block(survey, mirror, at))


def _print_latest(target: Target, mirror: int, *, json: bool) -> int:
    from zoned_tools.formats.btrfs.latest import find_latest
    from zoned_tools.formats.btrfs.supers import copy_as_json

    row = find_latest(target.device, target.start_bytes, mirror)
    copy = None if row is None else copy_as_json(row)
    path = target.device.path
    if json:
        print_json({"schema": "zoned.btrfs.latest/1", "device": path, "mirror": mirror, "kernel_choice": copy})
        return 0
    if copy is None:
        raise MetadataError(f"the kernel finds no super block in mirror {mirror}", device=path)
    validity = "valid" if copy["valid"] else "not valid"
    print(f"{path}: mirror {mirror}: generation {copy['generation']} at byte {copy['offset_bytes']}, {validity}")
    return 0


@app.command("rollback")
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
    from zoned_tools.cli.changes import execute, print_undo
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats.btrfs.rollback import plan_rollback

    with opened_target(devices, start, "btrfs", writable=not dry_run) as target:
        plan = plan_rollback(target, to_generation, drop_log=drop_log)
        changed = False
        if not (json and dry_run):
            carried = execute(plan, target.devices, dry_run=dry_run, undo=undo, no_undo=no_undo)
            print_undo(carried)
            changed = bool(carried)
        if json:
            print_json(
                {
                    "schema": "zoned.btrfs.rollback/1",
                    "devices": list(target.paths),
                    "generation": to_generation,
                    "changed": changed,
                    "messages": plan.messages,
                    "steps": list(plan.describe(target.paths)),
                }
            )
        elif not dry_run:
            print(
                f"{', '.join(target.paths)}: generation {to_generation} is the newest {'now' if changed else 'already'}"
            )
    return 0
