"""``zdmadm --wipe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.plan import Plan
from zoned_tools.errors import ContentError
from zoned_tools.formats.zdm.format import plan_wipe, write_wipe
from zoned_tools.formats.zdm.open import load

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def wipe(session: Session) -> int:
    """Erase the ZDM, where its identity was read."""
    session.scan()
    if session.probe() is None:
        raise session.failure("no ZDM found", "ZDM Not found. Nothing to wipe.")
    if not session.arguments.has("force"):
        session.say("Wipe must use -F to force")
        raise ContentError("wiping destroys the ZDM", device=session.device.path, hint="use -F to wipe it")
    plan = Plan("wipe the ZDM")
    for number, place in session.written:
        write_wipe(plan, number, place)
    if session.arguments.has("reset-zones"):
        geometry = load(session.target).geometry
        plan.steps[:0] = plan_wipe(session.place, geometry, reset_zones=True).steps
    session.execute(plan, "zdm")
    return 0
