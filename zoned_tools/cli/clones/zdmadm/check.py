"""``zdmadm --probe`` and ``--check``: what is there, and whether it is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.engine.checking import CheckRequest, check_target
from zoned_tools.report import zdmadm as text
from zoned_tools.report.check import check_document
from zoned_tools.report.stream import write_text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def probe(session: Session) -> int:
    """Print the identity."""
    session.show(session.identity())
    return 0


def check(session: Session) -> int:
    """Check the metadata; exit status 1 when there are errors."""
    outcome = check_target(session.target, CheckRequest())
    session.say(*text.check_lines(outcome))
    session.document = None
    if session.quiet:
        write_text(check_document([outcome], changed=False))
    return int(outcome.fsck_status != 0)
