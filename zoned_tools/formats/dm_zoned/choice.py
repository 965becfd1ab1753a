"""Which of two metadata sets of one generation counts, block by block.

A power cut, or a damaged block in each set, leaves two sets of which neither is the better one as a whole. What can
be read in one set alone, and what breaks the rules in one set alone, is decided block by block; what is left is
compared by entries and zones, in groups that touch the same zones. A group that both sets have equally well is a tie:
somebody has to decide it.

Source: section 8.1 of the specification of the format (``docs/formats/dm-zoned.md``), whose R0, R1 and R2 are named
below.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import runs
from zoned_tools.formats.dm_zoned.groups import Groups, find_groups, scores
from zoned_tools.formats.dm_zoned.layout import BLOCK_BITS, BLOCK_BYTES, MAP_ENTRIES, NR_SETS, UNMAPPED
from zoned_tools.formats.dm_zoned.open import STREAM_BYTES, SetView, Words, read_map
from zoned_tools.formats.dm_zoned.settings import BITS, USE_SET
from zoned_tools.formats.dm_zoned.survey import SetSurvey, any_from, keep_below, survey_map, survey_set

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned_tools.device.zones import BoolArray, IntArray
    from zoned_tools.formats.contract import Settings
    from zoned_tools.formats.dm_zoned.layout import MapArray, MetadataLayout
    from zoned_tools.formats.dm_zoned.open import TargetBlocks
    from zoned_tools.formats.dm_zoned.survey import MapSurvey

_BLOCK_WORDS = BLOCK_BYTES // 8
_PIECE_BLOCKS = STREAM_BYTES // BLOCK_BYTES
_NAMED_TIES = 4
_OPEN = -1
"""Winner of what no rule has decided yet."""

Winners = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user decides about ties.

    Attributes:
        use_set: the set that every tie is taken from.
        union: of groups in which only bitmaps differ, the bits of both sets are taken.
    """

    use_set: int | None = None
    union: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Wishes:
        """What the settings say."""
        return cls(settings.number(USE_SET), settings.text(BITS) == "union")


@dataclass(frozen=True, slots=True)
class Ties:
    """Groups that nothing decides.

    Attributes:
        chunks, zones: members of these groups, as masks over all chunks and all zones.
        number: how many groups there are.
        first: chunks and zones of the first ones, and their blocks that are valid in one set only.
    """

    chunks: BoolArray
    zones: BoolArray
    number: int
    first: list[tuple[IntArray, IntArray, int]]

    def describe(self) -> str:
        """The first groups in words."""
        parts = []
        for chunks, zones, count in self.first:
            names = [f"{kind} {_numbers(ids)}" for kind, ids in (("chunk", chunks), ("zone", zones)) if len(ids)]
            parts.append(f"{' with '.join(names)} ({count} blocks valid in one set only)")
        more = f" and {self.number - len(self.first)} more" if self.number > len(self.first) else ""
        return "; ".join(parts) + more


def _numbers(ids: IntArray, most: int = 6) -> str:
    shown = ", ".join(map(str, ids[:most].tolist()))
    return f"{shown} and {len(ids) - most} more" if len(ids) > most else shown


@dataclass(frozen=True, slots=True)
class SetChoice:
    """The outcome.

    Attributes:
        differing: map and bitmap blocks that differ; those that one set cannot be read of are not among them.
        surveys: what each set comes to, with the other's blocks where rule R0 or R1 took them; only that of the kept
            content when these rules decided everything.
        kept: the content that counts; ties in it are those of the set that is shown.
        unreadable: blocks of each set that only the other one has (R0).
        damaged: blocks of each set that break the rules while the other one's do not (R1).
        won: groups that each set won (R2).
        ties: None when nothing is left to decide.
        decided_by_user: somebody's wish decided about groups that nothing else decides.
    """

    differing: int
    surveys: tuple[SetSurvey, ...]
    kept: SetSurvey
    unreadable: tuple[int, int] = (0, 0)
    damaged: tuple[int, int] = (0, 0)
    won: tuple[int, int] = (0, 0)
    ties: Ties | None = None
    decided_by_user: bool = False

    @property
    def source(self) -> int:
        """The set that most is kept of: what a repair copies to the other one."""
        return self.kept.number


