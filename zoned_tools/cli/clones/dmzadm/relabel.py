"""``dmzadm --relabel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned_tools.cli.changes import execute
from zoned_tools.cli.clones.dmzadm.arguments import parse_label
from zoned_tools.cli.clones.dmzadm.members import opened_members
from zoned_tools.formats.dm_zoned.alone import open_target
from zoned_tools.formats.dm_zoned.format import default_label
from zoned_tools.formats.dm_zoned.relabel import plan_relabel
from zoned_tools.report.dmzadm import header_lines, relabel_line
from zoned_tools.report.stream import write_line, write_lines

if TYPE_CHECKING:
    from zoned_tools.cli.clones.dmzadm.arguments import Arguments


def relabel_devices(arguments: Arguments) -> int:
    """Change the label in every super block."""
    with opened_members(arguments, writable=True) as target:
        wanted = parse_label(arguments.last("label")) or default_label(target.device)
        old, plan = plan_relabel(target, wanted)
        write_lines(header_lines(target, open_target(target).geometry))
        write_line(relabel_line(old, wanted, changes=bool(plan)))
        if plan:
            execute(
                plan,
                target.devices,
                dry_run=arguments.dry_run,
                undo=arguments.undo,
                no_undo=arguments.no_undo,
                undo_if_it_fits=True,
            )
    return 0
