"""``zoned table``: the dmsetup table line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from zoned_tools.cli.options import DevicePaths, Json, LayoutName, Settings, Start, check_layout_name
from zoned_tools.cli.output import print_json
from zoned_tools.cli.settings import split_settings


def table(
    devices: DevicePaths,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="The line of drivers that take parameters (rlow=, idle_rlow=).")
    ] = False,
    settings: Settings = None,
    json: Json = False,
    start: Start = None,
    layout: LayoutName = None,
) -> int:
    """Print the dmsetup table line of a target."""
    from typing import cast

    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.targets import need_room, single_target
    from zoned_tools.formats.registry import TableRoom

    check_layout_name(layout)
    paths, chosen = split_settings(devices, settings)
    if legacy:
        chosen["legacy"] = "1"
    with open_devices(paths) as opened:
        target = single_target(opened, start_sector=start, layout=layout)
        room = cast(TableRoom, need_room(target, "table", "start with device-mapper"))
        line, warning = room.table_line(target, chosen), room.ACTIVATION_WARNING
    if json:
        facts = {"devices": list(target.paths), "layout": target.layout, "table": line, "warning": warning}
        print_json({"schema": "zoned.table/1", **facts})
    else:
        print(line)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return 0
