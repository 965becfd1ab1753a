"""Writing a super block over another one.

In a conventional zone 0 it is overwritten in place. A sequential zone 0 has to be reset first; a power
cut between the reset and the write leaves ``zone0-empty``, which is repaired with the parameters that
the plan's actions name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.device.base import ZoneOperation
from zoned_tools.formats.zonefs.format import plan_super_block

if TYPE_CHECKING:
    from zoned_tools.device.plan import Plan
    from zoned_tools.formats.zonefs.layout import SuperBlock
    from zoned_tools.formats.zonefs.open import Volume


def rewrite_super_block(plan: Plan, volume: Volume, block: SuperBlock) -> None:
    """Replace the super block; zone 0 can be written."""
    if not volume.zone0_conventional:
        plan.manage(0, ZoneOperation.RESET, 0, note="only the super block is in this zone")
    plan_super_block(plan, volume.device, block, conventional=volume.zone0_conventional)


def finish_zone0(plan: Plan) -> None:
    """Fill a sequential zone 0 up, so that nothing can follow the super block."""
    plan.manage(0, ZoneOperation.FINISH, 0, note="close the super block's zone")
    plan.flush(0)
