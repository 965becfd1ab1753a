"""The findings about metadata that cannot be read: which block belongs to what, and what serves instead.

Source: sections 1.4 and 1.5 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.device.runs import runs
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.judge import UNREADABLE
from zoned_tools.formats.zdm.layout import BLOCK_BYTES
from zoned_tools.formats.zdm.losses import LostPages, lost_runs, recover
from zoned_tools.formats.zdm.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.shared.findings import FindingGroup
    from zoned_tools.formats.zdm.open import State
    from zoned_tools.formats.zdm.survey import Survey

LOST = "metadata-lost"

_SERVES = {
    "generation": "a block of the areas of generations; the newest complete generation is used",
    "table": "a table page; its current copy, or the other table, serves",
    "crc": "a CRC page; the pages under it are taken as they are found",
    "wp": "write pointers; the drive's are used, and others are counted again",
    "zf": "free estimates; they are counted again",
}
"""What a block is, and what serves in its place."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What cannot be read, and what that costs.

    Attributes:
        lost: forward pages that cannot be read, and what the reverse table knows of them.
        ranges: ``(forward page, first logical block, blocks)`` of what is lost.
    """

    state: State
    lost: LostPages
    ranges: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, state: State, measured: Survey | None) -> Unread:
        """After everything was read; without tables only what was met so far."""
        pages = np.zeros(0, np.int64) if measured is None else measured.unread_pages[0]
        pairs = None if measured is None else measured.pairs
        lost = recover(state, pages, pairs)
        return cls(state, lost, list(lost_runs(state, lost, pairs)) if len(pages) else [])

    @property
    def identity(self) -> bool:
        """Whether block 0 cannot be read."""
        return layout.IDENTITY_BLOCK in self.state.volume.unread

    def findings(self) -> Iterator[FindingGroup]:
        """One for each run of blocks of one kind."""
        kinds: dict[str, list[int]] = {}
        for block in self.state.volume.unread:
            kind = self._kind(block)
            if kind:
                kinds.setdefault(kind, []).append(block)
        for kind, blocks in kinds.items():
            for first, end in runs(np.array(sorted(blocks), np.int64)):
                yield self._finding(kind, first, end)

    def _kind(self, block: int) -> str:
        """What a block is, as ``what`` of its finding; ``lost`` for a forward page with lost blocks, or nothing."""
        state = self.state
        if block == layout.IDENTITY_BLOCK:
            return "super"
        if block in state.unread_keys:
            return "key" if state.home_only else "generation"
        return self._pointer_kind(block) or self._table_kind(block)

    def _pointer_kind(self, block: int) -> str:
        state = self.state
        number = block - layout.WP_BLOCKS[state.dialect]
        if state.current is None or not 0 <= number < 2 * state.geometry.groups:
            return ""
        return "zf" if number % 2 else "wp"

    def _table_kind(self, block: int) -> str:
        geometry, tables = self.state.geometry, self.state.tables
        home = next((home for home, copy in tables.journal.items() if copy == block), block)
        if not geometry.is_table_page(home):
            return ""
        if home >= geometry.crc_start:
            return "crc"
        page = home - geometry.forward_start
        lost = tables.is_unread(home) and any(row[0] == page for row in self.ranges)
        return "lost" if lost else "table"

    def _finding(self, kind: str, first: int, end: int) -> FindingGroup:
        offset, length = self.state.volume.offset_bytes + first * BLOCK_BYTES, (end - first) * BLOCK_BYTES
        count = "block" if end - first == 1 else "blocks"
        text = f"{end - first} {count} of metadata at byte {offset} cannot be read"
        if kind in _SERVES:
            message = f"{text}: {_SERVES[kind]}"
            return RULES.finding(UNREADABLE, message, what=kind, offset_bytes=offset, length_bytes=length)
        if kind != "lost":
            why = (
                "no complete generation is left" if kind == "key" else "label, options and over provision are not known"
            )
            return RULES.finding(LOST, f"{text}: {why}", what=kind, offset_bytes=offset, length_bytes=length)
        ranges = [(row[1], row[2]) for row in self.ranges if first <= self._block_of(row[0]) < end]
        blocks = sum(row[1] for row in ranges)
        low, high = ranges[0][0], ranges[-1][0] + ranges[-1][1] - 1
        message = (
            f"{text}: the places of {blocks} logical blocks between {low} and {high} are lost; "
            "the reverse table names the others"
        )
        return RULES.finding(
            LOST, message, what="table", offset_bytes=offset, length_bytes=length,
            logical_block=low, blocks=blocks, ranges=len(ranges),
        )  # fmt: skip

    def _block_of(self, page: int) -> int:
        return self.state.tables.current(self.state.geometry.forward_start + page)

    @property
    def logical(self) -> IntArray:
        """Every logical block that is lost, ascending."""
        parts = [np.arange(first, first + count) for _, first, count in self.ranges]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
