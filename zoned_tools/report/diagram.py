"""A picture of a drive's zones: a character map for terminals, SVG for documents.

Every zone has one class; many zones share one cell on a large drive, which then shows the
class that most of them have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoned_tools.device.runs import value_runs
from zoned_tools.device.zones import IntArray, ZoneCondition, ZoneTable, ZoneType
from zoned_tools.formats.contract import ZoneRole
from zoned_tools.report.svg import Svg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ClassArray = npt.NDArray[np.uint8]


CLASSES = (
    ZoneRole("conventional", "C", "#8fa8c8"),
    ZoneRole("empty", ".", "#eeeeee"),
    ZoneRole("open or closed", "o", "#f2c14e"),
    ZoneRole("full", "#", "#5b8e7d"),
    ZoneRole("read-only", "r", "#c08497"),
    ZoneRole("offline", "X", "#444444"),
)
"""How a zone is drawn that no layout has a role for; layouts declare the others."""

_INDEX = {zone_class.name: number for number, zone_class in enumerate(CLASSES)}


@dataclass(frozen=True, slots=True)
class Drawing:
    """The class of each zone, and what the classes are.

    Attributes:
        classes: index into ``legend`` of each zone, uint8.
        legend: the drive's own classes, then the layout's roles.
    """

    classes: ClassArray
    legend: tuple[ZoneRole, ...]


def draw(table: ZoneTable, roles: Sequence[ZoneRole] = (), zones_of: Mapping[str, IntArray] | None = None) -> Drawing:
    """The picture of a drive.

    Args:
        roles: what the layout uses zones for.
        zones_of: zone numbers of each role; a role wins over what the drive says, a dead zone over its role.
    """
    condition, kind = table["condition"], table["type"]
    classes = np.full(len(table), _INDEX["open or closed"], np.uint8)
    classes[condition == ZoneCondition.EMPTY] = _INDEX["empty"]
    classes[condition == ZoneCondition.FULL] = _INDEX["full"]
    classes[kind == ZoneType.CONVENTIONAL] = _INDEX["conventional"]
    legend = (*CLASSES, *roles)
    for number, role in enumerate(roles, len(CLASSES)):
        zones = (zones_of or {}).get(role.name)
        if zones is not None:
            classes[zones[(zones >= 0) & (zones < len(table))]] = number
    classes[condition == ZoneCondition.READ_ONLY] = _INDEX["read-only"]
    classes[condition == ZoneCondition.OFFLINE] = _INDEX["offline"]
    return Drawing(classes, legend)


def _cells(drawing: Drawing, most: int) -> tuple[ClassArray, int]:
    """``(class of each cell, zones a cell)`` with at most ``most`` cells."""
    classes = drawing.classes
    per_cell = max(-(-len(classes) // most), 1)
    if per_cell == 1:
        return classes, 1
    padded = np.full(-(-len(classes) // per_cell) * per_cell, 255, np.uint8)
    padded[: len(classes)] = classes
    rows = padded.reshape(-1, per_cell)
    counts = np.stack([(rows == number).sum(axis=1) for number in range(len(drawing.legend))])
    return counts.argmax(axis=0).astype(np.uint8), per_cell


def _occurring(drawing: Drawing) -> list[tuple[ZoneRole, int]]:
    """What a legend lists: the classes that occur, with their numbers of zones."""
    counts = np.bincount(drawing.classes, minlength=len(drawing.legend)).tolist()
    return [(role, count) for role, count in zip(drawing.legend, counts, strict=True) if count]


def text_lines(drawing: Drawing, columns: int = 64, most_rows: int = 40) -> Iterator[str]:
    """A map of characters with a legend of what occurs."""
    cells, per_cell = _cells(drawing, columns * most_rows)
    letters = np.array([ord(role.letter) for role in drawing.legend], np.uint8)[cells].tobytes().decode("latin-1")
    for at in range(0, len(letters), columns):
        yield f"{at * per_cell:>8} {letters[at : at + columns]}"
    yield "         " + ", ".join(f"{role.letter} {role.name} ({count})" for role, count in _occurring(drawing))
    if per_cell > 1:
        yield f"         each character stands for {per_cell} zones and shows what most of them are"


def svg_document(title: str, drawing: Drawing, columns: int = 128, most_rows: int = 256) -> str:
    """The same map as a drawing."""
    cells, per_cell = _cells(drawing, columns * most_rows)
    rows = -(-len(cells) // columns)
    side, top = 8, 28
    legend = _occurring(drawing)
    image = Svg(columns * side + 16, top + rows * side + 20 * len(legend) + 16)
    image.text(8, 18, title if per_cell == 1 else f"{title} ({per_cell} zones a cell)")
    for row in range(rows):
        part = cells[row * columns : (row + 1) * columns]
        for start, end in value_runs(part).tolist():  # a drive is mostly runs of equal cells
            colour = drawing.legend[int(part[start])].colour
            image.rectangle(8 + start * side, top + row * side, (end - start) * side, side - 1, colour)
    for number, (role, count) in enumerate(legend):
        y = top + rows * side + 8 + 20 * number
        image.rectangle(8, y, 12, 12, role.colour)
        image.text(28, y + 11, f"{role.name}: {count}")
    return image.document()
