"""The fuzzer's command line.

    python tests/fuzz/run.py --layout zdm --seconds 60 --seed 1 [--jobs 2]
    python tests/fuzz/run.py --layout zdm --inputs 100000        # the long mode
    python tests/fuzz/run.py --replay FILE...

Prints inputs per second, the finding codes that were reached, and each failure with the fewest mutations
that show it; ``--save DIRECTORY`` writes those as corpus files, and one input for each code with ``--codes``.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz import corpus, engine
from tests.fuzz.inputs import Input, generate, grow
from tests.fuzz.mutations import Mutation, minimise
from tests.fuzz.subjects import LAYOUTS, seed_of

ADDRESS_SPACE_BYTES = 6 << 30
MAX_MUTATIONS = 12
"""Of inputs that others grow from."""

_BATCH = 50


@dataclass
class Tally:
    """What a run, or a part of it, came to.

    Attributes:
        codes: how many inputs reached each finding code.
        first: the first input that reached it.
        failures: how many inputs failed with each signature.
        examples: the first input with each signature, and what was wrong.
    """

    inputs: int = 0
    clean: int = 0
    unchecked: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    first: dict[str, Input] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Input, str]] = field(default_factory=dict)

    def add(self, given: Input, result: engine.Result) -> None:
        self.inputs += 1
        self.clean += result.clean
        self.unchecked += not result.checked
        self.codes.update(result.codes)
        for code in result.codes:
            self.first.setdefault(code, given)
        for failure in result.failures:
            self.failures[failure.signature] += 1
            self.examples.setdefault(failure.signature, (given, str(failure)))

    def join(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.clean += other.clean
        self.unchecked += other.unchecked
        self.codes.update(other.codes)
        self.failures.update(other.failures)
        self.first = {**other.first, **self.first}
        self.examples = {**other.examples, **self.examples}


class Pool:
    """Inputs that reached sets of finding codes that no other reached; half of the others grow from them."""

    def __init__(self, layout: str) -> None:
        self._inputs = [Input.of_file(path) for path in corpus.files(layout)]
        self._reached = {frozenset(given.codes) for given in self._inputs}

    def next(self, layout: str, seed: int, number: int) -> Input:
        """Input ``number``, made from nothing or from one of the pool."""
        if number % 2 and self._inputs:
            return grow(self._inputs[seed_of(seed, number) % len(self._inputs)], seed, number)
        return generate(layout, seed, number)

    def note(self, given: Input, codes: frozenset[str]) -> None:
        """Keep an input that reached something new."""
        if codes not in self._reached and len(given.mutations) <= MAX_MUTATIONS:
            self._reached.add(codes)
            self._inputs.append(given)


@cache
def _pool(layout: str) -> Pool:
    return Pool(layout)


def batch(layout: str, seed: int, first: int, count: int, deadline: float) -> Tally:
    """Run inputs ``first`` to ``first + count`` of a seed, until the deadline."""
    tally, pool = Tally(), _pool(layout)
    with _bounded_memory():
        for number in range(first, first + count):
            if time.monotonic() > deadline:
                break
            given = pool.next(layout, seed, number)
            result = engine.run(given)
            tally.add(given, result)
            pool.note(given, result.codes)
    return tally


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """A bomb ends with a MemoryError, not with the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(layout: str, seed: int, *, seconds: float, inputs: int, jobs: int = 1) -> Tally:
    """Run until the time is over or the inputs are done."""
    deadline = time.monotonic() + seconds
    total = Tally()
    parts = ((start, min(_BATCH, inputs - start)) for start in range(0, inputs, _BATCH))
    if jobs == 1:
        for start, count in parts:
            total.join(batch(layout, seed, start, count, deadline))
            if time.monotonic() > deadline:
                break
        return total
    with ProcessPoolExecutor(jobs) as pool:
        pending = [pool.submit(batch, layout, seed, *part, deadline) for part in islice(parts, 2 * jobs)]
        while pending:
            total.join(pending.pop(0).result())
            if time.monotonic() < deadline:
                pending += [pool.submit(batch, layout, seed, *part, deadline) for part in islice(parts, 1)]
    return total


