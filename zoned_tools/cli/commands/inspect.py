"""``zoned inspect``: the decoded metadata as a tree."""

from __future__ import annotations

from dataclasses import replace

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Json,
    LayoutName,
    Mapfiles,
    Settings,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.output import complain, note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.errors import FsckStatus, ZonedError
from zoned_tools.formats.shared.settings import Journey


@takes_settings(Journey.READ)
@prints("inspect")
def inspect(
    devices: DevicePaths,
    json: Json = False,
    settings: Settings = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Print the decoded metadata of a layout."""
    check_layout_name(layout)
    return print_trees(devices, json, settings, start, layout, mapfile, zones)


def print_trees(
    devices: list[str],
    json: bool,
    settings: list[str] | None = None,
    start: int | None = None,
    layout: str | None = None,
    mapfile: list[str] | None = None,
    zones: str = "table",
    *,
    only_own: bool = False,
) -> int:
    """The tree of each target; ``only_own``: devices that hold another layout than ``layout`` are refused."""
    from zoned_tools.engine.opening import Failure, opened_targets, refuse_several
    from zoned_tools.formats import registry
    from zoned_tools.report.documents.targets import inspect_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import inspect_lines

    status = FsckStatus.CLEAN
    paths, chosen = split_settings(devices, settings)
    note_use(paths)
    by_content = zones == "content"
    with opened_targets(
        paths, start, layout, only_own=only_own, mapfiles=mapfile or (), by_content=by_content
    ) as opened:
        if json:
            refuse_several(opened)  # a document is of one target
        for target in opened.in_order(paths):
            try:
                if isinstance(target, Failure):
                    raise target.error
                layout_of = registry.of(target)
                tree = layout_of.inspect(replace(target, settings=layout_of.parse_settings(chosen, Journey.READ)))
            except ZonedError as error:
                status |= complain(error)
                continue
            if json:
                print_json(inspect_document(target, tree))
            else:
                write_lines(inspect_lines(target, tree))
    return status
