"""``zoned scan``: metadata that nothing points to any more."""

from __future__ import annotations

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import DevicePath, Json, LayoutName, Mapfiles, Quiet, check_layout_name
from zoned_tools.cli.output import progress_bar
from zoned_tools.errors import FsckStatus


@prints("scan")
def scan(
    device: DevicePath, json: Json = False, quiet: Quiet = False, layout: LayoutName = None, mapfile: Mapfiles = None
) -> int:
    """Look for lost metadata in everything that is written."""
    from zoned_tools.device.opening import open_devices
    from zoned_tools.engine.scanning import scan_device
    from zoned_tools.report.documents.drives import scan_document
    from zoned_tools.report.stream import write_lines
    from zoned_tools.report.targets import scan_lines

    check_layout_name(layout)
    with open_devices([device], mapfiles=mapfile or ()) as (drive,):
        with progress_bar(f"scanning {device}", drive.geometry.size_bytes, quiet=quiet) as progress:
            result = scan_device(drive, layout, progress)
        if json:
            print_json(scan_document(drive, result))
        else:
            write_lines(scan_lines(drive, result))
    return FsckStatus.UNCORRECTED if result.unreadable_bytes else FsckStatus.CLEAN
