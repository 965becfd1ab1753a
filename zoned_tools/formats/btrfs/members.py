"""Which of the named devices are members of one file system although probing does not say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned_tools.formats.contract import Probed


def claims(probed: Sequence[Probed]) -> bool:
    """Whether devices on which nothing is recognised are members with damaged super blocks.

    They are when all the others are members of one file system of several devices.
    """
    known = [one.identity for one in probed if one.identity is not None]
    groups = {identity.group for identity in known}
    return len(known) < len(probed) and len(groups) == 1 and "" not in groups
