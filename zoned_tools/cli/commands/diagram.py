"""``zoned diagram``: a picture of the zones."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import DevicePath, Force, Start
from zoned_tools.errors import DeviceError, ZonedError


def diagram(
    device: DevicePath,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Draw an SVG file instead of characters.", show_default=False
        ),
    ] = None,
    columns: Annotated[int, typer.Option("--columns", help="Zones (or groups of zones) a line.", min=8, max=512)] = 64,
    force: Force = False,
    start: Start = None,
) -> int:
    """Draw the zones of a drive and what lives in them."""
    from zoned_tools.device.opening import open_device
    from zoned_tools.engine.documents import write_document
    from zoned_tools.engine.targets import probe_device, view_at
    from zoned_tools.formats.registry import Target, room
    from zoned_tools.report import diagram as picture

    with open_device(device) as drive:
        if not drive.geometry.is_zoned:
            raise DeviceError("not a zoned device", device=device)
        roles = None
        identity = probe_device(drive, start).identity
        module = room(identity.layout, "roles") if identity else None
        if identity is not None and module is not None:
            view, begin = view_at(drive, identity.start_bytes, identity.layout)
            try:
                roles = module.zone_roles(Target(identity.layout, (view,), begin))
            except ZonedError:
                roles = None  # a damaged layout still leaves the drive's own picture
        classes = picture.classify(drive.zones(), roles)
        title = f"{device}: {identity.layout if identity else drive.geometry.model}"
    if output is None:
        print(title)
        for line in picture.text_lines(classes, columns):
            print(line)
    else:
        write_document(output, picture.svg_document(title, classes).encode(), overwrite=force)
    return 0
