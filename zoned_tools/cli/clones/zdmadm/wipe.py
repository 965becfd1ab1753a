"""``zdmadm --wipe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.errors import ContentError, MetadataError
from zoned_tools.formats.zdm.format import plan_wipe
from zoned_tools.formats.zdm.open import load
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.report import zdmadm as text

if TYPE_CHECKING:
    from zoned_tools.cli.clones.zdmadm.session import Session


def wipe(session: Session) -> int:
    """Erase the ZDM."""
    device, place = session.device, session.place
    if probe(device, place.offset_bytes) is None:
        raise MetadataError("no ZDM found", device=device.path, hint="name its first sector with --start")
    if not session.arguments.has("force"):
        raise ContentError("wiping destroys the ZDM", device=device.path, hint="use -F to wipe it")
    geometry = load(session.target).geometry if session.arguments.has("reset-zones") else None
    plan = plan_wipe(place, geometry, reset_zones=geometry is not None)
    session.execute(plan, "zdm")
    session.say(text.wipe_line(dry_run=session.dry_run))
    return 0
