"""``dmzadm``: format, check, repair, relabel, start and stop dm-zoned targets, as the original 2.2.2 does."""

from zoned_tools.cli.clones.dmzadm.arguments import command_tree
from zoned_tools.cli.clones.dmzadm.command import command

__all__ = ["command", "command_tree"]
