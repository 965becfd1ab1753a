"""``zdmadm --probe`` and ``--check``: what is there, and whether it is sound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zoned_tools.cli.clones.zdmadm.session import NO_IDENTITY
from zoned_tools.engine.checking import CheckRequest, check_target
from zoned_tools.report import zdmadm as text
from zoned_tools.report.check import check_document
from zoned_tools.report.stream import members

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def probe(session: Session) -> int:
    """Print the identity."""
    session.scan()
    path = session.device.path
    identity = session.identity(f"No ZDM found on {path} device." if session.verbose else "")
    session.show(identity)
    return 0


def check(session: Session) -> int:
    """Check the metadata; exit status 1 when there are errors."""
    session.scan()
    if session.probe() is None:
        raise session.failure("no ZDM found", f"No ZDM found on {session.device.path} device.", status=NO_IDENTITY)
    outcome = check_target(session.target, CheckRequest())
    session.say(*text.check_lines(outcome))
    if session.quiet:
        document = json.loads("".join(members(check_document([outcome], changed=False))) + "}")
        session.document = document if len(session.arguments.paths) == 1 else document["devices"][0]
    return int(outcome.fsck_status != 0)
