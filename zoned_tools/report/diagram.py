"""A picture of a drive's zones: a character map for terminals, SVG for documents.

Every zone has one class; many zones share one cell on a large drive, which then shows the
class that most of them have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoned_tools.device.zones import ZoneCondition, ZoneTable, ZoneType
from zoned_tools.report.svg import Svg

ClassArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ZoneClass:
    """How one kind of zone is drawn."""

    name: str
    character: str
    colour: str


CLASSES = (
    ZoneClass("conventional", "C", "#8fa8c8"),
    ZoneClass("empty", ".", "#eeeeee"),
    ZoneClass("open or closed", "o", "#f2c14e"),
    ZoneClass("full", "#", "#5b8e7d"),
    ZoneClass("read-only", "r", "#c08497"),
    ZoneClass("offline", "X", "#444444"),
    ZoneClass("metadata", "M", "#bc4b51"),
    ZoneClass("data", "D", "#3d6fb6"),
    ZoneClass("buffer", "B", "#8e5ea2"),
)
_INDEX = {zone_class.name: number for number, zone_class in enumerate(CLASSES)}


def classify(table: ZoneTable, roles: Mapping[str, npt.NDArray[np.int64]] | None = None) -> ClassArray:
    """Class number of each zone; ``roles`` (class name to zone numbers) wins over what the drive says."""
    condition, kind = table["condition"], table["type"]
    classes = np.full(len(table), _INDEX["open or closed"], np.uint8)
    classes[condition == ZoneCondition.EMPTY] = _INDEX["empty"]
    classes[condition == ZoneCondition.FULL] = _INDEX["full"]
    classes[kind == ZoneType.CONVENTIONAL] = _INDEX["conventional"]
    for name, zones in (roles or {}).items():
        classes[zones[(zones >= 0) & (zones < len(table))]] = _INDEX[name]
    classes[condition == ZoneCondition.READ_ONLY] = _INDEX["read-only"]
    classes[condition == ZoneCondition.OFFLINE] = _INDEX["offline"]
    return classes


def _cells(classes: ClassArray, most: int) -> tuple[ClassArray, int]:
    """``(class of each cell, zones a cell)`` with at most ``most`` cells."""
    per_cell = max(-(-len(classes) // most), 1)
    if per_cell == 1:
        return classes, 1
    padded = np.full(-(-len(classes) // per_cell) * per_cell, 255, np.uint8)
    padded[: len(classes)] = classes
    rows = padded.reshape(-1, per_cell)
    counts = np.stack([(rows == number).sum(axis=1) for number in range(len(CLASSES))])
    return counts.argmax(axis=0).astype(np.uint8), per_cell


def text_lines(classes: ClassArray, columns: int = 64, most_rows: int = 40) -> Iterator[str]:
    """A map of characters with a legend of what occurs."""
    cells, per_cell = _cells(classes, columns * most_rows)
    letters = np.array([ord(c.character) for c in CLASSES], np.uint8)[cells].tobytes().decode()
    for at in range(0, len(letters), columns):
        yield f"{at * per_cell:>8} {letters[at : at + columns]}"
    counts = np.bincount(classes, minlength=len(CLASSES))
    legend = [f"{c.character} {c.name} ({n})" for c, n in zip(CLASSES, counts.tolist(), strict=True) if n]
    yield "         " + ", ".join(legend)
    if per_cell > 1:
        yield f"         each character stands for {per_cell} zones and shows what most of them are"


def svg_document(title: str, classes: ClassArray, columns: int = 128, most_rows: int = 256) -> str:
    """The same map as a drawing."""
    cells, per_cell = _cells(classes, columns * most_rows)
    rows = -(-len(cells) // columns)
    side, top = 8, 28
    counts = np.bincount(classes, minlength=len(CLASSES)).tolist()
    legend = [(c, n) for c, n in zip(CLASSES, counts, strict=True) if n]
    drawing = Svg(columns * side + 16, top + rows * side + 20 * len(legend) + 16)
    drawing.text(8, 18, title if per_cell == 1 else f"{title} ({per_cell} zones a cell)")
    for row in range(rows):
        part = cells[row * columns : (row + 1) * columns]
        # Runs of equal cells become one rectangle: a drive is mostly runs.
        edges = np.concatenate(([0], np.flatnonzero(np.diff(part)) + 1, [len(part)]))
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            colour = CLASSES[int(part[start])].colour
            drawing.rectangle(8 + start * side, top + row * side, (end - start) * side, side - 1, colour)
    for number, (zone_class, count) in enumerate(legend):
        y = top + rows * side + 8 + 20 * number
        drawing.rectangle(8, y, 12, 12, zone_class.colour)
        drawing.text(28, y + 11, f"{zone_class.name}: {count}")
    return drawing.document()
