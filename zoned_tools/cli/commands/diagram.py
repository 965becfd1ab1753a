"""``zoned diagram``: a picture of the zones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.options import DevicePath, Force, Start, ZonesFrom
from zoned_tools.cli.output import complain
from zoned_tools.errors import LayoutError, ZonedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.zones import IntArray


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
    zones: ZonesFrom = "table",
) -> int:
    """Draw the zones of a drive and what lives in them."""
    from zoned_tools.device.identity import not_zoned
    from zoned_tools.device.opening import open_device
    from zoned_tools.engine.documents import write_document
    from zoned_tools.engine.opening import probe_device, target_of
    from zoned_tools.engine.raw_copies import on_derived_zones
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import ZoneWishes
    from zoned_tools.report import diagram as picture
    from zoned_tools.report.stream import write_lines

    by_content = zones == "content"
    with open_device(device, sidecar=not by_content) as opened:
        target = target_of(probe_device(opened, start), ZoneWishes(insisted=by_content))
        drive = on_derived_zones(target).device if target is not None and target.derived else opened
        if not drive.geometry.is_zoned:
            raise not_zoned(device)
        layout = registry.of(target) if target else None
        zones_of: Mapping[str, IntArray] = {}
        if target is not None and layout is not None and layout.zone_roles is not None:
            try:
                zones_of = layout.zone_roles(target)
            except LayoutError as error:
                complain(error)
            except ZonedError:
                pass  # a damaged layout still leaves the drive's own picture
        drawing = picture.draw(drive.zones(), layout.roles if layout else (), zones_of)
        title = f"{device}: {layout.name if layout else drive.geometry.model}"
    if output is None:
        write_lines([title, *picture.text_lines(drawing, columns)])
    else:
        write_document(output, picture.svg_document(title, drawing).encode(), overwrite=force, sources=[device])
    return 0
