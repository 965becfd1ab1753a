"""Every document that programs read: its name, its typed definition, and how it is made.

A schema's name is written once, here. The definitions are TypedDicts: keys that name a unit are in that unit, bytes
are integers, enumerations are the words of the text output.

=========  ===================================================
`drives`   zone reports, emulated drives, lists, probes
`targets`  what commands over any layout print
=========  ===================================================

Commands of single layouts and the clones keep their definitions in `layouts` and `clones`.
"""

from __future__ import annotations
