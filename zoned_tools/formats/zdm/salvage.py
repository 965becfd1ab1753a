"""Where no generation counts: the best of those whose key alone is damaged, or the tables at their home place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import Consent
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.checksums import Words, crc16_pages
from zoned_tools.formats.zdm.judge import Candidate, Generations
from zoned_tools.formats.zdm.keys import area_of
from zoned_tools.formats.zdm.open import State, assemble

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Salvage:
    """What is left to go on with.

    Attributes:
        state: has a current generation where one could be salvaged.
        consent: certain for the only candidate, and for one that is proved to be the newest: by the write pointer
            blocks, which are written before each generation, or by a number that fits its area.
    """

    state: State
    consent: Consent


def salvage(state: State) -> Salvage:
    """Choose among the keys with a wrong checksum whose generation is complete otherwise."""
    found = state.generations
    stored = crc16_pages(state.volume.read_rows(layout.WP_BLOCK, 2 * state.geometry.groups))[0::2]
    best = _best(found.salvageable, stored)
    if best is None:
        return Salvage(state, Consent.LOSES)
    guessed = len(found.salvageable) > 1 and not _is_newest(best, stored) and not _is_in_its_area(best)
    chosen = assemble(state.volume, state.identity, Generations(found.candidates, best))
    return Salvage(chosen, Consent.GUESSES if guessed else Consent.CERTAIN)


def _best(candidates: Iterable[Candidate], stored: Words) -> Candidate | None:
    """Write pointer blocks match only the newest generations; then the number counts if it fits its area."""

    def likelihood(candidate: Candidate) -> tuple[bool, bool, int]:
        placed = _is_in_its_area(candidate)
        return _is_newest(candidate, stored), placed, candidate.generation if placed else 0

    return max(candidates, key=likelihood, default=None)


def _is_newest(candidate: Candidate, stored: Words) -> bool:
    return np.array_equal(stored, candidate.wp_crcs[: len(stored)])


def _is_in_its_area(candidate: Candidate) -> bool:
    return area_of(candidate.generation) == candidate.window
