"""Every document that programs read: its name, its typed definition, and how it is made.

A schema's name is written once, here. The definitions are TypedDicts: keys that name a unit are in that unit, bytes
are integers, enumerations are the words of the text output.

==================  ===================================================
`drives`            zone reports, emulated drives, lists, probes
`targets`           what commands over any layout print
`undo`              what is undone, and the undo files that there are
`files`             what is stored and read back: dumps, undo files
`zdm` `zonefs`      what the commands of one layout print
`btrfs`
`inplace_compress`
`clones`            what dmzadm, zdmadm and mkzonefs print
==================  ===================================================
"""

from __future__ import annotations
