"""Metadata that nothing points to any more, found by looking at everything that is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK_BYTES = 4096
"""Metadata begin at multiples of this."""


class Scanner(Protocol):
    """Looks for the metadata of one layout in what it is shown."""

    def feed(self, offset_bytes: int, data: bytearray) -> None:
        """Look at whole blocks of the device; called with ascending offsets, what cannot be read as zeroes."""
        ...

    def result(self) -> Mapping[str, object]:
        """What was found: ``gives``, sentences about what it would give, and tables of small JSON values."""
        ...
