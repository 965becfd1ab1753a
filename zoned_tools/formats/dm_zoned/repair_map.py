"""Decisions about the mapping table of the set that is repaired.

Everything is decided on copies. A mapping that could be right is only given up when it cannot stay, and
then the logical range that is lost is named. What asks for consent and has none is left as it is, and so
are the bitmaps of the zones that it is about (:attr:`MapRepair.frozen`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.formats.contract import Consent, Consents
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, held_zones
from zoned_tools.formats.dm_zoned.layout import UNMAPPED, MapArray
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import BZONE
from zoned_tools.formats.dm_zoned.survey import narrow
from zoned_tools.formats.shared.columns import Computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.dm_zoned.survey import SetSurvey
    from zoned_tools.formats.shared.columns import Column
    from zoned_tools.formats.shared.rules import ActionGroup

_UNMAPPED = "chunk {chunk} is unmapped, %s: logical blocks {first} to {last} read as zeroes, %s"
_DROPPED = "chunk {chunk} loses its buffer zone, %s"
_PROMOTED = (
    "chunk {chunk}: %s; buffer zone {bzone} with {count} valid blocks becomes its data zone, "
    "the rest of logical blocks {first} to {last} reads as zeroes"
)
_NOTHING_LOST = "no valid block is lost"
_LOST_BUFFER = "{count} valid blocks in buffer zone {bzone} are lost"
_KEPT = "zone {zone} and its {valid} valid blocks are kept for chunk {keeper}"


def logical_ranges(geometry: TargetGeometry, chunks: npt.NDArray[np.integer]) -> dict[str, Column]:
    """Columns of a sentence: the first and the last logical block of some chunks."""
    blocks = geometry.zone_blocks

    def column(offset: int) -> Computed:
        return Computed(
            len(chunks),
            lambda rows: (chunks[rows.start : rows.stop].astype(np.int64) * blocks + offset).tolist(),
        )

    return {"first": column(0), "last": column(blocks - 1)}


def used_words(sentence: str, words: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that a sentence names."""
    names = {name for _, name, _, _ in Formatter().parse(sentence)}
    return {name: column for name, column in words.items() if name in names}


@dataclass(slots=True)
class _Claims:
    """What the chunks claim: their zones, and how often each zone is claimed."""

    data: IntArray
    buffer: IntArray
    uses: IntArray

    @classmethod
    def of(cls, data: IntArray, buffer: IntArray, nr_zones: int) -> _Claims:
        claims = cls(data.copy(), buffer.copy(), np.zeros(nr_zones, np.int64))
        claims._count(data, 1)
        claims._count(buffer, 1)
        return claims

    def copy(self) -> _Claims:
        return _Claims(self.data.copy(), self.buffer.copy(), self.uses.copy())

    def _count(self, zones: IntArray, step: int) -> None:
        self.uses += step * np.bincount(zones[zones < len(self.uses)], minlength=len(self.uses))

    def unmap(self, chunks: IntArray) -> None:
        self._count(self.data[chunks], -1)
        self.data[chunks] = UNMAPPED
        self.drop_buffer(chunks)

    def drop_buffer(self, chunks: IntArray) -> None:
        self._count(self.buffer[chunks], -1)
        self.buffer[chunks] = UNMAPPED

    def promote(self, chunks: IntArray) -> None:
        """The buffer zone becomes the data zone."""
        self._count(self.data[chunks], -1)
        self.data[chunks] = self.buffer[chunks]
        self.buffer[chunks] = UNMAPPED

    # One chunk at a time, for zones that are claimed twice.

    def forget(self, zone: int) -> None:
        if zone < len(self.uses):
            self.uses[zone] -= 1

    def last_claims(self, zones: IntArray) -> BoolArray:
        """True for the last of each equal ``zones`` when nobody but their chunks claims the zone."""
        last = np.zeros(len(zones), np.bool_)
        sound = np.flatnonzero(zones < len(self.uses))
        counts = np.bincount(zones[sound], minlength=len(self.uses))
        _, from_end = np.unique(zones[sound][::-1], return_index=True)
        last[sound[::-1][from_end]] = True
        at = np.where(zones < len(self.uses), zones, 0)
        last &= self.uses[at] == counts[at]
        return last