def choose(
    blocks: TargetBlocks,
    layout: MetadataLayout,
    differing: IntArray,
    *,
    shown: int,
    wishes: Wishes = Wishes(),
    unreadable: tuple[BoolArray, BoolArray] | None = None,
) -> SetChoice:
    """Decide between two sets of one layout and one generation.

    Args:
        differing: the blocks in which they differ, counted from the map; what cannot be read does not count.
        shown: the set that a tie is read from.
        unreadable: for each set, the blocks that cannot be read: shape (map and bitmap blocks,).

    Raises:
        DeviceError: the sets cannot be read.
    """
    return _Comparison(blocks, layout, differing, unreadable).decide(shown, wishes)


@dataclass(slots=True)
class _Comparison:
    """Two sets side by side. ``winners`` has an element for each map and bitmap block."""

    blocks: TargetBlocks
    layout: MetadataLayout
    differing: IntArray
    unreadable: tuple[BoolArray, BoolArray] | None
    winners: Winners = field(init=False)
    tables: list[MapArray] = field(init=False)
    maps: list[MapSurvey] = field(init=False)
    lost: BoolArray | None = field(init=False)

    def __post_init__(self) -> None:
        geometry = self.blocks.geometry
        self.winners = np.full(self.layout.nr_meta_blocks - 1, _OPEN, np.int8)
        self.tables = [read_map(self.blocks, self.layout, n) for n in range(NR_SETS)]
        self.lost = None
        if self.unreadable is not None:
            self.differing = self.differing[~(self.unreadable[0] | self.unreadable[1])[self.differing]]
        if self.unreadable is not None and (self.unreadable[0] | self.unreadable[1]).any():
            self._take_what_one_has(self.unreadable)
        self.maps = [survey_map(geometry, self.layout, table) for table in self.tables]

    def _take_what_one_has(self, bad: tuple[BoolArray, BoolArray]) -> None:
        """R0: the mapping tables are completed at once, so that nothing unreadable is ever decoded."""
        nr_map = self.layout.nr_map_blocks
        both = bad[0] & bad[1]
        if both.any():
            self.lost = both
        for number in range(NR_SETS):
            alone = bad[number] & ~both
            self.winners[alone] = 1 - number
            rows = np.repeat(alone[:nr_map], MAP_ENTRIES)
            self.tables[number][rows] = self.tables[1 - number][rows]
            self.tables[number][np.repeat(both[:nr_map], MAP_ENTRIES)] = UNMAPPED

    def decide(self, shown: int, wishes: Wishes) -> SetChoice:
        unreadable = self._nr_unreadable
        damaged = self._damaged_in_one()
        tables = self._mixed_tables()
        views = [self._view(n, tables[n]) for n in range(NR_SETS)]
        chunks = (tables[0] != tables[1]).any(axis=1)[: self.layout.nr_chunks]
        zones = self._zones_that_differ()
        if not chunks.any() and not zones.any():
            kept = survey_set(views[_most(damaged, unreadable, shown)])
            return SetChoice(len(self.differing), (kept,), kept, unreadable, damaged)
        surveys = tuple(map(survey_set, views))
        named = [table[: self.layout.nr_chunks] for table in tables]
        groups = find_groups(named, self.layout.nr_zones, chunks, zones)
        points = [scores(survey, groups) for survey in surveys]
        best = np.where(points[0] < points[1], 0, np.where(points[1] < points[0], 1, _OPEN)).astype(np.int8)
        groups, best = _ask_about_bits(groups, best, surveys, zones)
        won = int(np.count_nonzero(best == 0)), int(np.count_nonzero(best == 1))
        joined = (best == _OPEN) & ~groups.has_entries & wishes.union
        open_groups = (best == _OPEN) & ~joined
        best[best == _OPEN] = shown if wishes.use_set is None else wishes.use_set
        undecided = wishes.use_set is None and bool(open_groups.any())
        if undecided or won[0] == won[1]:
            source = shown if undecided or won[0] else _most(damaged, unreadable, shown)
        else:
            source = int(won[1] > won[0])
        if wishes.use_set is not None:  # the set that the same command finds after a power cut, too
            source = wishes.use_set
        view = self._kept(source, tables, groups, best, joined, zones)
        kept = next((s for s in surveys if s.number == source and _same(s.view, view)), None) or survey_set(view)
        ties = self._ties(groups, open_groups, zones) if undecided else None
        wished = not undecided and sum(won) < groups.number
        return SetChoice(len(self.differing), surveys, kept, unreadable, damaged, won, ties, wished)

    # -- R0 and R1: block by block

    @property
    def _nr_unreadable(self) -> tuple[int, int]:
        """Blocks of each set that only the other one has."""
        if self.unreadable is None:
            return 0, 0
        first, second = self.unreadable
        return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))

    def _damaged_in_one(self) -> tuple[int, int]:
        """Blocks of each set that break the rules where the other set's do not."""
        open_ones = self.differing[self.winners[self.differing] == _OPEN]
        nr_map = self.layout.nr_map_blocks
        map_blocks, bitmap_blocks = open_ones[open_ones < nr_map], open_ones[open_ones >= nr_map] - nr_map
        bad = np.zeros((NR_SETS, len(open_ones)), np.bool_)
        for number in range(NR_SETS):
            bad[number, : len(map_blocks)] = self._bad_map_blocks(number, map_blocks)
        at = len(map_blocks)
        for rows, pair in self._bitmap_pairs(bitmap_blocks):
            limits = self._limits(rows)
            for number in range(NR_SETS):
                bad[number, at : at + len(rows)] = any_from(pair[number], limits)
            at += len(rows)
        for number in range(NR_SETS):
            self.winners[open_ones[bad[number] & ~bad[1 - number]]] = 1 - number
        return tuple(int(np.count_nonzero(bad[n] & ~bad[1 - n])) for n in range(NR_SETS))  # type: ignore[return-value]

    def _bad_map_blocks(self, number: int, map_blocks: IntArray) -> BoolArray:
        faulty = np.zeros(self.layout.nr_map_blocks * MAP_ENTRIES, np.bool_)
        for mask in self.maps[number].hard_faults:
            faulty[: len(mask)] |= mask
        bad: BoolArray = np.asarray(faulty.reshape(-1, MAP_ENTRIES).any(axis=1))[map_blocks]
        for row, block in enumerate(map_blocks.tolist()):
            first, end = block * MAP_ENTRIES, min((block + 1) * MAP_ENTRIES, self.layout.nr_chunks)
            ids = self.tables[number][first:end].reshape(-1)
            ids = ids[ids < self.layout.nr_zones]
            bad[row] |= len(np.unique(ids)) < len(ids)
        return bad

    def _limits(self, bitmap_blocks: IntArray) -> IntArray:
        """The first bit of each bitmap block that has to be clear: at the write pointer, or the end of the zone.

        The write pointer of an empty zone that a buffered chunk has says nothing (section 8.4).
        """
        geometry = self.blocks.geometry
        zones = bitmap_blocks // self.layout.bitmap_blocks_per_zone
        wp = geometry.wp_blocks[zones]
        counts = geometry.sequential[zones] & (wp >= 0)
        for mapping in self.maps:
            owners = mapping.owners.data[zones]
            counts &= ~((wp == 0) & (owners >= 0) & (mapping.buffer[owners] != UNMAPPED))
        end = np.where(counts, wp, geometry.zone_blocks)
        return self._within(bitmap_blocks, end)

    def _within(self, bitmap_blocks: IntArray, ends: IntArray | int) -> IntArray:
        """Blocks of a zone up to ``ends``, counted in each bitmap block."""
        part = bitmap_blocks % self.layout.bitmap_blocks_per_zone
        inside: IntArray = np.clip(ends - part * BLOCK_BITS, 0, BLOCK_BITS)
        return inside

    def _bitmap_pairs(self, bitmap_blocks: IntArray) -> Iterator[tuple[IntArray, tuple[Words, Words]]]:
        """``(some of the bitmap blocks, their content in each set)``."""
        for start in range(0, len(bitmap_blocks), _PIECE_BLOCKS):
            rows = bitmap_blocks[start : start + _PIECE_BLOCKS]
            yield rows, (self._read(0, rows), self._read(1, rows))

    def _read(self, number: int, bitmap_blocks: IntArray) -> Words:
        words = np.empty((len(bitmap_blocks), _BLOCK_WORDS), "<u8")
        at = 0
        for first, end in runs(bitmap_blocks, 1):
            part = words[at : at + end - first]
            self.blocks.read_around(self.layout.bitmap_block(number) + first, part.data.cast("B"))
            at += end - first
        return words

    # -- R2: what is left, by entries and zones

    def _mixed_tables(self) -> list[MapArray]:
        """Each set's mapping table, with what is decided from the other one; an unused tail wins."""
        tables = [table.copy() for table in self.tables]
        decided = np.repeat(self.winners[: self.layout.nr_map_blocks], MAP_ENTRIES)
        for number in range(NR_SETS):
            tables[number][decided == 1 - number] = self.tables[1 - number][decided == 1 - number]
        tails = [table[self.layout.nr_chunks :] for table in tables]
        unused = (tails[0] == UNMAPPED).all(axis=1) | (tails[1] == UNMAPPED).all(axis=1)
        for tail in tails:
            tail[unused] = UNMAPPED
        return tables

    def _view(self, number: int, table: MapArray) -> SetView:
        taken = self.winners[self.layout.nr_map_blocks :] == 1 - number
        return SetView(
            self.blocks,
            self.layout,
            number,
            self._table_of(number, table),
            taken if taken.any() else None,
            lost=self.lost,
        )

    def _table_of(self, number: int, table: MapArray) -> MapArray | None:
        """A mapping table as a view has it: None where it is what the set has."""
        nr_map = self.layout.nr_map_blocks
        is_whole = self.unreadable is None or not self.unreadable[number][:nr_map].any()
        return None if is_whole and not (table != self.tables[number]).any() else table

    def _zones_that_differ(self) -> BoolArray:
        """Zones whose bits inside the zone differ where nothing is decided yet."""
        zones = np.zeros(self.layout.nr_zones, np.bool_)
        nr_map = self.layout.nr_map_blocks
        open_ones = self.differing[(self.differing >= nr_map) & (self.winners[self.differing] == _OPEN)] - nr_map
        for rows, pair in self._bitmap_pairs(open_ones):
            changed = pair[0] ^ pair[1]
            keep_below(changed, self._within(rows, self.layout.zone_blocks))
            zones[rows[changed.any(axis=1)] // self.layout.bitmap_blocks_per_zone] = True
        return zones

    def _kept(
        self,
        source: int,
        tables: Sequence[MapArray],
        groups: Groups,
        best: Winners,
        joined: BoolArray,
        zones: BoolArray,
    ) -> SetView:
        """The content in which every group comes from the set that won it."""
        layout = self.layout
        table = tables[source].copy()
        other = np.flatnonzero((groups.of_chunk >= 0) & (best[groups.of_chunk] == 1 - source))
        table[other] = tables[1 - source][other]
        per_zone = layout.bitmap_blocks_per_zone
        grouped = np.repeat(np.where(zones, groups.of_zone, _OPEN), per_zone)
        winners = self.winners[layout.nr_map_blocks :].copy()
        mine = (winners == _OPEN) & (grouped >= 0)
        winners[mine] = best[grouped[mine]]
        both = np.zeros(len(winners), np.bool_)
        both[mine] = joined[grouped[mine]]
        taken = (winners == 1 - source) & ~both
        return SetView(
            self.blocks,
            layout,
            source,
            self._table_of(source, table),
            taken if taken.any() else None,
            both if both.any() else None,
            self.lost,
        )

    def _ties(self, groups: Groups, open_groups: BoolArray, zones: BoolArray) -> Ties:
        in_chunk = (groups.of_chunk >= 0) & open_groups[groups.of_chunk]
        in_zone = (groups.of_zone >= 0) & open_groups[groups.of_zone]
        named = np.flatnonzero(open_groups)[:_NAMED_TIES]
        differing = np.flatnonzero(zones & np.isin(groups.of_zone, named))
        counts = np.zeros(self.layout.nr_zones, np.int64)
        per_zone = self.layout.bitmap_blocks_per_zone
        rows = (differing[:, None] * per_zone + np.arange(per_zone)).reshape(-1)
        if self.unreadable is not None:
            rows = rows[~(self.unreadable[0] | self.unreadable[1])[self.layout.nr_map_blocks + rows]]
        for part, pair in self._bitmap_pairs(rows):
            changed = pair[0] ^ pair[1]
            keep_below(changed, self._within(part, self.layout.zone_blocks))
            np.add.at(counts, part // per_zone, np.bitwise_count(changed).sum(axis=1, dtype=np.int64))
        found = []
        for group in named.tolist():
            its_zones = np.flatnonzero(groups.of_zone == group)
            its_chunks = np.flatnonzero(groups.of_chunk == group)
            found.append((its_chunks, its_zones, int(counts[its_zones].sum())))
        return Ties(in_chunk, in_zone, int(np.count_nonzero(open_groups)), found)


def _ask_about_bits(
    groups: Groups, best: Winners, surveys: Sequence[SetSurvey], zones: BoolArray
) -> tuple[Groups, Winners]:
    """Zones without a valid block in the set that won their group, of which only the other one has bits.

    Of a set with damaged entries and one with zeroed bitmaps the second wins, because a chunk without a valid block
    breaks no rule. The entries are decided by that; the bits that no entry of the loser explains are not: they fit the
    winner's entry as well, and may be the only trace of the blocks. They become groups of their own, and ties.
    """
    inside = np.flatnonzero(zones & (groups.of_zone >= 0))
    winners = best[groups.of_zone[inside]]
    asked = np.zeros(len(inside), np.bool_)
    for number, (winner, loser) in enumerate((surveys, surveys[::-1])):
        owners = winner.map.owners.data[inside]
        explained = (owners >= 0) & (winner.map.buffer[owners] == UNMAPPED) & ~loser.map.owners.named[inside]
        only_there = (winner.bits.weight[inside] == 0) & (loser.bits.weight[inside] > 0)
        asked |= (winners == number) & explained & only_there & (loser.bits.after_wp[inside] == 0)
    count = int(np.count_nonzero(asked))
    of_zone = groups.of_zone.copy()
    of_zone[inside[asked]] = groups.number + np.arange(count)
    has_entries = np.append(groups.has_entries, np.zeros(count, np.bool_))
    split = replace(groups, of_zone=of_zone, number=groups.number + count, has_entries=has_entries)
    return split, np.append(best, np.full(count, _OPEN, np.int8))


def _most(damaged: tuple[int, int], unreadable: tuple[int, int], shown: int) -> int:
    """The set that less is wrong with; the one that is shown when there is no difference."""
    bad = [damaged[n] + unreadable[n] for n in range(NR_SETS)]
    return shown if bad[0] == bad[1] else int(bad[1] < bad[0])


def _same(one: SetView, other: SetView) -> bool:
    """Whether two views of one set have the same content."""
    for mine, theirs in ((one.table, other.table), (one.taken, other.taken), (one.joined, other.joined)):
        if mine is None or theirs is None:
            if mine is not theirs:
                return False
        elif (mine != theirs).any():
            return False
    return True


def without(survey: SetSurvey, ties: Ties) -> SetSurvey:
    """The survey as if the tied chunks were not mapped and their zones had no valid blocks: nothing is said of them."""
    table = survey.map.table.copy()
    table[: len(ties.chunks)][ties.chunks] = UNMAPPED
    mapping = survey_map(survey.view.blocks.geometry, survey.layout, table)
    bits = survey.bits
    zones = {name: np.where(ties.zones, 0, getattr(bits, name)) for name in ("weight", "after_wp", "beyond")}
    calm = replace(bits, overlap=np.where(ties.chunks, 0, bits.overlap), **zones)
    return replace(survey, map=mapping, bits=calm)
