"""``zoned dump``: metadata as a document, or packed for a bug report."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from zoned_tools.cli.options import (
    DevicePaths,
    Force,
    LayoutName,
    Mapfiles,
    SettingsBesideOutput,
    Start,
    ZonesFrom,
    check_layout_name,
)
from zoned_tools.cli.output import note_use
from zoned_tools.cli.settings import split_settings, takes_settings
from zoned_tools.formats.shared.settings import Journey


@takes_settings(Journey.READ)
def dump(
    devices: DevicePaths,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE; - is standard output.")
    ] = "-",
    binary: Annotated[
        bool,
        typer.Option(
            "--binary", help="Pack the document, compressed, serial numbers and labels hashed: fit for a bug report."
        ),
    ] = False,
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Do not hash serial numbers and labels.")] = False,
    force: Force = False,
    settings: SettingsBesideOutput = None,
    start: Start = None,
    layout: LayoutName = None,
    mapfile: Mapfiles = None,
    zones: ZonesFrom = "table",
) -> int:
    """Save the metadata of a layout as readable JSON."""
    from zoned_tools.engine.documents import encode_document, write_document
    from zoned_tools.engine.opening import opened_target
    from zoned_tools.formats import registry
    from zoned_tools.formats.contract import need
    from zoned_tools.report.documents.targets import dump_document

    check_layout_name(layout)
    paths, chosen = split_settings(devices, settings)
    note_use(paths)
    with opened_target(paths, start, layout, mapfiles=mapfile or (), by_content=zones == "content") as target:
        kind = registry.of(target)
        room = need(kind.dump, target, "dump")
        document = room(replace(target, settings=kind.parse_settings(chosen, Journey.READ)))
        content = encode_document(dump_document(target, document), packed=binary, hide_names=binary and not keep_names)
    write_document(output, content, overwrite=force, sources=paths)
    return 0
