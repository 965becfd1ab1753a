"""``zdmadm``: create, restore, check, probe, unload and wipe ZDM partitions, as Seagate's tool 0.125.

Options mix with the device, may be bundled and abbreviated, and a later verb overrides an
earlier one, as getopt_long does it for the original. What the original ends with exit
status 0 although it failed, ends with another status here.
"""

from zoned_tools.cli.clones.zdmadm.arguments import command_tree
from zoned_tools.cli.clones.zdmadm.command import command

__all__ = ["command", "command_tree"]
