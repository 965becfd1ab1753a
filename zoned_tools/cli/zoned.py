"""``zoned``, the umbrella command."""

from __future__ import annotations

from zoned_tools.cli.lazy import LazyGroup

_HERE = "zoned_tools.cli.commands"

REGISTRY: dict[str, tuple[str, str]] = {
    "report": (f"{_HERE}.report:report", "Print the zone report of a drive."),
    "zone": (f"{_HERE}.zone:app", "Reset, open, close or finish zones."),
    "image": (f"{_HERE}.image:app", "Make, import and describe emulated drives."),
    "list": (f"{_HERE}.list:list_devices", "List the zoned block devices of this machine."),
    "probe": (f"{_HERE}.probe:probe", "Tell which layout is on a device."),
    "inspect": (f"{_HERE}.inspect:inspect", "Print the decoded metadata of a layout."),
    "check": (f"{_HERE}.check:check", "Check, and repair, whatever layout is there."),
    "undo": (f"{_HERE}.undo:undo", "Play an undo file back."),
    "table": (f"{_HERE}.table:print_table", "Print the dmsetup table line of a target."),
    "map": (f"{_HERE}.map:map_blocks", "Tell where logical blocks live, and why."),
    "export": (f"{_HERE}.export:export", "Write the logical device's content to a sparse raw file."),
    "import": (f"{_HERE}.import_raw:import_raw", "Fill the logical device with raw content, sequentially."),
    "replay": (f"{_HERE}.replay:replay", "Run a trace of writes, discards and flushes through the offline mapper."),
    "serve": (f"{_HERE}.serve:serve", "Serve the logical device over NBD, until SIGINT or SIGTERM."),
    "dump": (f"{_HERE}.dump:dump", "Save the metadata of a layout as readable JSON."),
    "restore": (f"{_HERE}.restore:restore", "Write metadata back from what zoned dump saved."),
    "metrics": (f"{_HERE}.metrics:metrics", "Print Prometheus metrics of drives and their layouts."),
    "diagram": (f"{_HERE}.diagram:diagram", "Draw the zones of a drive and what lives in them."),
    "scan": (f"{_HERE}.scan:scan", "Look for lost metadata in everything that is written."),
    "explain": (f"{_HERE}.explain:explain", "Explain what a finding means."),
    "schema": (f"{_HERE}.schema:schema", "Print the JSON Schema of a document."),
    "zonefs": (f"{_HERE}.zonefs:app", "List, read, write, check and mount the files of a zonefs volume."),
    "dm-zoned": (
        f"{_HERE}.dm_zoned:app",
        "Free emptied chunks, attach and detach the regular (cache) device of dm-zoned targets that do not run.",
    ),
    "zdm": (f"{_HERE}.zdm:app", "Status, zone counters and drive zones of a ZDM."),
    "btrfs": (
        f"{_HERE}.btrfs:app",
        "List super blocks, zones and files of a zoned btrfs, and go back to an older super block.",
    ),
    "inplace-compress": (
        f"{_HERE}.inplace_compress:app",
        "Make, fill, check, repair and measure dm-inplace-compress volumes.",
    ),
    "demo": (f"{_HERE}.demo:demo", "A tour on a temporary emulated drive."),
}
"""Sub-command to ``(module:object, summary)``."""


def command() -> LazyGroup:
    """The click command; sub-commands are imported when they run."""
    return LazyGroup(name="zoned", help="Tools for zoned storage: drives, images and their layouts.", registry=REGISTRY)
