"""``zoned map``: where logical blocks live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Force,
    Json,
    LayoutName,
    Mapfiles,
    Settings,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.output import note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.settings import Journey
from zoned_tools.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.formats.contract import Target


@takes_settings(Journey.LOGICAL)
@prints("map")
def map_blocks(
    devices: DevicePaths,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="LBA[+N]",
            help="N logical blocks of 4096 bytes from LBA on (default one; without --at all); repeatable.",
            show_default=False,
        ),
    ] = None,
    byte: Annotated[
        list[str] | None,
        typer.Option(
            "--byte",
            metavar="ADDR[+LEN]",
            help="The blocks of LEN bytes from ADDR on, as kernel messages give addresses; repeatable.",
            show_default=False,
        ),
    ] = None,
    zone: Annotated[
        int | None,
        typer.Option("--zone", metavar="Z", min=0, help="Whose a zone is, not the list (btrfs).", show_default=False),
    ] = None,
    domain_out: Annotated[
        list[str] | None,
        typer.Option(
            "--domain-out",
            metavar="FILE",
            help="Write what of a device matters as a ddrescue domain file, not the list; once for each device.",
            show_default=False,
        ),
    ] = None,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="With --domain-out: the metadata alone, to be copied first.")
    ] = False,
    force: Force = False,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Tell where logical blocks live, and why."""
    from zoned_tools.engine.opening import opened_target

    check_layout_name(layout)
    wanted = [*(parse_range(text) for text in at or ()), *(parse_bytes(text) for text in byte or ())]
    if zone is not None and (wanted or domain_out):
        raise UsageError("--zone takes the place of the list, without --at, --byte and --domain-out")
    paths, chosen = split_settings(devices, settings)
    note_use(paths)
    if metadata_only and not domain_out:
        raise UsageError("--metadata-only needs --domain-out")
    if domain_out:
        if wanted or json:
            raise UsageError("--domain-out takes the place of the list, without --at, --byte and --json")
        with opened_target(paths, start, layout, mapfiles=mapfile or (), by_content=zones == "content") as target:
            _write_domains(target, domain_out, chosen, metadata_only=metadata_only, force=force)
        return 0
    with opened_target(paths, start, layout, mapfiles=mapfile or (), by_content=zones == "content") as target:
        if zone is not None:
            _print_zone(target, chosen, zone, json=json)
        else:
            _print_map(target, chosen, wanted, json=json)
    return 0


def _print_map(target: Target, settings: Mapping[str, str], wanted: list[tuple[int, int]], *, json: bool) -> None:
    """Where ranges live, or everything."""
    from zoned_tools.engine.logical import has_copies, map_copies, opened_logical
    from zoned_tools.engine.logical import map_blocks as runs_of
    from zoned_tools.report.documents.logical import map_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import map_lines

    if has_copies(target):
        copies = map_copies(target, settings, wanted or None)
        if json:
            print_json(map_document(target, copies))
        else:
            write_lines(map_lines(copies))
        return
    with opened_logical(target, writable=False, settings=settings) as mapper:
        print_warnings(mapper, target)
        ranges = wanted or [(0, mapper.size_blocks)]
        checked = [runs_of(target, mapper, first, count) for first, count in ranges]
        runs = (run for one in checked for run in one)
        if json:
            print_json(map_document(target, runs))
        else:
            write_lines(map_lines(runs))


def _print_zone(target: Target, settings: Mapping[str, str], zone: int, *, json: bool) -> None:
    from zoned_tools.engine.logical import map_zone
    from zoned_tools.report.documents.logical import zone_owners_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import owner_lines

    rows = map_zone(target, settings, zone)
    if json:
        print_json(zone_owners_document(target, rows))
    else:
        write_lines(owner_lines(rows))


def _write_domains(
    target: Target, files: list[str], settings: Mapping[str, str], *, metadata_only: bool, force: bool
) -> None:
    from zoned_tools.device.mapfile import mapfile_content
    from zoned_tools.device.partition import start_of_view
    from zoned_tools.engine.documents import write_document
    from zoned_tools.engine.domain import domain_of, domain_rows

    if len(files) != len(target.devices):
        raise UsageError(f"{len(files)} domain files for {len(target.devices)} devices")
    what = "metadata" if metadata_only else "metadata and valid blocks"
    domains = domain_of(target, settings, metadata_only=metadata_only)
    for path, device, ranges in zip(files, target.devices, domains, strict=True):
        end = start_of_view(device) + device.geometry.size_bytes
        comment = f"domain: {what} of {target.layout} on {visible(device.path)}"
        content = mapfile_content(domain_rows(ranges, end), [comment])
        write_document(path, content, overwrite=force, sources=target.paths)


def parse_bytes(text: str) -> tuple[int, int]:
    """``(first block, count)`` of the blocks that hold the bytes ``ADDR[+LEN]``; as :func:`parse_range`."""
    first, count = parse_range(text, "--byte", "ADDR", "bytes")
    start = first // 4096
    return start, -(-(first + count) // 4096) - start


def parse_range(text: str, option: str = "--at", form: str = "LBA", unit: str = "blocks") -> tuple[int, int]:
    """``(first, count)`` of ``LBA[+N]``; decimal, or hexadecimal behind ``0x``."""
    wrong = f"{option} {text}: not {form} or {form}+N"
    first, plus, count = text.partition("+")
    numbers = []
    for word in (first, count if plus else "1"):
        base = 16 if word[:2].lower() == "0x" else 10
        digits = word[2:] if base == 16 else word
        if not digits.isalnum() or not digits.isascii() or len(digits) > 20:
            raise UsageError(wrong)
        try:
            numbers.append(int(digits, base))
        except ValueError:
            raise UsageError(wrong) from None
    if numbers[1] == 0:
        raise UsageError(f"{option} {text}: no {unit}")
    return numbers[0], numbers[1]
