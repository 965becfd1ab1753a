"""``zoned map``: where logical blocks live."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.commands.replay import print_warnings
from zoned_tools.cli.options import DevicePaths, Json, LayoutName, Mapfiles, Settings, Start, check_layout_name
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import UsageError
from zoned_tools.formats.shared.settings import Journey


@takes_settings(Journey.LOGICAL)
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
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
) -> int:
    """Tell where logical blocks live, and why."""
    from zoned_tools.engine.logical import map_blocks as runs_of
    from zoned_tools.engine.logical import opened_logical
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.report.documents.targets import map_document
    from zoned_tools.report.stream import write_line, write_text
    from zoned_tools.report.targets import map_lines

    check_layout_name(layout)
    wanted = [parse_range(text) for text in at or ()]
    paths, chosen = split_settings(devices, settings)
    with (
        opened_target(paths, start, layout, mapfiles=mapfile or ()) as target,
        opened_logical(target, writable=False, settings=chosen) as mapper,
    ):
        print_warnings(mapper, target)
        ranges = wanted or [(0, mapper.size_blocks)]
        checked = [runs_of(target, mapper, first, count) for first, count in ranges]
        runs = (run for one in checked for run in one)
        if json:
            write_text(map_document(runs))
        else:
            for line in map_lines(runs):  # at once: blocks that cannot be read end it
                write_line(line)
    return 0


def parse_range(text: str) -> tuple[int, int]:
    """``(first block, count)`` of ``LBA[+N]``; decimal, or hexadecimal behind ``0x``."""
    first, plus, count = text.partition("+")
    numbers = []
    for word in (first, count if plus else "1"):
        base = 16 if word[:2].lower() == "0x" else 10
        digits = word[2:] if base == 16 else word
        if not digits.isalnum() or not digits.isascii() or len(digits) > 20:
            raise UsageError(f"--at {text}: not LBA or LBA+N")
        try:
            numbers.append(int(digits, base))
        except ValueError:
            raise UsageError(f"--at {text}: not LBA or LBA+N") from None
    if numbers[1] == 0:
        raise UsageError(f"--at {text}: no blocks")
    return numbers[0], numbers[1]
