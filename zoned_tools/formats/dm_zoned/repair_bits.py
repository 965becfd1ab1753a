"""Decisions about the validity bitmaps of the set that is repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.formats.contract import Consent
from zoned_tools.formats.dm_zoned.layout import UNMAPPED
from zoned_tools.formats.dm_zoned.open import stream_zones
from zoned_tools.formats.dm_zoned.payload import holds_data, unpacked
from zoned_tools.formats.dm_zoned.reclaim import judge_emptied
from zoned_tools.formats.dm_zoned.repair_claims import logical_ranges, used_words
from zoned_tools.formats.dm_zoned.rules import RULES
from zoned_tools.formats.dm_zoned.settings import OVERLAP, RECLAIM
from zoned_tools.formats.dm_zoned.survey import keep_below, narrow, sound_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Consents
    from zoned_tools.formats.dm_zoned.repair_map import MapRepair
    from zoned_tools.formats.shared.columns import Column
    from zoned_tools.formats.shared.rules import ActionGroup

NO_ZONE = -1
_EITHER = "--set reclaim=move or --set reclaim=clear"

_LAST_TRACE = (
    "zone {zone}: {count} valid bits are cleared although its blocks hold data, no chunk names it: they are all that "
    "is left of a lost entry of the mapping table"
)


@dataclass(slots=True)
class BitmapEdits:
    """What changes in the bitmaps; all arrays have the shape (zones,).

    Attributes:
        clear: zones whose bits all go.
        cut: zones whose bits at and after the write pointer go.
        merge: zone whose bits a zone gets too, else -1.
        subtract: zone whose bits below block ``subtract_below`` a zone loses, else -1.
    """

    clear: BoolArray
    cut: BoolArray
    merge: IntArray
    subtract: IntArray
    subtract_below: IntArray

    @classmethod
    def none(cls, nr_zones: int) -> BitmapEdits:
        """Nothing changes."""
        none, nobody = np.zeros(nr_zones, np.bool_), np.full(nr_zones, NO_ZONE, np.int64)
        return cls(none, none.copy(), nobody, nobody.copy(), nobody.copy())

    @property
    def combined(self) -> IntArray:
        """Zones whose new bits depend on another zone's."""
        zones: IntArray = np.flatnonzero((self.merge != NO_ZONE) | (self.subtract != NO_ZONE))
        return zones

    def __bool__(self) -> bool:
        return bool(self.clear.any() or self.cut.any() or len(self.combined))


