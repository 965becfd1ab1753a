"""``zoned probe``: which layout is on a device."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from zoned_tools.cli.options import DevicePaths, Json, Start
from zoned_tools.cli.output import print_json
from zoned_tools.text import visible

if TYPE_CHECKING:
    from zoned_tools.report.documents.drives import ProbeRow


def probe(
    devices: DevicePaths,
    json: Json = False,
    export: Annotated[bool, typer.Option("--export", help="Print KEY=value lines, as blkid -o export does.")] = False,
    start: Start = None,
) -> int:
    """Tell which layout is on a device."""
    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.opening import probe_device
    from zoned_tools.report.documents.drives import probe_document, probe_row

    with open_devices(devices) as opened:
        rows = [probe_row(probe_device(device, start)) for device in opened]
    if json:
        print_json(probe_document(rows))
    elif export:
        print("\n\n".join("\n".join(_export_lines(row)) for row in rows))
    else:
        for row in rows:
            print(_sentence(row))
    return 0


def _export_lines(row: ProbeRow) -> list[str]:
    names = (
        ("DEVNAME", "device"),
        ("ZONED", "model"),
        ("TYPE", "layout"),
        ("VERSION", "version"),
        ("UUID", "uuid"),
        ("LABEL", "label"),
    )
    values: dict[str, object] = {**row}
    lines = [f"{name}={shlex.quote(visible(str(values[key])))}" for name, key in names if values[key]]
    if row["start_sector"]:
        lines.append(f"START_SECTOR={row['start_sector']}")
    return lines


def _sentence(row: ProbeRow) -> str:
    drive = f"{row['model']}{', emulated' if row['emulated'] else ''}"
    if row["layout"] is None:
        return f"{row['device']}: {drive}: no known layout"
    parts = [f"{row['device']}: {drive}: {row['layout']}"]
    parts += [f"{key} {visible(str(row[key]))}" for key in ("version", "label", "uuid") if row[key]]
    if row["start_sector"]:
        parts.append(f"at sector {row['start_sector']}")
    return " ".join(parts)
