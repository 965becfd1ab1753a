"""``dmzadm --format``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from zoned_tools.cli.dmzadm.common import LAYOUT, Common, check_members, parse_label, parse_number
from zoned_tools.device.opening import open_devices
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.dm_zoned.format import FormatOptions, FormatResult, default_label, format_target


@dataclass(frozen=True, slots=True)
class FormatChoices:
    """Options of ``--format``, parsed."""

    reserved: int | None
    label: str
    dmz_uuid: UUID | None
    device_uuids: tuple[UUID, ...]
    metadata_version: int


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None


def format_choices(
    seq: str | None, label: str | None, uuid: str | None, device_uuids: Sequence[str], metadata_version: str | None
) -> FormatChoices:
    """Parse the options of ``--format``.

    Raises:
        UsageError: one of them is not what it should be.
    """
    return FormatChoices(
        reserved=parse_number(seq, "Invalid number of sequential zones"),
        label=parse_label(label),
        dmz_uuid=None if uuid is None else _uuid(uuid),
        device_uuids=tuple(_uuid(text) for text in device_uuids),
        metadata_version=parse_number(metadata_version, "metadata version is 1 or 2", (1, 2)) or 2,
    )


def format_devices(common: Common, choices: FormatChoices, *, force: bool) -> int:
    """``--format``: check everything, then write."""
    with open_devices(common.paths, writable=not common.dry_run) as devices:
        check_members(devices)
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
        identity_after=f"{LAYOUT} {result.dmz_uuid}" if result.version > 1 else LAYOUT,
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
