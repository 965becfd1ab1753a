"""``zoned explain``: what a finding means."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.options import Json
from zoned_tools.cli.output import print_json
from zoned_tools.errors import UsageError


def explain(
    finding: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE", help="Finding, as dm-zoned.sb-bad-crc; without one, list them all.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain what a finding means."""
    from zoned_tools.formats.registry import LAYOUTS, Code, room

    codes: dict[str, Code] = {}
    for layout in LAYOUTS:
        check = room(layout, "check")
        if check is not None:
            codes.update({f"{layout}.{name}": code for name, code in check.CODES.items()})
    if finding is None:
        chosen = codes
    else:
        chosen = {name: code for name, code in codes.items() if finding in (name, name.split(".", 1)[1])}
        if not chosen:
            raise UsageError(f"there is no finding '{finding}'", hint="zoned explain lists them all")
    if json:
        rows = [
            {
                "id": name,
                "severity": str(code.severity),
                "meaning": code.meaning,
                "causes": code.causes,
                "repair": code.repair,
            }
            for name, code in chosen.items()
        ]
        print_json({"schema": "zoned.explain/1", "findings": rows})
        return
    for name, code in chosen.items():
        if finding is None:
            print(f"{name:<45} {code.severity!s:<8} {code.meaning}")
            continue
        print(f"{name} ({code.severity})")
        for title, text in (("meaning", code.meaning), ("causes", code.causes), ("repair", code.repair or "nothing")):
            if text:
                print(f"  {title + ':':<9}{text}")
