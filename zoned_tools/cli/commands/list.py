"""``zoned list``: the machine's zoned block devices."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import Json


@prints("list")
def list_devices(
    json: Json = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="List regular block devices too.")] = False,
) -> int:
    """List the zoned block devices of this machine."""
    from zoned_tools.device.inventory import list_disks
    from zoned_tools.report.documents.drives import list_document
    from zoned_tools.report.drives import list_lines
    from zoned_tools.report.stream import write_lines

    disks = [disk for disk in list_disks() if everything or disk.model != "regular"]
    if json:
        print_json(list_document(disks))
    else:
        write_lines(list_lines(disks))
    return 0
