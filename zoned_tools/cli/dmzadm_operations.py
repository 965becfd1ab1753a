"""The operations of ``dmzadm``, between its options and the dm-zoned layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from zoned_tools.device.base import Device
from zoned_tools.device.opening import open_devices
from zoned_tools.errors import UsageError
from zoned_tools.formats.dm_zoned.format import FormatOptions, FormatResult, format_target
from zoned_tools.formats.registry import Target

LAYOUT = "dm-zoned"


@dataclass(frozen=True, slots=True)
class Common:
    """Options of every operation."""

    paths: tuple[str, ...]
    verbose: bool
    very_verbose: bool
    json: bool
    dry_run: bool
    undo: str | None


@dataclass(frozen=True, slots=True)
class FormatChoices:
    """Options of ``--format``, parsed."""

    reserved: int | None
    label: str
    dmz_uuid: UUID | None
    device_uuids: tuple[UUID, ...]
    metadata_version: int


def _number(text: str | None, complaint: str, allowed: Sequence[int] | None = None) -> int | None:
    if text is None:
        return None
    value = int(text) if text.isascii() and text.isdigit() else 0
    if (allowed is None and value < 1) or (allowed is not None and (not text.isdigit() or value not in allowed)):
        raise UsageError(complaint)
    return value


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None


def _label(text: str | None) -> str:
    """Without its quotes, as the original takes it; at most 31 bytes."""
    if not text:
        return ""
    if text[0] in "'\"":
        text = text[1:-1]
    if len(os.fsencode(text)) > 31:
        raise UsageError("Label too long (max 31 characters)")
    return text


def format_choices(
    seq: str | None, label: str | None, uuid: str | None, device_uuids: Sequence[str], metadata_version: str | None
) -> FormatChoices:
    """Parse the options of ``--format``.

    Raises:
        UsageError: one of them is not what it should be.
    """
    return FormatChoices(
        reserved=_number(seq, "Invalid number of sequential zones"),
        label=_label(label),
        dmz_uuid=None if uuid is None else _uuid(uuid),
        device_uuids=tuple(_uuid(text) for text in device_uuids),
        metadata_version=_number(metadata_version, "metadata version is 1 or 2", (1, 2)) or 2,
    )


def default_label(device: Device) -> str:
    """``dmz-`` and the serial number or name of the first device, cut to 30 bytes."""
    from zoned_tools.device.identity import identify

    serial = "" if device.emulated else identify(device.path).serial
    name = serial or os.path.basename(os.path.realpath(device.path))
    return os.fsencode(f"dmz-{name}")[:30].decode("utf-8", "ignore")


def _check_members(devices: Sequence[Device]) -> None:
    """One zoned device, or a regular one followed by zoned ones."""
    first = devices[0]
    if len(devices) == 1 and not first.geometry.is_zoned:
        raise UsageError("Not a zoned block device", device=first.path)
    if len(devices) > 1 and first.geometry.is_zoned:
        raise UsageError("Not a regular block device", device=first.path)
    for device in devices[1:]:
        if not device.geometry.is_zoned:
            raise UsageError("Not a zoned block device", device=device.path)
    if len({os.path.realpath(device.path) for device in devices}) < len(devices):
        raise UsageError("the same device is named twice", device=first.path)


def format_devices(common: Common, choices: FormatChoices, *, force: bool) -> int:
    """``--format``: check everything, then write."""
    with open_devices(common.paths, writable=not common.dry_run) as devices:
        _check_members(devices)
        if not force:
            from zoned_tools.engine.content import refuse_content

            for device in devices:
                refuse_content(device)
        target = Target(LAYOUT, devices)
        result = format_target(
            target,
            FormatOptions(
                reserved=choices.reserved,
                label=choices.label or default_label(devices[0]),
                dmz_uuid=choices.dmz_uuid,
                device_uuids=choices.device_uuids,
                metadata_version=choices.metadata_version,
            ),
        )
        if not common.json:
            _print_format(common, target, result)
        _write_format(common, target, result)
    if common.json:
        _print_format_json(common, target, result)
    return 0


def _print_format(common: Common, target: Target, result: FormatResult) -> None:
    from zoned_tools.report import dmzadm as text

    lines = list(text.header_lines(target, result.geometry))
    if common.verbose:
        lines += text.format_details(target, result)
    print("\n".join(lines))


def _write_format(common: Common, target: Target, result: FormatResult) -> None:
    from zoned_tools.cli.changes import execute
    from zoned_tools.report.dmzadm import FormatProgress

    if common.dry_run and common.json:
        return
    quiet = common.json or common.dry_run
    written = execute(
        result.plan,
        target.devices,
        dry_run=common.dry_run,
        undo=common.undo,
        progress=None if quiet else FormatProgress(target, result),
    )
    if written and not quiet:
        print("Syncing disk(s)")
        print("Done.")


def _print_format_json(common: Common, target: Target, result: FormatResult) -> None:
    from zoned_tools.cli.output import print_json

    layout = result.layout
    print_json(
        {
            "schema": "zoned.dmzadm.format/1",
            "changed": not common.dry_run,
            "devices": list(target.paths),
            "metadata_version": result.version,
            "label": result.label,
            "uuid": str(result.dmz_uuid),
            "device_uuids": [str(u) for u in result.device_uuids],
            "nr_meta_blocks": layout.nr_meta_blocks,
            "nr_reserved_seq": layout.nr_reserved_seq,
            "nr_chunks": layout.nr_chunks,
            "nr_map_blocks": layout.nr_map_blocks,
            "nr_bitmap_blocks": layout.nr_bitmap_blocks,
            "primary_block": layout.set_block(0),
            "secondary_block": layout.set_block(1),
            "warnings": list(result.warnings),
            "plan": list(result.plan.describe(target.paths)),
        }
    )
