"""``mkzonefs`` (also ``mkfs.zonefs``): make a zonefs file system, as the original 1.6.0 does."""

from __future__ import annotations

from zoned_tools.cli.clones.mkzonefs.arguments import FEATURES, OPTIONS, OWN_OPTIONS
from zoned_tools.cli.clones.mkzonefs.command import command
from zoned_tools.cli.clones.options import CommandTree
from zoned_tools.cli.clones.options import command_tree as tree_of

__all__ = ["command", "command_tree"]


def command_tree() -> CommandTree:
    """The options, for completions and the test of the manual page."""
    return tree_of("Make a zonefs file system.", (*OPTIONS[2:], FEATURES, *OWN_OPTIONS))
