"""Runs in sorted numbers and in masks: what is adjacent becomes one request, one row, one rectangle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.zones import BoolArray, IntArray


def run_starts(numbers: npt.NDArray[np.integer], step: int = 1) -> IntArray:
    """Indexes at which a run of ascending ``numbers`` begins; inside a run they grow by at most ``step``."""
    if not len(numbers):
        return np.zeros(0, np.int64)
    breaks = np.flatnonzero(np.diff(numbers.astype(np.int64)) > step) + 1
    starts: IntArray = np.concatenate((np.zeros(1, np.int64), breaks))
    return starts


def runs(numbers: npt.NDArray[np.integer], step: int = 1) -> Iterator[tuple[int, int]]:
    """``(first, end)`` of each run of ascending numbers, ``end`` not in it; gaps below ``step`` are inside."""
    starts = run_starts(numbers, step)
    if len(starts):
        lasts = np.append(starts[1:], len(numbers)) - 1
        yield from zip(numbers[starts].tolist(), (numbers[lasts].astype(np.int64) + 1).tolist(), strict=True)


def mask_runs(mask: BoolArray) -> IntArray:
    """``(first, end)`` rows, shape (runs, 2), of the stretches of a mask that are true."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    rows: IntArray = edges.astype(np.int64).reshape(-1, 2)
    return rows


def value_runs(values: npt.NDArray[np.generic]) -> IntArray:
    """``(first, end)`` rows, shape (runs, 2), of the stretches of equal values that make up an array."""
    if not len(values):
        return np.zeros((0, 2), np.int64)
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(values[1:] != values[:-1]) + 1))
    rows: IntArray = np.stack((starts, np.append(starts[1:], len(values))), axis=1)
    return rows


def intersections(rows: IntArray, others: IntArray) -> tuple[IntArray, IntArray]:
    """Where ascending ``rows`` meet ``others``: both ``(start, end)``, shapes (n, 2) and (m, 2).

    ``others`` do not overlap, ``rows`` may.

    Returns:
        the pieces, shape (k, 2), in the order of ``rows``; and the row of each, shape (k,).
    """
    first = np.searchsorted(others[:, 1], rows[:, 0], side="right")
    last = np.searchsorted(others[:, 0], rows[:, 1], side="left")
    counts = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(rows)), counts)
    other = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    pieces: IntArray = np.stack(
        (np.maximum(others[other, 0], rows[row, 0]), np.minimum(others[other, 1], rows[row, 1])), axis=1
    )
    return pieces, row
