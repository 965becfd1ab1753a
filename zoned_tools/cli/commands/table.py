"""``zoned table``: the dmsetup table line."""

from __future__ import annotations

import sys

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import (
    DevicePaths,
    Json,
    LayoutName,
    Settings,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.formats.shared.settings import Journey


@takes_settings(Journey.TABLE)
@prints("table")
def print_table(
    devices: DevicePaths,
    settings: Settings = None,
    json: Json = False,
    start: Start = None,
    layout: LayoutName = None,
    zones: ZonesFrom = "table",
) -> int:
    """Print the dmsetup table line of a target."""
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import need
    from zoned_tools.report.documents.targets import table_document
    from zoned_tools.report.stream import write_line

    check_layout_name(layout)
    paths, chosen = split_settings(devices, settings)
    with opened_target(paths, start, layout, by_content=zones == "content") as target:
        kind = registry.of(target)
        parsed = kind.parse_settings(chosen, Journey.TABLE)
        table = need(kind.table_line, target, "start with device-mapper")(target, parsed)
    if json:
        print_json(table_document(target, table))
    else:
        write_line(table.line)
    if table.warning:
        write_line(f"warning: {table.warning}", sys.stderr)
    return 0
