"""``zoned inspect``: the decoded metadata as a tree."""

from __future__ import annotations

from zoned_tools.cli.options import DevicePaths, Json, LayoutName, Mapfiles, Start, check_layout_name
from zoned_tools.cli.output import complain, print_json
from zoned_tools.errors import FsckStatus, ZonedError


def inspect(
    devices: DevicePaths,
    json: Json = False,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
) -> int:
    """Print the decoded metadata of a layout."""
    from zoned_tools.engine.opening import Failure, opened_targets, refuse_several
    from zoned_tools.formats import registry
    from zoned_tools.report.documents.targets import inspect_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import inspect_lines

    check_layout_name(layout)
    status = FsckStatus.CLEAN
    with opened_targets(devices, start, layout, mapfiles=mapfile or ()) as opened:
        if json:
            refuse_several(opened)  # a document is of one target
        for target in opened.in_order(devices):
            try:
                if isinstance(target, Failure):
                    raise target.error
                tree = registry.of(target).inspect(target)
            except ZonedError as error:
                status |= complain(error)
                continue
            if json:
                print_json(inspect_document(target, tree))
            else:
                write_lines(inspect_lines(target, tree))
    return status
