"""How many of the blocks of metadata a property is tried on: some of them, always the same ones, or every one."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

EVERY = os.environ.get("ZONED_BLOCKS") == "all"
"""``ZONED_BLOCKS=all`` tries every block, and many pairs of two."""


def some(population: Sequence[T], count: int, chance: random.Random) -> list[T]:
    """``count`` of a population; with ``ZONED_BLOCKS=all`` the whole of it."""
    return list(population) if EVERY else chance.sample(population, min(count, len(population)))


def rounds(few: int, many: int) -> range:
    """How often something random is tried; with ``ZONED_BLOCKS=all`` ``many`` times."""
    return range(many if EVERY else few)
