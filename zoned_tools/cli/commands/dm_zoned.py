"""``zoned dm-zoned``: offline work on targets that no kernel tool offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.lazy import new_app
from zoned_tools.cli.options import DevicePaths, DryRun, Force, Json, NoUndo, Start, Undo
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from zoned_tools.device.base import Device
    from zoned_tools.engine.reshaping import Rehearsed, Reshaping
    from zoned_tools.formats.dm_zoned.attach import Regrouped
    from zoned_tools.report.documents.dm_zoned import RegroupedDocument

app = new_app("Free emptied chunks, attach and detach the regular (cache) device of dm-zoned targets that do not run.")


@app.command("free")
@prints("dm-zoned.free")
def free(
    devices: DevicePaths,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="Merge buffer zones and empty cache and random zones too, as an idle target would."
        ),
    ] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
    start: Start = None,
) -> int:
    """Unmap the chunks whose blocks were all discarded, and reset their zones."""
    from dataclasses import replace

    from zoned_tools.engine.opening import opened_target
    from zoned_tools.engine.reshaping import Reshaping
    from zoned_tools.formats.dm_zoned.constants import NAME
    from zoned_tools.formats.dm_zoned.figures import usage_of
    from zoned_tools.formats.dm_zoned.free import plan_free
    from zoned_tools.formats.dm_zoned.workspace import checked
    from zoned_tools.report.dm_zoned import free_lines
    from zoned_tools.report.documents.dm_zoned import free_document
    from zoned_tools.report.stream import write_lines

    with opened_target(devices, start, NAME, writable=not dry_run, only_own=True) as target:
        freed = plan_free(target, compact=compact)
        change = Reshaping(freed.plan, target.devices, target, lambda on: replace(target, devices=tuple(on)))
        rehearsed = _rehearse(change, dry_run=dry_run, json=json)
        after = usage_of(checked(rehearsed.evidence.target).chosen)
        changed = _carry(change, rehearsed, dry_run=dry_run, undo=undo, no_undo=no_undo, if_it_fits=not compact)
        document = free_document(target.paths, freed, after, changed=changed)
    if json:
        print_json(document)
    elif not dry_run:
        write_lines(free_lines(document))
    return 0


Cache: TypeAlias = Annotated[
    str, typer.Argument(metavar="CACHE", help="The regular (cache) device or image.", show_default=False)
]
Drive: TypeAlias = Annotated[str, typer.Argument(metavar="DRIVE", help="The zoned drive or image.", show_default=False)]


@app.command("attach")
@prints("dm-zoned.attach")
def attach(
    cache: Cache,
    drive: Drive,
    device_uuid: Annotated[
        str | None,
        typer.Option(
            "--device-uuid",
            metavar="UUID",
            help="UUID of the cache device instead of a random one.",
            show_default=False,
        ),
    ] = None,
    grow: Annotated[
        bool, typer.Option("--grow", help="Raise the number of chunks to what fits on both devices.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Make metadata version 2 of version 1.")] = False,
    label: Annotated[
        str, typer.Option("--label", metavar="STR", help="Label of an upgraded target.", show_default=False)
    ] = "",
    uuid: Annotated[
        str | None,
        typer.Option(
            "--uuid", metavar="UUID", help="UUID of an upgraded target instead of a random one.", show_default=False
        ),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
) -> int:
    """Let a regular device join a target on one zoned drive: metadata and buffers go there, the data stay."""
    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.opening import refuse_held
    from zoned_tools.formats.dm_zoned.attach import AttachOptions, is_leftover, plan_attach
    from zoned_tools.formats.dm_zoned.probe import sealed_superblock
    from zoned_tools.report.dm_zoned import attach_line
    from zoned_tools.report.documents.dm_zoned import attach_document

    options = AttachOptions(grow, upgrade, label, _uuid(uuid), _uuid(device_uuid))
    with open_devices((cache, drive), writable=not dry_run) as devices:
        refuse_held(devices[1], "dm-zoned")
        if not force and not is_leftover(devices[0], sealed_superblock(devices[1])):
            from zoned_tools.engine.content import refuse_content

            refuse_content(devices[0])
        attached = plan_attach(devices[0], devices[1], options)
        _regroup(attached, devices, dry_run=dry_run, undo=undo, no_undo=no_undo, json=json)
    document = attach_document((cache, drive), attached)
    _print_regrouped(document, attach_line(document), dry_run=dry_run, json=json)
    return 0


@app.command("detach")
@prints("dm-zoned.detach")
def detach(
    cache: Cache,
    drive: Drive,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Let the target become smaller, as far as its last chunks are not mapped.")
    ] = False,
    dry_run: DryRun = False,
    undo: Undo = None,
    no_undo: NoUndo = False,
    json: Json = False,
) -> int:
    """Let the regular device leave: its chunks move to the drive, which is a target of its own then."""
    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.opening import refuse_held
    from zoned_tools.formats.dm_zoned.detach import plan_detach
    from zoned_tools.report.dm_zoned import detach_line
    from zoned_tools.report.documents.dm_zoned import detach_document

    with open_devices((cache, drive), writable=not dry_run) as devices:
        refuse_held(devices[1], "dm-zoned")
        detached = plan_detach(devices[0], devices[1], shrink=shrink)
        _regroup(detached, devices, dry_run=dry_run, undo=undo, no_undo=no_undo, json=json)
    document = detach_document((cache, drive), detached)
    _print_regrouped(document, detach_line(document), dry_run=dry_run, json=json)
    return 0


def _uuid(text: str | None) -> UUID | None:
    from uuid import UUID

    try:
        found = UUID(text) if text is not None else None
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None
    if found is not None and not found.int:
        raise UsageError("the null uuid marks damaged metadata")
    return found


def _regroup(
    result: Regrouped, devices: tuple[Device, ...], *, dry_run: bool, undo: str | None, no_undo: bool, json: bool
) -> None:
    """Rehearse and carry out."""
    from zoned_tools.engine.reshaping import Reshaping
    from zoned_tools.formats.contract import Target
    from zoned_tools.formats.dm_zoned.constants import NAME

    before = Target(NAME, tuple(devices[number] for number in result.before))
    change = Reshaping(
        result.plan, devices, before, lambda on: Target(NAME, tuple(on[number] for number in result.after))
    )
    rehearsed = _rehearse(change, dry_run=dry_run, json=json)
    _carry(change, rehearsed, dry_run=dry_run, undo=undo, no_undo=no_undo)


def _print_regrouped(document: RegroupedDocument, line: str, *, dry_run: bool, json: bool) -> None:
    from zoned_tools.report.stream import write_line

    if json:
        print_json(document)
    elif not dry_run:
        write_line(line)


def _rehearse(change: Reshaping, *, dry_run: bool, json: bool) -> Rehearsed:
    """Try a plan, and show it: whole in a dry run, else what a human should know."""
    from zoned_tools.cli.changes import print_notes, print_plan
    from zoned_tools.engine.reshaping import rehearse

    rehearsed = rehearse(change)
    if not dry_run:
        print_notes(change.plan)
    elif not json:
        print_plan(change.plan, change.devices)
    return rehearsed


def _carry(
    change: Reshaping, rehearsed: Rehearsed, *, dry_run: bool, undo: str | None, no_undo: bool, if_it_fits: bool = False
) -> bool:
    """Carry a plan out; true when something was changed."""
    from zoned_tools.cli.changes import print_undo
    from zoned_tools.engine.reshaping import carry_through

    if dry_run:
        return False
    return bool(
        carry_through(change, rehearsed, undo=undo, no_undo=no_undo, undo_if_it_fits=if_it_fits, saved=print_undo)
    )
