"""``zoned inspect``: the decoded metadata as a tree."""

from __future__ import annotations

from zoned_tools.cli.options import DevicePaths, Json, LayoutName, Start, check_layout_name
from zoned_tools.cli.output import print_json


def inspect(devices: DevicePaths, json: Json = False, start: Start = None, layout: LayoutName = None) -> int:
    """Print the decoded metadata of a layout."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats import registry
    from zoned_tools.report.documents.targets import inspect_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import inspect_lines

    check_layout_name(layout)
    with opened_target(devices, start, layout) as target:
        tree = registry.of(target).inspect(target)
        if json:
            print_json(inspect_document(target, tree))
        else:
            write_lines(inspect_lines(target, tree))
    return 0
