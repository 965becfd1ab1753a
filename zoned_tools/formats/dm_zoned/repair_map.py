"""Decisions about the mapping table of the set that is repaired.

Everything is decided on copies. A mapping that could be right is only given up when it cannot stay, and
then the logical range that is lost is named. What asks for consent and has none is left as it is, and so
are the bitmaps of the zones that it is about (:attr:`MapRepair.frozen`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import Consent, Consents
from zoned_tools.formats.dm_zoned.geometry import TargetGeometry, held_zones
from zoned_tools.formats.dm_zoned.layout import UNMAPPED, MapArray
from zoned_tools.formats.dm_zoned.pairing import Pairing
from zoned_tools.formats.dm_zoned.repair_claims import Unshared, ZoneClaims, logical_ranges, used_words
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import BZONE
from zoned_tools.formats.dm_zoned.survey import narrow

if TYPE_CHECKING:
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
_SHOWN_ZONES = 4
_KEPT = "zone {zone} and its {valid} valid blocks are kept for chunk {keeper}"
_PAIRED = "chunk {chunk}: %s; zone {zone} ({count} valid blocks) is the only one without a chunk that fits: paired"
_SEVERAL = (
    "chunk {chunk} is unmapped, %s: {rivals} zones without a chunk could be its zone (%s), and their bits stay; "
    "logical blocks {first} to {last} read as zeroes"
)
_SEVERAL_BUFFERS = (
    "chunk {chunk} loses its buffer zone, %s: {rivals} zones without a chunk could be it (%s), and their bits stay"
)


def _unknown_zones(survey: SetSurvey) -> BoolArray:
    """Zones whose bitmap is lost, and those of the same chunks: what follows from their bits is not decided."""
    lost = survey.view.lost_zones
    frozen = lost.copy()
    if lost.any():
        zones = np.stack((survey.map.data, survey.map.buffer), axis=1)
        known = zones < len(lost)
        hit = (known & lost[np.where(known, zones, 0)]).any(axis=1)
        frozen[zones[hit][known[hit]]] = True
    return frozen


class MapRepair:
    """Decides, rule by rule, what the repaired mapping table looks like.

    Attributes:
        actions: what is done and what waits, in order; after :meth:`run`.
        frozen: zones whose bitmaps stay as they are, because a decision about them waits; shape (zones,).
        spared: zones that lose their chunk and keep their bits, as the only trace of what it was; shape (zones,).
        held: zones that never hold data.
        pairing: which zones belong to damaged entries.
        undecided: code of an entry that waits, and whose zone may be any zone without a chunk; empty for none.
        tail_zones: zones of entries behind the last chunk that wait; shape (zones,).
    """

    def __init__(
        self, geometry: TargetGeometry, survey: SetSurvey, consents: Consents, earlier: MapRepair | None = None
    ) -> None:
        self.geometry = geometry
        self.survey = survey
        self.held = held_zones(geometry, survey.layout)
        self.actions: list[ActionGroup] = []
        self.frozen = _unknown_zones(survey)
        self._allow = consents.allow
        self._drops = consents.settings.text(BZONE) == "drop"
        # Of a zone whose bitmap is lost nobody can say that it holds nothing.
        self._weight = np.where(survey.view.lost_zones, np.maximum(survey.bits.weight, 1), survey.bits.weight)
        self._claims = ZoneClaims.of(survey.map.data, survey.map.buffer, geometry.nr_zones)
        self._waits = np.zeros(len(survey.map.data), np.bool_)
        self.spared: BoolArray = np.zeros(geometry.nr_zones, np.bool_) if earlier is None else earlier.spared.copy()
        self._given_up_before = None if earlier is None else earlier.given_up
        self.tail_zones = np.zeros(geometry.nr_zones, np.bool_)
        self.undecided = ""
        self.pairing = Pairing(survey)
        # For the buffer zone and the data zone of each chunk: how many zones without a chunk could be it.
        self._rivals = np.zeros((2, len(survey.map.data)), np.int64)
        self._paired = np.zeros(self._rivals.shape, np.bool_)
        damaged = self.pairing.claims
        role = damaged.is_data.astype(np.int64)
        self._rivals[role, damaged.chunk] = self.pairing.candidates
        self._fits, self._keeps = np.zeros((2, *self._rivals.shape), np.bool_)
        self._fits[role, damaged.chunk] = self.pairing.fits
        self._keeps[role, damaged.chunk] = self.pairing.keeps
        self._kept_tail: IntArray = np.zeros(0, np.int64)

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
    def given_up(self) -> BoolArray:
        """Zones that a chunk named before the repair, and of which an action says that they are not needed."""
        before = self.survey.map.owners.named
        if self._given_up_before is not None:
            before = before | self._given_up_before
        mask: BoolArray = before & ~self.named & ~self.spared
        return mask

    @property
    def table(self) -> MapArray:
        """The repaired mapping table in whole blocks."""
        table = np.full_like(self.survey.map.table, UNMAPPED)
        table[: len(self.data), 0] = self.data
        table[: len(self.data), 1] = self.buffer
        table[self._kept_tail] = self.survey.map.table[self._kept_tail]
        return table

    def run(self) -> None:
        """Apply every rule, in an order in which no later rule breaks an earlier one."""
        found = self.survey.map
        self._pair()
        self._unshare_certainly()
        self._drop_free_buffers()
        self._lose_data_zones(found.data_range, "map-dzone-range", "data zone {zone} does not exist")
        self._lose_data_zones(found.data_meta, "map-meta-zone", "data zone {zone} holds metadata")
        self._lose_data_zones(found.buffer_without_data, "map-bzone-without-dzone", "it has no data zone")
        self._drop_wrong_buffers()
        self._unshare()
        self._unmap_empty()
        self._clear_tail(found.tail)

    def _clear_tail(self, tail: IntArray) -> None:
        """Entries behind the last chunk; one that names a zone with valid bits may be a chunk that was forgotten."""
        zones = self.survey.map.table[tail].astype(np.int64)
        known = zones < self.geometry.nr_zones
        at = np.where(known, zones, 0)
        live = (known & (self._weight[at] > 0) & ~self.survey.map.owners.named[at] & ~self.held[at]).any(axis=1)
        agreed = "map-tail" in self._allow
        text = "entry {entry} after the last chunk is set to all ones"
        for entries, consent, sentence in (
            (tail[~live], Consent.CERTAIN, text),
            (tail[live], Consent.LOSES, f"{text} although its zones hold valid blocks, whose bits stay"),
        ):
            if len(entries):
                self.actions.append(RULES.actions("map-tail", sentence, entry=entries, consent=consent, agreed=agreed))
        if not agreed:
            self._kept_tail = tail[live]
            kept = zones[live][known[live]]
            self.tail_zones[kept] = True

    # -- zones without a chunk

    def _pair(self) -> None:
        """Give damaged entries the zones that certainly belong to them."""
        pairing, found = self.pairing, self.survey.map
        claims = pairing.claims
        paired = np.flatnonzero(pairing.zone >= 0)
        if not len(paired):
            return
        codes = np.full(len(claims), "map-zone-shared", object)
        chunk, is_data = claims.chunk, claims.is_data
        for mask, role, code in (
            (found.data_range, True, "map-dzone-range"),
            (found.data_meta, True, "map-meta-zone"),
            (found.buffer_without_data, True, "map-bzone-without-dzone"),
            (found.buffer_range, False, "map-bzone-range"),
            (found.buffer_meta, False, "map-meta-zone"),
        ):
            codes[mask[chunk] & (is_data == role)] = code
        reasons = {
            "map-zone-shared": "zone {old} is another chunk's, too",
            "map-meta-zone": "zone {old} holds metadata",
            "map-bzone-without-dzone": "it has no data zone",
        }
        for code in dict.fromkeys(codes[paired].tolist()):
            rows = paired[codes[paired] == code]
            sentence = _PAIRED % reasons.get(code, "zone {old} does not exist")
            zones = pairing.zone[rows]
            words: dict[str, Column] = {"zone": zones, "count": self._weight[zones], "old": claims.zone[rows]}
            words = used_words(sentence, words)
            self.actions.append(RULES.actions(code, sentence, chunk=narrow(chunk[rows]), words=words))
        for role in (True, False):
            rows = paired[is_data[paired] == role]
            self._claims.move(chunk[rows], pairing.zone[rows], is_data=role)
        self._paired[is_data[paired].astype(np.int64), chunk[paired]] = True

    def _rival_zones(self, chunks: IntArray, *, is_data: bool) -> str:
        """The zones without a chunk that could belong to some chunks, in words."""
        pairing = self.pairing
        zones = pairing.orphans
        if len(pairing.could):
            rows = np.isin(pairing.claims.chunk, chunks) & (pairing.claims.is_data == is_data)
            zones = zones[pairing.could[rows].any(axis=0)]
        shown = ", ".join(f"{zone} with {self._weight[zone]} valid blocks" for zone in zones[:_SHOWN_ZONES].tolist())
        return f"zone {shown}" + (f" and {len(zones) - _SHOWN_ZONES} more" if len(zones) > _SHOWN_ZONES else "")

    # -- rules

    def _drop_free_buffers(self) -> None:
        """Buffer zones that cannot hold a valid block."""
        found = self.survey.map
        for mask, code, reason in (
            (found.buffer_range, "map-bzone-range", "it does not exist"),
            (found.buffer_meta, "map-meta-zone", "it holds metadata"),
            (found.buffer_is_data, "map-bzone-is-dzone", "it is the data zone"),
        ):
            wrong = mask & ~self._paired[0]
            several = wrong & (self._rivals[0] > 0)
            chunks = np.flatnonzero(wrong & ~several)
            self._act(code, _DROPPED % f"zone {{bzone}}: {reason}", chunks)
            self._claims.drop_buffer(chunks)
            chunks = np.flatnonzero(several)
            sentence = _SEVERAL_BUFFERS % (f"zone {{bzone}}: {reason}", self._rival_zones(chunks, is_data=False))
            if self._act(code, sentence, chunks, Consent.LOSES, agreed=code in self._allow, rivals=self._rivals[0]):
                self._claims.drop_buffer(chunks)
            else:
                self.undecided = code

    def _lose_data_zones(self, mask: BoolArray, code: str, reason: str) -> None:
        """Chunks without a usable data zone: unmapped, or their buffer zone takes its place."""
        mask = mask & ~self._paired[1]
        if code != "map-bzone-without-dzone":
            self._lose_rivalled(np.flatnonzero(mask & (self._rivals[1] > 0)), code, reason)
            mask &= self._rivals[1] == 0
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

    def _lose_rivalled(self, chunks: IntArray, code: str, reason: str) -> None:
        """Chunks whose data zone is one of several: unmapped with consent, and every trace of what they were stays."""
        if not len(chunks):
            return
        buffers = self.buffer[chunks]
        buffers = buffers[buffers < self.geometry.nr_zones]
        sentence = _SEVERAL % (reason, self._rival_zones(chunks, is_data=True))
        if self._act(code, sentence, chunks, Consent.LOSES, agreed=code in self._allow, rivals=self._rivals[1]):
            self._claims.unmap(chunks)
            self.spared[buffers] = True
        else:
            self.undecided = code
            self._waits[chunks] = True
            self.frozen[buffers] = True

    def _drop_wrong_buffers(self) -> None:
        found = self.survey.map
        for mask, code, reason in (
            (found.buffer_not_random, "map-bzone-not-random", "it is not a conventional or cache zone"),
            (found.buffer_on_random, "map-bzone-on-random", "the data zone is not sequential"),
        ):
            wrong = mask & (self.buffer != UNMAPPED) & ~self._waits
            if code == "map-bzone-on-random":  # the data zone may be another one now
                known = self.data < self.geometry.nr_zones
                wrong &= known & ~self.geometry.sequential[np.where(known, self.data, 0)]
            chunks = np.flatnonzero(wrong)
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
        self,
        code: str,
        sentence: str,
        chunks: IntArray,
        consent: Consent = Consent.CERTAIN,
        *,
        agreed: bool = False,
        rivals: IntArray | None = None,
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
        if rivals is not None:
            words["rivals"] = rivals[chunks]
        words = used_words(sentence, words)
        action = RULES.actions(code, sentence, chunk=narrow(chunks), words=words, consent=consent, agreed=agreed)
        self.actions.append(action)
        return not action.waits

    def _valid(self, zones: IntArray) -> IntArray:
        known = zones < self.geometry.nr_zones
        valid: IntArray = np.where(known, self._weight[np.where(known, zones, 0)], 0)
        return valid

    # -- zones that are claimed twice: one decision each

    def _shared_zones(self) -> list[tuple[int, list[int]]]:
        """Zones that are still claimed twice, and the chunks that name them."""
        shared = self.survey.map.owners.shared
        open_ones = np.flatnonzero((self._claims.uses[shared.zones] > 1) & ~self.held[shared.zones])
        return [(int(shared.zones[index]), shared.chunks_of(index)) for index in open_ones.tolist()]

    def _unshare_certainly(self) -> None:
        """Leave a zone to the one chunk that it fits, where the others lose nothing."""
        outcome = Unshared()
        for zone, chunks in self._shared_zones():
            self._unshare_zone(self._claims, zone, chunks, outcome, certainly=True)
        self._note_unshared("map-zone-shared", outcome, Consent.CERTAIN, agreed=True)

    def _unshare(self) -> None:
        """Leave a zone to the lowest chunk that it fits, with consent."""
        code = "map-zone-shared"
        agreed = code in self._allow
        outcome = Unshared()
        claims = self._claims if agreed else self._claims.copy()
        for zone, chunks in self._shared_zones():
            self._unshare_zone(claims, zone, chunks, outcome, certainly=False)
        self._note_unshared(code, outcome, Consent.GUESSES, agreed=agreed)
        self.frozen[outcome.promoted_zones if agreed else outcome.zones] = not agreed
        if outcome.zones and not agreed:
            self.undecided = code

    def _unshare_zone(
        self, claims: ZoneClaims, zone: int, chunks: list[int], outcome: Unshared, *, certainly: bool
    ) -> None:
        """Decide about one zone, in ``claims``; ``certainly`` only about chunks that it cannot belong to."""
        rivals = [(c, True) for c in dict.fromkeys(chunks) if claims.data[c] == zone]
        rivals += [(c, False) for c in dict.fromkeys(chunks) if claims.buffer[c] == zone]
        if len(rivals) < 2:
            return
        rivals.sort(key=lambda rival: (not self._fits[int(rival[1]), rival[0]], rival[0]))
        keeper = rivals[0][0]
        if certainly:
            if not self._keeps[int(rivals[0][1]), keeper]:
                return
            rivals[1:] = [rival for rival in rivals[1:] if self._loses_nothing(claims, *rival)]
        else:
            zones = {int(z) for c, _ in rivals for z in (claims.data[c], claims.buffer[c])}
            outcome.zones += [z for z in zones if z < self.geometry.nr_zones]
        for chunk, is_data in rivals[1:]:
            self._give_up(claims, (chunk, zone, keeper), outcome, is_data=is_data)

    def _loses_nothing(self, claims: ZoneClaims, chunk: int, is_data: bool) -> bool:  # noqa: FBT001 - a rival's own pair
        """Whether no zone could belong to a chunk instead of a shared one, and no buffer zone of its own is lost."""
        buffer = int(claims.buffer[chunk])
        own = is_data and buffer < self.geometry.nr_zones and bool(self._weight[buffer])
        return not own and self._rivals[int(is_data), chunk] == 0

    def _give_up(self, claims: ZoneClaims, row: tuple[int, int, int], outcome: Unshared, *, is_data: bool) -> None:
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

    def _note_unshared(self, code: str, outcome: Unshared, consent: Consent, *, agreed: bool) -> None:
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
                RULES.actions(code, sentence, chunk=chunks, words=words, consent=consent, agreed=agreed)
            )