@dataclass(slots=True)
class _Unshared:
    """What becomes of the claims that a shared zone is not left to; one element of each list for a claim."""

    unmapped: list[tuple[int, int, int]] = field(default_factory=list)  # chunk, zone, keeper
    dropped: list[tuple[int, int, int]] = field(default_factory=list)
    promoted: list[tuple[int, int, int]] = field(default_factory=list)
    promoted_zones: list[int] = field(default_factory=list)
    lost: list[tuple[int, int, int]] = field(default_factory=list)  # unmapped, with a buffer zone that holds something
    lost_zones: list[int] = field(default_factory=list)
    zones: list[int] = field(default_factory=list)
    """Every zone of the chunks that a shared zone is about."""


class MapRepair:
    """Decides, rule by rule, what the repaired mapping table looks like.

    Attributes:
        actions: what is done and what waits, in order; after :meth:`run`.
        frozen: zones whose bitmaps stay as they are, because a decision about them waits; shape (zones,).
        held: zones that never hold data.
    """

    def __init__(self, geometry: TargetGeometry, survey: SetSurvey, consents: Consents) -> None:
        self.geometry = geometry
        self.survey = survey
        self.held = held_zones(geometry, survey.layout)
        self.actions: list[ActionGroup] = []
        self.frozen = np.zeros(geometry.nr_zones, np.bool_)
        self._allow = consents.allow
        self._drops = consents.settings.text(BZONE) == "drop"
        self._weight = survey.bits.weight
        self._claims = _Claims.of(survey.map.data, survey.map.buffer, geometry.nr_zones)
        self._waits = np.zeros(len(survey.map.data), np.bool_)

    @property
    def data(self) -> IntArray:
        return self._claims.data

    @property
    def buffer(self) -> IntArray:
        return self._claims.buffer

    @property
    def named(self) -> BoolArray:
        """Zones that a chunk names after the repair."""
        return self._claims.uses > 0

    @property
    def table(self) -> MapArray:
        """The repaired mapping table in whole blocks."""
        table = np.full_like(self.survey.map.table, UNMAPPED)
        table[: len(self.data), 0] = self.data
        table[: len(self.data), 1] = self.buffer
        return table

    def run(self) -> None:
        """Apply every rule, in an order in which no later rule breaks an earlier one."""
        found = self.survey.map
        self._drop_free_buffers()
        self._lose_data_zones(found.data_range, "map-dzone-range", "data zone {zone} does not exist")
        self._lose_data_zones(found.data_meta, "map-meta-zone", "data zone {zone} holds metadata")
        self._lose_data_zones(found.buffer_without_data, "map-bzone-without-dzone", "it has no data zone")
        self._drop_wrong_buffers()
        self._unshare()
        self._unmap_empty()
        if len(found.tail):
            self.actions.append(
                RULES.actions("map-tail", "entry {entry} after the last chunk is set to all ones", entry=found.tail)
            )

    # -- rules

    def _drop_free_buffers(self) -> None:
        """Buffer zones that cannot hold a valid block."""
        found = self.survey.map
        for mask, code, reason in (
            (found.buffer_range, "map-bzone-range", "it does not exist"),
            (found.buffer_meta, "map-meta-zone", "it holds metadata"),
            (found.buffer_is_data, "map-bzone-is-dzone", "it is the data zone"),
        ):
            chunks = np.flatnonzero(mask)
            self._act(code, _DROPPED % f"zone {{bzone}}: {reason}", chunks)
            self._claims.drop_buffer(chunks)

    def _lose_data_zones(self, mask: BoolArray, code: str, reason: str) -> None:
        """Chunks without a usable data zone: unmapped, or their buffer zone takes its place."""
        chunks = np.flatnonzero(mask)
        buffers = self.buffer[chunks]
        at = np.where(buffers < self.geometry.nr_zones, buffers, 0)
        holds = self._claims.last_claims(buffers) & ~self.held[at] & (self._weight[at] > 0)
        lost, kept = chunks[~holds], chunks[holds]
        without = self.data[lost] == UNMAPPED
        self._act(code, _UNMAPPED % (reason, _NOTHING_LOST), lost[~without])
        self._act(code, _DROPPED % reason, lost[without])
        if self._drops:
            self._act(code, _UNMAPPED % (reason, _LOST_BUFFER), kept, Consent.LOSES, agreed=True)
            self._claims.unmap(chunks)
            return
        if self._act(code, _PROMOTED % reason, kept, Consent.GUESSES, agreed=code in self._allow):
            self._claims.promote(kept)
        else:
            self.frozen[self.buffer[kept]] = True
            self._waits[kept] = True
        self._claims.unmap(lost)

    def _drop_wrong_buffers(self) -> None:
        found = self.survey.map
        for mask, code, reason in (
            (found.buffer_not_random, "map-bzone-not-random", "it is not a conventional or cache zone"),
            (found.buffer_on_random, "map-bzone-on-random", "the data zone is not sequential"),
        ):
            chunks = np.flatnonzero(mask & (self.buffer != UNMAPPED) & ~self._waits)
            valid = self._weight[self.buffer[chunks]] > 0
            empty, full = chunks[~valid], chunks[valid]
            text = _DROPPED % f"zone {{bzone}}: {reason}"
            self._act(code, text, empty)
            last = self._claims.last_claims(self.buffer[full])
            agreed = code in self._allow
            lost = ", {count} valid blocks in it (logical blocks {first} to {last}) are lost"
            self._act(code, text + lost, full[last], Consent.LOSES, agreed=agreed)
            self._act(code, text, full[~last], Consent.LOSES, agreed=agreed)
            if agreed:
                self._claims.drop_buffer(full)
            else:
                self.frozen[self.buffer[full]] = True
            self._claims.drop_buffer(empty)

    def _unmap_empty(self) -> None:
        geometry, data = self.geometry, self.data
        usable = (data < geometry.nr_zones) & (self.buffer == UNMAPPED)
        at = np.where(usable, data, 0)
        empty = usable & geometry.sequential[at] & (geometry.wp_blocks[at] == 0) & ~self.frozen[at]
        chunks = np.flatnonzero(empty)
        lost = self._claims.last_claims(data[chunks]) & (self._weight[data[chunks]] > 0) & ~self.held[data[chunks]]
        blocks = "{valid} valid blocks in zone {zone} are lost"
        self._act("map-empty-seq", _UNMAPPED % ("zone {zone} is empty", blocks), chunks[lost])
        self._act("map-empty-seq", _UNMAPPED % ("zone {zone} is empty", _NOTHING_LOST), chunks[~lost])
        self._claims.unmap(chunks)

    def _act(
        self, code: str, sentence: str, chunks: IntArray, consent: Consent = Consent.CERTAIN, *, agreed: bool = False
    ) -> bool:
        """Note an action for some chunks as they are now; False when it waits."""
        if not len(chunks):
            return True
        zones, buffers = self.data[chunks], self.buffer[chunks]
        words: dict[str, Column] = {
            "zone": narrow(zones),
            "bzone": narrow(buffers),
            "valid": narrow(self._valid(zones)),
            "count": narrow(self._valid(buffers)),
            **logical_ranges(self.geometry, narrow(chunks)),
        }
        words = used_words(sentence, words)
        action = RULES.actions(code, sentence, chunk=narrow(chunks), words=words, consent=consent, agreed=agreed)
        self.actions.append(action)
        return not action.waits

    def _valid(self, zones: IntArray) -> IntArray:
        known = zones < self.geometry.nr_zones
        valid: IntArray = np.where(known, self._weight[np.where(known, zones, 0)], 0)
        return valid

    # -- zones that are claimed twice: one decision each

    def _unshare(self) -> None:
        """Leave each zone to the claim that fits best, on a tie to the lowest chunk."""
        code = "map-zone-shared"
        agreed = code in self._allow
        claims = self._claims if agreed else self._claims.copy()
        shared = self.survey.map.owners.shared
        outcome = _Unshared()
        open_ones = np.flatnonzero((claims.uses[shared.zones] > 1) & ~self.held[shared.zones])
        for index in open_ones.tolist():
            zone = int(shared.zones[index])
            self._unshare_zone(claims, zone, shared.chunks_of(index), outcome)
        self._note_unshared(code, outcome, agreed=agreed)
        self.frozen[outcome.promoted_zones if agreed else outcome.zones] = not agreed

    def _unshare_zone(self, claims: _Claims, zone: int, chunks: list[int], outcome: _Unshared) -> None:
        """Decide about one zone, in ``claims``."""
        rivals = [(c, True) for c in dict.fromkeys(chunks) if claims.data[c] == zone]
        rivals += [(c, False) for c in dict.fromkeys(chunks) if claims.buffer[c] == zone]
        if len(rivals) < 2:
            return
        zones = {int(z) for c, _ in rivals for z in (claims.data[c], claims.buffer[c])}
        outcome.zones += [z for z in zones if z < self.geometry.nr_zones]
        rivals.sort(key=lambda rival: (self._misfits(claims, zone, rival[0], is_data=rival[1]), rival[0]))
        keeper = rivals[0][0]
        for chunk, is_data in rivals[1:]:
            self._give_up(claims, (chunk, zone, keeper), outcome, is_data=is_data)

    def _give_up(self, claims: _Claims, row: tuple[int, int, int], outcome: _Unshared, *, is_data: bool) -> None:
        """Take a zone away from a chunk."""
        chunk, buffer = row[0], int(claims.buffer[row[0]])
        if not is_data or claims.data[chunk] == UNMAPPED:
            outcome.dropped.append(row)
            claims.forget(buffer)
            claims.buffer[chunk] = UNMAPPED
            return
        claims.forget(int(claims.data[chunk]))
        sound = buffer < self.geometry.nr_zones and not self.held[buffer] and claims.uses[buffer] == 1
        if sound and self._weight[buffer] and not self._drops:
            outcome.promoted.append(row)
            outcome.promoted_zones.append(buffer)
            claims.data[chunk] = buffer
        else:
            if sound and self._weight[buffer]:
                outcome.lost.append(row)
                outcome.lost_zones.append(buffer)
            else:
                outcome.unmapped.append(row)
            claims.forget(buffer)
            claims.data[chunk] = UNMAPPED
        claims.buffer[chunk] = UNMAPPED

    def _misfits(self, claims: _Claims, zone: int, chunk: int, *, is_data: bool) -> int:
        """How much speaks against a claim."""
        bits, geometry = self.survey.bits, self.geometry
        if is_data:
            empty = geometry.sequential[zone] and geometry.wp_blocks[zone] == 0
            overlap = claims.buffer[chunk] != UNMAPPED and bits.overlap[chunk] > 0
            return int(empty) + int(overlap) + int(bits.after_wp[zone] > 0)
        data = int(claims.data[chunk])
        if data >= geometry.nr_zones or not geometry.sequential[data]:
            return 3
        return int(bits.overlap[chunk] > 0) + int(not self._weight[zone])

    def _note_unshared(self, code: str, outcome: _Unshared, *, agreed: bool) -> None:
        for sentence, rows, buffers in (
            (_UNMAPPED % (_KEPT, _NOTHING_LOST), outcome.unmapped, []),
            (_DROPPED % _KEPT, outcome.dropped, []),
            (_UNMAPPED % (_KEPT, _LOST_BUFFER), outcome.lost, outcome.lost_zones),
            (_PROMOTED % _KEPT, outcome.promoted, outcome.promoted_zones),
        ):
            if not rows:
                continue
            chunks, zones, keepers = np.array(rows, np.int64).T
            words: dict[str, Column] = {
                "zone": zones,
                "keeper": keepers,
                "valid": self._weight[zones],
                **logical_ranges(self.geometry, chunks),
            }
            if buffers:
                words |= {"bzone": np.array(buffers), "count": self._weight[buffers]}
            self.actions.append(
                RULES.actions(code, sentence, chunk=chunks, words=words, consent=Consent.GUESSES, agreed=agreed)
            )