def shrink(given: Input, signature: str) -> Input:
    """The fewest mutations and journeys with the same failure."""

    def fails(trial: Input) -> bool:
        return any(failure.signature == signature for failure in engine.run(trial).failures)

    for journey in given.journeys:
        trial = replace(given, journeys=(journey,))
        if fails(trial):
            given = trial
            break

    def still(mutations: list[Mutation]) -> bool:
        return fails(given.with_mutations(mutations))

    return given.with_mutations(minimise(given.mutations, still))


def smallest(given: Input, code: str) -> Input:
    """The fewest mutations that reach a finding code, with every journey."""

    def reaches(mutations: list[Mutation]) -> bool:
        return code in engine.run(replace(given, mutations=mutations, journeys=())).codes

    small = given.with_mutations(minimise(given.mutations, reaches))
    small = replace(small, journeys=Input(small.layout, small.base).journeys, codes=())
    return replace(small, codes=tuple(sorted(engine.run(small).codes)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, help="default: all, one after the other")
    parser.add_argument("--seconds", type=float, default=0.0, help="for each layout")
    parser.add_argument("--inputs", type=int, default=0, help="for each layout")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--save", type=Path, metavar="DIRECTORY", help="write minimised failures there")
    parser.add_argument("--codes", action="store_true", help="with --save: write an input for each code, too")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE")
    return parser


def _replay(paths: list[Path]) -> int:
    failed = 0
    for path in paths:
        result = engine.run(Input.of_file(path))
        print(f"{path}: {' '.join(sorted(result.codes)) or 'no findings'}")
        for failure in result.failures:
            failed += 1
            print(f"  {failure}")
    return 1 if failed else 0


def _report(layout: str, tally: Tally, seconds: float, arguments: argparse.Namespace) -> None:
    print(
        f"{layout}: {tally.inputs} inputs, {tally.inputs / max(seconds, 0.001):.0f} a second, {tally.clean} clean, "
        f"{tally.unchecked} not checkable, {len(tally.codes)} codes, {len(tally.failures)} kinds of failure"
    )
    print("  codes:", " ".join(f"{code}:{count}" for code, count in sorted(tally.codes.items())))
    for signature, count in tally.failures.most_common():
        given, text = tally.examples[signature]
        small = shrink(given, signature)
        print(f"  {count} x {text}\n    {small.dumps().strip()}")
        if arguments.save is not None:
            _write(arguments.save, layout, f"failure-{_slug(signature)}", small)
    if arguments.save is not None and arguments.codes:
        for code, given in sorted(tally.first.items()):
            _write(arguments.save, layout, _slug(code), smallest(given, code))


def _slug(text: str) -> str:
    words = "".join(c if c.isalnum() or c in ".-" else "-" for c in text.lower())
    return "-".join(filter(None, words.split("-")))[:100]


def _write(folder: Path, layout: str, name: str, given: Input) -> None:
    path = folder / layout / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(given.dumps())


def main() -> int:
    arguments = _parser().parse_args()
    os.environ.setdefault("ZONED_TOOLS_DEBUG", "1")
    if arguments.replay:
        return _replay(arguments.replay)
    if not (arguments.seconds or arguments.inputs):
        arguments.seconds = 10.0
    failed = 0
    for layout in [arguments.layout] if arguments.layout else LAYOUTS:
        start = time.monotonic()
        tally = fuzz(
            layout,
            arguments.seed,
            seconds=arguments.seconds or float("inf"),
            inputs=arguments.inputs or 1 << 40,
            jobs=arguments.jobs,
        )
        _report(layout, tally, time.monotonic() - start, arguments)
        failed += len(tally.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
