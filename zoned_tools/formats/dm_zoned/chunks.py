"""More chunks than the super blocks say: live entries behind the last chunk are chunks that they have forgotten.

Source: section 8.2, ``map-tail``, of the specification of the format (``docs/formats/dm-zoned.md``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned_tools.errors import UsageError
from zoned_tools.formats.dm_zoned.geometry import max_chunks
from zoned_tools.formats.dm_zoned.layout import MAP_ENTRIES, SuperBlock
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.shared.rules import Consent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.dm_zoned.judge import SuperBlockState, TargetState
    from zoned_tools.formats.shared.rules import ActionGroup


def raise_chunks(state: TargetState, wanted: int | None) -> None:
    """Let the super blocks of both sets say ``wanted`` chunks; what was read of them stays in ``raw``.

    Raises:
        UsageError: fewer than there are, more than fit, or more than the blocks of the mapping table have entries for.
    """
    if wanted is None or state.layout is None or state.chosen is None or state.rebuilt is not None:
        return
    layout, path = state.layout, state.geometry.members[0].path
    most = min(max_chunks(state.geometry, layout.set_zones, layout.nr_reserved_seq), layout.nr_map_blocks * MAP_ENTRIES)
    if not layout.nr_chunks <= wanted <= most:
        raise UsageError(f"the target has {layout.nr_chunks} chunks, and can have up to {most}", device=path)
    state.sets = [_with_chunks(found, wanted) for found in state.sets]
    state.layout = replace(layout, nr_chunks=wanted)


def _with_chunks(found: SuperBlockState, wanted: int) -> SuperBlockState:
    if found.superblock is None or not found.usable:
        return found
    notes = tuple(note for note in found.notes if note[0] != "sb-short-chunks")  # of another number
    return replace(found, superblock=replace(found.superblock, nr_chunks=wanted), notes=notes)


def raised(state: TargetState, source: int) -> Iterator[ActionGroup]:
    """What a human should know about it."""
    found = state.sets[source]
    if found.superblock is None or not found.raw:
        return
    before, wanted = SuperBlock.parse(found.raw).nr_chunks, found.superblock.nr_chunks
    if wanted != before and found.has_magic:
        yield RULES.action(
            "map-tail",
            f"the target gets {wanted} chunks instead of {before}",
            consent=Consent.GUESSES,
            agreed=True,
            needs=f"--set chunks={wanted}",
        )
