"""Parameters that many commands share, so that they are named and described in one way."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

DevicePath: TypeAlias = Annotated[
    str, typer.Argument(metavar="DEV", help="Block device or image file.", show_default=False)
]
DevicePaths: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="DEV...", help="Block devices or image files.", show_default=False)
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Print what would be written, and change nothing.")
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing content.")]
Undo: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--undo",
        metavar="FILE",
        help="Save what is overwritten to FILE (default: a new file in the state directory), for zoned undo.",
        show_default=False,
    ),
]
NoUndo: TypeAlias = Annotated[bool, typer.Option("--no-undo", help="Save nothing of what is overwritten.")]
Start: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--start",
        metavar="SECTOR",
        help="The layout begins at this 512-byte sector (a partition of a whole-drive image).",
        show_default=False,
        min=0,
    ),
]
LayoutName: TypeAlias = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="Take the layout for NAME instead of probing.", show_default=False),
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Print every finding, not the first of each kind.")]
ReadOffset: TypeAlias = Annotated[str, typer.Option("--offset", metavar="BYTES", help="Where to begin.")]
ReadLength: TypeAlias = Annotated[
    str | None, typer.Option("--length", metavar="BYTES", help="How much to read.", show_default=False)
]
AllFindings: TypeAlias = Annotated[
    bool, typer.Option("--all", "-v", help="Print every finding, not the first of each kind.")
]
Allow: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="CODE",
        help="Agree to what zoned explain CODE says: a repair that loses or guesses; repeatable.",
        show_default=False,
    ),
]
_SETTING_HELP = "A parameter of the layout's own (rlow=40); repeatable. A comma in a value is written \\,."
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", "--set", metavar="KEY=VALUE", help=_SETTING_HELP, show_default=False),
]
SettingsBesideOutput: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--option", "--set", metavar="KEY=VALUE", help=_SETTING_HELP, show_default=False),
]
Mapfiles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--mapfile",
        metavar="FILE",
        help="GNU ddrescue's map file of the image, whose unfinished areas are unreadable (default: IMAGE.map where it "
        "is one); once for each device in order, none for a device without.",
        show_default=False,
    ),
]
ZonesFrom: TypeAlias = Annotated[
    Literal["table", "content"],
    typer.Option(
        "--zones",
        help="Where the zones of an image come from: the zone table beside it, where there is one, or always its "
        "content.",
    ),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]


def check_layout_name(name: str | None) -> str | None:
    """Refuse a ``--layout`` that does not exist."""
    if name is not None:
        from zoned_tools.formats import registry

        registry.get(name)
    return name
