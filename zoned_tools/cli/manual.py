"""``zoned-settings(7)``, generated from what the layouts declare, and ``zoned-json(5)`` beside it.

``python -m zoned_tools.cli.manual man`` writes them; a test keeps the files equal to what this prints.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zoned_tools.formats import registry
from zoned_tools.formats.contract import Journey
from zoned_tools.text import roff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.contract import Setting

NAME = "zoned-settings.7"

JOURNEYS = {
    Journey.CHECK: "check",
    Journey.REPAIR: "check \\-\\-repair",
    Journey.LOGICAL: "map, export, replay, serve",
    Journey.TABLE: "table",
    Journey.READ: "inspect, dump",
    Journey.FORMAT: "format (Python API)",
}
"""Commands of each journey, as roff."""

_HEAD = r"""
.TH ZONED-SETTINGS 7 "" "zoned_tools" "Miscellaneous Information"
.SH NAME
zoned\-settings \- choices of the single layouts
.SH SYNOPSIS
.B zoned check
.BI \-\-set " KEY=VALUE"
.I DEV...
.SH DESCRIPTION
Each layout has choices of its own. Commands take them as
.B \-\-set
.IR KEY=VALUE ,
repeatable or joined by commas; a comma in a value is written
.B \e,
(\-\-set 'label=one\e,two'). A bare
.I KEY
is a switch that is on. Some may stand among the devices as in a table line
.RB ( rlow=40 ),
some have an option of their own. A setting that the layout does not have for the command, and an impossible value, are
refused.
""".strip()


def _entry(setting: Setting) -> Iterator[str]:
    yield ".TP"
    yield f".BI {roff(setting.name)}= {roff(setting.metavar)}"
    about = setting.help.rstrip(".")
    facts = [f"for {', '.join(JOURNEYS[journey] for journey in Journey if journey in setting.journeys)}"]
    if setting.default:
        replay = f", {roff(setting.faithful)} for replay" if setting.faithful else ""
        facts.append(f"default {roff(setting.default)}{replay}")
    if setting.flag:
        facts.append(f"also \\fB{roff(setting.flag)}\\fR")
    if setting.bare:
        facts.append("may stand among the devices")
    yield f"{roff(about)} ({'; '.join(facts)})."


def settings_page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for layout in registry.ours():
        if layout.settings:
            lines.append(f".SH {roff(layout.name.upper())}")
            for setting in layout.settings:
                lines += _entry(setting)
    lines += [".SH SEE ALSO", ".BR zoned (8),", ".BR zoned\\-check (8),", ".BR zoned\\-table (8)"]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name to content of every generated page."""
    from zoned_tools.cli import manual_json
    from zoned_tools.cli.zoned import command

    return {NAME: settings_page(), manual_json.NAME: manual_json.json_page(command())}


def main(directory: str) -> None:
    """Write the pages below ``directory``."""
    for name, content in pages().items():
        (Path(directory) / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "man")
