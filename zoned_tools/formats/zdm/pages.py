"""Table pages in memory: recently read ones, and those that were changed and not written yet."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned_tools.errors import MetadataError
from zoned_tools.formats.zdm.checksums import crc16
from zoned_tools.formats.zdm.layout import CRC_PAGE_ENTRIES, PAGE_ENTRIES

if TYPE_CHECKING:
    from zoned_tools.device.zones import IntArray
    from zoned_tools.formats.zdm.tables import Direction, Entries, Tables

_CLEAN_PAGES = 2048
_BULK_PAGES = 16


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one page: ``entries[within] = wanted``."""

    home: int
    entries: Entries
    within: IntArray
    wanted: Entries


class PageStore:
    """Table and CRC pages by their home block.

    Args:
        verify: refuse to change pages that do not match their checksum.

    Attributes:
        dirty: changed pages of 4096 bytes as 1024 numbers; nothing but :meth:`clean`
            forgets them.
    """

    def __init__(self, tables: Tables, *, verify: bool = True) -> None:
        self.tables = tables
        self._verifies = verify
        self.dirty: dict[int, Entries] = {}
        self._clean: OrderedDict[int, Entries] = OrderedDict()

    def page(self, home: int) -> Entries:
        """The current content of a page; not to be changed."""
        found = self.dirty.get(home)
        if found is not None:
            return found
        found = self._clean.get(home)
        if found is None:
            found = self.tables.rows(home, 1).view("<u4")[0]
            self._clean[home] = found
            if len(self._clean) > _CLEAN_PAGES:
                self._clean.popitem(last=False)
        else:
            self._clean.move_to_end(home)
        return found

    def mutable(self, home: int) -> Entries:
        """A page to be changed in place; table pages are changed by :meth:`scatter`, which judges them first."""
        found = self.dirty.get(home)
        if found is None:
            found = self.page(home)
            self._clean.pop(home, None)
            self.dirty[home] = found
        return found

    def _verify(self, home: int, entries: Entries) -> None:
        if not self._verifies:
            return
        expected = self.page(self.crc_home(home)).view("<u2")[self._number(home) % CRC_PAGE_ENTRIES]
        if crc16(entries.tobytes()) != int(expected):
            raise MetadataError(
                f"table page at block {home} is damaged", device=self.tables.volume.device.path, hint="repair it first"
            )

    def _number(self, home: int) -> int:
        geometry = self.tables.geometry
        return home - (geometry.forward_start if home < geometry.reverse_start else geometry.reverse_start)

    def crc_home(self, home: int) -> int:
        """The CRC page that holds the checksum of a table page."""
        geometry = self.tables.geometry
        start = geometry.crc_start if home < geometry.reverse_start else geometry.crc_reverse_start
        return start + self._number(home) // CRC_PAGE_ENTRIES

    def crc_index(self, home: int) -> int:
        """Where in its CRC page the checksum of a table page is."""
        return self._number(home) % CRC_PAGE_ENTRIES

    def clean(self) -> None:
        """Everything dirty has been written."""
        self._clean.update(self.dirty)
        self.dirty.clear()
        while len(self._clean) > _CLEAN_PAGES:
            self._clean.popitem(last=False)

    # -- entries

    def entries(self, direction: Direction, first: int, count: int) -> Entries:
        """``count`` consecutive table entries from index ``first``."""
        start = self.tables.start(direction)
        low, high = first // PAGE_ENTRIES, (first + count - 1) // PAGE_ENTRIES + 1
        if high - low > _BULK_PAGES:
            rows = self.tables.rows(start + low, high - low).view("<u4")
            self._overlay_rows(start + low, rows)
        else:
            rows = np.stack([self.page(start + page) for page in range(low, high)])
        return rows.reshape(-1)[first - low * PAGE_ENTRIES :][:count]

    def is_empty(self, direction: Direction, first: int, count: int) -> bool:
        """Whether none of the entries is set; may say no when only pages beside the range are used."""
        start = self.tables.start(direction)
        low, high = first // PAGE_ENTRIES, (first + count - 1) // PAGE_ENTRIES + 1
        if any(start + low <= home < start + high for home in self.dirty):
            return False
        return self.tables.is_empty(direction, low, high - low)

    def _overlay_rows(self, first_home: int, rows: Entries) -> None:
        changed = self.dirty
        if len(changed) < len(rows):
            hits = [h for h in changed if 0 <= h - first_home < len(rows)]
        else:
            hits = [h for h in range(first_home, first_home + len(rows)) if h in changed]
        for home in hits:
            rows[home - first_home] = changed[home]

    def gather(self, direction: Direction, indices: IntArray) -> IntArray:
        """Table entries at any ``indices``."""
        result = np.empty(len(indices), np.int64)
        start = self.tables.start(direction)
        for page, chosen in by_page(indices):
            result[chosen] = self.page(start + page)[indices[chosen] % PAGE_ENTRIES]
        return result

    def scatter(self, direction: Direction, indices: IntArray, values: IntArray) -> None:
        """Set table entries; pages that already hold the values stay clean."""
        self.apply(self.prepare(direction, indices, values))

    def prepare(self, direction: Direction, indices: IntArray, values: IntArray) -> list[Edit]:
        """What :meth:`apply` needs to set table entries, of several for one index the last.

        Every page is read and judged here, so that :meth:`apply` cannot fail.

        Raises:
            DeviceError: a page cannot be read.
            MetadataError: a page does not match its checksum, so that a new checksum would hide damage.
        """
        start = self.tables.start(direction)
        edits = []
        for page, chosen in by_page(indices):
            home, within = start + page, indices[chosen] % PAGE_ENTRIES
            wanted = values[chosen].astype(np.uint32)
            entries = self.page(home)
            if not np.array_equal(entries[within], wanted):
                if home not in self.dirty:
                    self._verify(home, entries)
                edits.append(Edit(home, entries, within, wanted))
        return edits

    def apply(self, edits: list[Edit]) -> None:
        """Change the pages of ``edits``, one of which at most is of the same page."""
        for edit in edits:
            self._clean.pop(edit.home, None)
            edit.entries[edit.within] = edit.wanted
            self.dirty[edit.home] = edit.entries


def by_page(indices: IntArray) -> list[tuple[int, IntArray]]:
    """Table pages that flat entry ``indices`` fall into, with the positions in ``indices`` for each."""
    if not len(indices):
        return []
    pages = indices // PAGE_ENTRIES
    order = np.argsort(pages, kind="stable")
    bounds = np.flatnonzero(np.diff(pages[order], prepend=-1))
    return [(int(pages[part[0]]), part) for part in np.split(order, bounds[1:])]
