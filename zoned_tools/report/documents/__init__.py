"""Every document that programs read: its name, its typed definition, and how it is made.

A schema's name is the type of the key ``schema`` in its typed definition, and mypy holds what makes the document to
it. The definitions are TypedDicts: keys that name a unit are in that unit, bytes are integers, enumerations are the
words of the text output. JSON Schemas are generated from them (:mod:`zoned_tools.report.schemas`).

==================  ===================================================
`envelope`          how a command ended; the keys that end every document
`drives`            zone reports, emulated drives, lists, probes
`targets`           what commands over any layout print
`logical`           of these, those about the logical device
`undo`              what is undone, and the undo files that there are
`zdm` `zonefs`      what the commands of one layout print
`btrfs`
`inplace_compress`
`clones`            what dmzadm, zdmadm and mkzonefs print
==================  ===================================================
"""

from __future__ import annotations

from typing import TypeVar

_Definition = TypeVar("_Definition", bound=type)

COMPLETED_BY_LAYOUTS: set[type] = set()
"""Definitions that name only some of their document's keys."""

FILES: set[type] = set()
"""Definitions of files and lines: not a command's whole document, they have no envelope of its."""


def is_a_file(definition: _Definition) -> _Definition:
    """Mark a definition of a file, or of a line."""
    FILES.add(definition)
    return definition


def layout_adds_keys(definition: _Definition) -> _Definition:
    """Mark a definition to which each layout adds keys of its own."""
    COMPLETED_BY_LAYOUTS.add(definition)
    return definition
