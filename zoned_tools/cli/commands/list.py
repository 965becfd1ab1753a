"""``zoned list``: the machine's zoned block devices."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import Json
from zoned_tools.cli.output import print_json


def list_devices(
    json: Json = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="List regular block devices too.")] = False,
) -> int:
    """List the zoned block devices of this machine."""
    from zoned_tools.device.inventory import list_disks
    from zoned_tools.report.documents.drives import list_document

    disks = [disk for disk in list_disks() if everything or disk.model != "regular"]
    if json:
        print_json(list_document(disks))
        return 0
    if not disks:
        print("no zoned block device on this machine")
        return 0
    print("NAME          MODEL         SIZE        ZONE SIZE   ZONES     OPEN  ACTIVE  VENDOR AND MODEL")
    for disk in disks:
        print(disk.as_line())
    return 0
