"""A zone table that is not this drive's: its write pointers contradict the recorded ones and the tables.

Every rule about a single zone would then give up what the zone holds, and a reader would see zeroes. A lost write cache
or a reset explains one zone; more of them are the table of another drive, or a drive that was reset as a whole.

Source: section 5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.survey import survey

if TYPE_CHECKING:
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

_MANY = 2
COMPARED = frozenset({"fwd.beyond_wp", "wp.behind", "wp.ahead"})
"""Codes of findings that the one about the zone table stands for."""


@dataclass(frozen=True, slots=True)
class ForeignZones:
    """The contradiction, in data zones.

    Attributes:
        zones: with live blocks at or above the drive's write pointer, which is below the recorded one.
        empty: of these, zones that are empty.
        all_zones: sequential zones with live blocks.
    """

    zones: int
    empty: int
    all_zones: int

    @property
    def sentence(self) -> str:
        return (
            f"the zone table is not this drive's: {self.zones} of {self.all_zones} zones have live blocks at or above "
            f"their write pointer, {self.empty} of them are empty"
        )


def find_foreign(state: State, measured: Survey | None = None) -> ForeignZones | None:
    """What says that the zone table is another drive's; None when it can be this one's.

    Costs nothing where the recorded write pointers agree with the drive's, else a pass over the tables.

    Args:
        measured: that pass, where it was made.
    """
    zones = state.zones
    tested = zones.sequential & ~zones.dead & (zones.wp_blocks >= 0)
    recorded = (state.wp & layout.WP_MASK).astype(np.int64)
    # A write pointer block that cannot be read contradicts nothing and confirms nothing.
    unread = np.isin(np.arange(len(recorded)) // layout.GROUP_ZONES, np.array(state.wp_unread, np.int64))
    doubtful = tested & ((recorded > zones.wp_blocks) | (unread & (zones.wp_blocks < layout.ZONE_BLOCKS)))
    if _is_elsewhere(state) or np.count_nonzero(doubtful) < _MANY:
        return None
    found = measured or survey(state)
    late = doubtful & (found.beyond > 0)
    if np.count_nonzero(late) < _MANY:
        return None
    empty, used = late & (zones.wp_blocks == 0), tested & (found.live > 0)
    return ForeignZones(*(int(np.count_nonzero(mask)) for mask in (late, empty, used)))


def _is_elsewhere(state: State) -> bool:
    """Whether there is no key, or one that describes another partition: then its numbers contradict any zone table."""
    if state.current is None:
        return True
    identity, key = state.identity, state.current.key.super
    zones = state.volume.size_blocks // layout.ZONE_BLOCKS - int(key.zdstart)
    return key.nr_zones != zones or (identity.usable and identity.data_start != key.zdstart)
