"""``zoned explain``: what a finding means."""

from __future__ import annotations

from typing import Annotated

import typer

from zoned_tools.cli.documents import print_json, prints
from zoned_tools.cli.options import Json
from zoned_tools.errors import UsageError
from zoned_tools.report.stream import write_lines
from zoned_tools.text import nearest


@prints("explain")
def explain(
    finding: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            help="Finding, as dm-zoned.sb-bad-crc, or how several begin (dm-zoned); without one, list them all.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain what a finding means."""
    from zoned_tools.formats import registry
    from zoned_tools.report.documents.targets import explain_document
    from zoned_tools.report.rules import explain_lines, list_lines, rules_of

    # Installed layouts cost a search: it is made for a list, and for a code that none of ours has.
    chosen = rules_of(registry.ours(), finding)
    if finding is not None and not chosen:
        registry.named_in(finding)  # which says why one that was passed over has none
    if finding is None or not chosen:
        chosen.update(rules_of(registry.strangers(), finding))
    if not chosen:
        known = rules_of(registry.ours(), None)
        codes = {*known, *(name.split(".", 1)[1] for name in known)}
        hint = nearest(finding or "", codes) or "zoned explain lists them all"
        raise UsageError(f"there is no finding '{finding}'", hint=hint)
    if json:
        print_json(explain_document(chosen))
    else:
        whole = any(finding in (name, name.split(".", 1)[1]) for name in chosen)
        write_lines(explain_lines(chosen) if whole else list_lines(chosen))
