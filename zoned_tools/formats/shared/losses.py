"""What of a logical device cannot be read, or only by a guess: how a mapper says it.

Source: sections 1.4, 1.5 and 2 of the specification of rescues (``docs/formats/rescue.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from zoned_tools.formats.shared.findings import Severity
from zoned_tools.formats.shared.rules import Consent, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned_tools.device.badareas import BadAreas
    from zoned_tools.device.base import Buffer

_BLOCK_BYTES = 4096
"""Of logical devices."""

_MEDIUM = "a medium error: the drive gives an error for it, or ddrescue could not read it"


REASONS = {"-": "bad sector", "/": "not scraped", "*": "not trimmed", "?": "not tried"}
"""What ddrescue's letters say of payload that was not rescued."""


class Loss(NamedTuple):
    """A range of the logical device.

    Attributes:
        status: ddrescue's letter of what is behind it (``- / * ?``).
        reason: one phrase.
    """

    offset_bytes: int
    length_bytes: int
    status: str
    reason: str


@dataclass(slots=True)
class Losses:
    """What a mapper knows before anything is read; each list ascending and without overlaps.

    Attributes:
        metadata: ranges that no readable metadata are about; reading them fails.
        guessed: ranges that are read by a guess.
        payload: ranges whose payload cannot be read; None leaves it to the map of blocks and the known bad areas,
            which is right where blocks are stored as they are.
    """

    metadata: list[Loss] = field(default_factory=list)
    guessed: list[Loss] = field(default_factory=list)
    payload: list[Loss] | None = None


def blocks_of(losses: Iterable[Loss]) -> int:
    """Logical blocks with at least one byte that is lost; the losses are ascending."""
    blocks, done = 0, 0
    for row in losses:
        first = max(row.offset_bytes // _BLOCK_BYTES, done)
        done = max(done, -(-(row.offset_bytes + row.length_bytes) // _BLOCK_BYTES))
        blocks += max(done - first, 0)
    return blocks


def join_losses(rows: Iterable[Loss]) -> list[Loss]:
    """Ascending losses with those that touch, for one reason, made one; of what overlaps the first counts."""
    joined: list[Loss] = []
    for row in rows:
        end = joined[-1].offset_bytes + joined[-1].length_bytes if joined else 0
        start, stop = max(row.offset_bytes, end), row.offset_bytes + row.length_bytes
        if start >= stop:
            continue
        if joined and start == end and joined[-1][2:] == row[2:]:
            joined[-1] = joined[-1]._replace(length_bytes=stop - joined[-1].offset_bytes)
        else:
            joined.append(Loss(start, stop - start, *row[2:]))
    return joined


@runtime_checkable
class KnowsLosses(Protocol):
    """A mapper that opens although some of its metadata cannot be read."""

    def losses(self) -> Losses: ...


@runtime_checkable
class SalvagesBlocks(Protocol):
    """A mapper that does not store every block as it is, and knows of which some sectors may be had."""

    def salvage_block(self, block: int) -> tuple[Buffer, BadAreas] | None:
        """What can be read of a block, with zeroes for the rest, and the rest in bytes of the block.

        None where the block is lost as a whole.
        """
        ...


def rescue_rules(
    *,
    repair: str = "",
    asks: Consent = Consent.CERTAIN,
    allow: str = "",
    kernel: str = "",
    lost_repair: str = "",
    lost_asks: Consent = Consent.CERTAIN,
    lost_allow: str = "",
) -> dict[str, Rule]:
    """The rules about media that every layout has; a layout says what its own repair does.

    Args:
        repair, asks, allow: of a block of which another copy can be read.
        lost_repair, lost_asks, lost_allow: of metadata of which no copy can be.
    """
    return {
        "block-unreadable": Rule(
            Severity.ERROR,
            "metadata cannot be read, and another copy of them serves",
            _MEDIUM,
            repair,
            kernel=kernel or "fails where it needs them",
            asks=asks,
            allow=allow,
        ),
        "metadata-lost": Rule(
            Severity.ERROR,
            "metadata cannot be read in any copy: what depends on them is lost",
            _MEDIUM,
            lost_repair,
            kernel=kernel or "fails where it needs them",
            asks=lost_asks,
            allow=lost_allow,
        ),
        "data-unreadable": Rule(
            Severity.ERROR,
            "valid blocks cannot be read",
            _MEDIUM,
            kernel="gives an error for them",
        ),
        "image-short": Rule(
            Severity.WARNING,
            "the image is shorter than its zone table says: what is missing cannot be read",
            "a copy that ended early",
            kernel="has the whole drive",
        ),
    }