class BitmapRepair:
    """Decides about the bitmaps once the mapping table is decided.

    Attributes:
        edits: the outcome.
        actions: what is done, in order.
    """

    def __init__(self, mapping: MapRepair, consents: Consents) -> None:
        settings = consents.settings
        self.geometry = mapping.geometry
        self.edits = BitmapEdits.none(mapping.geometry.nr_zones)
        self._mapping = mapping
        self._bits = mapping.survey.bits
        self._wish = settings.text(RECLAIM)
        self._buffer_wins = settings.text(OVERLAP) == "buffer"
        named = mapping.named
        self.edits.clear[:] = ~named & (self._bits.weight > 0) & (mapping.given_up | mapping.held)
        self.edits.cut[:] = named & (self._bits.after_wp > 0) & ~mapping.frozen
        unnamed = ~named & (self._bits.weight > 0) & ~self.edits.clear
        if mapping.survey.view.lost_map.any():  # they may be the lost chunks' zones
            unnamed[:] = False
        self._unnamed = np.flatnonzero(unnamed)
        self._agreed = "bits-unmapped" in consents.allow
        self.actions: list[ActionGroup] = [
            action for action in (*self._cleared(), *self._cut(), *self._overlaps()) if len(action)
        ]

    def _cleared(self) -> Iterator[ActionGroup]:
        owners, bits = self._mapping.survey.map.owners, self._bits
        zones = np.flatnonzero(self.edits.clear & ~owners.named & self._mapping.held)
        yield self._unmapped(
            "zone {zone}: {count} valid bits are cleared, it holds metadata", zones, bits.weight[zones]
        )
        yield from self._orphans()
        zones = np.flatnonzero(bits.beyond)
        yield RULES.actions(
            "bits-beyond-zone",
            "zone {zone}: {count} bits past its end are cleared",
            zone=narrow(zones),
            words={"count": narrow(bits.beyond[zones])},
        )

    def _unmapped(
        self, sentence: str, zones: IntArray, counts: IntArray, consent: Consent = Consent.CERTAIN, waits_for: str = ""
    ) -> ActionGroup:
        return RULES.actions(
            "bits-unmapped",
            sentence,
            zone=narrow(zones),
            words={"count": narrow(counts)},
            consent=consent,
            agreed=self._agreed and not waits_for,
            needs=f"--allow {RULES.layout}.{waits_for}" if waits_for else "",
        )

    def _orphans(self) -> Iterator[ActionGroup]:
        """Bits of zones that no chunk names: cleared where nothing can be read, else they may be all that is left.

        Untouched while an entry of the mapping table waits whose zone one of them may be.
        """
        mapping, zones = self._mapping, self._unnamed
        for code, mask in ((mapping.undecided, None), ("map-tail", mapping.tail_zones)):
            kept = np.full(len(zones), bool(code)) if mask is None else mask[zones]
            waiting, zones = zones[kept], zones[~kept]
            sentence = f"{_LAST_TRACE}; an entry of the mapping table that waits may name it"
            yield self._unmapped(sentence, waiting, self._bits.weight[waiting], Consent.LOSES, code)
        below, holds = self._below_wp(zones)
        late = self._bits.weight[zones] - below
        self.edits.clear[zones[~holds | self._agreed]] = True
        self.edits.cut[zones[holds & (late > 0)]] = True
        yield self._unmapped(
            "zone {zone}: {count} valid bits are cleared, no chunk names it and nothing but zeroes can be read there",
            zones[~holds],
            self._bits.weight[zones[~holds]],
        )
        some = holds & (late > 0)
        yield self._unmapped(
            "zone {zone}: {count} valid bits at or after its write pointer are cleared, no chunk names it",
            zones[some],
            late[some],
        )
        yield self._unmapped(_LAST_TRACE, zones[holds], below[holds], Consent.LOSES)

    def _below_wp(self, zones: IntArray) -> tuple[IntArray, BoolArray]:
        """For some zones: valid blocks below the write pointer, and whether any of them holds data."""
        geometry, view = self.geometry, self._mapping.survey.view
        counts, holds = np.zeros(len(zones), np.int64), np.zeros(len(zones), np.bool_)
        step = stream_zones(view.layout)
        for start in range(0, len(zones), step):
            part = zones[start : start + step]
            words = view.rows(part)
            wp = geometry.wp_blocks[part]
            keep_below(words, np.where(geometry.sequential[part] & (wp >= 0), wp, geometry.zone_blocks))
            counts[start : start + len(part)] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
            for row, zone in enumerate(part.tolist()):
                if self._agreed:
                    holds[start + row] = counts[start + row] > 0
                elif counts[start + row]:
                    mask = unpacked(words[row : row + 1], geometry.zone_blocks)[0]
                    holds[start + row] = holds_data(view.blocks, zone, mask)
        return counts, holds

    def _cut(self) -> Iterator[ActionGroup]:
        """Bits after the write pointer go, or to the buffer zone when the data zone was reset during reclaim."""
        geometry, data, buffer = self.geometry, self._mapping.data, self._mapping.buffer
        owner = np.full(geometry.nr_zones, NO_ZONE, np.int64)
        mapped = np.flatnonzero(data < geometry.nr_zones)
        owner[data[mapped]] = mapped
        zones = np.flatnonzero(self.edits.cut & self._mapping.named)
        chunks = owner[zones]
        owned = chunks != NO_ZONE
        buffers = np.where(owned, buffer[np.where(owned, chunks, 0)], UNMAPPED)
        buffered = buffers < geometry.nr_zones
        buffered &= geometry.cache[np.where(buffered, buffers, 0)] & (geometry.wp_blocks[zones] == 0)
        yield from self._emptied(zones, chunks, buffers, buffered)
        gone = (
            "{count} blocks from offset {wp} of zone {zone} on are not valid any more, they are after the write "
            "pointer and read as zeroes"
        )
        for text, mask in (
            (f"chunk {{chunk}} (logical blocks {{first}} to {{last}}): {gone}", owned & ~buffered),
            (f"zone {{zone}}: {gone}", ~owned),
        ):
            yield self._late(text, zones[mask], chunks[mask], buffers[mask])

    def _emptied(self, zones: IntArray, chunks: IntArray, buffers: IntArray, mask: BoolArray) -> Iterator[ActionGroup]:
        """Empty zones of buffered chunks: what the buffer zone certainly has moves there, the rest is asked."""
        survey = self._mapping.survey
        emptied = judge_emptied(survey.view, survey.map, np.flatnonzero(survey.emptied_zones))
        copied = mask & np.isin(zones, emptied.zones[emptied.copied])
        # A buffer zone that was just paired is judged when the pair is written.
        known = np.isin(zones, emptied.zones)
        known &= survey.map.buffer[np.where(mask, chunks, 0)] == buffers
        self.edits.cut[zones[mask & ~(copied & known)]] = self._wish == "clear"
        moved = mask & known & (copied if not self._wish else self._wish == "move")
        self.edits.cut[zones[moved]] = True
        self.edits.merge[buffers[moved]] = zones[moved]
        move = (
            "chunk {chunk} (logical blocks {first} to {last}): data zone {zone} was reset during reclaim, {count} "
            "valid blocks are taken from buffer zone {bzone}"
        )
        lose = (
            "chunk {chunk} (logical blocks {first} to {last}): {count} blocks of zone {zone}, which was reset, are not "
            "valid any more, and read as zeroes"
        )
        ask = (
            "chunk {chunk} (logical blocks {first} to {last}): {count} blocks of zone {zone}, which was reset, are "
            "taken from buffer zone {bzone}, or read as zeroes; it is not certain that they were copied there: {reason}"
        )
        reasons = dict(zip(emptied.zones.tolist(), emptied.reasons, strict=True))
        rows = (
            (move, moved & copied, Consent.CERTAIN, False),
            (move, moved & ~copied, Consent.GUESSES, True),
            (lose, mask & (self._wish == "clear"), Consent.LOSES, True),
            (ask, mask & known & ~copied & (not self._wish), Consent.GUESSES, False),
        )
        for text, chosen, consent, agreed in rows:
            words = {"reason": [reasons.get(zone, "") for zone in zones[chosen].tolist()]}
            yield self._late(text, zones[chosen], chunks[chosen], buffers[chosen], consent, agreed=agreed, more=words)

    def _late(
        self,
        sentence: str,
        zones: IntArray,
        chunks: IntArray,
        buffers: IntArray,
        consent: Consent = Consent.CERTAIN,
        *,
        agreed: bool = False,
        more: Mapping[str, Column] | None = None,
    ) -> ActionGroup:
        words: dict[str, Column] = {
            **(more or {}),
            "chunk": chunks,
            "bzone": buffers,
            "count": self._bits.after_wp[zones],
            "wp": self.geometry.wp_blocks[zones],
            **logical_ranges(self.geometry, chunks),
        }
        needs = {"move": "--set reclaim=move", "clear": "--set reclaim=clear"}.get(self._wish, _EITHER)
        return RULES.actions(
            "bits-after-wp",
            sentence,
            zone=zones,
            words=used_words(sentence, words),
            consent=consent,
            agreed=agreed,
            needs="" if consent is Consent.CERTAIN else needs,
        )

    def _overlaps(self) -> Iterator[ActionGroup]:
        """One of two copies of a block."""
        mapping, geometry = self._mapping, self.geometry
        pairs = sound_pairs(geometry, mapping.held, mapping.data, mapping.buffer)
        zones, buffers = mapping.data[pairs], mapping.buffer[pairs]
        found = mapping.survey.map
        measured = (found.data[pairs] == zones) & (found.buffer[pairs] == buffers)
        wanted = (self._bits.overlap[pairs] > 0) & measured & (self.edits.merge[buffers] == NO_ZONE)
        wanted &= ~mapping.frozen[zones] & ~mapping.frozen[buffers]
        pairs, zones, buffers = pairs[wanted], zones[wanted], buffers[wanted]
        winners, losers = (buffers, zones) if self._buffer_wins else (zones, buffers)
        self.edits.subtract[losers] = winners
        self.edits.subtract_below[losers] = geometry.wp_blocks[zones]
        yield RULES.actions(
            "bits-overlap-buffer",
            "chunk {chunk} (logical blocks {first} to {last}): {count} blocks valid in both zones are taken from zone "
            "{winner}",
            chunk=pairs,
            words={"count": self._bits.overlap[pairs], "winner": winners, **logical_ranges(geometry, pairs)},
        )
