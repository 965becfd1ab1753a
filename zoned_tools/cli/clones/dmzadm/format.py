"""``dmzadm --format``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from zoned_tools.cli.clones.dmzadm.arguments import parse_label, parse_number
from zoned_tools.cli.clones.dmzadm.members import LAYOUT, opened_members
from zoned_tools.errors import UsageError
from zoned_tools.formats.dm_zoned.format import FormatOptions, FormatResult, default_label, format_target

if TYPE_CHECKING:
    from zoned_tools.cli.clones.dmzadm.arguments import Arguments
    from zoned_tools.formats.contract import Target


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID") from None


def format_options(arguments: Arguments) -> FormatOptions:
    """What the options ask for; an empty label is the device's own.

    Raises:
        UsageError: one of them is not what it should be.
    """
    uuid = arguments.last("uuid")
    return FormatOptions(
        reserved=parse_number(arguments.last("seq"), "Invalid number of sequential zones"),
        label=parse_label(arguments.last("label")),
        dmz_uuid=None if uuid is None else _uuid(uuid),
        device_uuids=tuple(_uuid(text) for text in arguments.every("device-uuid")),
        metadata_version=parse_number(arguments.last("metadata-version"), "metadata version is 1 or 2", (1, 2)) or 2,
    )


def format_devices(arguments: Arguments) -> int:
    """Check everything, then write."""
    from dataclasses import replace

    options = format_options(arguments)
    with opened_members(arguments, writable=True) as target:
        if not arguments.has("force"):
            from zoned_tools.engine.content import refuse_content

            for device in target.devices:
                refuse_content(device)
        result = format_target(target, replace(options, label=options.label or default_label(target.device)))
        if not arguments.json:
            _print_format(arguments, target, result)
        _write_format(arguments, target, result)
    if arguments.json:
        from zoned_tools.cli.documents import print_json
        from zoned_tools.report.documents.clones import dmzadm_format_document

        print_json(dmzadm_format_document(target, result, changed=not arguments.dry_run))
    return 0


def _print_format(arguments: Arguments, target: Target, result: FormatResult) -> None:
    from zoned_tools.report import dmzadm as text
    from zoned_tools.report.stream import write_lines

    lines = list(text.header_lines(target, result.geometry))
    if arguments.verbose:
        lines += text.format_details(target, result)
    write_lines(lines)


def _write_format(arguments: Arguments, target: Target, result: FormatResult) -> None:
    from zoned_tools.cli.changes import execute
    from zoned_tools.report.dmzadm import FORMAT_END, FormatProgress
    from zoned_tools.report.stream import write_lines

    if arguments.dry_run and arguments.json:
        return
    quiet = arguments.json or arguments.dry_run
    written = execute(
        result.plan,
        target.devices,
        dry_run=arguments.dry_run,
        undo=arguments.undo,
        no_undo=arguments.no_undo,
        undo_if_it_fits=True,
        identity_after=f"{LAYOUT} {result.dmz_uuid}" if result.version > 1 else LAYOUT,
        progress=None if quiet else FormatProgress(target, result),
    )
    if written and not quiet:
        write_lines(FORMAT_END)
