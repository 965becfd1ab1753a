"""``mkzonefs`` (also ``mkfs.zonefs``): make a zonefs file system, as the original 1.6.0 does."""

from zoned_tools.cli.clones.mkzonefs.arguments import command_tree
from zoned_tools.cli.clones.mkzonefs.command import command

__all__ = ["command", "command_tree"]
