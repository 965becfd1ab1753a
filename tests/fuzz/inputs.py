"""Inputs of the fuzzer as data: what to start from, what to change, which journeys to make."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.fuzz.subjects import seed_of, subject
from zoned_tools.formats import registry
from zoned_tools.formats.contract import Journey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.mutations import Mutation

JOURNEYS = ("probe", "rooms", "repair", "consent", "one", "cut", "undo", "dump", "document", "session", "export")
"""``probe``: what is on the drives, else the target is where it was. ``rooms``: inspect, table line, zone roles.
``repair``: what is certain. ``consent``: with every code allowed, ``one``: one of them; ``cut``: ended by power cuts,
``undo``: and played back. ``dump``: and restore, ``document``: with other values. ``session``: of the mapper.
``export``: as a stream."""

_WEIGHTS = {
    "probe": 0.3,
    "rooms": 0.2,
    "repair": 0.6,
    "consent": 0.4,
    "one": 0.15,
    "cut": 0.08,
    "undo": 0.04,
    "dump": 0.08,
    "document": 0.05,
    "session": 0.25,
    "export": 0.02,
}


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        seed: of everything that is random in the journeys.
        deep: check payload data too.
        settings: of check, repair and the logical device.
        codes: what a check finds, in the corpus.
        known: why this input is expected to fail, in the corpus; empty when it is not.
        fails: signature of the failure that is expected.
    """

    layout: str
    base: str
    mutations: list[Mutation] = field(default_factory=list)
    journeys: tuple[str, ...] = JOURNEYS
    seed: int = 0
    deep: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    codes: tuple[str, ...] = ()
    known: str = ""
    fails: str = ""

    def with_mutations(self, mutations: list[Mutation]) -> Input:
        return replace(self, mutations=mutations)

    def dumps(self) -> str:
        """JSON, one mutation a line; defaults left out."""
        values: dict[str, Any] = {k: v for k, v in asdict(self).items() if v or k in ("mutations", "seed", "journeys")}
        if self.journeys == JOURNEYS:
            del values["journeys"]
        del values["mutations"]
        head = json.dumps(values)[:-1]
        lines = ",\n  ".join(json.dumps(mutation) for mutation in self.mutations)
        return f'{head}, "mutations": [\n  {lines}\n]}}\n' if lines else f'{head}, "mutations": []}}\n'

    @classmethod
    def loads(cls, text: str) -> Input:
        """What :meth:`dumps` made."""
        values = json.loads(text)
        for name in ("journeys", "codes"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    @classmethod
    def of_file(cls, path: Path) -> Input:
        return cls.loads(path.read_text())


def generate(layout: str, seed: int, number: int) -> Input:
    """Input ``number`` of a run; the same for the same seed, in whatever process."""
    choose = random.Random(seed_of(layout, seed, number))
    found = subject(layout)
    name = found.pick(choose)
    mutations = found.mutate(choose, found.base(name))
    journeys = tuple(journey for journey in JOURNEYS if choose.random() < _WEIGHTS[journey])
    seed_of_journeys, deep = choose.getrandbits(30), choose.random() < 0.15
    settings = _settings(layout, choose) if choose.random() < 0.2 else {}
    return Input(layout, name, mutations, journeys, seed_of_journeys, deep, settings)


def grow(parent: Input, seed: int, number: int) -> Input:
    """Input ``number`` of a run, made from another one: its damage, and some more."""
    choose = random.Random(seed_of("grow", seed, number))
    given = generate(parent.layout, seed, number)
    found = subject(parent.layout)
    kept = [mutation for mutation in parent.mutations if choose.random() < 0.85]
    return replace(
        given,
        base=parent.base,
        mutations=kept + found.mutate(choose, found.base(parent.base)),
        settings=parent.settings,
    )


_NOT_FOR_CONTENT = ("unreadable", "emulate", "bitmap", "processes", "payloads")
"""Settings by which a volume reads as it is not, or a check starts processes."""


def _settings(layout: str, choose: random.Random) -> dict[str, str]:
    """One or two of a layout's settings that are words."""
    journeys = {Journey.CHECK, Journey.REPAIR, Journey.LOGICAL}
    offered = [s for s in registry.get(layout).settings if s.journeys & journeys and s.name not in _NOT_FOR_CONTENT]
    worded = [(s.name, s.choices or ("yes",)) for s in offered if s.choices or s.kind == "switch"]
    chosen = choose.sample(worded, min(len(worded), choose.choice((1, 1, 2))))
    return {name: choose.choice(values) for name, values in chosen}
