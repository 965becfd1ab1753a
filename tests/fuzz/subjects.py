"""What the fuzzer needs to know about a layout: its base images, its mutations, what counts as its content."""

from __future__ import annotations

import importlib
import random
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from tests.fuzz.content import logical_content
from tests.fuzz.session import Used, logical_session

if TYPE_CHECKING:
    from tests.fuzz.content import Content
    from tests.fuzz.drives import Base
    from tests.fuzz.mutations import Mutation, Seal
    from zoned_tools.formats.contract import Target

Session: TypeAlias = "Callable[[Target, Mapping[str, str], random.Random], Used]"
"""Uses a target for a while, with settings, and closes it."""

ContentOf: TypeAlias = "Callable[[Target, Mapping[str, str], Iterable[Hashable] | None], Content]"
"""What a target holds as its mapper reads it with settings, at given places or at a sample of its own."""

LAYOUTS = ("dm-zoned", "zdm", "zonefs", "btrfs", "inplace-compress")


@dataclass(frozen=True)
class Subject:
    """One layout, as the fuzzer sees it.

    Attributes:
        layout: its name.
        bases: base images and how often each is taken.
        load: makes a base by its name.
        mutate: mutations of a base, checksums that are put right included.
        seals: how checksums are put right, by name.
        content: what has to stay the same.
        everywhere: codes whose repair changes what every block means, as its sentence says.
        session: uses the volume as its driver would; None where there is nothing to use.
    """

    layout: str
    bases: Mapping[str, int]
    load: Callable[[str], Base]
    mutate: Callable[[random.Random, Base], list[Mutation]]
    seals: Mapping[str, Seal]
    content: ContentOf = logical_content
    session: Session | None = logical_session
    everywhere: frozenset[str] = frozenset()

    def base(self, name: str) -> Base:
        """A base image, made once."""
        return _base(self.layout, name)

    def pick(self, choose: random.Random) -> str:
        """The name of a base."""
        return choose.choices(list(self.bases), list(self.bases.values()))[0]


@cache
def _base(layout: str, name: str) -> Base:
    return subject(layout).load(name)


@cache
def subject(layout: str) -> Subject:
    """The subject of that name."""
    module = importlib.import_module(f"tests.fuzz.mutators_{layout.replace('-', '_')}")
    made: Subject = module.SUBJECT
    return made


def seed_of(*parts: object) -> int:
    """A seed that is the same in every process."""
    return zlib.crc32(repr(parts).encode())


def chosen(choose: random.Random, weighted: Sequence[tuple[int, Callable[[], list[Mutation]]]]) -> list[Mutation]:
    """What one of the weighted generators makes."""
    makers = [maker for _, maker in weighted]
    return choose.choices(makers, [weight for weight, _ in weighted])[0]()
